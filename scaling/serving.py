"""What a model costs to serve: memory-bound decode, steady-state throughput, devices needed, USD per token.

Works from counts alone (`ModelSizes`), so a law's continuous N can be priced; counts may be NumPy arrays, and then so
are the answers. Estimates from a data sheet and stated shares of it, not measurements: `scaling.bench` measures.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from scaling.errors import InputError
from scaling.hardware import Device

Values = float | npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModelSizes:
    """The counts that decide what a model costs to serve; parameters and elements, not bytes.

    `n_active`, `n_total` as in the run table (embeddings and head in, routers out), `n_router` beside them.
    `kv_elements_per_token`: keys and values of one cached token over all layers (`2 n_layers d_model` for plain
    multi-head attention). A dense model has `n_experts = 1`, whatever `top_k` says.
    """

    n_active: Values
    n_total: Values
    kv_elements_per_token: Values
    n_layers: Values
    d_model: Values
    n_experts: int = 1
    top_k: int = 1
    n_router: Values = 0.0

    def __post_init__(self) -> None:
        if self.n_experts < 1 or self.top_k < 1 or (self.n_experts > 1 and self.top_k > self.n_experts):
            raise InputError(f"sizes: n_experts={self.n_experts}, top_k={self.top_k}; allowed: 1 <= top_k <= n_experts")
        active, total = np.asarray(self.n_active), np.asarray(self.n_total)
        if np.any(active <= 0) or np.any(total < active * (1 - 1e-9)):
            raise InputError(f"sizes: n_active={active}, n_total={total}; allowed: 0 < n_active <= n_total")

    @property
    def n_expert(self) -> Values:
        """Parameters of one expert over all layers: `(n_total - n_active) / (E - k)`; 0 where all are active."""
        spare = self.n_experts - min(self.top_k, self.n_experts)
        return (self.n_total - self.n_active) / spare if spare else 0.0 * self.n_active


@dataclass(frozen=True)
class Service:
    """How a model is served. Every default is a stated assumption, not a measurement; replace what you know.

    A request brings `prompt` tokens and takes `generated`. `bandwidth_share`, `flops_share`: the parts of the data
    sheet's peaks that decode and prefill reach. `speedup_power`: G devices are `G^speedup_power` times as fast
    as one (ideal 1). `utilisation`: part of the rented time in which replicas are busy. `max_batch`: sequences that a
    replica may hold at once even where more fit.
    """

    prompt: int = 512
    generated: int = 256
    bytes_per_weight: float = 2.0
    bytes_per_kv: float = 2.0
    bandwidth_share: float = 0.6
    flops_share: float = 0.4
    overhead_s: float = 0.0
    speedup_power: float = 0.8
    utilisation: float = 0.5
    max_batch: int = 256
    max_devices: int = 64

    def __post_init__(self) -> None:
        for name in ("bandwidth_share", "flops_share", "utilisation", "speedup_power"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"service: {name}={getattr(self, name)}; allowed: above 0, at most 1")
        for name in ("prompt", "generated", "max_batch", "max_devices", "bytes_per_weight", "bytes_per_kv"):
            if not getattr(self, name) > 0:
                raise InputError(f"service: {name}={getattr(self, name)}; allowed: above 0")

    @property
    def mean_context(self) -> float:
        """Cached tokens of a sequence, mean over its generation: `prompt + generated / 2` (Yun, arXiv 2404.02852)."""
        return self.prompt + self.generated / 2


@dataclass(frozen=True)
class ServingCost:
    """One replica at steady state, and what a token of it costs.

    `tokens_per_s`: generated tokens per second when busy. `usd_per_token`: of a generated token, its share of the
    prompt's prefill and of idle time in it; infinite where the weights do not fit `max_devices` devices (batch 0).
    """

    n_devices: Values
    batch: Values
    tokens_per_s: Values
    usd_per_token: Values
    weight_bytes: Values
    step_s: Values


def distinct_experts(n_experts: int, top_k: float, batch: Values) -> Values:
    """Experts of one layer that a batch of tokens touches: `U = E (1 - (1 - k/E)^b)`, expected.

    For tokens that choose k of E uniformly and independently: an upper bound where routing is skewed. It is the number
    of expert weight blocks that one decode step reads; 1 to k experts at b = 1, all of them at large b.
    """
    if n_experts == 1:
        return np.ones_like(np.asarray(batch, dtype=float))[()]
    return n_experts * -np.expm1(batch * np.log1p(-top_k / n_experts)) if top_k < n_experts else 0.0 * batch + n_experts


def weight_bytes_read(sizes: ModelSizes, tokens: Values, bytes_per_weight: float) -> Values:
    """Bytes of weights that a pass over `tokens` tokens reads once: shared parts, routers and the experts touched.

    `bytes * (n_active + n_router + (U - k) n_expert)`: at one token the active parameters, at many everything.
    """
    routed = min(sizes.top_k, sizes.n_experts)
    extra = (distinct_experts(sizes.n_experts, routed, tokens) - routed) * sizes.n_expert
    return bytes_per_weight * (sizes.n_active + sizes.n_router + extra)


def decode_seconds(sizes: ModelSizes, on: Device, batch: Values, context: float, service: Service) -> Values:
    """Seconds of one decode step of `batch` sequences with `context` cached tokens each, on one device.

    `max((weights touched + cache) / bandwidth, b (2 n_active + 4 n_layers T d_model) / peak) + overhead`.
    Recomputed form of the project's laws sheet, section 4.2; memory-bound at every usual batch.
    """
    cache = batch * context * sizes.kv_elements_per_token * service.bytes_per_kv
    moved = weight_bytes_read(sizes, batch, service.bytes_per_weight) + cache
    flops = batch * (2 * (sizes.n_active + sizes.n_router) + 4 * sizes.n_layers * context * sizes.d_model)
    return _slower(moved, flops, on, service)


def prefill_seconds(sizes: ModelSizes, on: Device, requests: Values, service: Service) -> Values:
    """Seconds to prefill `requests` prompts on one device: as a decode step, over all their tokens, causal attention.

    A token attends to half the prompt on average, hence `2 n_layers prompt d_model` FLOP of attention per token. Less
    than one request (at steady state, one every few steps) is its part of one whole request.
    """
    whole = np.maximum(requests, 1.0)
    tokens = whole * service.prompt
    moved = weight_bytes_read(sizes, tokens, service.bytes_per_weight)
    moved = moved + tokens * sizes.kv_elements_per_token * service.bytes_per_kv
    flops = tokens * (2 * (sizes.n_active + sizes.n_router) + 2 * sizes.n_layers * service.prompt * sizes.d_model)
    return _slower(moved, flops, on, service) * (requests / whole)


def _slower(moved: Values, flops: Values, on: Device, service: Service) -> Values:
    memory_s = moved / (on.bandwidth * service.bandwidth_share)
    compute_s = flops / (on.peak_flops * service.flops_share)
    return np.maximum(memory_s, compute_s) + service.overhead_s


def weight_bytes(sizes: ModelSizes, bytes_per_weight: float) -> Values:
    """Bytes that must be resident: every expert and every router, however few are active."""
    return bytes_per_weight * (sizes.n_total + sizes.n_router)


def largest_batch(sizes: ModelSizes, memory: float, service: Service) -> Values:
    """Sequences that fit beside the weights: `(memory - weights) / (mean context x cache of a token)`; below 1: none.

    Yun et al. (arXiv 2404.02852), b_max, in bytes and with every expert resident. Not rounded.
    """
    free = memory - weight_bytes(sizes, service.bytes_per_weight)
    return free / (service.mean_context * sizes.kv_elements_per_token * service.bytes_per_kv)


def throughput(batch: Values, prefill_s: Values, decode_s: Values) -> Values:
    """Generated tokens per second of one replica at steady state: `b / (L_P(b / n) + L_D(b))`.

    Each iteration decodes b sequences (`decode_s` seconds) and prefills the b/n new ones that take the places of those
    that have ended after n tokens (`prefill_s` seconds). Yun et al. (arXiv 2404.02852).
    """
    return batch / (prefill_s + decode_s)


def serving_cost(sizes: ModelSizes, on: Device, service: Service = Service()) -> ServingCost:
    """USD per generated token at steady state, the cheapest over powers of two of devices.

    `min over G of G C0 / (utilisation T(G))`, C0 in USD per device-second, with the largest whole batch that fits (T
    grows with the batch). Yun et al. (arXiv 2404.02852) with the roofline above in place of profiled latencies.
    """
    best, n_devices = _replica(sizes, on, 1, service), 2
    while n_devices <= service.max_devices:
        other = _replica(sizes, on, n_devices, service)
        cheaper = np.asarray(other.usd_per_token < best.usd_per_token)
        names = [field.name for field in fields(ServingCost)]
        kept = {name: np.where(cheaper, getattr(other, name), getattr(best, name))[()] for name in names}
        best, n_devices = ServingCost(**kept), 2 * n_devices
    return best


def _replica(sizes: ModelSizes, on: Device, n_devices: int, service: Service) -> ServingCost:
    speedup = n_devices**service.speedup_power
    batch = np.floor(np.clip(largest_batch(sizes, n_devices * on.memory, service), 0, service.max_batch))
    held = np.maximum(batch, 1.0)
    decode_s = decode_seconds(sizes, on, held, service.mean_context, service) / speedup
    prefill_s = prefill_seconds(sizes, on, held / service.generated, service) / speedup
    rate = np.where(batch >= 1, throughput(held, prefill_s, decode_s), 0.0)
    with np.errstate(divide="ignore"):
        usd = n_devices * on.usd_per_hour / 3600 / (service.utilisation * rate)
    resident = weight_bytes(sizes, service.bytes_per_weight)
    return ServingCost(n_devices, batch[()], rate[()], usd[()], resident, decode_s)


def price_at_demand(
    demand: float, capacity: float, n_devices: int, usd_per_hour: float, utilisation: float
) -> tuple[int, float]:
    """Whole replicas and USD per token at a demand in tokens/s: `r = ceil(demand / (u T))`, `r G C0 / demand`.

    Below one replica the price of a token is inverse to the demand, so never state a price without its load.
    Raises InputError for a demand, capacity or utilisation that is not positive.
    """
    if not (demand > 0 and capacity > 0 and 0 < utilisation <= 1):
        found = f"demand={demand}, capacity={capacity}, utilisation={utilisation}"
        raise InputError(f"price: {found}; allowed: above 0, utilisation at most 1")
    replicas = int(np.ceil(demand / (utilisation * capacity)))
    return replicas, replicas * n_devices * usd_per_hour / 3600 / demand


def training_usd(train_flops: Values, on: Device, mfu: float = 0.4) -> Values:
    """USD to train: `FLOPs / (peak x MFU)` device-seconds at the device's price; the default MFU is an assumption.

    Sardana et al. (arXiv 2401.00448), dollar form. Raises InputError for an MFU outside (0, 1].
    """
    if not 0 < mfu <= 1:
        raise InputError(f"training: mfu={mfu}; allowed: above 0, at most 1")
    return train_flops / (on.peak_flops * mfu) * on.usd_per_hour / 3600
