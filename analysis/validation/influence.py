"""Influence of runs on a fit: the changes when some are left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.fitting.fit import Fit
from analysis.fitting.refit import log_residuals
from analysis.fitting.roll_out import brief, trunk_names
from analysis.mixture.mixture import Mixture
from analysis.mixture.refits import refits
from analysis.tables.runs import RunTable
from analysis.validation.advice import advise, default_budget
from scaling.arrays import Array, Booleans, Integers
from scaling.columns import COMPUTE, EXPERTS, TOKENS
from scaling.formatting import si
from scaling.progress import Progress, silent

What = Literal["trunk", "n_experts", "size", "compute", "loss", "tokens per parameter"]
_MOST_TRUNKS = 400  # left out one at a time; of more, those with the largest residuals
_MOST_SIZES = 12  # left out one at a time; of more, tenths
_TENTH = 0.1


@dataclass(frozen=True)
class WatchedQuantity:
    """A quantity: its estimate on all runs and bootstrap standard error (None without draws)."""

    estimate: float
    standard_error: float | None


@dataclass(frozen=True)
class QuantityChange:
    """The value of a quantity without some runs, and its change in percent and in bootstrap standard errors."""

    value: float
    percent: float
    in_se: float | None


@dataclass(frozen=True)
class Exclusion:
    """Some runs left out. `moved` is the quantity with the largest change in standard errors, `influence` that change;
    both None where unknown. Where the other runs determine no fit, `changes` is empty and `reason` says why."""

    kind: What
    label: str
    n_left_out: int
    changes: Mapping[str, QuantityChange]
    moved: str | None
    influence: float | None
    reason: str

    @property
    def title(self) -> str:
        """The label, after the word trunk where it is one."""
        return f"trunk {self.label}" if self.kind == "trunk" else self.label


@dataclass(frozen=True)
class Sensitivity:
    """A fit without each trunk, the most influential first, and without other groups of runs."""

    law: str
    train_flops: float | None
    n_experts: int | None
    quantities: Mapping[str, WatchedQuantity]
    trunks: tuple[Exclusion, ...]
    groups: tuple[Exclusion, ...]
    n_trunks_tried: int
    notes: tuple[str, ...]

    def verdict(self) -> str:
        """One sentence."""
        parts = []
        for name, exclusions in (("trunk", self.trunks), ("group", self.groups)):
            worst = max(exclusions, key=lambda exclusion: exclusion.influence or 0.0, default=None)
            if worst is not None and worst.moved is not None:
                change = worst.changes[worst.moved]
                parts.append(
                    f"the most influential {name} ({worst.label}) moves {worst.moved} by {brief(change.percent, '+')} "
                    f"% ({change.in_se:+.1f} standard errors)"
                )
        if not parts:
            return "sensitivity: changes cannot be judged, as the fit has no bootstrap draws"
        undetermined = [exclusion.label for exclusion in self.groups if exclusion.reason]
        parts += [f"without {', '.join(undetermined)} the runs determine no fit"] if undetermined else []
        return f"sensitivity: {'; '.join(parts)}"

    def frame(self) -> pd.DataFrame:
        """Every exclusion with a change, as `figures.influence` takes it: label, moved, in_se, percent."""
        rows = [
            {"label": exclusion.title, "moved": exclusion.moved, **asdict(exclusion.changes[exclusion.moved])}
            for exclusion in (*self.trunks, *self.groups)
            if exclusion.moved is not None
        ]
        return pd.DataFrame(rows, columns=["label", "moved", "value", "percent", "in_se"])

    def to_json(self) -> dict[str, Any]:
        """Plain values, the verdict among them."""
        return asdict(self) | {"verdict": self.verdict()}


def sensitivity(
    fit: Fit,
    table: RunTable,
    rng: np.random.Generator,
    *,
    train_flops: float | None = None,
    highest: Sequence[int] = (1, 5),
    most: int = 10,
    progress: Progress = silent,
) -> Sensitivity:
    """Refit without each trunk, E and size, the lowest and highest tenth of compute, the highest losses, and the lowest
    tenth of tokens per N.

    The quantities are the free exponents of N and D, the floor, and the optimal N and loss at `train_flops` (default:
    10 times the compute of the largest run) for the E that the full fit recommends; of a mixture the optimum alone,
    where it has one. Changes are in percent and, for a
    fit with draws, in bootstrap standard errors; the influence of a trunk is its largest change, and the `most`
    influential are listed. `highest` are numbers of runs of highest loss. More than 12 sizes are left out by tenths; of
    more than 400 trunks those with the largest residuals are left out. Pins stay those of the full fit. Raises
    InputError for a fit without parameters and for another table than that of the fit.
    """
    fit.require_params()
    budget = train_flops or default_budget(table)
    advice, reason = advise(fit, budget)
    watch = _Watch(fit, budget, advice.n_experts if advice else None)
    quantities = _quantities(fit, watch)
    exclusions = [*_each_trunk(fit, table), *_groups(fit, table, highest)]
    exclusions = [(kind, label, out) for kind, label, out in exclusions if 0 < out.sum() < len(table)]
    kept = ~np.array([out for _, _, out in exclusions]).reshape(-1, len(table))
    refitted = refits(fit, table, kept, rng, progress)
    values = watch.measure(refitted.columns(np.ones(len(kept), dtype=bool)))
    outcomes = []
    for index, (kind, label, out) in enumerate(exclusions):
        changes = {name: _change(float(values[name][index]), quantity) for name, quantity in quantities.items()}
        if not refitted.determined[index]:
            changes = {}
        sizes = {name: abs(change.in_se) for name, change in changes.items() if change.in_se is not None}
        moved = max(sizes, key=sizes.__getitem__, default=None)
        influence = None if moved is None else sizes[moved]
        outcomes.append(Exclusion(kind, label, int(out.sum()), changes, moved, influence, refitted.reasons[index]))
    trunks = [outcome for outcome in outcomes if outcome.kind == "trunk"]
    trunks.sort(key=lambda trunk: -1.0 if trunk.influence is None else trunk.influence, reverse=True)
    notes = [] if advice else [f"no optimum: {reason}"]
    n_trunks = len(np.unique(table.trunks))
    if n_trunks > _MOST_TRUNKS:
        notes.append(f"only the {_MOST_TRUNKS} of {n_trunks} trunks with the largest residuals were left out")
    return Sensitivity(
        law=fit.law,
        train_flops=budget,
        n_experts=watch.n_experts,
        quantities=quantities,
        trunks=tuple(trunks[:most]),
        groups=tuple(outcome for outcome in outcomes if outcome.kind != "trunk"),
        n_trunks_tried=len(trunks),
        notes=tuple(notes),
    )


def exponents_and_floor(fit: Fit) -> list[str]:
    """The free exponents of N and D, and the irreducible loss where free."""
    return [
        parameter.name
        for parameter in fit.definition.parameters
        if parameter.name in fit.free
        and (parameter.role == "floor" or (parameter.role in ("size", "data") and not parameter.linear))
    ]


@dataclass(frozen=True)
class _Watch:
    """The quantities of a fit: its exponents and floor, and the optimum at a budget for one E (None: no optimum)."""

    fit: Fit
    budget: float | None
    n_experts: int | None

    def measure(self, params: Mapping[str, Array]) -> dict[str, Array]:
        """Every quantity (rows,) from parameters (rows, 1)."""
        # No member's parameter is the mixture's: where it has an optimum, that alone is what it says.
        names = [] if isinstance(self.fit, Mixture) and self.n_experts is not None else exponents_and_floor(self.fit)
        values = {name: params[name][:, 0] for name in names}
        if self.n_experts is not None and self.budget is not None:
            rows = max(len(value) for value in params.values())
            optimiser = SizeOptimiser(self.fit, Question(train_flops=self.budget))
            best = optimiser.solve([self.n_experts], params, rows).by_experts[self.n_experts]
            values |= {"optimal N": best.n_active, "loss at the optimum": best.value}
        return values


def _quantities(fit: Fit, watch: _Watch) -> dict[str, WatchedQuantity]:
    estimate = watch.measure({name: np.array([[value]]) for name, value in fit.params.items()})
    errors = {}
    if fit.draws:
        drawn = watch.measure({name: np.reshape(value, (-1, 1)) for name, value in fit.parameter_draws().items()})
        errors = {name: float(np.std(values, ddof=1)) for name, values in drawn.items()}
    return {name: WatchedQuantity(float(value[0]), errors.get(name)) for name, value in estimate.items()}


def _change(value: float, quantity: WatchedQuantity) -> QuantityChange:
    change, error = value - quantity.estimate, quantity.standard_error
    return QuantityChange(value, 100 * change / abs(quantity.estimate), change / error if error else None)


def _each_trunk(fit: Fit, table: RunTable) -> Iterator[tuple[What, str, Booleans]]:
    names = trunk_names(table)
    ids, first, inverse = np.unique(table.trunks, return_index=True, return_inverse=True)
    chosen = np.arange(len(ids))
    if len(ids) > _MOST_TRUNKS:
        largest = np.bincount(inverse, np.abs(log_residuals(fit, table)))
        chosen = np.sort(np.argsort(-largest, kind="stable")[:_MOST_TRUNKS])
    for trunk in chosen:
        yield "trunk", str(names[first[trunk]]), inverse == trunk


def _groups(fit: Fit, table: RunTable, highest: Sequence[int]) -> Iterator[tuple[What, str, Booleans]]:
    law = fit.definition
    if law.uses_experts:
        experts = table.column(EXPERTS)
        for e in np.unique(experts):
            yield "n_experts", f"E = {e:g}", experts == e
    if law.n_column:
        sizes = table.column(law.n_column)
        distinct = np.unique(sizes)
        if len(distinct) <= _MOST_SIZES:
            for size in distinct:
                yield "size", f"{law.n_column} = {si(size, 4)}", sizes == size
        else:
            for number, rows in enumerate(np.array_split(np.argsort(sizes, kind="stable"), 10), start=1):
                yield "size", f"{law.n_column}, tenth {number} of 10", _among(rows, len(table))
    if COMPUTE in table.frame and np.isfinite(table.column(COMPUTE)).all():
        compute = table.column(COMPUTE)
        yield "compute", "lowest tenth of compute", compute <= np.quantile(compute, _TENTH)
        yield "compute", "highest tenth of compute", compute >= np.quantile(compute, 1 - _TENTH)
    falling = np.argsort(-table.column(law.target), kind="stable")
    for count in highest:
        yield "loss", f"{count} highest loss{'es' * (count > 1)}", _among(falling[:count], len(table))
    if law.n_column and TOKENS in table.frame:
        ratio = table.column(TOKENS) / table.column(law.n_column)
        yield "tokens per parameter", "lowest tenth of tokens per parameter", ratio <= np.quantile(ratio, _TENTH)


def _among(rows: Integers, count: int) -> Booleans:
    return np.isin(np.arange(count), rows)
