"""Trainings that begin with a dense model: what stands still in which phase, and how one expert becomes several."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from scaling.config.model import ModelConfig

ADDED = ("router", "adapters_gate", "adapters_up", "adapters_down")


def moving(model: ModelConfig, step: jax.Array, dense_steps: int, tree: Any) -> Any:
    """Whether each weight moves in this step, as a tree like `tree`; None where all do, always.

    With a frozen base (LoRA experts): everything but routers and adapters before the end of the dense phase, routers
    and adapters alone after it.
    """
    if model.n_experts == 1 or not model.experts_kind.frozen_base:
        return None
    base = step < dense_steps

    def moves(path: Any, _: Any) -> jax.Array:
        added = any(name in ADDED for name in _names(path))
        return jnp.float32(1 - base if added else base)

    return jax.tree_util.tree_map_with_path(moves, tree)


def spawns(model: ModelConfig) -> bool:
    """Whether the experts are made from one at the end of the dense phase."""
    return model.n_experts > 1 and "masked_share" in model.router_facts.options


def spawned(tree: Any, masked_share: float, key: jax.Array) -> Any:
    """Every expert a copy of the first, with `masked_share` of its weights set to zero, at random and its own.

    EvoMoE, arXiv 2112.14397, section 4.1: experts begin from one trained expert, and random masks tell them apart.
    Trees of weights and of moments of one model get the same masks, so a masked weight has no moments either.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    experts = [jax.tree_util.keystr(path) for path, _ in leaves if "experts" in _names(path)]
    numbers = {name: number for number, name in enumerate(experts)}

    def copies(path: Any, leaf: jax.Array) -> jax.Array:
        number = numbers.get(jax.tree_util.keystr(path))
        if number is None:
            return leaf
        kept = jax.random.bernoulli(jax.random.fold_in(key, number), 1 - masked_share, leaf.shape)
        return jnp.where(kept, leaf[:1], 0.0).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(copies, tree)


def _names(path: Any) -> list[str]:
    return [str(getattr(part, "key", "")) for part in path]
