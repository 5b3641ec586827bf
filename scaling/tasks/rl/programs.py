"""Compiled programs of a learner, kept in the process and on disk: cells that differ in seed, budget, learning rate,
exploration or the weight of a reward use the same ones."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from scaling.tasks.rl.environment import environments
from scaling.tasks.rl.network import Inside, QNetwork
from scaling.tasks.rl.pqn import PQN, Learner, Records, Schedule, Shape
from scaling.tasks.rl.rewards.rules import rule_of
from scaling.tasks.rows import code_version
from scaling.tasks.value_rl import ValueRL
from scaling.training.executable_cache import load_or_compile

ROOM = 64  # rounds of a call at most
ARGUMENTS = ("lr", "decay_frames", "exploration_frames", "epsilon", "reward_weight")
"""Settings that are arguments of programs."""


@dataclass(frozen=True)
class Programs:
    """`PQN`'s functions, compiled; `advance` takes at most `ROOM` rounds."""

    start: Callable[[jax.Array], Learner]
    advance: Callable[[Learner, Schedule, Any], tuple[Learner, Records]]
    evaluate: Callable[[Any, jax.Array, Any], tuple[jax.Array, jax.Array]]
    inspect: Callable[[Any, jax.Array], Inside]
    decide: Callable[[Any, jax.Array], jax.Array]


def schedule_of(settings: ValueRL) -> Schedule:
    """The settings that programs take as arguments."""
    return Schedule(**{name: jnp.float32(getattr(settings, name)) for name in ARGUMENTS})


def learner_of(settings: ValueRL) -> PQN:
    """The learner of these settings."""
    facts = settings.facts
    shape = Shape(settings.n_steps, settings.n_minibatches, settings.n_epochs, settings.discount, settings.trace)
    network = QNetwork(settings.layer, settings.d_conv, facts.actions)
    rule = rule_of(settings.reward, settings.game, settings.reward_program, settings.discount)
    return PQN(network, environments(settings.game, settings.n_envs), shape, rule)


def programs_of(settings: ValueRL) -> Programs:
    """The programs of these settings: of this process, from disk, or compiled. Raises InputError as `environments`."""
    return _programs(ValueRL(**{name: value for name, value in settings.identity().items() if name not in ARGUMENTS}))


@functools.lru_cache(maxsize=32)
def _programs(settings: ValueRL) -> Programs:
    learner = learner_of(settings)

    def compile_() -> tuple[Any, ...]:
        seed, share = jax.random.key(0), jnp.float32(0)
        state = jax.eval_shape(learner.start, seed)
        schedule = Schedule(*(share for _ in ARGUMENTS))
        seen = jax.eval_shape(learner.evaluate, state.variables, seed, share)[1]
        advance = functools.partial(learner.advance, room=ROOM)
        arguments: tuple[tuple[Any, tuple[Any, ...]], ...] = (
            (learner.start, (seed,)),
            (advance, (state, schedule, jnp.int32(0))),
            (learner.evaluate, (state.variables, seed, share)),
            (learner.inspect, (state.variables, seen)),
            (learner.decide, (state.variables, jax.eval_shape(lambda a: a[:1], seen))),
        )
        return tuple(jax.jit(function).lower(*given).compile() for function, given in arguments)

    key = (learner.network, settings.game, settings.n_envs, learner.shape, learner.rule, ROOM)
    version = (code_version("value-rl"), importlib.metadata.version("gymnax"))
    return Programs(*load_or_compile("value-rl", (key, version), jax.devices()[:1], compile_))
