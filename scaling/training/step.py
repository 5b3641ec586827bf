"""One optimiser step: the objective, its gradient over all devices and parts of the batch, AdamW; and its program.

Axes: B sequences, T tokens, M trunks that are trained side by side (absent for one).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from scaling.config.model import ModelConfig
from scaling.config.training import TrainConfig
from scaling.model import transformer
from scaling.model.moe import routing
from scaling.model.moe.routing import TrainingStep
from scaling.model.sharding import ALONE, DATA, EXPERT, Placement
from scaling.model.transformer import Transformer, rebalanced
from scaling.training.phases import moving

Params = Any
"""Weights that are trained, `{"params": ...}`, and of balanced routers the biases, `{"balance": ...}`."""
METRICS = ("loss", "grad_norm")


@struct.dataclass
class State:
    """Weights, Adam's moments, and the key of the training's randomness (as `jax.random.key_data` has it)."""

    params: Params
    moments: Any
    key: jax.Array


def first_state(model: ModelConfig, vocab_size: int, train: TrainConfig, key: jax.Array) -> State:
    """The state before training, a function of the key alone."""
    return state_of(first_params(model, vocab_size, key), train, key)


def state_of(params: Params, train: TrainConfig, key: jax.Array) -> State:
    """The state before training from given weights."""
    return State(params, optimiser(train).init(params["params"]), jax.random.key_data(key))


def metric_names(model: ModelConfig) -> tuple[str, ...]:
    """What a step reports, in the order in which it reports it."""
    return METRICS if model.n_experts == 1 else (*METRICS, *routing.METRICS)


def token_losses(logits_BxTxV: jax.Array, target_BxT: jax.Array) -> jax.Array:
    """Cross-entropy of each token in nats, float32, [B, T]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits_BxTxV.astype(jnp.float32), target_BxT)


def optimiser(train: TrainConfig) -> optax.GradientTransformation:
    """Adam and decoupled weight decay on matrices (not on norms); the step scales by the rate.

    Adam's update does not depend on the scale of a gradient, so an expert that sees k/E of the tokens learns at the
    rate of the dense MLP. `eps` is so small that this holds for any gradient: optax's 1e-8 is no longer small beside
    the gradient of one of many experts (arXiv 2309.14322, section 4.3, sees the same in large models).
    """
    return optax.chain(
        optax.scale_by_adam(train.beta1, train.beta2, eps=1e-15),
        optax.add_decayed_weights(train.weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),
    )


def is_expert(path: Any) -> bool:
    """Whether a weight, or a moment of one, belongs to single experts: these are what is spread over devices."""
    return any(getattr(key, "key", None) == "experts" for key in path)


BATCH = PartitionSpec((DATA, EXPERT))
"""Sequences are spread over all devices."""


def mesh_of(where: Placement, devices: Sequence[jax.Device]) -> Mesh:
    return Mesh(np.asarray(devices).reshape(where.data, where.expert), (DATA, EXPERT))


def specs_of(tree: Any) -> Any:
    """Where the leaves of weights or of a state lie: experts on their devices, everything else on each."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: PartitionSpec(EXPERT) if is_expert(path) else PartitionSpec(), tree
    )


def places_of(tree: Any, where: Placement, devices: Sequence[jax.Device]) -> tuple[Any, Any]:
    """Shardings of a tree of weights or of a state, and of a batch, on the devices of a cell."""
    if where.devices == 1:
        return (SingleDeviceSharding(devices[0]),) * 2
    mesh = mesh_of(where, devices)
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs_of(tree)), NamedSharding(mesh, BATCH)


def documents(tokens_BxT: jax.Array, separator: int) -> jax.Array:
    """Numbers the documents of packed sequences by the separators so far."""
    return jnp.cumsum(tokens_BxT == separator, axis=1)


def initial_params(model: ModelConfig, vocab_size: int, seed: int) -> Params:
    """Weights before training, a function of the seed alone."""
    return quick(lambda key: first_params(model, vocab_size, key), jax.random.key(seed))(jax.random.key(seed))


def first_params(model: ModelConfig, vocab_size: int, key: jax.Array) -> Params:
    return Transformer(model, vocab_size).init(key, jnp.zeros((1, 8), jnp.int32))


def quick(function: Callable[..., Any], *arguments: Any) -> Any:
    """The compiled program of something that runs once, for milliseconds: to optimise it would only take longer."""
    options: dict[str, str | bool] = {"xla_backend_optimization_level": "0"} if jax.default_backend() == "cpu" else {}
    return jax.jit(function).lower(*arguments).compile(compiler_options=options)


def step_function(
    model: ModelConfig,
    vocab_size: int,
    train: TrainConfig,
    *,
    packed: bool = False,
    kernel: str = "loop",
    where: Placement = ALONE,
) -> Callable[[State, jax.Array, jax.Array], tuple[State, jax.Array]]:
    """(state, batch [B, T + 1], rate) -> (state, metrics [len(metric_names)]). On several devices for `jax.shard_map`.

    The rate is an argument, not a constant of the program, so cells that differ in budget or rate share one program.

    packed: blocks hold whole documents: a token attends to its own document alone, and a target that is padding (a
    separator behind a separator) has no weight.
    """
    network = Transformer(model, vocab_size, kernel, where, train.remat)
    update, separator = optimiser(train), vocab_size - 1
    parts = train.accumulate * where.devices
    dense_steps = model.dense_steps(train.batch_tokens)

    def objective(
        weights: Params, fixed: Params, batch: jax.Array, n_targets: jax.Array, training: TrainingStep
    ) -> tuple[jax.Array, tuple[Any, ...]]:
        """This part's share of the objective: the shares of all parts add up to it. And of the part the metrics, and
        the tokens of each expert over those of all parts."""
        inputs, targets = batch[:, :-1], batch[:, 1:]
        document = documents(inputs, separator) if packed else None
        params = {"params": weights, **fixed}
        output = transformer.apply(network, params, inputs, documents_BxT=document, training=training)
        losses = token_losses(output.logits_BxTxV, targets)
        loss = jnp.sum(jnp.where(_padding(batch, separator), 0.0, losses) if packed else losses) / n_targets
        if not output.routings:
            return loss, ((loss,), None)
        assigned_LxE, per_layer = routing.metrics_of_layers(output.routings, where)
        mean = {name: jnp.mean(jnp.stack([one[name] for one in per_layer])) for name in routing.METRICS}
        penalty = model.balance_coef * mean["balance_loss"] + model.z_coef * mean["z_loss"]
        penalty = penalty + sum(one.penalty for one in output.routings) / len(output.routings)
        if model.experts_kind.frozen_base:  # a router that stands still must not move the base either
            penalty = penalty * (training.step >= dense_steps)
        reported = (loss, *(mean[name] / parts for name in routing.METRICS))
        return loss + penalty / parts, (reported, assigned_LxE / parts)

    def gradient(state: State, batch: jax.Array) -> tuple[Params, tuple[jax.Array, ...], jax.Array]:
        weights = state.params["params"]
        fixed = {name: tree for name, tree in state.params.items() if name != "params"}
        n_targets = jnp.float32(batch.shape[0] * (batch.shape[1] - 1))
        if packed:
            n_targets = n_targets - jnp.sum(_padding(batch, separator))
        n_targets = _sum(n_targets, where)
        first = jax.lax.axis_index((DATA, EXPERT)) * batch.shape[0] if where.devices > 1 else 0
        number_B = first + jnp.arange(batch.shape[0])
        step, key = state.moments[0].count, jax.random.wrap_key_data(state.key)

        def value(batch: jax.Array, number_B: jax.Array) -> Any:
            training = TrainingStep(step, key, number_B, train.batch_tokens)
            return jax.grad(objective, has_aux=True)(weights, fixed, batch, n_targets, training)

        if train.accumulate == 1:
            total = value(batch, number_B)
        else:
            pieces = (batch.reshape(train.accumulate, -1, batch.shape[1]), number_B.reshape(train.accumulate, -1))
            shapes = jax.eval_shape(value, *jax.tree.map(lambda piece: piece[0], pieces))
            none = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            total, _ = jax.lax.scan(
                lambda sums, piece: (jax.tree.map(jnp.add, sums, value(*piece)), None), none, pieces
            )
        gradients, (metrics, assigned_LxE) = total
        gradients = jax.tree_util.tree_map_with_path(
            lambda path, g: _sum(g, where, over_experts=not is_expert(path)), gradients
        )
        return gradients, *_sum((metrics, assigned_LxE), where)

    def step(state: State, batch: jax.Array, rate: jax.Array) -> tuple[State, jax.Array]:
        gradients, metrics, assigned_LxE = gradient(state, batch)
        moves = moving(model, state.moments[0].count, dense_steps, gradients)
        if moves is not None:
            gradients = jax.tree.map(jnp.multiply, gradients, moves)
        norm = _norm(gradients, where)
        clip = jnp.minimum(1.0, train.grad_clip / norm)
        weights = state.params["params"]
        updates, moments = update.update(jax.tree.map(lambda g: g * clip, gradients), state.moments, weights)
        if moves is not None:
            updates = jax.tree.map(jnp.multiply, updates, moves)
        weights = jax.tree.map(lambda p, u: p - rate * u, weights, updates)
        params = rebalanced(model, {**state.params, "params": weights}, assigned_LxE)
        return State(params, moments, state.key), jnp.stack([metrics[0], norm, *metrics[1:]])

    return step


def _padding(batch: jax.Array, separator: int) -> jax.Array:
    return (batch[:, :-1] == separator) & (batch[:, 1:] == separator)


def _sum(x: Any, where: Placement, *, over_experts: bool = True) -> Any:
    axes = {DATA: where.data, EXPERT: where.expert if over_experts else 1}
    shared = tuple(axis for axis, size in axes.items() if size > 1)
    return jax.lax.psum(x, shared) if shared else x


def _norm(gradients: Params, where: Placement) -> jax.Array:
    """Of the whole gradient; a device holds its experts' part alone."""
    squares: dict[bool, list[jax.Array]] = {False: [], True: []}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        squares[is_expert(path)].append(jnp.sum(jnp.square(leaf)))
    experts = jnp.sum(jnp.stack(squares[True])) if squares[True] else jnp.float32(0)
    if where.expert > 1:
        experts = jax.lax.psum(experts, EXPERT)
    return jnp.sqrt(jnp.sum(jnp.stack(squares[False])) + experts)
