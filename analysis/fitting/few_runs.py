"""Few runs: intervals from the spread of published exponents, where there are too few trunks to resample.

A law with five parameters passes through five runs, and resamples of them say nothing. What is known besides is how
exponents differ between published fits of the same form. Exponents are drawn from that spread, each with the factors
that fit the runs best, and weighed by how well they fit (importance sampling). Noise is learnt from what is left of the
runs and from how far published laws lie from their own. With more trunks nothing of this enters.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import ndtri
from scipy.stats import qmc

from analysis.fitting.fit import Fit
from analysis.fitting.problem import Problem
from analysis.fitting.published_spread import NOISE, NOISE_FREEDOM, published_spread
from analysis.laws import HOFFMANN, JOINT_MOE
from scaling.arrays import Array

TRUNKS_A_PARAMETER = 2.0
"""Trunks a free parameter from which the runs speak for themselves."""
_LAWS = (HOFFMANN.name, JOINT_MOE.name)
_DRAWN = 2**13  # exponents drawn from the spread
_FEWEST_RUNS = 4
_SWEEPS = 3


def needs_prior(fit: Fit) -> bool:
    """Whether there are too few trunks to resample, and the law is one whose exponents others published."""
    law = fit.definition
    linear = all(name in ("alpha", "beta") or law.parameter(name).linear == "loss" for name in fit.free)
    usable = law.name in _LAWS and linear and {"alpha", "beta"} & set(fit.free) and fit.n_runs >= _FEWEST_RUNS
    return bool(usable and fit.n_trunks < TRUNKS_A_PARAMETER * len(fit.free))


def with_prior(fit: Fit, problem: Problem, count: int, rng: np.random.Generator) -> Fit:
    """The fit with draws from the posterior, and the likeliest of those drawn as its estimate."""
    prior, law = published_spread(), fit.definition
    exponents = [name for name in problem.free if name in prior.exponents]
    where = [problem.free.index(name) for name in exponents]
    others = [index for index in range(len(problem.free)) if index not in where]
    theta = np.zeros((_DRAWN, len(problem.free)))
    normal = ndtri(qmc.Sobol(len(exponents), rng=rng).random(_DRAWN) * (1 - 2e-9) + 1e-9)
    for column, (name, index) in enumerate(zip(exponents, where, strict=True)):
        mean, deviation = prior.exponents[name]
        low, high = law.parameter(name).bounds
        sign = -1.0 if high <= 0 else 1.0
        theta[:, index] = np.clip(sign * np.exp(mean + deviation * normal[:, column]), low, high)
    factors, covariance, squares = _factors(problem, theta, others)
    share = fit.n_trunks / fit.n_runs  # runs of one trunk are one
    freedom = NOISE_FREEDOM + max(0.0, fit.n_trunks - len(others))
    spread = NOISE_FREEDOM * NOISE**2 + share * squares
    log_weight = np.where(np.isfinite(spread), -0.5 * freedom * np.log(spread), -np.inf)
    log_likeliest = log_weight - 0.5 * np.sum(normal**2, axis=1)
    weight = np.exp(log_weight - log_weight.max())
    chosen = np.searchsorted(np.cumsum(weight) / weight.sum(), (np.arange(count) + rng.random()) / count)
    chosen = rng.permutation(np.minimum(chosen, _DRAWN - 1))
    variance = spread[chosen] / rng.chisquare(freedom, count)
    for index, name in enumerate(problem.free):
        if index in others:
            theta[:, index] = law.to_coordinates(name, factors[:, others.index(index)])
    drawn = theta[chosen]
    drawn[:, others] = _scattered(problem, factors[chosen], covariance[chosen], variance / share, others, rng)
    best = theta[int(np.argmax(log_likeliest))]
    params = {**fit.params, **{name: float(value[0]) for name, value in problem.parameters(best[None]).items()}}
    residuals = problem.log_loss(best[None])[0][0] - np.log(problem.loss)
    values = problem.parameters(drawn)
    low, high = np.quantile(np.stack([values[name] for name in problem.free]), (0.025, 0.975), axis=1)
    spreads = ", ".join(
        f"{name} {np.exp(mean):.2g} times or over {np.exp(deviation):.2g}"
        for name, (mean, deviation) in prior.exponents.items()
    )
    told = (
        f"{fit.n_trunks} trunks are too few to resample for {len(fit.free)} parameters: the intervals rest on the "
        f"spread of exponents over {prior.n_fits} published fits ({spreads}), and the estimate is drawn towards it: "
        "add runs"
    )
    return replace(
        fit,
        params=params,
        objective=problem.value(params),
        residuals=tuple(residuals.tolist()),
        rmse_log=float(np.sqrt(np.mean(residuals**2))),
        draws={name: tuple(values[name].tolist()) for name in problem.free},
        intervals={name: (float(low[i]), float(high[i])) for i, name in enumerate(problem.free)},
        prior=replace(prior, noise=float(np.sqrt(np.median(variance)))),
        warnings=(*fit.warnings, told),
        at_bounds=(),
        status="ok",
    )


def _factors(problem: Problem, theta: Array, linear: list[int]) -> tuple[Array, Array, Array]:
    """Least-squares factors (B, q), their covariance for unit noise, and the sum of squares left of ln loss.

    Factors below their bounds are held there; the others then follow.
    """
    law, names = problem.law, [problem.free[index] for index in linear]
    for index, name in zip(linear, names, strict=True):
        theta[:, index] = law.to_coordinates(name, 1.0)
    log_loss, jacobian = problem.log_loss(theta)
    total = np.exp(log_loss)
    basis = total[:, None, :] * jacobian[:, linear, :] / problem.loss
    fixed = total / problem.loss - basis.sum(axis=1)
    lower = np.array([law.parameter(name).bounds[0] for name in names])
    size = np.sqrt(np.mean(basis**2, axis=2))
    scaled = basis / size[..., None]
    held = np.zeros(size.shape, dtype=bool)
    for _ in range(_SWEEPS):
        free = ~held
        design = scaled * free[..., None]
        matrix = design @ design.swapaxes(1, 2) + np.eye(len(linear)) * (held + 1e-10)[:, None, :]
        floor = np.einsum("bq,bqn->bn", np.where(held, lower, 0.0), basis)
        solved = np.linalg.solve(matrix, (design @ (1.0 - fixed - floor)[..., None]))[..., 0] / size
        factors = np.where(held, lower, solved)
        held = held | (factors < lower)
    factors = np.maximum(factors, lower)
    fitted = fixed + np.einsum("bq,bqn->bn", factors, basis)
    with np.errstate(invalid="ignore", divide="ignore"):
        squares = np.sum(np.log(fitted) ** 2, axis=1)
    covariance = np.linalg.inv(matrix) * (free[:, :, None] & free[:, None, :])
    return factors, covariance / (size[:, :, None] * size[:, None, :]), np.nan_to_num(squares, nan=np.inf)


def _scattered(
    problem: Problem, factors: Array, covariance: Array, variance: Array, linear: list[int], rng: np.random.Generator
) -> Array:
    """Coordinates of factors drawn around the best ones, within their bounds."""
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.swapaxes(1, 2)))
    steps = rng.standard_normal(values.shape) * np.sqrt(np.maximum(values, 0.0) * variance[:, None])
    moved = factors + np.einsum("bij,bj->bi", vectors, steps)
    columns = []
    for column, index in enumerate(linear):
        name = problem.free[index]
        low, high = problem.law.parameter(name).bounds
        columns.append(problem.law.to_coordinates(name, np.clip(moved[:, column], low, high)))
    return np.stack(columns, axis=1)
