"""The training loop of a language model: steps, curve rows, and the end of a run that diverges."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from scaling.config import ModelConfig, RunConfig, TrainConfig
from scaling.data.batches import TrainBatches
from scaling.layers.moe import routing
from scaling.models import transformer
from scaling.models.transformer import Transformer
from scaling.training.schedule import learning_rate

Params = Any
CURVE_ROWS = 40  # about as many rows as a figure can show


class DivergedError(Exception):
    """The loss became NaN or infinite; says at which step, and keeps the curve up to there."""

    def __init__(self, message: str, curves: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.curves = curves


@dataclass(frozen=True)
class Trained:
    """What training leaves: weights, curve rows, and where the time went."""

    params: Params
    curves: list[dict[str, Any]]
    compile_s: float
    train_s: float


def token_losses(logits_BxTxV: jax.Array, target_BxT: jax.Array) -> jax.Array:
    """Cross-entropy of each token in nats, float32, [B, T]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits_BxTxV.astype(jnp.float32), target_BxT)


def optimiser(train: TrainConfig) -> optax.GradientTransformation:
    """Clip by global norm, Adam, decoupled weight decay on matrices (not on norms); the step scales by the rate."""
    return optax.chain(
        optax.clip_by_global_norm(train.grad_clip),
        optax.scale_by_adam(train.beta1, train.beta2),
        optax.add_decayed_weights(train.weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),
    )


def initial_params(model: ModelConfig, vocab_size: int, seq_len: int, seed: int) -> Params:
    """Weights before training, a function of the seed alone."""
    key, tokens = jax.random.key(seed), jnp.zeros((1, seq_len), jnp.int32)
    program = jax.jit(Transformer(model, vocab_size).init).lower(key, tokens)
    # It runs once, for milliseconds: optimising it would only take longer to compile.
    quick: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}
    return program.compile(compiler_options=quick)(key, tokens)


def step_function(model: ModelConfig, vocab_size: int, train: TrainConfig) -> Callable[..., Any]:
    """One optimiser step: (params, moments, batch [B, T + 1], rate) -> (params, moments, metrics).

    The rate is an argument, not a constant of the program, so cells that differ in budget or rate share one program.
    """
    network, update = Transformer(model, vocab_size), optimiser(train)

    def loss_function(params: Params, batch: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        output = transformer.apply(network, params, batch[:, :-1])
        loss = jnp.mean(token_losses(output.logits_BxTxV, batch[:, 1:]))
        if not output.routings:
            return loss, {"loss": loss}
        per_layer = [routing.metrics(one) for one in output.routings]
        mean = {name: jnp.mean(jnp.stack([one[name] for one in per_layer])) for name in per_layer[0]}
        total = loss + model.balance_coef * mean["balance_loss"] + model.z_coef * mean["z_loss"]
        return total, {"loss": loss, **mean}

    def step(
        params: Params, moments: Any, batch: jax.Array, rate: jax.Array
    ) -> tuple[Params, Any, dict[str, jax.Array]]:
        gradients, metrics = jax.grad(loss_function, has_aux=True)(params, batch)
        metrics["grad_norm"] = optax.tree.norm(gradients)
        updates, moments = update.update(gradients, moments, params)
        params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        return params, moments, metrics

    return step


@functools.lru_cache(maxsize=64)
def _compiled(model: ModelConfig, vocab_size: int, train: TrainConfig) -> Any:
    """The compiled step of a shape: cells of one shape in one process share it."""
    tokens = jax.ShapeDtypeStruct((1, train.seq_len), jnp.int32)
    params = jax.eval_shape(Transformer(model, vocab_size).init, jax.random.key(0), tokens)
    moments = jax.eval_shape(optimiser(train).init, params)
    batch = jax.ShapeDtypeStruct((train.batch_tokens // train.seq_len, train.seq_len + 1), jnp.int32)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    step = jax.jit(step_function(model, vocab_size, train), donate_argnums=(0, 1))
    return step.lower(params, moments, batch, rate).compile()


def train(config: RunConfig, tokens: np.ndarray[Any, Any], vocab_size: int) -> Trained:
    """Train one cell from its seed. Raises DivergedError as soon as a curve row is not finite."""
    settings = config.train
    started = time.perf_counter()
    shared = settings.model_copy(
        update={"lr": None, "warmup_tokens": 0, "cooldown": 1.0}
    )  # not constants of the program
    step = _compiled(config.model, vocab_size, shared)
    params = initial_params(config.model, vocab_size, settings.seq_len, config.seed)
    moments = jax.jit(optimiser(settings).init)(params)
    jax.block_until_ready(moments)
    compile_s = time.perf_counter() - started

    separator = vocab_size - 1 if config.data.packing == "documents" else None
    batches = TrainBatches(tokens, settings.seq_len, settings.batch_tokens // settings.seq_len, config.seed, separator)
    curves: list[dict[str, Any]] = []
    waiting: list[dict[str, jax.Array]] = []
    every = max(1, config.steps // CURVE_ROWS)
    started = time.perf_counter()
    for index in range(config.steps):
        rate = learning_rate(config, index)
        params, moments, metrics = step(params, moments, batches(index), np.float32(rate))
        waiting.append(metrics)
        if (index + 1) % every == 0 or index + 1 == config.steps:
            mean = {name: float(np.mean([one[name] for one in waiting])) for name in waiting[0]}
            mean.pop("load_cv", None)
            waiting.clear()
            curves.append({"step": index + 1, "tokens": (index + 1) * settings.batch_tokens, "lr": rate, **mean})
            if not np.isfinite(mean["loss"]):
                where = f"step {index + 1} of {config.steps} (rate {rate:.3g})"
                raise DivergedError(f"training loss is {mean['loss']} at {where}", curves)
    jax.block_until_ready(params)
    return Trained(params, curves, compile_s, time.perf_counter() - started)
