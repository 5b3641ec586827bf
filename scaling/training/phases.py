"""Trainings that start with a dense model: frozen weights by phase, and copying one expert to all."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from scaling.config.model import ModelConfig

ADDED = ("router", "adapters_gate", "adapters_up", "adapters_down")


def trainable_mask(model: ModelConfig, step: jax.Array, dense_steps: int, tree: Any) -> Any:
    """A tree like `tree` with 1 for weights that this step trains and 0 for others; None if all weights always train.

    With a frozen base (LoRA experts), the dense phase trains all but routers and adapters, later steps only those.
    """
    if model.n_experts == 1 or not model.experts_kind.frozen_base:
        return None
    base = step < dense_steps

    def trains(path: Any, _: Any) -> jax.Array:
        return jnp.float32(1 - base if set(ADDED) & set(_names(path)) else base)

    return jax.tree_util.tree_map_with_path(trains, tree)


def spawns(model: ModelConfig) -> bool:
    """Whether all experts are copied from one at the end of the dense phase."""
    return model.n_experts > 1 and "masked_share" in model.router_facts.options


def spawn_experts(tree: Any, masked_share: float, key: jax.Array) -> Any:
    """Replace every expert by a copy of the first, with `masked_share` of its weights set to zero at random.

    EvoMoE, arXiv 2112.14397, section 4.1: experts start from one trained expert, and random masks make them differ.
    Weights and moments of a model get the same masks, so masked weights have zero moments.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    experts = [path for path, _ in leaves if "experts" in _names(path)]

    def copies(path: Any, leaf: jax.Array) -> jax.Array:
        if path not in experts:
            return leaf
        mask = jax.random.bernoulli(jax.random.fold_in(key, experts.index(path)), 1 - masked_share, leaf.shape)
        return jnp.where(mask, leaf[:1], 0.0).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(copies, tree)


def _names(path: Any) -> list[str]:
    return [str(getattr(part, "key", "")) for part in path]
