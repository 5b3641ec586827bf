"""Held-out loss by document, its standard error, and the routing of held-out text."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from numpy.typing import NDArray

from scaling.clustered_mean import clustered_mean
from scaling.config.model import ModelConfig
from scaling.data.batches import EvalWindows
from scaling.model import transformer
from scaling.model.moe import routing
from scaling.model.sharding import BATCH, DATA, EXPERT, SINGLE_DEVICE, Placement, partition_specs
from scaling.model.transformer import Transformer
from scaling.training.executable_cache import load_or_compile
from scaling.training.router_metrics import Choices, ChoiceStatistics
from scaling.training.step import Params, token_losses


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean loss per token over the windows, with the rows by document.

    `se` is clustered by document, because tokens of a document are not independent.
    """

    loss: float
    se: float
    bits_per_byte: float
    documents: list[dict[str, Any]]
    routing: dict[str, float]


class HeldOutRouting:
    """The routing of a fixed sample of held-out windows, computed by the program of the evaluation.

    windows, batch: as in `evaluate`.   classes: class of each symbol (`scaling.data.tokenizer.classes`).
    """

    def __init__(self, forward: Any, windows: EvalWindows, batch: int, classes: NDArray[np.int64]) -> None:
        self._forward, self._classes = forward, classes
        whole = np.flatnonzero(np.all(windows.weight > 0, axis=1))
        whole = whole if len(whole) >= batch else np.arange(len(windows.tokens))
        index = whole[np.linspace(0, len(whole) - 1, batch).round().astype(int)]
        self._tokens, counted = windows.tokens[index], windows.weight[index] > 0
        self._counted, self._counted_T = counted.astype(np.float32), counted.reshape(-1)
        self._ids_T = self._tokens[:, :-1].reshape(-1)[self._counted_T]

    def choices(self, params: Params) -> Choices:
        """The experts that each token of these windows chooses, without padding."""
        return np.asarray(self._forward(params, self._tokens, self._counted)[2])[:, self._counted_T]

    def statistics(self, choices: Choices) -> dict[str, float]:
        """The columns computed from such choices (`ChoiceStatistics`)."""
        statistics = ChoiceStatistics(self._classes)
        statistics.add(choices, self._ids_T)
        return statistics.metrics()


@dataclass(frozen=True)
class LossFunction:
    """(params, tokens [B, T + 1], counted [B, T]) -> losses [B, T] and, for the MoE layers, routing metrics over the
    counted tokens and the experts of each token [L, B T, E]. On several devices for `jax.shard_map`."""

    model: ModelConfig
    vocab_size: int
    kernel: str
    placement: Placement = SINGLE_DEVICE

    def __call__(self, params: Params, tokens: jax.Array, counted_BxT: jax.Array) -> tuple[jax.Array, Any, Any]:
        network = Transformer(self.model, self.vocab_size, self.kernel, self.placement)
        output = transformer.apply(network, params, tokens[:, :-1])
        losses = token_losses(output.logits_BxTxV, tokens[:, 1:])
        if not output.routings:
            return losses, (), ()
        share_T = counted_BxT.reshape(-1) / self.placement.mean(jnp.mean(counted_BxT))
        _, metrics_L = routing.metrics_of_layers(output.routings, self.placement, share_T)
        chosen_LxTxE = jnp.stack([routing.chosen_by_expert(layer) for layer in output.routings])
        return losses, self.placement.mean(metrics_L), chosen_LxTxE


@functools.lru_cache(maxsize=32)
def losses_program(function: LossFunction, devices: tuple[jax.Device, ...], shape: tuple[int, int]) -> Any:
    """A loss function compiled for tokens of this shape, [B, T + 1]."""
    return load_or_compile("losses", (function, shape), devices, lambda: (_compiled(function, devices, shape),))[0]


def _compiled(function: LossFunction, devices: tuple[jax.Device, ...], shape: tuple[int, int]) -> Any:
    placement, network = function.placement, Transformer(function.model, function.vocab_size)
    params = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 1), jnp.int32))
    in_specs = (partition_specs(params), BATCH, BATCH)
    out_specs = (BATCH, PartitionSpec(), PartitionSpec(None, (DATA, EXPERT)))
    losses = placement.split(function, devices, in_specs, out_specs)
    tokens = jax.ShapeDtypeStruct(shape, jnp.int32)
    counted = jax.ShapeDtypeStruct((shape[0], shape[1] - 1), jnp.float32)
    whole, split = placement.shardings(params, devices)
    return jax.jit(losses, in_shardings=(whole, split, split)).lower(params, tokens, counted).compile()


def leak(network: Transformer, params: Params, windows: EvalWindows, number: int = 8, places: int = 16) -> float:
    """The gain in loss from later tokens, nats per token: the loss with all later inputs replaced by those of another
    window, minus the true loss, as a mean over `places` positions of `number` windows.

    Exactly 0 for a causal model. For others, it is the part of the held-out loss that is not a prediction.
    """
    index = np.linspace(0, len(windows.tokens) - 1, number).round().astype(int)
    inputs, targets = jnp.asarray(windows.tokens[index, :-1]), jnp.asarray(windows.tokens[index, 1:])
    length = inputs.shape[1]

    @jax.jit
    def losses(inputs: jax.Array) -> jax.Array:
        return token_losses(transformer.apply(network, params, inputs).logits_BxTxV, targets)

    true, gained, count = np.asarray(losses(inputs)), 0.0, 0.0
    for place in np.linspace(0, length - 2, min(places, length - 1)).round().astype(int):
        later = jnp.arange(length) > place
        replaced = np.asarray(losses(jnp.where(later, jnp.roll(inputs, 1, axis=0), inputs)))
        weight = windows.weight[index, place]
        gained += float(np.sum((replaced[:, place] - true[:, place]) * weight))
        count += float(np.sum(weight))
    return gained / count


def evaluate(
    params: Params,
    forward: Any,
    windows: EvalWindows,
    batch: int,
    classes: NDArray[np.int64],
    chance_levels: Callable[[float], dict[str, float]],
) -> HeldOutLoss:
    """Held-out loss of these weights over all windows, `batch` windows at a time, computed by the program `forward`.

    Routing metrics are means over batches and layers, with the `chance_levels` for the measured experts per token.
    Padding, and the first windows that fill up the last batch, are not counted.
    """
    n = len(windows.tokens)
    losses = np.empty(windows.weight.shape)
    layers: list[dict[str, float]] = []
    statistics = ChoiceStatistics(classes)
    for start in range(0, n, batch):
        index = np.arange(start, start + batch) % n
        take = min(batch, n - start)
        counted = (windows.weight[index] > 0) & (np.arange(batch) < take)[:, None]
        batch_losses, metrics_L, choices = forward(params, windows.tokens[index], counted.astype(np.float32))
        losses[start : start + take] = np.asarray(batch_losses)[:take]
        layers += [{name: float(value) for name, value in layer.items()} for layer in metrics_L]
        if len(metrics_L):
            counted_T = counted.reshape(-1)
            statistics.add(np.asarray(choices)[:, counted_T], windows.tokens[index, :-1].reshape(-1)[counted_T])

    router = {name: float(np.mean([layer[name] for layer in layers])) for name in layers[0]} if layers else {}
    if layers:
        router |= statistics.metrics() | chance_levels(router["experts_per_token"])
    return _by_document(losses, windows, router)


def _by_document(losses: NDArray[np.float64], windows: EvalWindows, router: dict[str, float]) -> HeldOutLoss:
    """The losses [windows, T] averaged by document."""

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.bincount(windows.document, np.sum(values, axis=1), len(windows.names)).astype(np.float64)

    loss, count, n_bytes = total(losses * windows.weight), total(windows.weight), total(windows.n_bytes)
    documents = [
        {"document": name, "n_tokens": int(tokens), "n_bytes": round(size), "loss": float(mean)}
        for name, tokens, size, mean in zip(windows.names, count, n_bytes, loss / count, strict=True)
    ]
    return HeldOutLoss(
        loss=float(loss.sum() / count.sum()),
        se=clustered_mean(loss / count, count)[1],
        bits_per_byte=float(loss.sum() / n_bytes.sum() / np.log(2)),
        documents=documents,
        routing=router,
    )
