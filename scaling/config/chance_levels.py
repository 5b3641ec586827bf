"""Chance levels: the value of each router metric under random routing. Needs NumPy and SciPy only.

T tokens each choose k of E experts, uniformly and independently, unless a function says otherwise; k may be a mean.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np


def load_cv(n_experts: float, top_k: float, tokens: float) -> float:
    """Expected coefficient of variation of the loads, about sqrt((1 - k/E) E / (k T)).

    A load is Binomial(T, k/E), with variance k T/E (1 - k/E).
    """
    return math.sqrt(max(0.0, 1 - top_k / n_experts) * n_experts / (top_k * tokens))


def utilisation(n_experts: float, top_k: float, tokens: float) -> float:
    """Jain's index 1 / (1 + CV^2) of the loads."""
    return 1 / (1 + load_cv(n_experts, top_k, tokens) ** 2)


def max_load(n_experts: int, top_k: float, tokens: int) -> float:
    """Expected largest load over the mean load (MaxVio + 1): E[max of E independent Binomial(T, k/E)] E / (k T).

    Loads are treated as independent although they sum to k T, which underestimates the excess over 1 by up to a tenth
    at E = 8. The usual rule, sqrt(2 ln E (1 - k/E) E / (k T)), overestimates it by 10 to 40 %.
    """
    from scipy import stats

    if top_k >= n_experts:
        return 1.0
    loads = np.arange(tokens + 1)
    at_most = stats.binom.cdf(loads, tokens, top_k / n_experts) ** n_experts
    return float(np.sum(1 - at_most)) * n_experts / (top_k * tokens)


def distinct(n_experts: int, top_k: float, tokens: int) -> float:
    """Experts that a batch of tokens activates, E (1 - (1 - k/E)^b)."""
    return n_experts * (1 - max(0.0, 1 - top_k / n_experts) ** tokens)


def saturation(n_experts: int, top_k: float) -> float:
    """Share of a token's experts that an independent choice also picks, k/E; the change rate is 1 minus that."""
    return min(1.0, top_k / n_experts)


def specialisation(n_experts: int, assignments: float, classes: int, class_entropy: float) -> float:
    """Share of a token's class that its expert appears to reveal when the two are independent.

    The mutual information of a table of counts is biased upwards by (C - 1)(E - 1) / (2 n) nats (Miller 1955), here
    divided by the entropy of the class. For k > 1 it is slightly high: the choices of one token are not independent.
    """
    if class_entropy <= 0:
        return 0.0
    return min(1.0, (classes - 1) * (n_experts - 1) / (2 * assignments * class_entropy))


def dropped(n_experts: int, top_k: float, tokens: int, rows: int) -> float:
    """Share of assignments that experts with room for `rows` tokens drop: E[max(0, load - rows)] E / (k T)."""
    from scipy import stats

    load = stats.binom(tokens, min(1.0, top_k / n_experts))
    over = np.arange(rows + 1, tokens + 1)
    return float(np.sum(load.pmf(over) * (over - rows))) * n_experts / (top_k * tokens)


# ------------------------------------------------------------------- experts per token, where the router decides it


@functools.lru_cache(maxsize=256)
def gumbel_active(n_experts: int, tau: float, draws: int = 4000) -> float:
    """Experts above the threshold of a Gumbel softmax at equal logits, simulated (arXiv 2112.14397)."""
    noise = np.random.default_rng(0).gumbel(size=(draws, n_experts)) / tau
    gates = np.exp(noise - noise.max(axis=1, keepdims=True))
    gates /= gates.sum(axis=1, keepdims=True)
    return float(np.mean(np.sum(gates > threshold(n_experts), axis=1)))


def threshold(n_experts: int) -> float:
    """The gate below which dense-to-sparse drops an expert: .001 as released, or a tenth of 1/E if that is less, so
    that equal gates over hundreds of experts are not all dropped."""
    return min(0.001, 0.1 / n_experts)


def temperature(progress: Any, tau_max: float, tau_min: float, anneal: str) -> Any:
    """Temperature at `progress` 0 to 1 of the annealing: tau_max (tau_min / tau_max)^progress, or linear."""
    if anneal == "linear":
        return tau_max - (tau_max - tau_min) * progress
    return tau_max * (tau_min / tau_max) ** progress


def dense_to_sparse(n_experts: int, tau_max: float, tau_min: float, anneal: str, until: float = 1.0) -> float:
    """Mean experts per token over the first `until` of the annealing, for equal logits; others activate fewer."""
    points = (np.arange(16) + 0.5) / 16 * until
    return float(np.mean([gumbel_active(n_experts, temperature(at, tau_max, tau_min, anneal)) for at in points]))


@functools.lru_cache(maxsize=256)
def entropy_or_top_p(n_experts: int, top_k: int, q: float, entropy: float, top_p: float, crossing: bool) -> float:
    """Experts per token of the Tsallis hybrid (arXiv 2504.00661) for logits of variance 1, as in an untrained router,
    from a simulation of 20,000 tokens. For trained routers the measured number is used instead."""
    logits = np.random.default_rng(0).normal(size=(20_000, n_experts))
    p = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    p = -np.sort(-p, axis=1)
    below = np.cumsum(p, axis=1) - (p if crossing else 0)
    chosen = below < top_p if crossing else np.minimum(below, 1) <= top_p
    chosen |= np.arange(n_experts) < top_k
    if entropy < 1:
        if abs(q - 1) < 1e-4:
            normalised = -np.sum(p * np.log(p), axis=1) / np.log(n_experts)
        else:
            normalised = (1 - np.sum(p**q, axis=1)) / (1 - n_experts ** (1 - q))
        chosen |= (normalised > entropy)[:, None]
    return float(np.mean(np.sum(chosen, axis=1)))
