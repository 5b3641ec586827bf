"""One optimiser step: the objective, its gradient over all devices and parts of the batch, the update.

Axes: B sequences, T tokens, M trunks trained side by side (absent for one).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.model import transformer
from scaling.model.moe import routing
from scaling.model.moe.routing import TrainingStep
from scaling.model.sharding import DATA, EXPERT, SINGLE_DEVICE, Placement, is_expert
from scaling.model.transformer import Transformer, rebalanced
from scaling.training.initial_values import initial_values, initialisation_of
from scaling.training.optimiser import optimiser
from scaling.training.phases import trainable_mask

Params = Any
"""Trained weights `{"params": ...}` and, for balanced routers, biases `{"balance": ...}`."""
METRICS = ("loss", "grad_norm")


@struct.dataclass
class State:
    """Weights, the state of the optimiser, and the random key of the training (from `jax.random.key_data`)."""

    params: Params
    moments: Any
    key: jax.Array


def first_state(model: ModelConfig, vocab_size: int, train: TrainConfig, key: jax.Array) -> State:
    """The state before training, which depends only on the key."""
    return state_of(first_params(model, vocab_size, key), model, train, key)


def state_of(params: Params, model: ModelConfig, train: TrainConfig, key: jax.Array) -> State:
    """The state before training with the given weights."""
    return State(params, optimiser(train, model).init(params["params"]), jax.random.key_data(key))


def metric_names(model: ModelConfig) -> tuple[str, ...]:
    """Names of the metrics that a step reports, in order."""
    return METRICS if model.n_experts == 1 else (*METRICS, *routing.METRICS)


def token_losses(logits_BxTxV: jax.Array, target_BxT: jax.Array) -> jax.Array:
    """Cross-entropy of each token in nats, float32, [B, T]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits_BxTxV.astype(jnp.float32), target_BxT)


def documents(tokens_BxT: jax.Array, separator: int) -> jax.Array:
    """Number of the document of each token in packed sequences: the count of separators so far."""
    return jnp.cumsum(tokens_BxT == separator, axis=1)


def initial_params(model: ModelConfig, vocab_size: int, seed: int) -> Params:
    """Weights before training, which depend only on the seed."""
    initialisation, _ = initialisation_of(partial(first_params, model, vocab_size))
    return jax.device_put(initial_values(initialisation, seed))


def first_params(model: ModelConfig, vocab_size: int, key: jax.Array) -> Params:
    return Transformer(model, vocab_size).init(key, jnp.zeros((1, 8), jnp.int32))


@dataclass(frozen=True)
class StepFunction:
    """(state, batch [B, T + 1], rate) -> (state, metrics [len(metric_names)]). On several devices for `jax.shard_map`.

    The rate is an argument instead of a constant, so that cells that differ in budget or rate share one program.

    separator: the symbol between documents if blocks hold whole documents; then a token attends only to its own
    document, and padding targets (a separator after a separator) have no weight. None where blocks are cut from the
    stream.   kernel, placement: as in the Transformer.
    """

    model: ModelConfig
    vocab_size: int
    train: TrainConfig
    separator: int | None = None
    kernel: str = "loop"
    placement: Placement = SINGLE_DEVICE

    def __call__(self, state: State, batch: jax.Array, rate: jax.Array) -> tuple[State, jax.Array]:
        gradients, metrics, assigned_LxE = self._gradients(state, batch)
        trainable = trainable_mask(self.model, state.moments[0].count, self._dense_steps, gradients)
        if trainable is not None:
            gradients = jax.tree.map(jnp.multiply, gradients, trainable)
        norm = _norm(gradients, self.placement)
        clip = jnp.minimum(1.0, self.train.grad_clip / norm)
        weights = state.params["params"]
        clipped = jax.tree.map(lambda g: g * clip, gradients)
        updates, moments = optimiser(self.train, self.model).update(clipped, state.moments, weights)
        if trainable is not None:
            updates = jax.tree.map(jnp.multiply, updates, trainable)
        weights = jax.tree.map(lambda p, u: p - rate * u, weights, updates)
        params = rebalanced(self.model, {**state.params, "params": weights}, assigned_LxE)
        return State(params, moments, state.key), jnp.stack([metrics[0], norm, *metrics[1:]])

    @property
    def _dense_steps(self) -> int:
        return self.model.dense_steps(self.train.batch_tokens)

    def _gradients(self, state: State, batch: jax.Array) -> tuple[Params, tuple[jax.Array, ...], jax.Array]:
        """Gradients, metrics and the load of each expert, summed over the parts of the batch and all devices."""
        accumulate, placement = self.train.accumulate, self.placement
        n_targets = jnp.float32(batch.shape[0] * (batch.shape[1] - 1))
        if self.separator is not None:
            n_targets = n_targets - jnp.sum(self._padding(batch))
        n_targets = _sum(n_targets, placement)
        first = jax.lax.axis_index((DATA, EXPERT)) * batch.shape[0] if placement.devices > 1 else 0
        number_B = first + jnp.arange(batch.shape[0])
        gradients_of_part = partial(self._gradients_of_part, state, n_targets)
        if accumulate == 1:
            total = gradients_of_part(batch, number_B)
        else:
            parts = (batch.reshape(accumulate, -1, batch.shape[1]), number_B.reshape(accumulate, -1))
            shapes = jax.eval_shape(gradients_of_part, *jax.tree.map(lambda part: part[0], parts))
            zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            total, _ = jax.lax.scan(
                lambda sums, part: (jax.tree.map(jnp.add, sums, gradients_of_part(*part)), None), zero, parts
            )
        gradients, (metrics, assigned_LxE) = total
        gradients = jax.tree_util.tree_map_with_path(
            lambda path, g: _sum(g, placement, over_experts=not is_expert(path)), gradients
        )
        return gradients, *_sum((metrics, assigned_LxE), placement)

    def _gradients_of_part(self, state: State, n_targets: jax.Array, batch: jax.Array, number_B: jax.Array) -> Any:
        fixed = {name: tree for name, tree in state.params.items() if name != "params"}
        key = jax.random.wrap_key_data(state.key)
        training = TrainingStep(state.moments[0].count, key, number_B, self.train.batch_tokens)
        return jax.grad(self._objective, has_aux=True)(state.params["params"], fixed, batch, n_targets, training)

    def _objective(
        self, weights: Params, fixed: Params, batch: jax.Array, n_targets: jax.Array, training: TrainingStep
    ) -> tuple[jax.Array, tuple[Any, ...]]:
        """This part's share of the objective, which is the sum over parts, with its shares of the metrics and loads."""
        model, parts = self.model, self.train.accumulate * self.placement.devices
        network = Transformer(model, self.vocab_size, self.kernel, self.placement, self.train.remat)
        inputs, targets = batch[:, :-1], batch[:, 1:]
        document = None if self.separator is None else documents(inputs, self.separator)
        params = {"params": weights, **fixed}
        output = transformer.apply(network, params, inputs, documents_BxT=document, training=training)
        losses = token_losses(output.logits_BxTxV, targets)
        counted = losses if self.separator is None else jnp.where(self._padding(batch), 0.0, losses)
        loss = jnp.sum(counted) / n_targets
        if not output.routings:
            return loss, ((loss,), None)
        assigned_LxE, metrics_L = routing.metrics_of_layers(output.routings, self.placement)
        mean = {name: jnp.mean(jnp.stack([layer[name] for layer in metrics_L])) for name in routing.METRICS}
        penalty = model.balance_coef * mean["balance_loss"] + model.z_coef * mean["z_loss"]
        penalty = penalty + sum(layer.penalty for layer in output.routings) / len(output.routings)
        if model.experts_kind.frozen_base:  # while the router is frozen, its penalty must not train the base
            penalty = penalty * (training.step >= self._dense_steps)
        reported = (loss, *(mean[name] / parts for name in routing.METRICS))
        return loss + penalty / parts, (reported, assigned_LxE / parts)

    def _padding(self, batch: jax.Array) -> jax.Array:
        separator = jnp.int32(self.separator)
        return (batch[:, :-1] == separator) & (batch[:, 1:] == separator)


def _sum(x: Any, placement: Placement, *, over_experts: bool = True) -> Any:
    axes = {DATA: placement.data, EXPERT: placement.expert if over_experts else 1}
    shared = tuple(axis for axis, size in axes.items() if size > 1)
    return jax.lax.psum(x, shared) if shared else x


def _norm(gradients: Params, placement: Placement) -> jax.Array:
    """The norm of the whole gradient, of which a device holds only its own experts' part."""
    squares: dict[bool, list[jax.Array]] = {False: [], True: []}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        squares[is_expert(path)].append(jnp.sum(jnp.square(leaf)))
    experts = jnp.sum(jnp.stack(squares[True])) if squares[True] else jnp.float32(0)
    if placement.expert > 1:
        experts = jax.lax.psum(experts, EXPERT)
    return jnp.sqrt(jnp.sum(jnp.stack(squares[False])) + experts)
