"""What training runs: the first state and the compiled step, on the devices of a cell."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from scaling.model.sharding import BATCH, partition_specs
from scaling.training.executable_cache import load_or_compile
from scaling.training.initial_values import initial_values, initialisation_of
from scaling.training.phases import spawn_experts
from scaling.training.step import State, StepFunction, first_state


class Program:
    """The first state and the compiled step of a step function, on the devices of a cell.

    trunks: number of trunks side by side; None for one without the leading axis.
    state_shape, state_sharding: shape and sharding of the state of `step`.
    """

    def __init__(self, function: StepFunction, devices: Sequence[jax.Device], trunks: int | None = None) -> None:
        self._function, self._trunks = function, trunks
        self._first, self.step, one_trunk = load_or_compile(
            "step", (function, trunks), devices, lambda: _compiled(function, devices, trunks)
        )
        self.state_sharding, _ = function.placement.shardings(one_trunk, devices)
        self.state_shape = one_trunk if trunks is None else _stacked(one_trunk, trunks)

    def first(self, seeds: Sequence[int]) -> State:
        """The state before training, which depends only on the seed; stacked for several seeds."""
        states = [initial_values(self._first, seed) for seed in seeds]
        state = states[0] if len(states) == 1 else jax.tree.map(lambda *leaves: np.stack(leaves), *states)
        return jax.device_put(state, self.state_sharding)

    def copy(self, state: State) -> State:
        """A copy of the state for a branch, because the step takes over the buffers of its input."""
        return jax.device_put(state, self.state_sharding, may_alias=False)  # `jnp.copy` compiles for every shape

    def spawn(self, state: State) -> State:
        """The state at the end of a dense phase, with all experts copied from the first (`training/phases.py`)."""
        spawn = functools.partial(_spawned, self._function.model.masked_share)
        spawn = spawn if self._trunks is None else jax.vmap(spawn)
        params, moments = jax.jit(spawn)(state.params, state.moments, jax.random.wrap_key_data(state.key))
        return jax.device_put(State(params, moments, state.key), self.state_sharding)

    @property
    def peak_bytes(self) -> int:
        """Peak memory of a step on one device, as allocated by the compiler."""
        memory: Any = self.step.memory_analysis()
        arguments = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        return int(arguments + memory.temp_size_in_bytes)


def _spawned(masked_share: float, params: Any, moments: Any, key: jax.Array) -> tuple[Any, Any]:
    """Weights and moments of one trunk after `spawn_experts`, with the same masks."""
    spawn = functools.partial(spawn_experts, masked_share=masked_share, key=jax.random.fold_in(key, 0x5EED))
    adam, *others = moments
    adam = adam._replace(mu=spawn(adam.mu), nu=spawn(adam.nu))
    return {**params, "params": spawn(params["params"])}, (adam, *others)


def _compiled(function: StepFunction, devices: Sequence[jax.Device], trunks: int | None) -> tuple[Any, Any, Any]:
    """The first state, the compiled step, and the shape of the state of one trunk."""
    train, placement = function.train, function.placement
    first, state = initialisation_of(functools.partial(first_state, function.model, function.vocab_size, train))
    batch = jax.ShapeDtypeStruct((train.sequences, train.seq_len + 1), jnp.int32)
    arguments: tuple[Any, ...] = (state, batch, jax.ShapeDtypeStruct((), jnp.float32))
    specs, whole = partition_specs(state), PartitionSpec()
    step = placement.split(function, devices, in_specs=(specs, BATCH, whole), out_specs=(specs, whole))
    if trunks is not None:
        step, arguments = jax.vmap(step), tuple(_stacked(tree, trunks) for tree in arguments)
    jitted = jax.jit(step, donate_argnums=0, in_shardings=(*placement.shardings(state, devices), None))
    return first, jitted.lower(*arguments).compile(), state


def _stacked(tree: Any, n: int) -> Any:
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((n, *s.shape), s.dtype), tree)


program = functools.lru_cache(maxsize=32)(Program)
"""The program of a step function, shared by the cells of one shape in a process."""
