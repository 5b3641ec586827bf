"""Stacking: how well each published law bears out a few runs, once it is shifted to their level.

Runs of another corpus and tokenizer have another loss, and a law that was fitted elsewhere misses them in a way of its
own, from run to run alike, which no number of runs averages out. So a draw k of a law weighs as much as the runs are
likely under

    ln L_i = a + ln L_k(x_i) + t b(x_i) + s z_i

with any offset a alike, run noise s z_i, and an error t b that all runs have in common: b is normal, with the
covariance of the laws' own predictions of these runs around their mean (each at the runs' level), so that with t = 1 a
law errs on another corpus as much as published laws differ. Both scales are unknown: s has the prior of a fit to few
runs (an rmse of .006, worth four runs), and ln t is normal around 0 with a deviation of ln 2. Noise alone (t = 0) would
give all weight to the least wrong of several wrong laws after a handful of runs. With t = 1 and runs without noise any
law that is exactly right is likelier than any other by a factor e^(K-1) of K laws, however many the runs.

A law weighs as much as its draws do on average, from equal weights. Runs of one trunk count as one. Besides its offset
a law keeps its shape: `scaling fit --from` moves that too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from analysis.fitting.published_spread import NOISE, NOISE_FREEDOM
from analysis.mixture.ensemble import Ensemble, shape_of, together
from analysis.mixture.readings import OFFSET, reading_law
from scaling.arrays import Array, Integers
from scaling.columns import COMPUTE, TOKENS
from scaling.errors import InputError
from scaling.formatting import listed, percent, plural

ENOUGH = 5  # trunks from which weights say something
ERROR_SPREAD = float(np.log(2.0))
"""Standard deviation of ln t: a law's error on another corpus, over how much published laws differ there."""
_NOISES = NOISE * np.exp(np.linspace(-2.0, 4.0, 49))  # s that are tried
_ERRORS = np.exp(ERROR_SPREAD * np.linspace(-3.0, 3.0, 13))  # t


@dataclass(frozen=True)
class RunErrors:
    """How far runs may lie from a law at their level: what they have in common, and noise.

    `share` is what each run counts for, of `n_trunks`. `directions` (J, n) are orthonormal patterns over the runs, each
    times the root of its share, and `variances` (J,) those of ln L along them by which laws differ.
    """

    share: Array
    n_trunks: int
    directions: Array
    variances: Array

    @classmethod
    def between(cls, predicted: Array, share: Array, n_trunks: int) -> RunErrors:
        """From what K laws predict of n runs (K, n), ln L: their covariance around the mean of the laws."""
        scaled = (predicted - (predicted @ share / n_trunks)[:, None]) * np.sqrt(share)
        _, sizes, directions = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
        variances = sizes**2 / max(len(predicted) - 1, 1)
        known = variances > 1e-12 * max(float(variances.max(initial=0.0)), NOISE**2)
        return cls(share, n_trunks, directions[known], variances[known])

    def log_likelihood(self, missed: Array) -> tuple[Array, Array]:
        """ln likelihood, to a constant, of residuals (draws, n) of ln L, (draws, s, t), with the priors of s and t; and
        the level of each draw, which makes the residuals' mean zero."""
        level = missed @ self.share / self.n_trunks
        scaled = (missed - level[:, None]) * np.sqrt(self.share)
        along = (scaled @ self.directions.T) ** 2
        rest = np.maximum(np.sum(scaled**2, axis=1) - along.sum(axis=1), 0.0)
        noise = _NOISES**2
        total = noise[:, None, None] + _ERRORS[:, None] ** 2 * self.variances
        prior = -0.5 * NOISE_FREEDOM * (np.log(noise) + NOISE**2 / noise)[:, None]
        prior = prior - 0.5 * (np.log(_ERRORS) / ERROR_SPREAD) ** 2
        wider = np.sum(np.log(total / noise[:, None, None]), axis=-1)
        determinant = max(0, self.n_trunks - 1) * np.log(noise)[:, None] + wider
        squares = rest[:, None, None] / noise[:, None] + np.einsum("dj,stj->dst", along, 1.0 / total)
        return prior - 0.5 * (determinant + squares), level


def stacked(ensemble: Ensemble, columns: Mapping[str, Array], loss: Array, trunks: Integers, source: str) -> Ensemble:
    """The ensemble with its laws weighed by runs: their columns as the laws read models, losses and trunks.

    Raises InputError where a law gives the runs no finite loss.
    """
    rng, shape = np.random.default_rng(0), shape_of(ensemble.built_as)
    _, trunk, counts = np.unique(trunks, return_inverse=True, return_counts=True)
    n_trunks = len(counts)
    laws = {member.name: reading_law(member.name, shape) for member in ensemble.members}
    drawn, published = {}, []
    for member in ensemble.members:
        params = {**member.params, OFFSET: 0.0}
        draws = {name: np.array(values)[:, None] for name, values in member.own_draws.items()}
        drawn[member.name] = np.log(loss) - laws[member.name].log_loss({**params, **draws}, columns)
        published.append(np.broadcast_to(laws[member.name].log_loss(params, columns), loss.shape))
        if not (np.isfinite(drawn[member.name]).any() and np.isfinite(published[-1]).all()):
            raise InputError(f"{source}: law {member.name} gives these runs no finite loss")
    errors = RunErrors.between(np.stack(published), 1.0 / counts[trunk], n_trunks)
    evidence: dict[str, float] = {}
    selected: dict[str, tuple[int, ...]] = {}
    offsets: dict[str, tuple[float, ...]] = {}
    levels: dict[str, float] = {}
    for member, at_estimate in zip(ensemble.members, published, strict=True):
        log_weight, level = errors.log_likelihood(drawn[member.name])
        weight = np.exp(log_weight - np.nanmax(log_weight)).ravel()
        weight = np.where(np.isfinite(weight), weight, 0.0)
        evidence[member.name] = float(np.nanmax(log_weight) + np.log(weight.sum() / len(level)))
        places = (np.arange(len(level)) + rng.random()) / len(level)
        cells = np.searchsorted(np.cumsum(weight) / weight.sum(), places)
        cells = rng.permutation(np.minimum(cells, len(weight) - 1))
        chosen, noise, _ = np.unravel_index(cells, log_weight.shape)
        moved = level[chosen] + _NOISES[noise] / np.sqrt(n_trunks) * rng.standard_normal(len(chosen))
        selected[member.name], offsets[member.name] = tuple(chosen.tolist()), tuple(moved.tolist())
        levels[member.name] = float((np.log(loss) - at_estimate) @ errors.share / n_trunks)
    most = max(evidence.values())
    prior = {member.name: member.weight for member in ensemble.members}
    raw = {name: prior[name] * float(np.exp(value - most)) for name, value in evidence.items()}
    weights = {name: value / sum(raw.values()) for name, value in raw.items()}
    found = together(tuple(weights), weights, selected, offsets, levels)
    compute = 6.0 * columns["n_active"] * columns[TOKENS]
    shares = listed(f"{name} {percent(weight)}" for name, weight in weights.items())
    told = (
        f"the laws are weighed by {plural(n_trunks, 'trunk')} of {source}, each shifted by one offset of ln L to their "
        f"level, as corpora and tokenizers differ: {shares}"
    )
    return replace(
        found,
        lineage=ensemble.lineage,
        weighed_by=source,
        n_trunks=n_trunks,
        n_runs=len(loss),
        domain={**found.domain, COMPUTE: (float(compute.min()), float(compute.max()))},
        warnings=(*(warning for warning in found.warnings if not warning.startswith("each law's loss")), told),
    )
