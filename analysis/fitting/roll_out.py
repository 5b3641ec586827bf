"""Roll-out: fit the runs of less compute, predict those of more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from analysis.fitting.bootstrap import bootstrap
from analysis.fitting.fit import Fit, fit
from analysis.fitting.identifiability import refusals
from analysis.fitting.objective import HUBER, Objective
from analysis.laws import Law
from analysis.tables.runs import RunTable
from scaling.arrays import Array, Booleans, Integers
from scaling.columns import COMPUTE, EXPERTS
from scaling.errors import InputError
from scaling.formatting import plural
from scaling.progress import Progress, silent

Kind = Literal["roll-out", "interpolation", "extrapolation"]
Fitted = Callable[[RunTable, int, np.random.Generator], tuple[Fit, str]]
"""Runs and a number of resamples -> the fit to these runs, with draws, and why it cannot be judged ("" if it can)."""
# Of the largest compute of trunks; Krajewski et al. (2402.07871) hold out the top fifth by compute.
_QUANTILES = (0.4, 0.5, 0.6, 0.7, 0.8)
_RATIOS = (1.0, 2.0, 5.0, 10.0, 30.0, np.inf)
_SPARE_RUNS = 2  # beyond the free parameters: with fewer, prediction errors are unknown
_STARTS = 16
_ALIKE = 1.1  # trunks within this factor of compute are not separated by a cut


@dataclass(frozen=True)
class Prediction:
    """One held-out run. `ratio` is its compute over that of the largest fitted run.

    `error` is predicted/observed - 1 in percent; `interval` the 95 % prediction interval of a new run's loss, nats per
    token, and `inside` whether the observed loss lies in it (None without draws).
    """

    run: str
    trunk: str
    n_experts: int | None
    train_flops: float | None
    ratio: float | None
    observed: float
    predicted: float
    error: float
    interval: tuple[float, float] | None
    inside: bool | None


@dataclass(frozen=True)
class ErrorSummary:
    """A summary of predictions: errors in percent, and how many of `n_judged` runs lie inside their intervals.

    `bias` is the mean signed error, `worst` the error of largest size, at `worst_ratio` times the compute.
    `share_interval` is the 95 % Clopper-Pearson interval of the share inside, with `n_trunks` as effective sample size
    since errors within a trunk are correlated (Korn and Graubard 1998, Survey Methodology 24).
    """

    label: str
    n: int
    n_trunks: int
    median_error: float
    bias: float
    worst: float
    worst_ratio: float | None
    n_judged: int
    n_inside: int | None
    share_inside: float | None
    share_interval: tuple[float, float] | None

    def describe(self, *, with_ratio: bool) -> str:
        """Coverage, median and worst error in words; `with_ratio` adds the compute ratio of the worst."""
        inside = f"{self.n_inside} of {self.n_judged} predictions inside their intervals, "
        ratio = f" at {self.worst_ratio:.2g} times the compute" if with_ratio and self.worst_ratio is not None else ""
        return (
            f"{'' if self.n_inside is None else inside}median error {brief(self.median_error)} %, "
            f"worst {brief(abs(self.worst))} %{ratio}"
        )


@dataclass(frozen=True)
class HeldOutRuns:
    """One split into fitted and held-out runs, with the predictions, or the `reason` why there are none."""

    label: str
    kind: Kind
    n_fitted: int
    n_fitted_trunks: int
    runs: tuple[Prediction, ...] = ()
    summary: ErrorSummary | None = None
    pinned: tuple[str, ...] = ()
    reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RollOut:
    """A law fitted below compute cuts and tested above them. `by_ratio` groups all predictions by compute ratio."""

    law: str
    cuts: tuple[HeldOutRuns, ...]
    by_ratio: tuple[ErrorSummary, ...]
    overall: ErrorSummary | None

    def verdict(self) -> str:
        """One sentence."""
        if self.overall is None:
            reason = next((cut.reason for cut in self.cuts if cut.reason), "no cut was given")
            return f"roll-out: no predictions ({reason})"
        cuts = plural(sum(1 for cut in self.cuts if not cut.reason), "compute cut")
        return f"roll-out over {cuts}: {self.overall.describe(with_ratio=True)}"

    def frame(self) -> pd.DataFrame:
        """Every prediction with an interval, in percent of the prediction, as `figures.roll_out_errors` takes it."""
        rows = []
        for run in (run for cut in self.cuts for run in cut.runs):
            if run.interval is not None and run.ratio is not None:
                losses = (run.observed, *run.interval)
                rows.append((run.ratio, run.n_experts or 1, *(100 * (loss / run.predicted - 1) for loss in losses)))
        return pd.DataFrame(rows, columns=["ratio", "n_experts", "error", "low", "high"])

    def to_json(self) -> dict[str, Any]:
        """Plain values, the verdict among them."""
        return asdict(self) | {"verdict": self.verdict()}


def roll_out(
    table: RunTable,
    law: Law,
    *,
    rng: np.random.Generator,
    cuts: Iterable[float] | None = None,
    resamples: int = 200,
    keep_trunks: bool = False,
    objective: Objective = HUBER,
    pin: Mapping[str, float] | None = None,
    fitted: Fitted | None = None,
    progress: Progress = silent,
) -> RollOut:
    """Fit the runs with train_flops at or below each cut, predict those above, and compare.

    `cuts` are FLOPs (default: the .4 to .8 quantiles of the largest train_flops of trunks). Points of one trunk are
    correlated, so predictions for a trunk that was also fitted below the cut are optimistic: its points above the cut
    are left out or, where that leaves none to predict, trunks that cross the cut are held out whole, each with a note.
    `keep_trunks` splits by the cut alone. `fitted` says how runs are fitted, where not by `law` alone with `objective`
    and `pin`. A cut without a fit is listed with the reason. Holding out by compute follows
    Krajewski et al., arXiv 2402.07871, and Ludziejewski et al., arXiv 2502.05172. Raises InputError without train_flops
    and for a cut that is not a positive number.
    """
    compute = table.column(COMPUTE)
    has_compute = np.isfinite(compute) & (compute > 0)
    if not has_compute.any():
        raise InputError(f"{table.source}: roll-out needs runs with {COMPUTE}")
    cuts = _usual_cuts(compute[has_compute], table.trunks[has_compute]) if cuts is None else list(cuts)
    if not all(np.isfinite(cut) and cut > 0 for cut in cuts):
        raise InputError(f"cuts must be positive training FLOPs, found {', '.join(f'{cut:g}' for cut in cuts)}")
    hold_out = HoldOut(table, rng, resamples, fitted or of_law(law, objective, pin))
    parts = []
    for number, cut in enumerate(levels := sorted({float(cut) for cut in cuts})):
        progress(number / len(levels))
        below, above = has_compute & (compute <= cut), has_compute & (compute > cut)
        below, above, notes = (below, above, []) if keep_trunks else _whole_trunks(table.trunks, below, above)
        if not has_compute.all():
            notes = [*notes, f"{np.sum(~has_compute)} runs without {COMPUTE} were left out"]
        part = hold_out.evaluate(f"train_flops <= {cut:.3g}", "roll-out", below, above)
        parts.append(replace(part, notes=tuple(notes)))
    runs = [run for part in parts for run in part.runs]
    by_ratio = [
        summarise(
            f"{low:g} to {high:g} times" if np.isfinite(high) else f"above {low:g} times",
            [run for run in runs if run.ratio is not None and low < run.ratio <= high],
        )
        for low, high in pairwise(_RATIOS)
    ]
    return RollOut(law.name, tuple(parts), tuple(band for band in by_ratio if band), summarise("all", runs))


def summarise(label: str, runs: Sequence[Prediction]) -> ErrorSummary | None:
    """The summary of predictions; None without any."""
    if not runs:
        return None
    errors = np.array([run.error for run in runs])
    worst = runs[int(np.abs(errors).argmax())]
    n_trunks = len({run.trunk for run in runs})
    judged = [run.inside for run in runs if run.inside is not None]
    share = sum(judged) / len(judged) if judged else None
    return ErrorSummary(
        label=label,
        n=len(runs),
        n_trunks=n_trunks,
        median_error=float(np.median(np.abs(errors))),
        bias=float(errors.mean()),
        worst=worst.error,
        worst_ratio=worst.ratio,
        n_judged=len(judged),
        n_inside=sum(judged) if judged else None,
        share_inside=share,
        share_interval=None if share is None else share_interval(share, n_trunks),
    )


def refusal(failed: Fit) -> str:
    """Why a fit has no parameters."""
    return "; ".join(refusals(failed.findings) or failed.warnings[-1:]) or f"the fit is {failed.status}"


def share_interval(share: float, n: float) -> tuple[float, float]:
    """95 % Clopper-Pearson interval of a share at a sample size that need not be an integer.

    Quantiles of Beta(x, n - x + 1) and Beta(x + 1, n - x) with x = share n; for whole x the exact binomial interval.
    """
    inside = share * n
    low = 0.0 if share <= 0 else float(stats.beta.ppf(0.025, inside, n - inside + 1))
    high = 1.0 if share >= 1 else float(stats.beta.ppf(0.975, inside + 1, n - inside))
    return low, high


def selected_runs(table: RunTable, rows: Booleans) -> RunTable:
    """The table with some of its rows."""
    return table.only(rows)


def trunk_names(table: RunTable) -> npt.NDArray[np.object_]:
    """The name of the trunk of every row: its `trunk_id`, else the `run_id`, else the row of the file."""
    names = np.array([f"row {number}" for number in table.row_numbers.tolist()], dtype=object)
    for column in ("run_id", "trunk_id"):
        if column in table.frame:
            values = table.frame[column]
            names = np.where(values.notna().to_numpy(), values.astype("str").to_numpy(dtype=object), names)
    return names


def of_law(law: Law, objective: Objective = HUBER, pin: Mapping[str, float] | None = None) -> Fitted:
    """How one law is fitted to a part of the runs."""

    def fitted(table: RunTable, resamples: int, rng: np.random.Generator) -> tuple[Fit, str]:
        seed = int(rng.integers(2**31))
        estimate = fit(table, law, objective=objective, pin=pin, n_starts=_STARTS, seed=seed)
        if not estimate.params:
            return estimate, refusal(estimate)
        if len(table) < len(estimate.free) + _SPARE_RUNS:
            return estimate, f"{len(table)} runs are too few to test {len(estimate.free)} parameters"
        return bootstrap(estimate, table, resamples, rng), ""

    return fitted


@dataclass(frozen=True)
class HoldOut:
    """The settings with which splits of one table are fitted and predicted."""

    table: RunTable
    rng: np.random.Generator
    resamples: int
    fitted: Fitted

    def evaluate(self, label: str, kind: Kind, fitted: Booleans, held: Booleans) -> HeldOutRuns:
        """Fit some runs and predict others, or give the reason why that cannot be."""
        part = HeldOutRuns(label, kind, int(fitted.sum()), len(np.unique(self.table.trunks[fitted])))
        if not held.any():
            return replace(part, reason="no run is left to predict")
        if not fitted.any():
            return replace(part, reason="no run is left to fit")
        below, above = selected_runs(self.table, fitted), selected_runs(self.table, held)
        estimate, reason = self.fitted(below, self.resamples, self.rng)
        if reason:
            return replace(part, reason=reason)
        runs = _predictions(estimate, above)
        return replace(part, runs=runs, summary=summarise(label, runs), pinned=tuple(estimate.pinned))


def _predictions(fit: Fit, table: RunTable) -> tuple[Prediction, ...]:
    """Each run of a table with its prediction by the fit."""
    columns, largest = table.columns(fit.definition.columns), fit.largest_train_flops
    observed, predicted, ends = table.column(fit.definition.target), fit.loss(columns), fit.prediction_interval(columns)
    trunks = trunk_names(table)
    names = table.frame["run_id"].astype("str").tolist() if "run_id" in table.frame else trunks.tolist()
    experts, compute = (
        table.column(name) if name in table.frame else np.full(len(table), np.nan) for name in (EXPERTS, COMPUTE)
    )
    return tuple(
        Prediction(
            run=names[i],
            trunk=str(trunks[i]),
            n_experts=int(experts[i]) if np.isfinite(experts[i]) else None,
            train_flops=float(compute[i]) if np.isfinite(compute[i]) else None,
            ratio=float(compute[i] / largest) if largest and np.isfinite(compute[i]) else None,
            observed=float(observed[i]),
            predicted=float(predicted[i]),
            error=float(100 * (predicted[i] / observed[i] - 1)),
            interval=None if ends is None else (float(ends[0][i]), float(ends[1][i])),
            inside=None if ends is None else bool(ends[0][i] <= observed[i] <= ends[1][i]),
        )
        for i in range(len(table))
    )


def _usual_cuts(compute: Array, trunks: Integers) -> list[float]:
    """Quantiles of the largest compute of trunks, each raised to include trunks within 10 % above it.

    So trunks are not split, and models of one size that differ in router cost stay together.
    """
    _, member = np.unique(trunks, return_inverse=True)
    largest = np.zeros(int(member.max()) + 1)
    np.maximum.at(largest, member, compute)
    quantiles = np.quantile(largest, _QUANTILES, method="lower")
    cuts = {float(largest[largest <= _ALIKE * quantile].max()) for quantile in quantiles}
    return [cut for cut in sorted(cuts) if cut < largest.max()]


def _whole_trunks(trunks: Integers, below: Booleans, above: Booleans) -> tuple[Booleans, Booleans, list[str]]:
    """Runs to fit and to predict such that no trunk is in both; see `roll_out`."""
    straddles = np.isin(trunks, np.intersect1d(trunks[below], trunks[above]))
    if not straddles.any():
        return below, above, []
    count = len(np.unique(trunks[straddles]))
    if (above & ~straddles).any():
        points = int((above & straddles).sum())
        note = f"{points} points above the cut of {count} trunks fitted below were left out"
        return below, above & ~straddles, [note]
    points = int((below & straddles).sum())
    note = (
        f"every trunk begins below the cut: the {count} that cross it were held out whole, with {points} points below"
    )
    return below & ~straddles, above, [note]


def brief(percent: float, sign: str = "") -> str:
    """A percentage with two digits, without decimals from 100 on; `sign` "+" marks positive numbers too."""
    return f"{percent:{sign}.2g}" if abs(percent) < 99.5 else f"{percent:{sign}.0f}"
