"""Stacking: how well each published law bears out a few runs, once it is shifted to their level.

Runs of another corpus and tokenizer have another loss. So each draw of each law is shifted by one offset of ln L, and
weighs as much as the runs are likely under it: with noise of unknown size, whose prior is that of a fit to few runs (an
rmse of .006, worth four runs), and any offset alike. A law weighs as much as its draws do on average, from equal
weights. Runs of one trunk count as one. Besides its offset a law keeps its shape: `scaling fit --from` moves that too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from analysis.fitting.published_spread import NOISE, NOISE_FREEDOM
from analysis.mixture.ensemble import Ensemble, shape_of, together
from analysis.mixture.readings import OFFSET, reading_law
from scaling.arrays import Array, Integers
from scaling.columns import COMPUTE, TOKENS
from scaling.errors import InputError
from scaling.formatting import listed, percent, plural

ENOUGH = 5  # trunks from which weights say something


def stacked(ensemble: Ensemble, columns: Mapping[str, Array], loss: Array, trunks: Integers, source: str) -> Ensemble:
    """The ensemble with its laws weighed by runs: their columns as the laws read models, losses and trunks.

    Raises InputError where no law gives the runs a finite loss.
    """
    rng, shape = np.random.default_rng(0), shape_of(ensemble.built_as)
    _, trunk, counts = np.unique(trunks, return_inverse=True, return_counts=True)
    share = 1.0 / counts[trunk]
    n_trunks, freedom = len(counts), NOISE_FREEDOM + max(0, len(counts) - 1)
    evidence: dict[str, float] = {}
    selected: dict[str, tuple[int, ...]] = {}
    offsets: dict[str, tuple[float, ...]] = {}
    levels: dict[str, float] = {}
    for member in ensemble.members:
        law = reading_law(member.name, shape)
        drawn = {name: np.array(values)[:, None] for name, values in member.own_draws.items()}
        missed = np.log(loss) - law.log_loss({**member.params, **drawn, OFFSET: 0.0}, columns)
        level = missed @ share / n_trunks
        squares = (missed - level[:, None]) ** 2 @ share
        log_weight = -0.5 * freedom * np.log(NOISE_FREEDOM * NOISE**2 + squares)
        if not np.isfinite(log_weight).any():
            raise InputError(f"{source}: law {member.name} gives these runs no finite loss")
        weight = np.exp(log_weight - log_weight.max())
        evidence[member.name] = float(log_weight.max() + np.log(weight.mean()))
        chosen = np.searchsorted(
            np.cumsum(weight) / weight.sum(), (np.arange(len(weight)) + rng.random()) / len(weight)
        )
        chosen = rng.permutation(np.minimum(chosen, len(weight) - 1))
        variance = (NOISE_FREEDOM * NOISE**2 + squares[chosen]) / rng.chisquare(freedom, len(chosen))
        moved = level[chosen] + np.sqrt(variance / n_trunks) * rng.standard_normal(len(chosen))
        selected[member.name], offsets[member.name] = tuple(chosen.tolist()), tuple(moved.tolist())
        at_estimate = np.log(loss) - law.log_loss({**member.params, OFFSET: 0.0}, columns)
        levels[member.name] = float(at_estimate @ share / n_trunks)
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
