"""Optimisers of optax by name, and the learning rates of single weights under the maximal update parametrisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from scaling.config.model import ModelConfig
from scaling.config.optimisers import FACTORED_FROM
from scaling.config.training import TrainConfig
from scaling.model.sharding import is_expert

Tree = Any
_EPS = 1e-15
_MATRICES = {"query", "key", "value", "out", "gate", "up", "down"}
_BLOCKS = {"attention", "mlp", "experts", "shared"}
MUON_RMS = 0.2


@struct.dataclass
class StepCount:
    """The number of steps taken."""

    count: jax.Array


def optimiser(train: TrainConfig, model: ModelConfig) -> optax.GradientTransformation:
    """The optimiser of a training; the step scales its updates by the learning rate. The first state has the `count`.

    All have decoupled weight decay on matrices (not on norms), multiplied by the learning rate.

    `adamw` (arXiv 1711.05101). Adam's update does not depend on the scale of a gradient, so an expert that sees k/E of
    the tokens learns at the rate of the dense MLP. `eps` is small enough for this to hold for any gradient; optax's
    1e-8 is not negligible compared with the gradient of one of many experts (arXiv 2309.14322, section 4.3, finds the
    same in large models). `lion` (2302.06675) moves every weight by the sign of its momentum.

    `muon` (github.com/KellerJordan/Muon) orthogonalises the momentum of each matrix of attention, MLPs and experts, of
    each expert on its own. Its update has the root mean square .2 of Adam's whatever the shape (arXiv 2502.16982,
    eq. 4). Embeddings, head, routers, norms and factorised experts are Adam's, at the same rate.

    `adafactor` (1804.04235): second moments by row and column of matrices of at least 128 of each, of each expert on
    its own; updates clipped at a root mean square of 1; no momentum, and no scaling by the size of a weight, so that
    the rate is one of steps as in the others.
    """
    decay = optax.add_decayed_weights(
        train.weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    )
    adam = optax.scale_by_adam(train.beta1, train.beta2, eps=_EPS)
    if train.optimiser == "adamw":
        return optax.chain(adam, *_by_width(model), decay)
    others = {
        "lion": lambda: optax.scale_by_lion(train.beta1, train.beta2),
        "muon": lambda: optax.partition({"matrix": _muon(train), "other": adam}, _muon_labels),
        "adafactor": lambda: _adafactor(train),
    }
    return optax.chain(_counting(), others[train.optimiser](), decay)


def _counting() -> optax.GradientTransformation:
    return optax.GradientTransformation(
        lambda params: StepCount(jnp.zeros([], jnp.int32)),
        lambda updates, state, params=None: (updates, StepCount(state.count + 1)),
    )


# -------------------------------------------------------------------------------------------- width of the model


def _by_width(model: ModelConfig) -> tuple[optax.GradientTransformation, ...]:
    """Adam's updates of matrices that read the width are divided by d_model / base_width: arXiv 2203.03466, table 8.

    These are all but the embedding, the head (whose logits are divided instead) and norms. Before the decay, so that
    rate times decay does not depend on the width.
    """
    if model.width_ratio == 1:
        return ()

    def scaled(updates: Tree, params: Tree = None) -> Tree:
        return jax.tree_util.tree_map_with_path(
            lambda path, u: u / model.width_ratio if reads_width(path, u) else u, updates
        )

    return (optax.stateless(scaled),)


def reads_width(path: Any, leaf: Any) -> bool:
    """Whether a weight sums over a dimension that grows with the width: a matrix that is neither embedding nor head."""
    return leaf.ndim > 1 and not {"embedding", "head"} & set(_names(path))


# ---------------------------------------------------------------------------------------------------------- muon


def _muon_labels(params: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, _: "matrix" if _is_block_matrix(path) else "other", params)


def _is_block_matrix(path: Any) -> bool:
    names = _names(path)
    return len(names) > 1 and names[-1] in _MATRICES and names[-2] in _BLOCKS


def _muon(train: TrainConfig) -> optax.GradientTransformation:
    def dimensions(params: Tree) -> Tree:
        """The last two axes make a matrix; those before are experts."""
        return jax.tree.map(lambda p: optax.contrib.MuonDimensionNumbers(p.ndim - 2, p.ndim - 1), params)

    def scaled(updates: Tree, params: Tree = None) -> Tree:
        return jax.tree.map(lambda u: u * (MUON_RMS * math.sqrt(max(u.shape[-2:]))), updates)

    orthogonalised = optax.contrib.scale_by_muon(
        ns_steps=train.newton_schulz_steps, beta=train.momentum, eps=_EPS, weight_dimension_numbers=dimensions
    )
    return optax.chain(orthogonalised, optax.stateless(scaled))


# ----------------------------------------------------------------------------------------------------- adafactor


def _adafactor(train: TrainConfig) -> optax.GradientTransformation:
    one = optax.chain(
        optax.scale_by_factored_rms(decay_rate=train.decay_power, min_dim_size_to_factor=FACTORED_FROM),
        optax.clip_by_block_rms(1.0),
    )
    return optax.partition({"each": _of_each(one), "other": one}, _expert_labels)


def _expert_labels(params: Tree) -> Tree:
    return jax.tree_util.tree_map_with_path(lambda path, _: "each" if is_expert(path) else "other", params)


def _of_each(one: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation of weights with an axis of experts, applied to each expert on its own; counts are shared."""

    def axes_of(params: Tree) -> Tree:
        state = jax.eval_shape(one.init, jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape[1:], p.dtype), params))
        return jax.tree_util.tree_map_with_path(lambda path, _: 0 if _names(path) else None, state)

    def init(params: Tree) -> Tree:
        if not jax.tree.leaves(params):
            return one.init(params)
        return _vmap(one.init, in_axes=0, out_axes=axes_of(params))(params)

    def update(updates: Tree, state: Tree, params: Tree = None) -> Any:
        if not jax.tree.leaves(updates):
            return one.update(updates, state, params)
        axes = axes_of(updates)
        return _vmap(one.update, in_axes=(0, axes, 0), out_axes=(0, axes))(updates, state, params)

    return optax.GradientTransformation(init, update)


def _vmap(function: Callable[..., Any], **axes: Any) -> Callable[..., Any]:
    mapped: Callable[..., Any] = jax.vmap(function, **axes)
    return mapped


def _names(path: Any) -> list[str]:
    return [str(part.key) for part in path if isinstance(part, jax.tree_util.DictKey)]
