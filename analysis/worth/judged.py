"""Candidate runs as judged: ln speedup of each and of all together, with the draws of the law and the runs' noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.decision.lifetime_cost import Pricing
from analysis.decision.recommend import some_draws, with_settings
from analysis.decision.recommendation import MOST_DRAWS
from analysis.decision.size_search import Optimum
from analysis.decision.training_price import training_price
from analysis.decision.value_of_information import Noise, run_noise
from analysis.fitting.fit import Fit
from analysis.fitting.fitted_to import seed_noise
from analysis.tables.runs import RunTable
from analysis.worth.candidate import Against, Candidates, matched, require_baseline
from analysis.worth.equal_loss import Comparison
from analysis.worth.prices import Prices
from analysis.worth.speedup import Sample, slope_weights
from scaling.arrays import Array, Booleans

_NOISE_DRAWS, _SEED = 400, 0  # where the law has no draws
_LEAST_SPAN = np.log(1.5)  # of the runs' compute, below which there is no trend
KINDS: tuple[Against, ...] = ("own shape", "frontier")
_STEP = 1e-3  # of ln loss, for the slope of ln speedup in it


@dataclass(frozen=True)
class Line:
    """ln speedup of several runs: its weighted `mean`, at their centre, and its `slope` in ln C (None: one budget)."""

    mean: Sample
    slope: Sample | None


@dataclass(frozen=True)
class Judged:
    """`each` holds ln speedup (runs,) in compute as it was asked for, `estimates` that of both ways at the estimate,
    `compute` and `time` the line through those that count; `kept` marks the runs whose loss the baseline reaches,
    `centre` is their weighted geometric mean of compute. `noise` is the deviation of ln loss of a run, `excess` by how
    much more the runs scatter about their line."""

    runs: Candidates
    each: Sample
    estimates: Mapping[Against, Array]
    compute: Line
    time: Line
    kept: Booleans
    centre: float
    noise: float
    excess: float


def judge(fit: Fit, table: RunTable, prices: Prices, against: Against) -> Judged:
    """Compare every run with the baseline, and all runs together. Raises InputError as `require_baseline` does."""
    question = prices.question
    compared = Comparison(
        with_settings(fit, question), require_baseline(fit, question.reference_experts), question.family
    )
    runs = Candidates.of(table)
    noise = run_noise(fit)
    noise = replace(noise, deviation=max(noise.deviation, seed_noise(table) or 0.0))
    method = _Method(compared, runs, prices.timed)
    estimates = {kind: method.logs(kind, fit.params, runs.log_loss[None])[0][0] for kind in KINDS}
    estimate = estimates[against]
    kept = np.isfinite(estimate)
    if not kept.any():
        nothing = Line(Sample(np.array(np.nan)), None)
        return Judged(runs, Sample(estimate), estimates, nothing, nothing, kept, np.nan, noise.deviation, 1.0)
    steps = [method.logs(against, fit.params, runs.log_loss[None] + step)[0][0] for step in (-_STEP, _STEP)]
    with np.errstate(invalid="ignore"):
        steepness = np.where(kept, np.abs(steps[1] - steps[0]) / (2 * _STEP), np.nan)
    spread = noise.deviation * np.where(np.isfinite(steepness), steepness, np.nanmax(steepness))
    weights = np.where(kept, spread**-2.0, 0.0)
    log_flops = np.log(runs.train_flops)
    has_trend = float(np.ptp(log_flops[kept])) >= _LEAST_SPAN
    excess = _excess(estimate[kept], log_flops[kept], weights[kept], has_trend=has_trend)
    samples = _samples(method, fit, noise, against)
    compute, time = (_scattered(sample, np.sqrt(excess**2 - 1.0) * spread) for sample in samples)
    return Judged(
        runs=runs,
        each=samples[0],
        estimates=estimates,
        compute=_line(compute, kept, log_flops, weights, has_trend=has_trend),
        time=_line(time, kept, log_flops, weights, has_trend=has_trend),
        kept=kept,
        centre=float(np.exp(np.average(log_flops, weights=weights))),
        noise=noise.deviation,
        excess=excess,
    )


@dataclass(frozen=True)
class _Method:
    """The runs, what they are compared with, and what time costs."""

    compared: Comparison
    runs: Candidates
    timed: Pricing

    def logs(
        self, against: Against, params: Mapping[str, Any], log_loss: Array, *, drawn: bool = False
    ) -> tuple[Array, Array]:
        """ln speedup of every run (rows, runs) in compute and in time, if it had measured `log_loss` (rows, runs)."""
        baseline = matched(self.compared, self.runs, against, params, log_loss)
        by_compute = np.log(baseline.value) - np.log(self.runs.train_flops)
        of_runs = self._log_time_of_runs(len(log_loss), drawn=drawn)
        of_baseline = self._log_time(self.compared.baseline_experts, baseline, drawn=drawn)
        return by_compute, np.where(np.isfinite(by_compute), of_baseline - of_runs, by_compute)

    def _log_time_of_runs(self, rows: int, *, drawn: bool) -> Array:
        found = np.empty((rows, len(self.runs)))
        for e in np.unique(self.runs.experts):
            of_e = self.runs.experts == e
            sizes, tokens = (np.tile(values[of_e], (rows, 1)) for values in (self.runs.n_active, self.runs.tokens))
            found[:, of_e] = self._log_time(int(e), Optimum(sizes, tokens, tokens), drawn=drawn)
        return found

    def _log_time(self, n_experts: int, models: Optimum, *, drawn: bool) -> Array:
        space = self.compared.space(n_experts)
        price = training_price(self.timed, space, len(models.tokens), drawn=drawn)
        return np.asarray(np.log(price(space.sizes(models.n_active))) + np.log(models.tokens))


def _samples(method: _Method, fit: Fit, noise: Noise, against: Against) -> tuple[Sample, Sample]:
    """ln speedup (runs,) in compute and in time, with draws of law, noise and training speed."""
    runs, rows = method.runs, min(fit.n_draws, MOST_DRAWS) or _NOISE_DRAWS
    rng = np.random.default_rng(_SEED)
    common = rng.standard_normal((rows, int(runs.trunks.max()) + 1))[:, runs.trunks]
    own = rng.standard_normal((rows, len(runs)))
    noisy = runs.log_loss + np.sqrt(noise.of_trunk) * common + np.sqrt(noise.own) * own
    estimate = method.logs(against, fit.params, runs.log_loss[None])
    draws = method.logs(against, some_draws(fit) if fit.n_draws else fit.params, noisy, drawn=True)
    jackknife: tuple[Array, Array] | tuple[None, None] = (None, None)
    if fit.strata and fit.jackknife:
        without = np.tile(runs.log_loss, (len(fit.strata), 1))
        jackknife = method.logs(against, fit.parameter_jackknife(), without)
    compute, time = (Sample(e[0], d, j, fit.resampled) for e, d, j in zip(estimate, draws, jackknife, strict=True))
    return compute, time


def _scattered(sample: Sample, deviation: Array) -> Sample:
    """A quantity of runs (runs,) whose draws scatter by that much more, the same for compute and time."""
    if sample.draws is None:
        return sample
    normal = np.random.default_rng([_SEED, 1]).standard_normal(sample.draws.shape)
    return replace(sample, draws=sample.draws + deviation * normal)


def _line(sample: Sample, kept: Booleans, log_flops: Array, weights: Array, *, has_trend: bool) -> Line:
    """The weighted line through the runs that count; where the baseline does not reach a loss in a draw, that run has
    the largest speedup of its other draws."""
    draws = sample.draws
    if draws is not None:
        most = np.max(np.where(np.isfinite(draws), draws, -np.inf), axis=0)
        draws = np.minimum(draws, most)[:, kept]
    jackknife = None if sample.jackknife is None else sample.jackknife[:, kept]
    used = Sample(sample.estimate[kept], draws, jackknife, sample.resampled)
    mean = used.weighted(weights[kept] / weights[kept].sum())
    return Line(mean, used.weighted(slope_weights(log_flops[kept], weights[kept])) if has_trend else None)


def _excess(logs: Array, log_flops: Array, weights: Array, *, has_trend: bool) -> float:
    """sqrt(chi^2 / (n - p)) of the runs about their line, at least 1: how much more they scatter than their noise."""
    design = np.stack([np.ones(len(logs)), *([log_flops - log_flops.mean()] if has_trend else [])], axis=1)
    freedom = len(logs) - design.shape[1]
    if freedom < 1:
        return 1.0
    root = np.sqrt(weights)
    coefficients = np.linalg.lstsq(design * root[:, None], logs * root, rcond=None)[0]
    return float(max(1.0, np.sqrt(np.sum(weights * (logs - design @ coefficients) ** 2) / freedom)))
