"""The compiled programs of a shape: its first state and its step, on the devices of a cell."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.model.sharding import ALONE, Placement
from scaling.training.executable_cache import kept
from scaling.training.phases import spawned
from scaling.training.step import BATCH, State, first_state, mesh_of, places_of, quick, specs_of, step_function


@dataclass(frozen=True)
class ProgramShape:
    """What decides the programs of a cell: cells of one shape, on the same devices, share them.

    train: without what varies among cells of one program.   packed, kernel, where: as `step_function` takes them.
    trunks: so many of them side by side; None for one, without the leading axis.
    """

    model: ModelConfig
    vocab_size: int
    train: TrainConfig
    packed: bool = False
    kernel: str = "loop"
    where: Placement = ALONE
    trunks: int | None = None


class Program:
    """The compiled first state and step of a shape, on the devices of a cell."""

    def __init__(self, shape: ProgramShape, devices: Sequence[jax.Device]) -> None:
        self._shape = shape
        self._first, self.step, self.shape = kept("step", shape, devices, lambda: _build(shape, devices))
        self.state, _ = places_of(self.shape, shape.where, devices)
        if shape.trunks is not None:
            self.shape = _stacked(self.shape, shape.trunks)

    def first(self, seeds: Sequence[int]) -> State:
        """The state before training: weights are a function of the seed alone. One state for one seed, else stacked."""
        states = [self._first(jax.random.key(seed)) for seed in seeds]
        state = states[0] if len(states) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        return jax.device_put(state, self.state)

    def copy(self, state: State) -> State:
        """For a branch: the step takes over the buffers that it is given."""
        return jax.tree.map(jnp.copy, state)

    def spawn(self, state: State) -> State:
        """The state with all experts made from the first, at the end of a dense phase
        (`scaling/training/phases.py`)."""
        keys = jax.random.wrap_key_data(state.key)

        def one(params: Any, moments: Any, key: jax.Array) -> tuple[Any, Any]:
            key = jax.random.fold_in(key, 0x5EED)
            share = self._shape.model.masked_share
            adam, *others = moments
            adam = adam._replace(mu=spawned(adam.mu, share, key), nu=spawned(adam.nu, share, key))
            return {**params, "params": spawned(params["params"], share, key)}, (adam, *others)

        spawn = one if self._shape.trunks is None else jax.vmap(one)
        params, moments = jax.jit(spawn)(state.params, state.moments, keys)
        return jax.device_put(State(params, moments, state.key), self.state)

    @property
    def peak_bytes(self) -> int:
        """Memory that a step needs at most on one device, as the compiler has laid it out."""
        known: Any = self.step.memory_analysis()
        arguments = known.argument_size_in_bytes + known.output_size_in_bytes - known.alias_size_in_bytes
        return int(arguments + known.temp_size_in_bytes)


def _build(shape: ProgramShape, devices: Sequence[jax.Device]) -> tuple[Any, Any, Any]:
    """The compiled first state and step, and the shape of the state of one trunk."""
    train, where = shape.train, shape.where
    step = step_function(shape.model, shape.vocab_size, train, packed=shape.packed, kernel=shape.kernel, where=where)

    def first(key: jax.Array) -> State:
        return first_state(shape.model, shape.vocab_size, train, key)

    key = jax.random.key(0)
    state = jax.eval_shape(first, key)
    batch = jax.ShapeDtypeStruct((train.sequences, train.seq_len + 1), jnp.int32)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    places = places_of(state, where, devices)
    if where.devices > 1:
        mesh, specs, whole = mesh_of(where, devices), specs_of(state), PartitionSpec()
        step = jax.shard_map(step, mesh=mesh, in_specs=(specs, BATCH, whole), out_specs=(specs, whole), check_vma=False)
    arguments: tuple[Any, ...] = (state, batch, rate)
    if shape.trunks is not None:
        step, arguments = jax.vmap(step), tuple(_stacked(one, shape.trunks) for one in arguments)
    jitted = jax.jit(step, donate_argnums=0, in_shardings=(*places, None))
    return quick(first, key), jitted.lower(*arguments).compile(), state


def _stacked(tree: Any, n: int) -> Any:
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((n, *s.shape), s.dtype), tree)


program = functools.lru_cache(maxsize=32)(Program)
"""The program of a shape: cells of one shape in one process share it."""
