"""Roll-outs: every member fitted to the runs below a cut of compute, and asked about those above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fitting.fit import Fit
from analysis.fitting.refit import refit
from analysis.tables.runs import RunTable
from scaling.arrays import Array, Booleans
from scaling.columns import TOKENS

SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)  # of the largest compute, below which is fitted
_EXACT = 1e-8  # errors of ln loss below this are rounding
_LEAST_REACH = 0.3  # ln of compute: a run that lies no further beyond the cut tests nothing
SPARE_RUNS = 3  # beyond the free parameters of a member


@dataclass(frozen=True)
class Cut:
    """One cut: the runs above it, how far beyond the largest fitted run each lies, and how each member missed it.

    `reach` (runs,) is ln of the compute ratio; `errors[member]` prediction minus observation of ln loss; `spread` the
    deviation of each prediction that the parameters' own uncertainty explains, of the member of which it is most;
    `noise` the deviation of the runs fitted around their law.
    """

    train_flops: float
    n_fitted: int
    reach: Array
    errors: Mapping[str, Array]
    spread: Array
    noise: float

    @property
    def n_predicted(self) -> int:
        return len(self.reach)

    def error(self, member: str) -> float:
        """The mean size of a member's errors, each counted by how far its run lies beyond the cut."""
        return float(self.reach @ np.abs(self.errors[member]) / self.reach.sum())


def compute_of(table: RunTable) -> Array:
    """6 N D of every run, the compute that a plan is made in."""
    return np.asarray(6.0 * table.column("n_active") * table.column(TOKENS))


def roll_outs(members: Mapping[str, Fit], table: RunTable, rng: np.random.Generator) -> tuple[Cut, ...]:
    """The cuts of a table at which every member can be fitted below, and runs lie beyond.

    Cuts whose runs above are the same count once.
    """
    compute = compute_of(table)
    below = _selections(compute, max(len(fit.free) for fit in members.values()) + SPARE_RUNS)
    if not len(below):
        return ()
    refits = {name: refit(fit, table, below, rng) for name, fit in members.items()}
    cuts = []
    for row, fitted in enumerate(below):
        if not all(each.determined[row] for each in refits.values()):
            continue
        reach = np.log(compute / compute[fitted].max())
        above = ~fitted & (reach > 0)
        spreads, noises = [], []
        for name, fit in members.items():
            params = {parameter: values[row] for parameter, values in refits[name].params.items()}
            spread, noise = _spread(fit, table, params, fitted, refits[name].log_residuals[row])
            spreads.append(spread[above])
            noises.append(noise)
        errors = {name: each.log_residuals[row][above] for name, each in refits.items()}
        largest = float(compute[fitted].max())
        cuts.append(
            Cut(largest, int(fitted.sum()), reach[above], errors, np.max(spreads, axis=0), float(np.mean(noises)))
        )
    return tuple(cuts)


def _selections(compute: Array, least: int) -> Booleans:
    """The runs below each cut (cuts, runs), the largest cut first."""
    found: list[Booleans] = []
    for share in SHARES:
        below = compute <= share * compute.max() * (1 + 1e-9)
        if below.sum() < least or np.log(compute.max() / compute[below].max()) < _LEAST_REACH:
            continue
        if not any(np.array_equal(below, earlier) for earlier in found):
            found.append(below)
    return np.array(found, dtype=bool).reshape(len(found), len(compute))


def _spread(
    fit: Fit, table: RunTable, params: Mapping[str, float], fitted: Booleans, residuals: Array
) -> tuple[Array, float]:
    """The deviation of every prediction of ln loss by the parameters' covariance s^2 (J'J)^-1, and s, that of the runs
    fitted around their law."""
    problem, _ = fit.problem(table)
    if not problem.free:
        return np.zeros(len(table)), float(np.sqrt(np.mean(residuals[fitted] ** 2)))
    jacobian = problem.log_loss(problem.coordinates(params)[None])[1][0]
    inside = problem.within_bounds(problem.coordinates(params))
    noise = float(np.sqrt(np.sum(residuals[fitted] ** 2) / max(1, fitted.sum() - inside.sum())))
    scale = np.linalg.norm(jacobian[:, fitted], axis=1)
    moves = inside & (scale > 0)
    scaled = jacobian[moves] / scale[moves, None]
    covariance = np.linalg.pinv(scaled[:, fitted] @ scaled[:, fitted].T, rcond=1e-10, hermitian=True)
    variance = np.einsum("pn,pq,qn->n", scaled, covariance, scaled)
    return noise * np.sqrt(np.maximum(variance, 0.0)), noise


def weights(cuts: Sequence[Cut], members: Sequence[str]) -> dict[str, float]:
    """The weight of every member, adding up to 1: by the inverse of its mean squared error of roll-out.

    Weights by inverse squared error are those of combined forecasts (Bates and Granger 1969, Oper Res Q 20:451). The
    errors of a cut are one error, since what makes them is common to them. Weights are shrunk towards equal ones as if
    these were the outcome of one more cut, so that few cuts do not decide.
    """
    equal = {name: 1.0 / len(members) for name in members}
    if not cuts:
        return equal
    squares = {name: float(np.mean([cut.error(name) ** 2 for cut in cuts])) for name in members}
    least = max(min(squares.values()), _EXACT**2)
    inverse = {name: least / max(square, least) for name, square in squares.items()}
    total, trust = sum(inverse.values()), len(cuts) / (len(cuts) + 1.0)
    return {name: trust * inverse[name] / total + (1.0 - trust) * equal[name] for name in members}
