"""Compiled programs of a learner, kept in the process and on disk.

Those that play are of a network and its games, the others of a network alone. So a continual training uses the programs
of its games that single ones use, and cells that differ in seed, budget or a number of the schedule use the same.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from scaling.tasks.policy_rl import PolicyRL
from scaling.tasks.rl.games import SIDE
from scaling.tasks.rl.policy.examination import PROBE_ROWS, Examination, inspected_rows
from scaling.tasks.rl.policy.learner import Learner, Play, Records, Schedule, Shape
from scaling.tasks.rl.policy.network import ActorCritic, TowerInside
from scaling.tasks.rl.policy.ppo import PPO, new_moments
from scaling.tasks.rl.policy.towers import CHANNELS
from scaling.tasks.rl.policy.worlds import worlds
from scaling.tasks.rl.rewards.rule import Rule
from scaling.tasks.rl.rewards.rules import rule_of
from scaling.tasks.rows import code_version
from scaling.training.executable_cache import load_or_compile

ROOM = 64  # rounds of a call at most
ARGUMENTS = (
    "lr",
    "decay_frames",
    "discount",
    "trace",
    "clip",
    "entropy_weight",
    "value_weight",
    "most_norm",
    "reward_weight",
)
"""Settings that are arguments of programs."""


@dataclass(frozen=True)
class Playing:
    """`PPO`'s functions for some games, compiled; `advance` takes at most `ROOM` rounds."""

    begin: Callable[[jax.Array], Play]
    advance: Callable[[Learner, Schedule, Any], tuple[Learner, Records]]
    evaluate: Callable[[Any, jax.Array, Any, Any], tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class Examining:
    """`Examination`'s functions, compiled."""

    start: Callable[[jax.Array], Any]
    inspect: Callable[[Any, jax.Array, jax.Array], tuple[TowerInside, TowerInside]]
    probe: Callable[[Any, jax.Array, jax.Array], jax.Array]


def schedule_of(settings: PolicyRL, first_round: int, first_task: int) -> Schedule:
    """The numbers that programs take as arguments."""
    numbers = {name: jnp.float32(getattr(settings, name)) for name in ARGUMENTS}
    return Schedule(**numbers, first_round=jnp.int32(first_round), first_task=jnp.int32(first_task))


def network_of(settings: PolicyRL) -> ActorCritic:
    """The network of these settings."""
    return ActorCritic(*settings.towers)


def shape_of(settings: PolicyRL) -> Shape:
    """The shape of its rounds."""
    return Shape(settings.n_steps, settings.n_minibatches, settings.n_epochs)


def rules_of(settings: PolicyRL, games: tuple[str, ...]) -> tuple[Rule, ...]:
    """The rules of reward of some games; none where the environment's own is learnt from."""
    texts: dict[str, str] = dict(zip(settings.games, settings.reward_texts, strict=True))
    found = (rule_of(settings.reward, game, texts[game], settings.discount) for game in games)
    return tuple(rule for rule in found if rule is not None)


def playing_of(settings: PolicyRL, games: tuple[str, ...]) -> Playing:
    """Programs of this process, from disk, or compiled. Raises InputError as `environments`."""
    return _playing(network_of(settings), games, settings.n_envs, shape_of(settings), rules_of(settings, games))


def examining_of(settings: PolicyRL) -> Examining:
    """The same of the network alone."""
    return _examining(network_of(settings), len(settings.games))


@functools.lru_cache(maxsize=32)
def _playing(
    network: ActorCritic, games: tuple[str, ...], n_envs: int, shape: Shape, rules: tuple[Rule, ...]
) -> Playing:
    ppo = PPO(network, worlds(games, n_envs), shape, rules)

    def compile_() -> tuple[Any, ...]:
        key, whole, share = jax.random.key(0), jnp.int32(0), jnp.float32(0)
        params = jax.eval_shape(Examination(network).start, key)
        play = jax.eval_shape(ppo.begin, key)
        learner = Learner(params, jax.eval_shape(new_moments, params), play, whole, key)
        schedule = Schedule(**dict.fromkeys(ARGUMENTS, share), first_round=whole, first_task=whole)
        return _compiled(
            (ppo.begin, (key,)),
            (functools.partial(ppo.advance, room=ROOM), (learner, schedule, whole)),
            (ppo.evaluate, (params, key, whole, share)),
        )

    return Playing(*_kept("policy-rl", (network, games, n_envs, shape, rules, ROOM), compile_))


@functools.lru_cache(maxsize=32)
def _examining(network: ActorCritic, n_games: int) -> Examining:
    examination = Examination(network)

    def compile_() -> tuple[Any, ...]:
        key = jax.random.key(0)
        params = jax.eval_shape(examination.start, key)
        seen, probed = (
            (jax.ShapeDtypeStruct((rows, SIDE, SIDE, CHANNELS), bool), jax.ShapeDtypeStruct((rows,), jnp.int32))
            for rows in (inspected_rows(n_games), PROBE_ROWS)
        )
        return _compiled(
            (examination.start, (key,)), (examination.inspect, (params, *seen)), (examination.probe, (params, *probed))
        )

    return Examining(*_kept("policy-rl network", (network, n_games), compile_))


def _compiled(*wanted: tuple[Any, tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(jax.jit(function).lower(*given).compile() for function, given in wanted)


def _kept(name: str, key: Any, compile_: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    version = (code_version("policy-rl"), importlib.metadata.version("gymnax"))
    return load_or_compile(name, (key, version), jax.devices()[:1], compile_)
