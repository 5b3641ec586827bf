"""The value of information: what runs not yet made would change about a choice, as the draws of a fit predict it.

Before a run its loss is uncertain twice: the draws predict it differently, and it has noise. Its value for a choice is
the expected value of sample information (Raiffa and Schlaifer 1961, Applied Statistical Decision Theory, ch. 4):
min_e E[r_e] - E_y[min_e E[r_e | y]] for the regret r_e of choosing E = e and the outcome y. E[r_e | y] is estimated by

* `after_outcomes`: the draws reweighted by the likelihood of y. Exact as the draws grow, worthless where few of them
  count. Regret is the verdict's, `analysis.decision.optima.expected_regret`, of the E chosen (`regret_of_choice`).
* `RegretBelief`: linear regression of r_e on y, by means and covariances over the draws (a Kalman update; Jalal and
  Alarid-Escudero 2018, Med Decis Making 38:174). Exact where draws are normal and regrets linear, and it never runs out
  of draws. Draws without an answer count in it as a regret of 20 % (`risks`), so its gains are no regrets: they are
  read as shares of the gain that it gives perfect knowledge (`RegretBelief.perfect`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from analysis.decision.optima import UNANSWERED_LIMIT, expected_regret, unanswered_share
from analysis.fitting.fit import Fit
from scaling.arrays import Array, Integers

ENOUGH_DRAWS = 50.0  # effective draws behind an outcome, from which reweighting is believed
LEAST_GAIN = 0.01  # of the regret before: runs that take off less do not help
_LEAST_NOISE = 1e-3  # of ln loss: no run is measured better than that
_UNKNOWN_SHARE = 0.5  # of the variance, where no trunk has several budgets to estimate it from
_MOST_SHARE = 0.95
# Both limits of `decided` weigh alike: 5 % of draws without an answer count as much as 1 % of expected regret.
_UNANSWERED_RISK = 0.2
_SAMPLES = 512
_CASES = 400


@dataclass(frozen=True)
class Noise:
    """Standard deviation of ln loss of a run around its law, and the share of its variance that its trunk shares."""

    deviation: float
    shared: float = 0.0

    @property
    def of_trunk(self) -> float:
        """Variance common to the token budgets of one trunk."""
        return self.shared * self.deviation**2

    @property
    def own(self) -> float:
        """Variance of each run alone."""
        return (1.0 - self.shared) * self.deviation**2


def run_noise(fit: Fit, trunks: Integers | None = None) -> Noise:
    """The noise that a new run will have: the spread of seeds or of the residuals, whichever is more, at least 1e-3.

    Residuals are enlarged for the parameters fitted to them (`Fit.enlargement`). What trunks share is their intraclass
    correlation in the residuals, where `trunks` names the trunk of every residual and some trunk has several; otherwise
    one half.
    """
    spread = (fit.rmse_log or 0.0) * fit.enlargement
    shared = _UNKNOWN_SHARE
    if trunks is not None and len(trunks) == len(fit.residuals):
        shared = _intraclass(np.asarray(fit.residuals), trunks)
    return Noise(max(fit.noise or 0.0, float(spread), _LEAST_NOISE), shared)


def _intraclass(values: Array, groups: Integers) -> float:
    """Share of the variance between groups: (MSB - MSW)/(MSB + (m - 1) MSW), groups of about m (Fisher 1925)."""
    _, member, counts = np.unique(groups, return_inverse=True, return_counts=True)
    n, k = len(values), len(counts)
    if k < 2 or n == k:
        return _UNKNOWN_SHARE
    means = np.bincount(member, values) / counts
    within = np.sum((values - means[member]) ** 2) / (n - k)
    between = np.sum(counts * (means - values.mean()) ** 2) / (k - 1)
    size = (n - np.sum(counts**2) / n) / (k - 1)
    total = between + (size - 1.0) * within
    return float(np.clip((between - within) / total, 0.0, _MOST_SHARE)) if total > 0 else _UNKNOWN_SHARE


def risks(regrets: Array) -> Array:
    """Regrets (draws, E) with .2 where an E cannot answer, so that its two limits of `decided` weigh alike."""
    return np.where(np.isnan(regrets), _UNANSWERED_RISK, regrets)


def outcome_weights(predicted: Array, covariance: Array, rng: np.random.Generator) -> Array:
    """Weights of the draws, (outcomes, draws), rows summing to 1, under simulated outcomes of some runs.

    `predicted` (draws, runs) is the ln loss of each run under each draw, `covariance` (runs, runs) that of their noise.
    Each draw in turn (at most 400, evenly) is the truth; its outcome is its prediction and noise, and a draw counts as
    the normal likelihood that it gives the outcome.
    """
    n_draws, n_runs = predicted.shape
    truths = np.arange(n_draws)[:: max(1, n_draws // _CASES)]
    truths = np.tile(truths, max(1, _CASES // len(truths)))
    white = np.linalg.solve(np.linalg.cholesky(covariance), predicted.T).T
    noise = np.stack([_normals(len(truths), rng) for _ in range(n_runs)], axis=1)
    outcomes = white[truths] + noise
    squares = np.sum(outcomes**2, axis=1)[:, None] - 2.0 * outcomes @ white.T + np.sum(white**2, axis=1)[None, :]
    weights = np.exp(-0.5 * (squares - squares.min(axis=1, keepdims=True)))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def regret_of_choice(regrets: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Expected regret and unanswered share of the E one would choose under each row of weights (cases, draws).

    That of least expected regret among those that can answer in all but 5 % of the draws; else that which can in most.
    Both are the verdict's figures (`expected_regret`, `unanswered_share`); without weights of one case, all draws
    alike.
    """
    row_weights = np.ones((1, len(regrets))) if weights is None else weights
    mean, unanswered = expected_regret(regrets, row_weights), unanswered_share(regrets, row_weights)
    chosen = _least_risk(mean, unanswered)
    cases = np.arange(len(chosen))
    return np.nan_to_num(mean[cases, chosen]), unanswered[cases, chosen]


def choice_of_least_risk(regrets: Array, weights: Array | None = None) -> int:
    """The column of the E that `regret_of_choice` is of; `weights` (draws,)."""
    row_weights = np.ones((1, len(regrets))) if weights is None else weights[None]
    return int(_least_risk(expected_regret(regrets, row_weights), unanswered_share(regrets, row_weights))[0])


def _least_risk(mean: Array, unanswered: Array) -> Integers:
    """The column of every case (cases, E): of least mean among those that answer, or come nearest to it."""
    allowed = unanswered <= np.maximum(UNANSWERED_LIMIT, unanswered.min(axis=1, keepdims=True))
    return np.asarray(np.where(allowed, np.nan_to_num(mean, nan=np.inf), np.inf).argmin(axis=1))


class AfterOutcomes(NamedTuple):
    """What is expected once some runs are known: the regret of the E chosen anew; in which share of the outcomes it
    stays open whether that E can answer (more than 5 % of the draws say so, and more than 5 % not); and how many draws
    count, the median of Kish's effective number."""

    regret: float
    unsettled: float
    effective: float


def after_outcomes(regrets: Array, weights: Array) -> AfterOutcomes:
    """Means over outcomes, whose `weights` (outcomes, draws) `outcome_weights` gives."""
    regret, unanswered = regret_of_choice(regrets, weights)
    unsettled = (unanswered > UNANSWERED_LIMIT) & (unanswered < 1.0 - UNANSWERED_LIMIT)
    effective = np.sum(weights, axis=1) ** 2 / np.sum(weights**2, axis=1)
    return AfterOutcomes(float(regret.mean()), float(unsettled.mean()), float(np.median(effective)))


@dataclass(frozen=True)
class RegretBelief:
    """Means and covariances of the risks of every E and of the ln losses of candidate cells, given the runs assumed.

    `expected` (samples, E): samples of the risks that will be expected once those runs are known. `covariance`: of the
    E risks, then the cells, then the trunks that were begun.
    """

    n_experts: int
    n_cells: int
    expected: Array
    covariance: Array
    noise: Noise

    @classmethod
    def of_draws(cls, regrets: Array, predicted: Array, noise: Noise) -> RegretBelief:
        """Before any run: `regrets` (draws, E), `predicted` (draws, cells) the ln losses."""
        values = np.concatenate([risks(regrets), predicted], axis=1)
        mean = values[:, : regrets.shape[1]].mean(axis=0)
        covariance = np.cov(values, rowvar=False)
        return cls(regrets.shape[1], predicted.shape[1], np.tile(mean, (_SAMPLES, 1)), covariance, noise)

    @property
    def risk(self) -> float:
        """Expected risk of the E that will be chosen."""
        return float(self.expected.min(axis=1).mean())

    def perfect(self, rng: np.random.Generator) -> float:
        """What knowing every risk would take off, were the risks normal with this covariance."""
        values, vectors = np.linalg.eigh(self.covariance[: self.n_experts, : self.n_experts])
        surprise = np.stack([_normals(_SAMPLES, rng) for _ in range(self.n_experts)], axis=1)
        moved = surprise * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
        return self.risk - float((self.expected + moved).min(axis=1).mean())

    def shifts(self, cells: Integers, times: Array) -> Array:
        """By how much E[risk] moves per unit normal surprise, (cells, E), when a cell is run on `times` new trunks."""
        at = self.n_experts + cells
        surprise = np.sqrt(np.diag(self.covariance)[at] + self.noise.deviation**2 / times)
        return np.asarray(self.covariance[at, : self.n_experts] / surprise[:, None])

    def shifts_on(self, cells: Integers, trunk: int) -> Array:
        """The same for cells that are branched from a trunk begun before."""
        at, root = self.n_experts + cells, self.n_experts + self.n_cells + trunk
        c = self.covariance
        surprise = np.sqrt(np.diag(c)[at] + c[root, root] + 2.0 * c[at, root] + self.noise.own)
        return np.asarray((c[at, : self.n_experts] + c[root, : self.n_experts]) / surprise[:, None])

    def risk_after(self, shifts: Array, rng: np.random.Generator) -> Array:
        """Expected risk of the E that will be chosen after one more run, for each row of shifts."""
        surprise = _normals(_SAMPLES, rng)
        least = np.full((len(shifts), _SAMPLES), np.inf)
        for e in range(self.n_experts):
            np.minimum(least, self.expected[:, e] + shifts[:, e, None] * surprise, out=least)
        return np.asarray(least.mean(axis=1))

    def begin_trunk(self) -> RegretBelief:
        """Room for one more trunk, of whose part of the noise nothing is known."""
        size = len(self.covariance)
        grown = np.zeros((size + 1, size + 1))
        grown[:size, :size] = self.covariance
        grown[size, size] = self.noise.of_trunk
        return replace(self, covariance=grown)

    def observe(self, cell: int, trunk: int, rng: np.random.Generator) -> RegretBelief:
        """After the run of a cell on a trunk begun before."""
        at, root = self.n_experts + cell, self.n_experts + self.n_cells + trunk
        column = self.covariance[:, at] + self.covariance[:, root]
        column = column / np.sqrt(column[at] + column[root] + self.noise.own)
        moved = _normals(_SAMPLES, rng)[:, None] * column[: self.n_experts]
        return replace(self, expected=self.expected + moved, covariance=self.covariance - np.outer(column, column))


def _normals(count: int, rng: np.random.Generator) -> Array:
    """Standard normals in random order, one from the middle of each of `count` equally likely strata."""
    return np.asarray(rng.permutation(ndtri((np.arange(count) + 0.5) / count)), dtype=float)
