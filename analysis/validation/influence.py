"""How far a fit rests on some of its runs (what moves when they are left out), and what its residuals still hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting.fit import Fit
from analysis.fitting.refit import refit
from analysis.fitting.roll_out import brief, trunk_names
from analysis.tables.runs import RunTable
from scaling.arrays import Array, Booleans, Integers
from scaling.columns import COMPUTE, EXPERTS, TOKENS
from scaling.errors import InputError

What = Literal["trunk", "n_experts", "size", "compute", "loss", "tokens per parameter"]
_MOST_TRUNKS = 400  # left out one at a time; of more, those with the largest residuals
_MOST_SIZES = 12  # left out one at a time; of more, tenths
_TENTH = 0.1
_BEYOND = 10.0  # the default budget, times the largest run's


@dataclass(frozen=True)
class WatchedQuantity:
    """What is watched: its estimate on all runs, and the bootstrap standard error (None without draws)."""

    estimate: float
    standard_error: float | None


@dataclass(frozen=True)
class QuantityChange:
    """A quantity without some runs, its change in percent of the estimate and in bootstrap standard errors."""

    value: float
    percent: float
    in_se: float | None


@dataclass(frozen=True)
class Exclusion:
    """Some runs left out. `moved` is the quantity that changes most in standard errors, and `influence` by how many of
    them (None where unknown).

    Where the rest determines no fit, `changes` is empty and `reason` says why.
    """

    kind: What
    label: str
    n_left_out: int
    changes: Mapping[str, QuantityChange]
    moved: str | None
    influence: float | None
    reason: str


@dataclass(frozen=True)
class Sensitivity:
    """A fit without each trunk (the most influential first), and without other groups of runs."""

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
        told = []
        for name, found in (("trunk", self.trunks), ("group", self.groups)):
            known = [one for one in found if one.moved is not None]
            if known:
                worst = max(known, key=lambda one: one.influence or 0.0)
                change = worst.changes[worst.moved or ""]
                told.append(
                    f"the most influential {name} ({worst.label}) moves {worst.moved} by {brief(change.percent, '+')} "
                    f"% ({change.in_se:+.1f} standard errors)"
                )
        if not told:
            return "sensitivity: the fit has no standard errors to measure changes by"
        lost = [one.label for one in self.groups if one.reason]
        told += [f"without {', '.join(lost)} nothing is determined"] if lost else []
        return f"sensitivity: {'; '.join(told)}"

    def frame(self) -> pd.DataFrame:
        """Every exclusion that moved something, as `figures.influence` takes it: label, moved, in_se, percent."""
        return pd.DataFrame(
            [
                {
                    "label": f"trunk {one.label}" if one.kind == "trunk" else one.label,
                    "moved": one.moved,
                    **asdict(one.changes[one.moved]),
                }
                for one in (*self.trunks, *self.groups)
                if one.moved is not None
            ],
            columns=["label", "moved", "value", "percent", "in_se"],
        )

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
) -> Sensitivity:
    """Refit without each trunk, E, size, the cheapest and dearest tenth, the highest losses, the fewest tokens per N.

    Watched are the free exponents of N and D, the floor, and the optimal N and least loss at `train_flops` (default: 10
    times the largest run's) for the E that the whole fit recommends; changes are in percent and, where the fit has
    draws, in bootstrap standard errors. A trunk's influence is its largest change of any of them; the `most`
    influential are listed. `highest` are numbers of runs of highest loss. Outliers left in or out move a law more than
    the choice of optimiser does, so both fits belong in a report. Sizes beyond 12 are left out by tenths, and of more
    than 400 trunks those of largest residuals are tried. Pins stay those of the whole fit. Raises InputError for a fit
    without parameters and a table that is not the fit's.
    """
    fit.require_params()
    budget = train_flops or (_BEYOND * fit.largest_train_flops if fit.largest_train_flops else None)
    measure, n_experts, notes = _watched(fit, budget)
    estimate = measure({name: np.array([[value]]) for name, value in fit.params.items()})
    drawn = measure({k: np.reshape(v, (-1, 1)) for k, v in fit.parameter_draws().items()}) if fit.draws else {}
    quantities = {
        name: WatchedQuantity(float(value[0]), float(np.std(drawn[name], ddof=1)) if name in drawn else None)
        for name, value in estimate.items()
    }
    left_out = [*_each_trunk(fit, table, notes), *_groups(fit, table, highest)]
    left_out = [one for one in left_out if 0 < one[2].sum() < len(table)]
    again = refit(fit, table, ~np.array([mask for _, _, mask in left_out]).reshape(-1, len(table)), rng)
    found = measure(again.columns(np.ones(len(left_out), dtype=bool)))
    exclusions = []
    for index, (kind, label, mask) in enumerate(left_out):
        changes = {}
        if again.determined[index]:
            changes = {name: _change(float(found[name][index]), quantity) for name, quantity in quantities.items()}
        known = {name: abs(change.in_se) for name, change in changes.items() if change.in_se is not None}
        moved = max(known, key=known.__getitem__) if known else None
        influence = known[moved] if moved is not None else None
        exclusions.append(Exclusion(kind, label, int(mask.sum()), changes, moved, influence, again.reasons[index]))
    trunks = [one for one in exclusions if one.kind == "trunk"]
    trunks.sort(key=lambda one: -(one.influence if one.influence is not None else -1.0))
    return Sensitivity(
        law=fit.law,
        train_flops=budget,
        n_experts=n_experts,
        quantities=quantities,
        trunks=tuple(trunks[:most]),
        groups=tuple(one for one in exclusions if one.kind != "trunk"),
        n_trunks_tried=len(trunks),
        notes=tuple(notes),
    )


Measure = Callable[[Mapping[str, Array]], dict[str, Array]]


def _watched(fit: Fit, budget: float | None) -> tuple[Measure, int | None, list[str]]:
    """A function of parameters (rows, 1) that gives every quantity (rows,), the E of the optimum, and notes."""
    law, notes = fit.definition, []
    names = [
        p.name
        for p in law.parameters
        if p.name in fit.free and (p.role == "floor" or (p.role in ("size", "data") and not p.linear))
    ]
    n_experts = None
    if budget is None:
        notes.append(f"no budget is known (the fit has no {COMPUTE}): the optimum is not watched")
    else:
        try:
            n_experts = recommend(replace(fit, draws={}), Question(train_flops=budget)).recommendation.n_experts
        except InputError as error:
            notes.append(f"the optimum is not watched: {error}")

    def measure(params: Mapping[str, Array]) -> dict[str, Array]:
        found = {name: params[name][:, 0] for name in names}
        if n_experts is not None and budget is not None:
            rows = max(len(value) for value in params.values())
            optimiser = SizeOptimiser(fit, Question(train_flops=budget))
            best = optimiser.solve([n_experts], params, rows).by_experts[n_experts]
            found |= {"optimal N": best.n_active, "loss at the optimum": best.value}
        return found

    return measure, n_experts, notes


def _change(value: float, quantity: WatchedQuantity) -> QuantityChange:
    moved, error = value - quantity.estimate, quantity.standard_error
    return QuantityChange(value, 100 * moved / abs(quantity.estimate), moved / error if error else None)


def _each_trunk(fit: Fit, table: RunTable, notes: list[str]) -> Iterator[tuple[What, str, Booleans]]:
    trunks, names = table.trunks, trunk_names(table)
    ids, first, inverse = np.unique(trunks, return_index=True, return_inverse=True)
    chosen = np.arange(len(ids))
    if len(ids) > _MOST_TRUNKS:
        law = fit.definition
        residuals = np.abs(np.log(fit.loss(table.columns(law.columns))) - np.log(table.column(law.target)))
        chosen = np.sort(np.argsort(-np.bincount(inverse, residuals), kind="stable")[:_MOST_TRUNKS])
        notes.append(f"of {len(ids)} trunks the {_MOST_TRUNKS} with the largest residuals were left out in turn")
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
                yield "size", f"{law.n_column} = {size:.4g}", sizes == size
        else:
            for number, rows in enumerate(np.array_split(np.argsort(sizes, kind="stable"), 10), start=1):
                yield "size", f"{law.n_column}, tenth {number}", _among(rows, len(table))
    if COMPUTE in table.frame and np.isfinite(table.column(COMPUTE)).all():
        compute = table.column(COMPUTE)
        yield "compute", "cheapest tenth", compute <= np.quantile(compute, _TENTH)
        yield "compute", "dearest tenth", compute >= np.quantile(compute, 1 - _TENTH)
    falling = np.argsort(-table.column(law.target), kind="stable")
    for count in highest:
        yield "loss", f"{count} highest loss{'es' * (count > 1)}", _among(falling[:count], len(table))
    if law.n_column and TOKENS in table.frame:
        ratio = table.column(TOKENS) / table.column(law.n_column)
        yield "tokens per parameter", "fewest tokens per parameter, tenth", ratio <= np.quantile(ratio, _TENTH)


def _among(rows: Integers, count: int) -> Booleans:
    mask = np.zeros(count, dtype=bool)
    mask[rows] = True
    return mask
