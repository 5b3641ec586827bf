"""Search: the best size and token budget of one expert count, for many parameter draws or many targets at once.

Everything is a row: row s holds one draw of the law's parameters, or one target, and its own search over N_active. The
methods need nothing of a law but its loss, so they serve every law, with or without constraints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.decision.lifetime_cost import NEAR
from analysis.decision.lineage import sizes_of_lineage
from analysis.fitting.fit import Fit
from analysis.laws.model_family import SIZE_COLUMNS, Sizes
from scaling.arrays import Array, Booleans
from scaling.bounds import MOST_FLOPS, outside
from scaling.columns import EXPERTS, TOKENS
from scaling.errors import InputError
from scaling.serving.families import ArchitectureFamily

_SIZES = (1e2, 1e16)  # N_active searched when a loss is the target
_LOG_TOKENS = (0.0, np.log(1e30))
_COARSE = 64  # points of the first grid over sizes
_FEW_ROWS = 16
_FINE = {True: (73,) * 3, False: (13,) * 6}
"""Points of the finer grids, for few rows and for many: 36^3 = 6^6, as fine in half as many calls, whose overhead is
what few rows pay for."""
_COARSE_NEAR = 25
_DENSE_NEAR, _FINE_NEAR = {True: 193, False: 61}, {True: (25, 25), False: (13, 13)}  # for few rows and for many
_NEAR = 1.5  # times the least cost of the coarse grid, within which a sawtooth is searched densely
_NEWTON_STEPS = 40
_HALVINGS = 12  # of the range of ln D, to .02: around the least loss that moves ln L by less than 1e-6
_LOG_MIDDLE = np.log(1e10)  # tokens from which a first guess is made
_NARROWINGS, _GRID = 6, 41  # of the range of sizes that may fit, to 1e-8


@dataclass(frozen=True)
class Optimum:
    """The best model of one E in every row: N_active, tokens and value (inf where the constraints exclude all)."""

    n_active: Array
    tokens: Array
    value: Array


def _anything_fits(sizes: Sizes) -> Booleans:
    return np.ones(np.shape(sizes.n_active), dtype=bool)


TokensFound = dict[tuple[int, bytes, bytes], Array]
"""Tokens that reach losses, by E, N_active and losses."""


@dataclass(frozen=True)
class SearchSpace:
    """The models of one expert count that may be chosen, and the fit whose law predicts their loss.

    `params` are numbers, or columns (rows, 1). `fits(sizes)` says which models are allowed at all (memory); a larger
    model never fits where a smaller one does not. `largest` is the largest N_active that fits, where that is known
    (`largest_that_fits`). `found` keeps what `tokens_for_loss` finds, for searches that ask again under the same
    parameters. `lineage` gives the counts where the fit has no family of its own. `near` is an N_active within a factor
    `NEAR` of which the optimum of every row is known to lie: many rows, and models on a device, are then searched there
    alone, to 1 % of the size, which is 1e-5 of a smooth cost or loss.
    """

    fit: Fit
    n_experts: int
    params: Mapping[str, Any]
    fits: Callable[[Sizes], Booleans] = _anything_fits
    largest: float | None = None
    found: TokensFound | None = None
    lineage: ArchitectureFamily | None = None
    near: float | None = None

    def sizes(self, n_active: Array) -> Sizes:
        """The counts of models with these N_active; without a family only those of dense models."""
        if self.fit.family is not None:
            return self.fit.family.sizes(n_active, self.n_experts)
        lineage = self.lineage or self.fit.models
        if lineage is not None:
            return sizes_of_lineage(lineage, n_active, self.n_experts)
        return Sizes(self.n_experts, None, n_active, n_total=n_active if self.n_experts == 1 else None)

    def columns(self, sizes: Sizes, tokens: Array) -> dict[str, Any]:
        """What the law is evaluated on."""
        law = self.fit.definition
        columns: dict[str, Any] = {TOKENS: tokens, EXPERTS: float(self.n_experts), **self.fit.settings}
        return columns | {name: sizes.column(name) for name in (law.n_column, *law.columns) if name not in columns}

    def loss(self, n_active: Array, tokens: Array) -> Array:
        """Predicted loss, nats per token, shape (rows, models)."""
        return self.fit.definition.loss(self.params, self.columns(self.sizes(n_active), tokens))


def least_loss(space: SearchSpace, train_flops: Array, affordable: Callable[[Sizes], Array] | None = None) -> Optimum:
    """The N_active of least loss when 6 N_active D = C, for each row's budget C (rows,); the value is the loss.

    `affordable(sizes)` gives the tokens of models (rows, sizes) where they follow otherwise (0: none) from a budget
    worth about C. A value is inf where no model can be trained.
    """
    centre = 0.5 * np.log(train_flops / 6.0)
    budget = train_flops[:, None]

    def tokens(n_active: Array) -> Array:
        return budget / (6.0 * n_active) if affordable is None else affordable(space.sizes(n_active))

    def score(n_active: Array) -> Array:
        trained = tokens(n_active)
        return np.where(trained > 0, space.loss(n_active, np.where(trained > 0, trained, 1.0)), np.inf)

    size, value = _minimise(space, score, centre - 4 * np.log(10), centre + 4 * np.log(10))
    return Optimum(size, tokens(size[:, None])[:, 0], value)


def least_cost(
    space: SearchSpace,
    target: Array,
    cost: Callable[[Sizes, Array], Array],
    share: Callable[[Sizes, Array], Array] | None = None,
    most_tokens: float = np.inf,
    *,
    jumps: bool = False,
) -> Optimum:
    """The model of least cost at the target loss (rows,), on at most `most_tokens` and within a budget of training.

    `cost(sizes, tokens)` and `share(sizes, tokens)`, of the budget, are (rows, sizes). The value is the cost, inf in
    the rows where no model reaches the target. `jumps` says that cost is a sawtooth in
    the size (whole devices, whole replicas): it is then searched more densely where it is low.
    """

    def score(n_active: Array) -> Array:
        sizes = space.sizes(n_active)
        tokens = tokens_for_loss(space, sizes, target[:, None])
        reached = np.isfinite(tokens)
        with np.errstate(invalid="ignore"):
            value = np.where(reached, cost(sizes, np.where(reached, tokens, 1.0)), np.inf)
            # Beyond the limits the excess is minimised, so that a narrow allowed range is found.
            excess = np.where(reached, tokens / most_tokens, np.inf)
            if share is not None:
                excess = np.maximum(excess, share(sizes, tokens))
            return np.where(excess <= 1 + 1e-9, value, 1e200 * np.minimum(excess, 1e99))

    low, high = (np.full(target.shape, np.log(size)) for size in _SIZES)
    dense = (769 if len(target) <= _FEW_ROWS else 129) if jumps else 0  # draws share their cost
    size, value = _minimise(space, score, low, high, dense)
    tokens = tokens_for_loss(space, space.sizes(size[:, None]), target[:, None])[:, 0]
    return Optimum(size, tokens, np.where(value < 1e200, value, np.inf))


def tokens_for_loss(space: SearchSpace, sizes: Sizes, target: Array) -> Array:
    """D at which the law predicts `target`; inf where no D does. Newton steps in ln D, kept within a bracket.

    ln L is convex in ln D for the laws here, so steps from the side of too few tokens never overshoot.
    """
    if space.found is None:
        return _tokens_for_loss(space, sizes, target)
    key = (space.n_experts, sizes.n_active.tobytes(), target.tobytes())
    if key not in space.found:
        space.found[key] = _tokens_for_loss(space, sizes, target)
    return space.found[key]


def _tokens_for_loss(space: SearchSpace, sizes: Sizes, target: Array) -> Array:
    wanted, law = np.log(target), space.fit.definition
    shape = np.broadcast_shapes(sizes.n_active.shape, target.shape)
    low, high = (np.full(shape, end) for end in _LOG_TOKENS)
    along = law.along_tokens(space.params, space.columns(sizes, high))

    def log_loss(x: Array) -> tuple[Array, Array]:
        value, slope = along(x)
        return np.broadcast_to(value, shape), np.broadcast_to(slope, shape)

    least, slope = log_loss(high)
    if np.any(slope > 0):  # where a draw of a mixture says that larger runs miss its law, its loss rises in the end
        high = _least(log_loss, low, high)
        least, _ = log_loss(high)
    reachable = least < wanted
    x = _first_guess(log_loss, least, wanted, low, high)
    for _ in range(_NEWTON_STEPS):
        value, slope = log_loss(x)
        gap = value - wanted
        low, high = np.where(gap > 0, x, low), np.where(gap > 0, high, x)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = x - gap / slope
        following = np.where((step >= low) & (step <= high), step, 0.5 * (low + high))
        if np.all((np.abs(following - x) < 1e-12 * np.abs(x) + 1e-13) | ~reachable):
            break
        x = following
    return np.where(reachable, np.exp(x), np.inf)


def _first_guess(
    log_loss: Callable[[Array], tuple[Array, Array]], least: Array, wanted: Array, low: Array, high: Array
) -> Array:
    """ln D at which the loss is wanted if beyond its least value it is a power of D, which one value and slope give:
    exact for a law whose term in D is a power. Where that is no number within the bracket, its low end."""
    value, slope = log_loss(np.full(low.shape, _LOG_MIDDLE))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        loss, floor, target = np.exp(value), np.exp(least), np.exp(wanted)
        above = loss - floor
        guess = _LOG_MIDDLE - np.log(above / (target - floor)) * above / (loss * slope)
    return np.where((guess > low) & (guess < high), guess, low)


def _least(log_loss: Callable[[Array], tuple[Array, Array]], low: Array, high: Array) -> Array:
    """ln D of least loss between two ends, where the loss falls and then may rise: by bisection of its slope."""
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        falls = log_loss(middle)[1] < 0
        low, high = np.where(falls, middle, low), np.where(falls, high, middle)
    return high


def _minimise(
    space: SearchSpace, score: Callable[[Array], Array], low: Array, high: Array, dense: int = 0
) -> tuple[Array, Array]:
    """N_active and value of the least score over ln N_active in [low, high] (rows,), as far as models fit.

    A coarse grid, then ever finer ones; first of them, where `dense`, one of so many points over all near the best.
    """
    high = np.minimum(high, np.log(space.largest or largest_that_fits(space)))
    few = len(low) <= _FEW_ROWS
    coarse, fine = _COARSE, _FINE[few]
    if space.near is not None and (dense or not few):  # a sawtooth is priced by a table, which ends there
        low, high = np.maximum(low, np.log(space.near / NEAR)), np.minimum(high, np.log(space.near * NEAR))
        coarse, dense, fine = _COARSE_NEAR, min(dense, _DENSE_NEAR[few]), _FINE_NEAR[few]
    low = np.minimum(low, high)
    rows = np.arange(len(low))
    for points in (coarse, *([dense] if dense else []), *fine):
        grid = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, points)
        values = score(np.exp(grid))
        first = last = best = np.argmin(values, axis=1)
        if dense and points == coarse:
            near = values <= _NEAR * values[rows, best][:, None]
            first, last = np.argmax(near, axis=1), points - 1 - np.argmax(near[:, ::-1], axis=1)
        low, high = grid[rows, np.maximum(first - 1, 0)], grid[rows, np.minimum(last + 1, points - 1)]
    return np.exp(grid[rows, best]), values[rows, best]


def largest_that_fits(space: SearchSpace) -> float:
    """The largest N_active that is allowed, to 1e-7; the largest one searched where all are."""
    low, high = np.log(1e-3), np.log(1e20)
    if space.fits(space.sizes(np.exp([high])))[0]:
        return float(np.exp(high))
    for _ in range(_NARROWINGS):
        grid = np.linspace(low, high, _GRID)
        first_too_large = int(np.argmin(space.fits(space.sizes(np.exp(grid)))))
        low, high = grid[max(first_too_large - 1, 0)], grid[first_too_large]
    return float(np.exp(low))


def columns_of_model(
    fit: Fit, n_active: float | None, tokens: float | None, n_experts: int, given: Mapping[str, float]
) -> dict[str, float]:
    """The columns that a fit's law is evaluated on for one model; `given` holds any of them outright.

    Other parameter counts follow from the fit's family. Raises InputError where they cannot, or for a value that is
    not a positive number.
    """
    named = {"n_active": n_active, TOKENS: tokens, EXPERTS: float(n_experts)}
    asked = {name: value for name, value in named.items() if value is not None}
    for name in ("n_active", TOKENS):
        if name in asked and name in given and asked[name] != given[name]:
            raise InputError(f"`{name}` is {asked[name]:g} and `set` {name} is {given[name]:g}: give one of them")
    columns = {**fit.settings, **asked, **given}
    for name, value in columns.items():
        if wrong := outside(value, MOST_FLOPS):
            raise InputError(f"`{name}` {wrong}" if name not in given else f"`set` {name} {wrong}")
    law = fit.definition
    derivable = [name for name in law.columns if name not in columns and name in SIZE_COLUMNS]
    if derivable and n_active is not None and (fit.family is not None or n_experts == 1):
        sizes = SearchSpace(fit, n_experts, fit.params).sizes(np.array([n_active]))
        columns |= {name: float(np.ravel(sizes.column(name))[0]) for name in derivable}
    if missing := [name for name in law.columns if name not in columns]:
        option = f"`{missing[0]}`" if missing[0] in ("n_active", TOKENS) else f"`set` {missing[0]}=VALUE"
        raise InputError(f"law {law.name} needs {', '.join(missing)}: give it with {option}")
    if unknown := [name for name in given if name not in law.columns]:
        raise InputError(f"law {law.name} has no column {', '.join(unknown)}; it has {', '.join(law.columns)}")
    return {name: columns[name] for name in law.columns}
