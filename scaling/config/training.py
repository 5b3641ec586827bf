"""Settings of the optimiser and the schedule, and the rule for the learning rate."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from scaling.config.fields import Count, Frozen, Real, Whole
from scaling.config.optimisers import ABSENT, OPTIMISERS, OPTIONS


def peak_learning_rate(d_model: int, n_layers: int) -> float:
    """The default peak learning rate of AdamW, .005 (64 / d_model) (2 / n_layers)^.5, for every E and k.

    Inversely proportional to the width, as in the maximal update parametrisation for Adam's hidden matrices (arXiv
    2203.03466, table 3), and to the square root of the depth (arXiv 2310.02244, table 1). It depends on the shape and
    never on the token budget, so that cells which differ only in `tokens` share one trajectory up to their cooldowns
    (arXiv 2405.18392). Checked at widths 32, 64 and 128, two depths, E = 1, 8 and 32 and three budgets
    (results/tuning/): compared with the best rate, the rule costs less than the spread between seeds. The optimum falls
    by a sixth from E = 1 to 8 and no further at 32 (arXiv 2502.05172 has E^-0.25), so the rule ignores E and dense
    twins train at the same rate. For another batch size set `lr`, or sweep it.
    """
    return LR_AT_64 * (64 / d_model) * math.sqrt(2 / n_layers)


LR_AT_64 = 5e-3  # at two layers


def _optimiser(name: str) -> str:
    if name not in OPTIMISERS:
        hint = f"; {ABSENT[name.lower()]}" if name.lower() in ABSENT else ""
        raise ValueError(f"found {name!r}; allowed: {', '.join(OPTIMISERS)}{hint}")
    return name


class TrainConfig(Frozen):
    """An optimiser with a warmup-stable-decay schedule; nothing here may depend on the token budget.

    optimiser: one of optax (scaling/training/optimiser.py). The default learning rate was measured for adamw alone, so
    every other needs an `lr`.
    beta1, beta2: of adamw and lion, and of what muon leaves to Adam.
    momentum, newton_schulz_steps: of muon.   decay_power: the second moments of adafactor decay by 1 - step^-power.
    accumulate: number of parts of a batch that are processed in turn before one optimiser step.
    remat: save memory by recomputing the activations within blocks in the backward pass.
    """

    batch_tokens: Annotated[Count, Field(le=10**12)] = 512
    seq_len: Annotated[Count, Field(le=10**8)] = 128
    lr: Annotated[Real, Field(gt=0)] | None = None
    warmup_tokens: Whole = 32_768
    cooldown: Annotated[Real, Field(gt=0, le=1)] = 0.2
    optimiser: Annotated[str, AfterValidator(_optimiser)] = "adamw"
    weight_decay: Annotated[Real, Field(ge=0)] = 0.1
    beta1: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[Real, Field(ge=0, lt=1)] = 0.95
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.95
    newton_schulz_steps: Annotated[Count, Field(le=20)] = 5
    decay_power: Annotated[Real, Field(gt=0, le=1)] = 0.8
    grad_clip: Annotated[Real, Field(gt=0)] = 1.0
    accumulate: Count = 1
    remat: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.batch_tokens % (self.seq_len * self.accumulate):
            raise ValueError(
                f"batch_tokens={self.batch_tokens} must be a multiple of seq_len={self.seq_len} times "
                f"accumulate={self.accumulate}"
            )
        if self.optimiser != "adamw" and self.lr is None:
            raise ValueError(
                f"optimiser={self.optimiser} has no default learning rate: ours was measured for adamw "
                "(results/tuning); set `lr`, best after a sweep of it"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """The fields that shape a training, without those of other optimisers."""
        used = OPTIMISERS[self.optimiser].options
        idle = {name for name in OPTIONS if name not in used}
        if self.optimiser == "adamw":  # cells from before there were others keep their run_id
            idle.add("optimiser")
        return {name: value for name, value in self.model_dump(mode="json").items() if name not in idle}

    @property
    def sequences(self) -> int:
        """Sequences of one optimiser step."""
        return self.batch_tokens // self.seq_len

    def devices(self, at_most: int) -> int:
        """Devices over which a step is split: the most that divide the sequences of a part of the batch evenly."""
        return math.gcd(self.sequences // self.accumulate, at_most)
