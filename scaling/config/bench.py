"""Where latency is measured, and what a cell occupies."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from scaling.config.fields import Count, Frozen, Real


class BenchConfig(Frozen):
    """Where latency is measured: prefill and one decode step at every (batch, context)."""

    batch: tuple[Count, ...] = (1, 8)
    context: tuple[Count, ...] = (128,)
    repeats: Annotated[Count, Field(ge=5)] = 15


class Resources(Frozen):
    """What one cell occupies while it trains; latency always has the whole machine.

    Each CPU thread, or each whole GPU, is a device, over all of which the cell's sequences are spread.
    expert_parallel: experts are spread too, with `dispatch: grouped`. Each device then holds its own experts alone and
    gets their tokens from the others, instead of holding every expert and adding up gradients once a step: less memory,
    more waiting.   checkpoint_minutes: how much of a long trunk a kill may cost; 0 keeps no checkpoints.
    """

    cpus: Count = 1
    gpus: Annotated[Real, Field(ge=0)] = 0.0
    expert_parallel: bool = False
    checkpoint_minutes: Annotated[Real, Field(ge=0)] = 5.0
