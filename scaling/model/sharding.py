"""Placement of a cell on several devices, and means over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from scaling.config.run import RunConfig

DATA, EXPERT = "data", "expert"
BATCH = PartitionSpec((DATA, EXPERT))
"""Sequences are split over all devices."""


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

    def split(self, function: Callable[..., Any], devices: Sequence[jax.Device], in_specs: Any, out_specs: Any) -> Any:
        """The function on all devices, each with its part of the arguments; on one the function itself."""
        if self.devices == 1:
            return function
        mesh = self._mesh(devices)
        return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def shardings(self, tree: Any, devices: Sequence[jax.Device]) -> tuple[Any, Any]:
        """Shardings of weights or of a state, and of a batch."""
        if self.devices == 1:
            return (SingleDeviceSharding(devices[0]),) * 2
        mesh = self._mesh(devices)
        return jax.tree.map(lambda spec: NamedSharding(mesh, spec), partition_specs(tree)), NamedSharding(mesh, BATCH)

    def _mesh(self, devices: Sequence[jax.Device]) -> Mesh:
        return Mesh(np.asarray(devices).reshape(self.data, self.expert), (DATA, EXPERT))


SINGLE_DEVICE = Placement()


def placement_of(config: RunConfig, devices: int) -> Placement:
    """Sequences over all devices of a cell, experts over as many as its settings and their number allow."""
    expert = config.expert_devices(devices)
    return Placement(devices // expert, expert)


def is_expert(path: Any) -> bool:
    """Whether a weight, or its moment, belongs to single experts, which are split over devices."""
    return any(getattr(key, "key", None) == "experts" for key in path)


def partition_specs(tree: Any) -> Any:
    """Partitioning of weights or of a state: experts are split over devices, everything else is replicated."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: PartitionSpec(EXPERT) if is_expert(path) else PartitionSpec(), tree
    )
