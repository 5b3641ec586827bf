"""Over how many devices one cell is spread, and what its layers exchange with the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from scaling.config.run import RunConfig

DATA, EXPERT = "data", "expert"


@dataclass(frozen=True)
class Placement:
    """`data` x `expert` devices of one host. Sequences are spread over all of them, experts over the `expert` axis.

    Everything else is held by every device. Inside `jax.shard_map` the two axes go by the names `DATA` and `EXPERT`.
    """

    data: int = 1
    expert: int = 1

    @property
    def devices(self) -> int:
        return self.data * self.expert

    def mean(self, x: Any) -> Any:
        """Mean over all devices of values that each has of its own tokens; an array, or a tree of them."""
        return x if self.devices == 1 else jax.lax.pmean(x, (DATA, EXPERT))


SINGLE_DEVICE = Placement()


def placement_of(config: RunConfig, devices: int) -> Placement:
    """The data over all devices of a cell; experts over as many as its settings and their number allow."""
    expert = config.expert_devices(devices)
    return Placement(devices // expert, expert)
