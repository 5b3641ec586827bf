"""Metrics of a router's choices on held-out text: saturation, change, specialisation and distinct experts.

Choices are bool arrays [L, T, E]: whether each token of a fixed text has chosen each expert of a layer at inference (no
noise, nothing dropped). Saturation and change are defined as in arXiv 2505.10860, section 5, and OLMoE, arXiv
2409.02060; `scaling/config/chance_levels.py` has the chance level of each metric.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.config import chance_levels

Choices = NDArray[np.bool_]
BATCHES = (1, 8, 64)  # tokens of a decode batch, for distinct experts
FIRST_PROBE = 16


def next_probe(step: int) -> int:
    """The first step after `step` at which the choices are recorded: 16, 20, 24, 28, 32, 40, ..., four per doubling.

    The steps do not depend on the budget, so that the budgets of a trunk share them, and become rare in long runs.
    """
    if step < FIRST_PROBE:
        return FIRST_PROBE
    every = 2 ** (step.bit_length() - 3)
    return (step // every + 1) * every


def saturation(now: Choices, final: Choices) -> float:
    """Share of the final experts that are already chosen, sum |S_t & S_t*| / sum |S_t*|; mean over layers."""
    return float(np.mean(np.sum(now & final, axis=(1, 2)) / np.maximum(1, np.sum(final, axis=(1, 2)))))


def change_rate(before: Choices, now: Choices) -> float:
    """Share of the chosen experts that were not chosen at the previous probe, sum |S_t \\ S_t-1| / sum |S_t|; mean over
    layers. The ratio of steps between probes is fixed (a seventh to a quarter more), not their difference."""
    return float(np.mean(np.sum(now & ~before, axis=(1, 2)) / np.maximum(1, np.sum(now, axis=(1, 2)))))


def distinct(choices: Choices, batch: int) -> float:
    """Mean number of experts of a layer that `batch` tokens activate, and a decode step reads, over batches and layers.

    The tokens of a batch are as far apart in the text as possible, to resemble those of different sequences.
    """
    layers, tokens, n_experts = choices.shape
    groups = max(1, tokens // batch)
    apart = choices[:, : groups * min(batch, tokens)].reshape(layers, -1, groups, n_experts)
    return float(np.mean(np.sum(np.any(apart, axis=1), axis=-1)))


def information(count_LxCxE: NDArray[np.float64]) -> tuple[float, float]:
    """Share of the information about a token's class that its expert carries, I(class; expert) / H(class), mean over
    layers; and H(class)."""
    shares, entropy = [], 0.0
    for count_CxE in count_LxCxE:
        joint = count_CxE / max(1.0, count_CxE.sum())
        by_class, by_expert = joint.sum(axis=1), joint.sum(axis=0)
        entropy = float(-np.sum(by_class * np.log(np.where(by_class > 0, by_class, 1))))
        expected = np.outer(by_class, by_expert)
        mutual = np.sum(joint * np.log(np.where(joint > 0, joint, 1) / np.where(joint > 0, expected, 1)))
        shares.append(mutual / entropy if entropy > 0 else 0.0)
    return float(np.mean(shares)), entropy


@dataclass
class ChoiceStatistics:
    """Specialisation and distinct experts, accumulated over batches."""

    classes: NDArray[np.int64]
    count_LxCxE: Any = 0.0
    distinct: dict[int, list[float]] = field(default_factory=lambda: {batch: [] for batch in BATCHES})

    def add(self, choices: Choices, id_T: NDArray[np.integer[Any]]) -> None:
        """Add the choices of tokens with these ids."""
        of_class = np.eye(self.classes.max() + 1)[self.classes[id_T]]
        self.count_LxCxE = self.count_LxCxE + np.einsum("tc,lte->lce", of_class, choices.astype(np.float64))
        for batch, means in self.distinct.items():
            if batch <= choices.shape[1]:
                means.append(distinct(choices, batch))

    def metrics(self) -> dict[str, float]:
        """The columns of the added choices, with the chance level of specialisation."""
        n_experts = self.count_LxCxE.shape[-1]
        used = np.sum(self.count_LxCxE, axis=(1, 2)).mean()
        shared_information, entropy = information(self.count_LxCxE)
        present = int(np.sum(self.count_LxCxE.sum(axis=(0, 2)) > 0))
        row = {
            "specialisation": shared_information,
            "specialisation_chance": chance_levels.specialisation(n_experts, used, present, entropy),
        }
        return row | {f"distinct_{batch}": float(np.mean(means)) for batch, means in self.distinct.items() if means}


def batch_chances(
    n_experts: int, experts_per_token: float, tokens: int, capacity: int | None = None
) -> dict[str, float]:
    """Chance levels of batch metrics at this number of tokens and of experts per token.

    capacity: tokens that an expert accepts; None if nothing is dropped.
    """
    k = _clipped(experts_per_token, n_experts)
    largest = chance_levels.max_load(n_experts, k, tokens)
    return {
        "load_cv_chance": chance_levels.load_cv(n_experts, k, tokens),
        "max_load_chance": largest,
        "max_vio_chance": largest - 1,
        "router_entropy_chance": 1.0,  # uniform gates
        "utilisation_chance": chance_levels.utilisation(n_experts, k, tokens),
        "dropped_frac_chance": 0.0 if capacity is None else chance_levels.dropped(n_experts, k, tokens, capacity),
    }


def choice_chances(n_experts: int, experts_per_token: float) -> dict[str, float]:
    """Chance levels of the metrics of choices at inference, at this number of experts per token."""
    k = _clipped(experts_per_token, n_experts)
    saturated = chance_levels.saturation(n_experts, k)
    levels = {"saturation_chance": saturated, "change_rate_chance": 1 - saturated}
    return levels | {f"distinct_{batch}_chance": chance_levels.distinct(n_experts, k, batch) for batch in BATCHES}


def _clipped(experts_per_token: float, n_experts: int) -> float:
    return min(max(experts_per_token, 1e-9), n_experts)


def complete_curves(
    probes: dict[int, Choices],
    final: Choices,
    statistics: Callable[[Choices], dict[str, float]],
    rows: list[dict[str, Any]],
) -> None:
    """Fill the columns of the curves that come from probes: the latest since the previous row, else null.

    `final`: the choices of the trained model on the same text.   `statistics`: computes the columns from choices.
    """
    before = 0
    for row in rows:
        inside = sorted(step for step in probes if before < step <= row["step"])
        before = row["step"]
        now = final if row is rows[-1] else probes[inside[-1]] if inside else None
        if inside:
            row["change_rate"] = change_rate_at(probes, inside[-1])
        if now is None:
            continue
        row["saturation"] = saturation(now, final)
        row |= statistics(now) | choice_chances(now.shape[-1], float(np.mean(np.sum(now, axis=-1))))


def change_rate_at(probes: dict[int, Choices], step: int) -> float | None:
    """The change rate from the previous probe to the one at this step; None for the first."""
    earlier = [other for other in probes if other < step]
    return change_rate(probes[max(earlier)], probes[step]) if earlier else None


def choices_at(probes: dict[int, Choices], steps: int, share: float) -> Choices | None:
    """The choices at the last probe within this share of the training, or None."""
    earlier = [step for step in probes if step <= share * steps]
    return probes[max(earlier)] if earlier else None
