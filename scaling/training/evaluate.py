"""Held-out loss by document, its standard error, and how the router routes held-out text."""

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
from scaling.model.sharding import DATA, EXPERT, Placement
from scaling.model.transformer import Transformer
from scaling.training.executable_cache import kept
from scaling.training.router_metrics import Choices, Division
from scaling.training.step import BATCH, Params, mesh_of, places_of, specs_of, token_losses


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean loss per token over the windows, with the rows it is made of.

    `se` is clustered by document: documents are the independent units, tokens of one are not.
    """

    loss: float
    se: float
    bits_per_byte: float
    documents: list[dict[str, Any]]
    routing: dict[str, float]


class HeldOutRouting:
    """The routing of held-out text: what the program of the evaluation tells beside the losses.

    windows, batch: as `evaluate` has them.   classes: of each symbol (`scaling.data.tokenizer.classes`).
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
        """The experts that each token of a few windows chooses, the same windows each time; padding left out."""
        return np.asarray(self._forward(params, self._tokens, self._counted)[2])[:, self._counted_T]

    def division(self, choices: Choices) -> dict[str, float]:
        """What such choices divide."""
        divided = Division(self._classes)
        divided.add(choices, self._ids_T)
        return divided.metrics()


@functools.lru_cache(maxsize=32)
def losses_program(
    model: ModelConfig,
    vocab_size: int,
    kernel: str,
    where: Placement,
    devices: tuple[jax.Device, ...],
    shape: tuple[int, int],
) -> Any:
    """Compiled (params, tokens [B, T + 1], counted [B, T]) -> losses [B, T] and, of the MoE layers, the metrics of
    their routing over the tokens that count and the experts of each token [L, B T, E]."""
    wanted = (model, vocab_size, kernel, where, shape)
    return kept("losses", wanted, devices, lambda: (_build(*wanted, devices),))[0]


def leak(network: Transformer, params: Params, windows: EvalWindows, number: int = 8, places: int = 16) -> float:
    """What the loss of a token gains from the tokens after it, nats per token: mean over `places` positions of `number`
    windows of the loss with all later inputs replaced by those of another window, less the loss with the true ones.

    0 exactly for a causal model. Of one that is not it says how much of its held-out loss is no prediction.
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
        other = np.asarray(losses(jnp.where(later, jnp.roll(inputs, 1, axis=0), inputs)))
        weight = windows.weight[index, place]
        gained += float(np.sum((other[:, place] - true[:, place]) * weight))
        count += float(np.sum(weight))
    return gained / count


def _build(
    model: ModelConfig,
    vocab_size: int,
    kernel: str,
    where: Placement,
    shape: tuple[int, int],
    devices: tuple[jax.Device, ...],
) -> Any:
    network = Transformer(model, vocab_size, kernel, where)

    def losses(params: Params, tokens: jax.Array, counted_BxT: jax.Array) -> tuple[jax.Array, Any, Any]:
        output = transformer.apply(network, params, tokens[:, :-1])
        lost = token_losses(output.logits_BxTxV, tokens[:, 1:])
        if not output.routings:
            return lost, (), ()
        share_T = counted_BxT.reshape(-1) / where.mean(jnp.mean(counted_BxT))
        _, per_layer = routing.metrics_of_layers(output.routings, where, share_T)
        return lost, where.mean(per_layer), jnp.stack([routing.chosen_by_expert(one) for one in output.routings])

    params = jax.eval_shape(
        Transformer(model, vocab_size).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 1), jnp.int32)
    )
    spread: Any = losses
    if where.devices > 1:
        into, out = (specs_of(params), BATCH, BATCH), (BATCH, PartitionSpec(), PartitionSpec(None, (DATA, EXPERT)))
        spread = jax.shard_map(losses, mesh=mesh_of(where, devices), in_specs=into, out_specs=out, check_vma=False)
    tokens = jax.ShapeDtypeStruct((shape[0], shape[1]), jnp.int32)
    counted = jax.ShapeDtypeStruct((shape[0], shape[1] - 1), jnp.float32)
    held, split = places_of(params, where, devices)
    return jax.jit(spread, in_shardings=(held, split, split)).lower(params, tokens, counted).compile()


def evaluate(
    params: Params,
    forward: Any,
    windows: EvalWindows,
    batch: int,
    classes: NDArray[np.int64],
    chances: Callable[[float], dict[str, float]],
) -> HeldOutLoss:
    """Held-out loss of the given weights over all windows, `batch` windows at a time, by the program `forward`.

    Routing metrics are means over batches and layers, beside what `chances` gives for so many experts per token.
    Padding, and the windows of the front that fill up the last batch, count in nothing.
    """
    n = len(windows.tokens)
    losses = np.empty(windows.weight.shape)
    seen: list[dict[str, float]] = []
    divided = Division(classes)
    for start in range(0, n, batch):
        index = np.arange(start, start + batch) % n
        take = min(batch, n - start)
        counted = (windows.weight[index] > 0) & (np.arange(batch) < take)[:, None]
        part, per_layer, choices = forward(params, windows.tokens[index], counted.astype(np.float32))
        losses[start : start + take] = np.asarray(part)[:take]
        seen += [{name: float(value) for name, value in layer.items()} for layer in per_layer]
        if len(per_layer):
            counted_T = counted.reshape(-1)
            divided.add(np.asarray(choices)[:, counted_T], windows.tokens[index, :-1].reshape(-1)[counted_T])

    total = np.bincount(windows.document, np.sum(losses * windows.weight, axis=1), len(windows.names))
    count = np.bincount(windows.document, np.sum(windows.weight, axis=1), len(windows.names)).astype(np.float64)
    n_bytes = np.bincount(windows.document, np.sum(windows.n_bytes, axis=1), len(windows.names))
    document = total / count
    rows = [
        {"document": name, "n_tokens": int(count[i]), "n_bytes": int(n_bytes[i]), "loss": float(document[i])}
        for i, name in enumerate(windows.names)
    ]
    router = {name: float(np.mean([one[name] for one in seen])) for name in seen[0]} if seen else {}
    if seen:
        router |= divided.metrics() | chances(router["experts_per_token"])
    return HeldOutLoss(
        loss=float(total.sum() / count.sum()),
        se=clustered_mean(document, count)[1],
        bits_per_byte=float(total.sum() / n_bytes.sum() / np.log(2)),
        documents=rows,
        routing=router,
    )
