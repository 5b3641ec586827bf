"""Warmup-stable-decay: the learning rate of a step."""

from __future__ import annotations

import math

from scaling.config.run import RunConfig


def learning_rate(config: RunConfig, step: int) -> float:
    """Rate of optimiser step `step` (0-based): linear warm-up, constant, then the cooldown 1 - sqrt((n - (N - N_d)) /
    N_d).

    arXiv 2405.18392, eq. 1 with N steps and N_d = `cooldown_steps`, taken at (n + 1)/(N_d + 1) so that neither the
    first cooldown step repeats the peak nor the last one has a rate of zero. Before the cooldown the rate does not
    depend on the budget.
    """
    warmup = math.ceil(config.train.warmup_tokens / config.train.batch_tokens)
    peak = config.learning_rate
    if step < warmup:
        return peak * (step + 1) / warmup
    into = step - (config.steps - config.cooldown_steps)
    if into < 0:
        return peak
    return peak * (1.0 - math.sqrt((into + 1) / (config.cooldown_steps + 1)))
