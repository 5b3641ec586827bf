"""Settings of the latency benchmark, and the resources of a cell."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from scaling.config.fields import Count, Frozen, Real


class BenchConfig(Frozen):
    """Latency benchmark: prefill and one decode step at every (batch, context)."""

    batch: tuple[Annotated[Count, Field(le=1_000_000)], ...] = (1, 8)
    context: tuple[Annotated[Count, Field(le=100_000_000)], ...] = (128,)
    repeats: Annotated[Count, Field(ge=5, le=1_000_000)] = 15


class Resources(Frozen):
    """Resources of one cell during training; latency is always measured with the whole machine.

    A grid may give each shape its own (docs/grid.md); `run_id` does not depend on them. Each CPU thread, or each whole
    GPU, is a device, and the cell's sequences are split over all of them.
    expert_parallel: with `dispatch: grouped`, split the experts too. Each device then holds only its own experts and
    exchanges tokens, instead of holding every expert and summing gradients once per step: less memory, more waiting.
    checkpoint_minutes: interval between checkpoints of a trunk, and so the work lost if it is killed; 0 for none.
    max_minutes: time that the cell may train, after which its status is `timeout`; None for no limit.
    """

    cpus: Annotated[Count, Field(le=100_000)] = 1
    gpus: Annotated[Real, Field(ge=0, le=100_000)] = 0.0
    expert_parallel: bool = False
    checkpoint_minutes: Annotated[Real, Field(ge=0)] = 5.0
    max_minutes: Annotated[Real, Field(gt=0)] | None = None
