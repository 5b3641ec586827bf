"""The compiled programs of a shape: its first state and its step, on the devices of a cell."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from scaling.config import ModelConfig, TrainConfig
from scaling.layers.placement import Placement
from scaling.training.kept import kept
from scaling.training.step import BATCH, State, first_params, mesh_of, optimiser, quick, specs_of, step_function


class Program:
    """The compiled first state and step of a shape, on the devices of a cell. `trunks` of them side by side, if given."""

    def __init__(
        self,
        model: ModelConfig,
        vocab_size: int,
        train: TrainConfig,
        *,
        packed: bool,
        kernel: str,
        where: Placement,
        devices: Sequence[jax.Device],
        trunks: int | None = None,
    ) -> None:
        wanted = (model, vocab_size, train, packed, kernel, where, trunks)
        self._first, self.step, self.shape = kept("step", wanted, devices, lambda: _build(*wanted, devices))
        if where.devices > 1:
            mesh = mesh_of(where, devices)
            self.state = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs_of(self.shape))
        else:
            self.state = SingleDeviceSharding(devices[0])

    def first(self, seeds: Sequence[int]) -> State:
        """The state before training: weights are a function of the seed alone. One state for one seed, else stacked."""
        states = [self._first(jax.random.key(seed)) for seed in seeds]
        state = states[0] if len(states) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        return jax.device_put(state, self.state)

    def copy(self, state: State) -> State:
        """For a branch: the step takes over the buffers that it is given."""
        return jax.tree.map(jnp.copy, state)

    @property
    def peak_bytes(self) -> int:
        """Memory that a step needs at most on one device, as the compiler has laid it out."""
        known: Any = self.step.memory_analysis()
        arguments = known.argument_size_in_bytes + known.output_size_in_bytes - known.alias_size_in_bytes
        return int(arguments + known.temp_size_in_bytes)


def _build(
    model: ModelConfig,
    vocab_size: int,
    train: TrainConfig,
    packed: bool,
    kernel: str,
    where: Placement,
    trunks: int | None,
    devices: Sequence[jax.Device],
) -> tuple[Any, Any, Any]:
    """The compiled first state and step, and the shape of the state."""
    step = step_function(model, vocab_size, train, packed=packed, kernel=kernel, where=where)

    def first(key: jax.Array) -> State:
        params = first_params(model, vocab_size, key)
        return State(params, optimiser(train).init(params))

    key = jax.random.key(0)
    shape = jax.eval_shape(first, key)
    batch = jax.ShapeDtypeStruct((train.sequences, train.seq_len + 1), jnp.int32)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    places: tuple[Any, Any] = (SingleDeviceSharding(devices[0]),) * 2
    if where.devices > 1:
        mesh, specs, whole = mesh_of(where, devices), specs_of(shape), PartitionSpec()
        step = jax.shard_map(step, mesh=mesh, in_specs=(specs, BATCH, whole), out_specs=(specs, whole), check_vma=False)
        places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs), NamedSharding(mesh, BATCH)
    if trunks is not None:
        step, shape, batch, rate = jax.vmap(step), *(_stacked(s, trunks) for s in (shape, batch, rate))
    jitted = jax.jit(step, donate_argnums=0, in_shardings=(*places, None))
    return quick(first, key), jitted.lower(shape, batch, rate).compile(), shape


def _stacked(tree: Any, n: int) -> Any:
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((n, *s.shape), s.dtype), tree)


@functools.lru_cache(maxsize=32)
def program(
    model: ModelConfig,
    vocab_size: int,
    train: TrainConfig,
    *,
    packed: bool,
    kernel: str,
    where: Placement,
    devices: tuple[jax.Device, ...],
    trunks: int | None = None,
) -> Program:
    """The program of a shape: cells of one shape in one process share it. `train` without what varies among cells."""
    return Program(model, vocab_size, train, packed=packed, kernel=kernel, where=where, devices=devices, trunks=trunks)
