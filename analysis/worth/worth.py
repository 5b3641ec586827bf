"""Worth: effective speedups against a baseline, by a law, from paired cells, or of a method's runs, in one value."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.decision.published_models import assumed_lineage, with_lineage
from analysis.decision.question import Question
from analysis.fitting.fit import Fit
from analysis.latency.speeds import Speeds
from analysis.tables.runs import RunTable
from analysis.worth.candidate import Against
from analysis.worth.cells import cells_of
from analysis.worth.doubts import assumptions_of, beyond_the_runs, doubts_of_draws, doubts_of_law
from analysis.worth.gate import Gate, gate
from analysis.worth.leverage import is_leverage, leverage_worth
from analysis.worth.of_law import comparison_of, law_worth
from analysis.worth.pairs import Pair, PairedSpeedup, paired_speedups
from analysis.worth.prices import Prices
from analysis.worth.speedup import Growth, Speedup
from scaling.distribution import require_installed
from scaling.errors import InputError
from scaling.formatting import flops, listed, plural
from scaling.summary import Summarised, summarised
from scaling.table import Table
from scaling.values import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Baseline:
    """What a speedup is over: the models of one E, of a law (None: the cells of a table), and where they come from."""

    n_experts: int
    law: str | None
    source: str


@dataclass(frozen=True, repr=False)
class Worth(Summarised):
    """What experts, or a method, are worth: how many times more a baseline of equal loss takes.

    `worth` are the speedups at the budgets asked for, by budget and E; `curve` those over budgets around them and
    `growth` their slopes. `pairs` are cells of a table against the baseline's cells, `paired` their means by E; `gate`
    tests the runs of a method. Each is empty, or None, where it was not asked for. `largest_train_flops` is the compute
    of the largest run behind the law; `warnings` are to be read first.
    """

    worth: tuple[Speedup, ...]
    baseline: Baseline
    growth: tuple[Growth, ...] = ()
    curve: tuple[Speedup, ...] = ()
    paired: tuple[PairedSpeedup, ...] = ()
    pairs: tuple[Pair, ...] = ()
    gate: Gate | None = None
    n_draws: int = 0
    largest_train_flops: float | None = None
    warnings: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """What was found, in one line."""
        return headline(self)

    def to_json(self) -> dict[str, Any]:
        """Plain values; an interval's end without bound is null."""
        return plain(self)

    def table(self) -> pd.DataFrame:
        """The speedups, one a row: by E and budget, by pair where there is no law, or by run of a method."""
        return self._first_table.frame

    @property
    def _first_table(self) -> Table:
        table: Table = pkgutil.resolve_name("analysis.worth.tables:tables_of")(self)[0]
        return table

    def plot(self) -> Figure:
        """Speedup over compute by E, in compute and in time (`analysis.figures.worth`).

        Raises InputError where matplotlib is missing.
        """
        require_installed("a figure", "matplotlib")
        figure: Figure = pkgutil.resolve_name("analysis.figures.worth:worth_figure")(self)
        return figure

    def summary(self) -> Table:
        """The finding in a line, the speedups, and what to doubt."""
        return summarised(self._first_table, self.headline, (*self.warnings, *self.assumptions))


def headline(found: Worth) -> str:
    """The verdict on a method; else what the E that is worth most is worth at the last budget; else by paired cells."""
    if found.gate is not None:
        return found.gate.verdict
    if found.worth:
        last = [one for one in found.worth if one.train_flops == found.worth[-1].train_flops]
        known = [one for one in last if one.compute_speedup is not None]
        best = max(known, key=lambda one: one.time_speedup or one.compute_speedup or 0.0, default=last[-1])
        return f"{best.sentence()} at {flops(best.train_flops)} FLOPs"
    means = [one for one in found.paired if one.compute_speedup is not None]
    if not means:
        return f"no cell has a loss that the cells with E = {found.baseline.n_experts} reach"
    best_mean = max(means, key=lambda one: one.compute_speedup or 0.0)
    return f"{best_mean.sentence()}, by {plural(best_mean.n_pairs, 'paired cell')}"


def worth_of_fit(
    fit: Fit, question: Question, budgets: Sequence[float], speeds: Speeds | None = None, *, name: str = ""
) -> Worth:
    """What every E is worth by a law, at training budgets in FLOPs.

    The question says which E are compared (`n_experts`), with which (`reference_experts`), and what time and money
    cost: device, training speed, tokens served; its own budget is not read. A law of leverage (2507.17702) gives the
    ratio itself. Raises InputError as `law_worth` does.
    """
    fit.require_params()
    question, own = with_lineage(fit, question), question.family
    prices = Prices(question, speeds)
    unknown = Worth(
        (),
        Baseline(question.reference_experts, fit.law, name or fit.source),
        n_draws=fit.n_draws,
        largest_train_flops=fit.largest_train_flops,
    )
    if is_leverage(fit):
        found = leverage_worth(fit, question, budgets)
        warnings = [*doubts_of_draws(fit), *found.warnings, *(f"the fit: {warning}" for warning in fit.warnings)]
        return replace(unknown, worth=found.worth, growth=found.growth, curve=found.curve, warnings=tuple(warnings))
    by_law = law_worth(fit, budgets, prices)
    doubts = doubts_of_law(comparison_of(fit, question), by_law.worth)
    if own is None and question.family is not None:
        doubts.append(assumed_lineage())
    worth, curve = (
        tuple(replace(one, extrapolated=_is_extrapolated(fit, one)) for one in speedups)
        for speedups in (by_law.worth, by_law.curve)
    )
    return replace(
        unknown,
        worth=worth,
        growth=by_law.growth,
        curve=curve,
        warnings=tuple(doubts),
        assumptions=tuple(assumptions_of(question)),
    )


def _is_extrapolated(fit: Fit, one: Speedup) -> bool:
    return beyond_the_runs(fit, one.train_flops) or beyond_the_runs(fit, one.baseline_flops)


def worth_of_runs(table: RunTable, baseline_experts: int = 1) -> Worth:
    """What experts are worth by the cells of a table alone, without a law. Raises InputError as `paired_speedups`."""
    cells = cells_of(table)
    pairs, paired = paired_speedups(cells, baseline_experts)
    warnings = [*map(str, table.doubts)]
    if cells.noise is None:
        warnings.append("no cell was repeated with another seed: noise is not estimated, and there are no intervals")
    beyond = {one.n_experts: one.beyond for one in paired if one.curve == "all shapes" and one.beyond}
    if beyond:
        cells_beyond = listed(f"{count} of E = {e}" for e, count in beyond.items())
        warnings.append(
            f"the loss of {cells_beyond} lies below that of every baseline cell: worth more than was run can show, and "
            "not in the means"
        )
    assumptions = [
        f"compute is {cells.compute}; between neighbouring baseline cells ln C is linear in ln L, and nothing is said "
        "beyond them",
        "time is tokens over the measured tokens_per_s"
        if cells.log_seconds is not None
        else "time was not compared: the runs lack tokens_per_s, or were made on different devices",
    ]
    return Worth(
        (),
        Baseline(baseline_experts, None, table.source),
        paired=paired,
        pairs=pairs,
        warnings=tuple(warnings),
        assumptions=tuple(assumptions),
    )


def with_pairs(found: Worth, table: RunTable | None) -> Worth:
    """Speedups by a law, with those of the cells of its study beside them; where these do not pair, a warning."""
    if table is None:
        return found
    try:
        cells = worth_of_runs(table, found.baseline.n_experts)
    except InputError as error:
        return replace(found, warnings=(*found.warnings, f"no paired cells: {error}"))
    return replace(
        found,
        paired=cells.paired,
        pairs=cells.pairs,
        warnings=tuple(dict.fromkeys((*found.warnings, *cells.warnings))),
        assumptions=(*found.assumptions, *(f"paired cells: {line}" for line in cells.assumptions)),
    )


def worth_of_candidate(
    fit: Fit,
    table: RunTable,
    question: Question,
    budgets: Sequence[float] = (),
    *,
    against: Against = "own shape",
    name: str = "",
) -> Worth:
    """Whether a method's runs beat a baseline's law, alone and at budgets (`analysis.worth.gate`).

    `worth` is at the budgets or, without any, at the centre of the runs. Raises InputError as `gate` does.
    """
    tested = gate(fit, table, budgets, Prices(question), against)
    how = (
        "a run is compared with the baseline at its own tokens per parameter"
        if against == "own shape"
        else "a run is compared with the best baseline of its loss, of whatever size and tokens"
    )
    warnings = [*map(str, table.doubts), *doubts_of_draws(fit)]
    if tested.left_out:
        warnings.append(f"the baseline never has the loss of {plural(tested.left_out, 'run')}, which is left out")
    if tested.excess > 1:
        warnings.append(
            f"the runs scatter {tested.excess:.2g} times more about their line than their noise of {tested.noise:.2%} "
            "of the loss: intervals are as much wider"
        )
    spent = tuple(one.train_flops for one in (tested.alone, *tested.at))
    if any(beyond_the_runs(fit, each) for each in spent):
        warnings.append("budgets lie more than 30 times beyond the largest run of the baseline")
    return Worth(
        tested.at or (tested.alone,),
        Baseline(question.reference_experts, fit.law, name or fit.source),
        gate=tested,
        n_draws=fit.n_draws,
        largest_train_flops=fit.largest_train_flops,
        warnings=(*warnings, *(f"the fit: {warning}" for warning in fit.warnings)),
        assumptions=(how, *assumptions_of(question, of_runs=True)),
    )
