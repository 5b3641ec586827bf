"""Bias of an isoFLOP analysis: parabolas fitted to the losses of a known law."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize_scalar

from analysis.fitting.fit import Fit
from analysis.isoflop.frontier import only_experts, usable_valleys
from analysis.isoflop.power_law import power_law
from analysis.isoflop.valleys import BudgetRuns, Valleys, fitted_valley
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS
from scaling.errors import InputError

_FAR = np.log(1e6)  # ln N beyond the sampled sizes within which the true optimum is sought


@dataclass(frozen=True)
class Bias:
    """The isoFLOP method applied to a known surface at the same N and C, without noise.

    `vertex_over_true` is by budget. `exponent` is that of the vertices, `true_exponent` that of the true optima over
    the same budgets. At `train_flops`, over the true optimum there: the regression line, and the vertex of the largest
    budget extrapolated with its slope.
    """

    n_experts: int
    budgets: tuple[float, ...]
    vertex_over_true: tuple[float, ...]
    exponent: float
    true_exponent: float
    train_flops: float
    line_over_true: float
    last_vertex_over_true: float


def bias(
    fit: Fit, valleys: Valleys, train_flops: float, n_experts: int | None = None, *, include_flagged: bool = False
) -> Bias:
    """The error of the vertices, their slope and their extrapolation to a budget on a fitted surface.

    The losses of the runs are replaced by those of the law, without noise, and the same parabolas are fitted. The true
    optimum of a budget minimises the law over N at D = C/(kappa N). Columns of the law other than N, tokens and E
    follow N as a power law through the runs. Raises InputError for fewer than 3 usable valleys, and for a law with a
    column that the table lacks.
    """
    fit.require_params()
    law = fit.definition
    if not law.divides_compute:
        raise InputError(f"law {law.name} predicts no loss from size and tokens: use another fit")
    if not (np.isfinite(train_flops) and train_flops > 0):
        raise InputError(f"the budget to extrapolate to must be a positive number of FLOPs, found {train_flops}")
    chosen = only_experts(valleys, n_experts)
    e, source = chosen.experts[0], chosen.table.source
    fit.require_experts((e,) if fit.experts else ())
    used = usable_valleys(chosen, include_flagged)
    if len(used) < 3:
        raise InputError(f"{source}: the bias needs 3 usable valleys, n_experts = {e} has {len(used)}")
    inputs = chosen.table.columns(name for name in law.columns if name != EXPERTS)
    vertices, budgets = [], [valley.train_flops for valley in used]
    for valley in used:
        columns = {name: values[valley.rows] for name, values in inputs.items()}
        unusable = [name for name, values in columns.items() if not np.all(np.isfinite(values) & (values > 0))]
        if unusable:
            raise InputError(
                f"{source}: law {law.name} needs {unusable[0]}, which is not positive in every run of a valley"
            )
        vertices.append(_vertex(fit, valley.runs, columns, chosen.log_loss))
        if not np.isfinite(vertices[-1]):
            raise InputError(
                f"{law.name} has no minimum over the sizes at {valley.train_flops:.3g} FLOPs: leave that budget out"
            )
    surface = _surface(fit, [valley.runs for valley in used], inputs)
    optima = [surface.optimum(budget) for budget in budgets]
    line, optimum = power_law(budgets, vertices), surface.optimum(train_flops)
    extrapolated = vertices[-1] * (train_flops / budgets[-1]) ** line.exponent
    return Bias(
        n_experts=e,
        budgets=tuple(budgets),
        vertex_over_true=tuple(vertex / true for vertex, true in zip(vertices, optima, strict=True)),
        exponent=line.exponent,
        true_exponent=power_law(budgets, optima).exponent,
        train_flops=train_flops,
        line_over_true=float(line.predict(train_flops).mean[0]) / optimum,
        last_vertex_over_true=extrapolated / optimum,
    )


def _vertex(fit: Fit, runs: BudgetRuns, columns: Mapping[str, Array], log_loss: bool) -> float:
    """N at the vertex of the parabola through the losses by the law; NaN where it opens downward."""
    loss = fit.loss({**columns, EXPERTS: np.full(len(runs.rows), float(runs.n_experts))})
    return fitted_valley(replace(runs, loss=np.log(loss) if log_loss else loss), weights=None).n_opt


@dataclass(frozen=True, eq=False)
class _Surface:
    """A fit over the sizes of the runs of one E, exp(`log_sizes`).

    `lines` (ln of the columns other than tokens and E) and `kappa` (ln C/(N D)) are straight lines in ln N.
    """

    fit: Fit
    n_experts: int
    lines: Mapping[str, Array]
    kappa: Array
    log_sizes: Array

    def optimum(self, train_flops: float) -> float:
        """The N of least loss at a budget."""
        low, high = float(self.log_sizes.min() - _FAR), float(self.log_sizes.max() + _FAR)
        return float(np.exp(_lowest_point(lambda log_n: self._log_loss(log_n, train_flops), low, high)))

    def _log_loss(self, log_n: float, train_flops: float) -> float:
        columns = {name: np.exp(np.polyval(line, log_n)) for name, line in self.lines.items()}
        tokens = train_flops / np.exp(np.polyval(self.kappa, log_n) + log_n)
        return float(np.log(self.fit.loss({**columns, TOKENS: tokens, EXPERTS: float(self.n_experts)})))


def _surface(fit: Fit, budgets: Sequence[BudgetRuns], inputs: Mapping[str, Array]) -> _Surface:
    """The fit over the sizes of these runs; `inputs` are the columns of the whole table that the law reads."""
    rows, size, tokens, compute = (
        np.concatenate([getattr(runs, name) for runs in budgets]) for name in ("rows", "size", "tokens", "compute")
    )
    log_n = np.log(size)
    lines = {name: np.polyfit(log_n, np.log(values[rows]), 1) for name, values in inputs.items() if name != TOKENS}
    return _Surface(fit, budgets[0].n_experts, lines, np.polyfit(log_n, np.log(compute / (size * tokens)), 1), log_n)


def _lowest_point(f: Callable[[float], float], low: float, high: float) -> float:
    """The minimum of a function of one valley: a coarse grid, then Brent's method to 1e-10."""
    grid = np.linspace(low, high, 121)
    step, best = grid[1] - grid[0], grid[int(np.argmin([f(x) for x in grid]))]
    minimum = minimize_scalar(f, bounds=(best - step, best + step), method="bounded", options={"xatol": 1e-10})
    return float(minimum.x)
