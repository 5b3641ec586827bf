"""Draws from a posterior of few coordinates: its mode, then importance sampling that adapts to it.

Deviations from what is known have a prior around zero, normal or of Student's t; runs have residuals of Student's t
around a model of ln loss, whose scale is learnt too. The t lets one bad run count for little. Coordinates are those in
which the posterior is nearly normal; deviations follow from them with a determinant of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from analysis.fitting.published_spread import NOISE, NOISE_FREEDOM
from scaling.arrays import Array

TAILS = 4.0
"""Degrees of freedom of the residuals' Student's t."""
_PROPOSAL_TAILS = 8.0
_DRAWN, _ROUNDS, _ENOUGH = 2**13, 10, 2000
_LEAST_CLIPPED = 200  # points of largest weight that count alike while the proposal adapts
_STEPS, _DIFFERENCE = 60, 1e-5
_RIDGE = 1e-12


@dataclass(frozen=True, eq=False)
class Posterior:
    """Runs, by coordinates (B, Q): `model` gives their ln loss (B, n), `deviations` what has a prior (B, Q).

    `tailed` deviations have together a prior of Student's t with `freedom` degrees and their part of `covariance`,
    which stands apart from the rest, as its scale. `share` is what each run counts: trunks over runs, where runs of one
    trunk are one.
    """

    model: Callable[[Array], Array]
    deviations: Callable[[Array], Array]
    observed: Array
    covariance: Array
    share: float = 1.0
    tailed: slice | None = None
    freedom: float = np.inf

    @property
    def precision(self) -> Array:
        return np.asarray(np.linalg.inv(self.covariance), dtype=float)

    def log_density(self, z: Array) -> Array:
        """ln of the posterior (B,), but for a constant, at z (B, Q + 1): coordinates and ln of the noise's scale."""
        x, log_scale = z[:, :-1], z[:, -1:]
        with np.errstate(all="ignore"):
            standard = (self.model(x) - self.observed) / np.exp(log_scale)
            fits = -0.5 * (TAILS + 1.0) * np.log1p(standard**2 / TAILS) - log_scale
            noise = -NOISE_FREEDOM * log_scale[:, 0] - 0.5 * NOISE_FREEDOM * NOISE**2 * np.exp(-2.0 * log_scale[:, 0])
            total = self.share * fits.sum(axis=1) + noise - self._against(x)
        return np.where(np.isfinite(total), total, -np.inf)

    def mode(self) -> tuple[Array, Array]:
        """Where the density is highest, (Q + 1,), and the inverse of its curvature there: damped Gauss-Newton steps,
        each run weighed by its residual."""
        size = len(self.covariance)
        z, damping, precision = np.append(np.zeros(size), np.log(NOISE)), 1.0, self.precision
        z[0] = np.median(self.observed - self.model(z[None, :size])[0])
        value, curvature = self.log_density(z[None])[0], np.eye(size + 1)
        for _ in range(_STEPS):
            gradient, curvature = self._slopes(z, precision)
            step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), gradient)
            trial = self.log_density((z + step)[None])[0]
            if trial > value:
                done = trial - value < 1e-9
                z, value, damping = z + step, trial, max(1e-9, damping / 5.0)
                if done:
                    break
            else:
                damping *= 5.0
                if damping > 1e12:
                    break
        return z, np.asarray(np.linalg.inv(self._slopes(z, precision)[1]), dtype=float)

    def draws(self, count: int, rng: np.random.Generator) -> tuple[Array, float]:
        """Coordinates (count, Q + 1) drawn from the posterior, and how many independent draws they are worth."""
        mean, covariance = self.mode()
        best = 0.0, np.empty(0), np.empty(0)
        for _ in range(_ROUNDS):
            z, log_proposal = _student(mean, covariance, rng)
            log_weight = self.log_density(z) - log_proposal
            weight = np.exp(log_weight - log_weight.max())
            weight /= weight.sum()
            best = max(best, (1.0 / np.sum(weight**2), z, weight), key=lambda each: each[0])
            if best[0] >= _ENOUGH:
                break
            clipped = np.minimum(weight, np.partition(weight, -_LEAST_CLIPPED)[-_LEAST_CLIPPED])
            clipped /= clipped.sum()
            mean = clipped @ z
            spread = (z - mean) * np.sqrt(clipped)[:, None]
            covariance = spread.T @ spread + _RIDGE * np.eye(len(mean))
        worth, z, weight = best
        chosen = np.searchsorted(np.cumsum(weight), (np.arange(count) + rng.random()) / count)
        chosen = rng.permutation(np.minimum(chosen, len(z) - 1))
        return z[chosen], float(worth)

    def _against(self, x: Array) -> Array:
        moved, precision, part = self.deviations(x), self.precision, self.tailed
        every = _squares(moved, precision)
        if part is None:
            return 0.5 * every
        tailed = _squares(moved[:, part], precision[part, part])
        size = moved[:, part].shape[1]
        return 0.5 * (every - tailed) + 0.5 * (self.freedom + size) * np.log1p(tailed / self.freedom)

    def _slopes(self, z: Array, precision: Array) -> tuple[Array, Array]:
        """The gradient of the ln density and an approximation of its curvature, which is positive definite."""
        x, scale = z[:-1], np.exp(z[-1])
        around = x + _DIFFERENCE * np.concatenate([np.zeros((1, len(x))), np.eye(len(x)), -np.eye(len(x))])
        values, moved = self.model(around), self.deviations(around)
        if (part := self.tailed) is not None:  # what the t's slope is of the normal's
            far = float(_squares(moved[:1, part], precision[part, part])[0])
            precision = precision.copy()
            precision[part, part] *= (self.freedom + moved[:, part].shape[1]) / (self.freedom + far)
        residual = values[0] - self.observed
        jacobian, of_prior = (
            (each[1 : len(x) + 1] - each[len(x) + 1 :]) / (2.0 * _DIFFERENCE) for each in (values, moved)
        )
        weight = self.share * (TAILS + 1.0) / (TAILS + (residual / scale) ** 2)
        squares, prior = residual**2 / scale**2, NOISE_FREEDOM * NOISE**2 / scale**2
        gradient = np.append(
            -jacobian @ (weight * residual) / scale**2 - of_prior @ precision @ moved[0],
            np.sum(weight * squares) - self.share * len(residual) + prior - NOISE_FREEDOM,
        )
        curvature = np.zeros((len(z), len(z)))
        curvature[:-1, :-1] = (jacobian * weight) @ jacobian.T / scale**2 + of_prior @ precision @ of_prior.T
        curvature[-1, -1] = 2.0 * (NOISE_FREEDOM + self.share * len(residual) * TAILS / (TAILS + 3.0))
        return gradient, curvature


def _squares(values: Array, precision: Array) -> Array:
    """x' P x (B,) of rows x."""
    return np.asarray(np.einsum("bi,ij,bj->b", values, precision, values), dtype=float)


def _student(mean: Array, covariance: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Points of a multivariate Student's t, and the ln of its density there but for a constant."""
    size = len(mean)
    uniform = qmc.Sobol(size, rng=rng).random(_DRAWN)
    normal = ndtri(np.clip(uniform, 1e-12, 1.0 - 1e-12))
    stretch = np.sqrt(_PROPOSAL_TAILS / rng.chisquare(_PROPOSAL_TAILS, _DRAWN))[:, None]
    values, vectors = np.linalg.eigh(covariance)
    standard = normal * stretch
    points = mean + (standard * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    density = -0.5 * (_PROPOSAL_TAILS + size) * np.log1p(np.sum(standard**2, axis=1) / _PROPOSAL_TAILS)
    return points, density
