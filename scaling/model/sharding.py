"""Placement of a cell on several devices, and means over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from scaling.config.run import RunConfig

DATA, EXPERT = "data", "expert"


@dataclass(frozen=True)
class Placement:
    """`data` x `expert` devices of one host: sequences are split over all of them, experts over the `expert` axis.

    Every device holds everything else. Inside `jax.shard_map` the axes have the names `DATA` and `EXPERT`.
    """

    data: int = 1
    expert: int = 1

    @property
    def devices(self) -> int:
        return self.data * self.expert

    def mean(self, x: Any) -> Any:
        """Mean over all devices of an array, or tree of arrays, of values for each device's own tokens."""
        return x if self.devices == 1 else jax.lax.pmean(x, (DATA, EXPERT))


SINGLE_DEVICE = Placement()


def placement_of(config: RunConfig, devices: int) -> Placement:
    """Sequences over all devices of a cell, experts over as many as its settings and their number allow."""
    expert = config.expert_devices(devices)
    return Placement(devices // expert, expert)
