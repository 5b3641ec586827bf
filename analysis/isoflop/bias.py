"""Bias of an isoFLOP fit: what parabolas make of a known law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from analysis.fitting.fit import Fit
from analysis.isoflop.frontier import only_experts, usable_valleys
from analysis.isoflop.power_law import power_law
from analysis.isoflop.valleys import Valleys, fitted_valley
from scaling.columns import COMPUTE, EXPERTS, TOKENS
from scaling.errors import InputError

_FAR = np.log(1e6)  # how far beyond the sampled sizes a law's true optimum is looked for


@dataclass(frozen=True)
class Bias:
    """What the method makes of a surface that is known: the same N and C, no noise.

    `vertex_over_true` is by budget. `exponent` is that of the vertices, `true_exponent` that of the true optima over
    the same budgets. At `train_flops`: the regression line, and the largest budget's vertex carried on with its slope,
    each over the true optimum there.
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
    fit: Fit, found: Valleys, train_flops: float, n_experts: int | None = None, *, include_flagged: bool = False
) -> Bias:
    """How far the vertices, their slope and their extrapolation to a budget are off on a fitted surface.

    The losses of every valley's runs are replaced by the law's, without noise, and the same parabolas are fitted; the
    true optimum of each budget minimises the law over N at D = C/(kappa N). Columns of the law other than N, tokens
    and E follow N as a power law through the table's runs.
    Raises InputError for fewer than 3 valleys to use, and for a law that needs a column the table lacks.
    """
    fit.require_params()
    law = fit.definition
    if not law.divides_compute:
        raise InputError(f"law {law.name} predicts no loss from a size and tokens: name another fit")
    if not (np.isfinite(train_flops) and train_flops > 0):
        raise InputError(f"the budget to extrapolate to must be a positive number of FLOPs, found {train_flops}")
    chosen = only_experts(found, n_experts)
    e, table = chosen.experts[0], found.table
    fit.require_experts((e,) if fit.experts else ())
    used = usable_valleys(chosen, include_flagged)
    if len(used) < 3:
        raise InputError(f"{table.source}: the bias needs 3 usable valleys, n_experts = {e} has {len(used)}")
    given = table.columns(name for name in law.columns if name != EXPERTS)
    mine = np.concatenate([valley.rows for valley in used])
    for name, values in given.items():
        if not np.all(np.isfinite(values[mine]) & (values[mine] > 0)):
            raise InputError(
                f"{table.source}: law {law.name} needs {name}, which is not positive in every run of a valley"
            )
    size, tokens, compute = table.column(found.n_column), table.column(TOKENS), table.column(COMPUTE)
    log_n = np.log(size[mine])
    others = {c: np.polyfit(log_n, np.log(given[c][mine]), 1) for c in law.columns if c in given and c != TOKENS}
    kappa = np.polyfit(log_n, np.log(compute[mine] / (size[mine] * tokens[mine])), 1)

    def optimum(budget: float) -> float:
        def at(place: float) -> float:
            columns = {name: np.exp(np.polyval(line, place)) for name, line in others.items()}
            columns |= {TOKENS: budget / np.exp(np.polyval(kappa, place) + place), EXPERTS: float(e)}
            return float(np.log(fit.loss(columns)))

        return float(np.exp(_lowest_point(at, float(log_n.min() - _FAR), float(log_n.max() + _FAR))))

    vertices = []
    for valley in used:
        rows = valley.rows
        loss = fit.loss(
            {**{name: values[rows] for name, values in given.items()}, EXPERTS: np.full(len(rows), float(e))}
        )
        values = np.log(loss) if found.log_loss else loss
        made = fitted_valley(e, rows, size[rows], tokens[rows], compute[rows], values, weights=None)
        if not np.isfinite(made.n_opt):
            raise InputError(f"{law.name} has no valley over the sizes at {valley.train_flops:.3g} FLOPs: leave it out")
        vertices.append(made.n_opt)
    budgets = [valley.train_flops for valley in used]
    truth = [optimum(budget) for budget in budgets]
    line, beyond = power_law(budgets, vertices), optimum(train_flops)
    last = vertices[-1] * (train_flops / budgets[-1]) ** line.exponent
    return Bias(
        n_experts=e,
        budgets=tuple(budgets),
        vertex_over_true=tuple(v / t for v, t in zip(vertices, truth, strict=True)),
        exponent=line.exponent,
        true_exponent=power_law(budgets, truth).exponent,
        train_flops=train_flops,
        line_over_true=float(line.predict(train_flops).mean[0]) / beyond,
        last_vertex_over_true=last / beyond,
    )


def _lowest_point(f: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of one valley is lowest: a coarse look, then Brent's method to 1e-10."""
    grid = np.linspace(low, high, 121)
    step, best = grid[1] - grid[0], grid[int(np.argmin([f(x) for x in grid]))]
    found = minimize_scalar(f, bounds=(best - step, best + step), method="bounded", options={"xatol": 1e-10})
    return float(found.x)
