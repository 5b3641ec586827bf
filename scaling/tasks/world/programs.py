"""Compiled programs of `text-world`, kept in the process and on disk: cells that differ in exploration, seed, budget,
learning rate or number of trajectories use the same ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling.config.training import TrainConfig
from scaling.tasks.rows import code_version
from scaling.tasks.text_world import TextWorld
from scaling.tasks.world.instances import DRAWN, candidates
from scaling.tasks.world.layout import Layout
from scaling.tasks.world.learning import Learning
from scaling.tasks.world.planner import Plans, plans
from scaling.tasks.world.rollout import Settings, Walker, Walks
from scaling.tasks.world.rules import Instance
from scaling.tasks.world.vocabulary import WORDS
from scaling.training.executable_cache import load_or_compile
from scaling.training.kernel_choice import ON_CPU
from scaling.training.step import first_state

WALKS = 64  # of one call


@dataclass(frozen=True)
class Programs:
    """The planner of `DRAWN` instances, `WALKS` walks, and one step of learning."""

    plan: Callable[[Instance], Plans]
    walk: Callable[[Any, Instance, Any, jax.Array, Settings], Walks]
    learn: Callable[..., Any]


def learning_of(settings: TextWorld) -> Learning:
    """How these settings learn."""
    width = settings.text_tokens - 1
    train = TrainConfig(batch_tokens=settings.batch_texts * width, seq_len=width)
    return Learning(settings.model, train, ON_CPU if settings.n_experts > 1 else "")


def programs_of(settings: TextWorld) -> Programs:
    """The programs of these settings: of this process, from disk, or compiled."""
    return Programs(
        planner_of(settings.facts, settings.attempts),
        *_of_model(learning_of(settings), settings.facts, settings.attempts, settings.batch_texts),
    )


@functools.lru_cache(maxsize=8)
def planner_of(layout: Layout, attempts: int) -> Callable[[Instance], Plans]:
    """The planner of `DRAWN` instances of a layout, with plans of at most so many steps."""

    def compile_() -> tuple[Any, ...]:
        several = candidates(layout, DRAWN, np.random.default_rng(0))
        one = functools.partial(plans, layout, steps=attempts)
        return (jax.jit(jax.vmap(one)).lower(several).compile(),)

    (planner,) = load_or_compile("text-world-planner", (layout, attempts, _version()), jax.devices()[:1], compile_)
    return planner


@functools.lru_cache(maxsize=32)
def _of_model(learning: Learning, layout: Layout, attempts: int, batch: int) -> tuple[Any, ...]:
    def compile_() -> tuple[Any, ...]:
        key = jax.random.key(0)
        state = jax.eval_shape(functools.partial(first_state, learning.model, len(WORDS), learning.train), key)
        instances = candidates(layout, WALKS, np.random.default_rng(0))
        plan = np.zeros((WALKS, attempts, 2), np.int32)
        settings = Settings(jnp.float32(0), jnp.int32(0), jnp.bool_(False))
        text = jax.ShapeDtypeStruct((batch, learning.train.seq_len + 1), jnp.int32)
        weight = jax.ShapeDtypeStruct(text.shape, jnp.float32)
        rate = jax.ShapeDtypeStruct((), jnp.float32)
        walker = Walker(learning.network, layout, attempts)
        return (
            jax.jit(walker).lower(state.params, instances, plan, key, settings).compile(),
            jax.jit(learning).lower(state, text, weight, rate).compile(),
        )

    version = (learning, layout, attempts, batch, WALKS, _version())
    return load_or_compile("text-world", version, jax.devices()[:1], compile_)


def _version() -> str:
    return code_version("text-world")
