"""What serving asks of a device: what a pass reads, computes and sends, on one device or on several, and what must be held.

Works from counts alone (`ModelSizes`), so a law's continuous N can be priced; counts may be NumPy arrays, and then so
are the answers. Estimates from a data sheet and the shares of it that a device reaches: `scaling.bench` measures steps,
`analysis.latency` fits these shares to what it measured, `scaling.fleet` makes throughput, latency and prices of steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from scaling.errors import InputError
from scaling.hardware import Device
from scaling.work import ASSUMED, Efficiency, Values, Work, elements_written, looped


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
    top_k: float = 1
    n_router: Values = 0.0

    def __post_init__(self) -> None:
        if self.n_experts < 1 or self.top_k < 1 or (self.n_experts > 1 and self.top_k > self.n_experts):
            raise InputError(f"sizes: n_experts={self.n_experts}, top_k={self.top_k}; allowed: 1 <= top_k <= n_experts")
        active, total = np.asarray(self.n_active), np.asarray(self.n_total)
        if np.any(active <= 0) or np.any(total < active * (1 - 1e-9)):
            raise InputError(f"sizes: n_active={active}, n_total={total}; allowed: 0 < n_active <= n_total")

    def of(self, index: int) -> ModelSizes:
        """One of several models, by its place in the arrays."""
        counts = {
            name: float(np.ravel(value)[index if np.size(value) > 1 else 0])
            for name, value in vars(self).items()
            if name not in ("n_experts", "top_k")
        }
        return ModelSizes(n_experts=self.n_experts, top_k=self.top_k, **counts)

    @property
    def n_expert(self) -> Values:
        """Parameters of one expert over all layers: `(n_total - n_active) / (E - k)`; 0 where all are active."""
        spare = self.n_experts - min(self.top_k, self.n_experts)
        return (self.n_total - self.n_active) / spare if spare else 0.0 * self.n_active


@dataclass(frozen=True)
class Service:
    """How a model is served. Every default is a stated assumption, not a measurement; replace what you know.

    A request brings `prompt` tokens and takes `generated`. `utilisation`: part of the rented time in which replicas are
    busy. `max_batch`: sequences that a replica may hold at once even where more fit. `overlap`: whether reading and
    computing hide each other (the roofline) or add up. `reads_all`: whether a step reads every expert, touched or not, as
    kernels that loop over all of them do. `max_devices`: of a replica, at most; `max_fleet`: of all replicas together,
    where a load is given. `skew`: how uneven the router is (`distinct_experts`); 0 is even. `head_width`: of attention
    that is not fused and writes its scores (`elements_written`); 0 is fused attention. `loops`: whether the kernel of the
    experts takes their rows block by block (`scaling.work.looped`), as this package's does on a CPU.
    `ttft_s`, `tpot_s`: limits on the time to the first token and on that of each further one; None: none.
    """

    prompt: int = 512
    generated: int = 256
    bytes_per_weight: float = 2.0
    bytes_per_kv: float = 2.0
    utilisation: float = 0.5
    max_batch: int = 256
    max_devices: int = 64
    max_fleet: int | None = None
    overlap: bool = False
    reads_all: bool = False
    loops: bool = False
    skew: float = 0.0
    head_width: float = 0.0
    ttft_s: float | None = None
    tpot_s: float | None = None
    efficiency: Efficiency = ASSUMED

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise InputError(f"service: utilisation={self.utilisation}; allowed: above 0, at most 1")
        for name in ("prompt", "generated", "max_batch", "max_devices", "bytes_per_weight", "bytes_per_kv"):
            if not getattr(self, name) > 0:
                raise InputError(f"service: {name}={getattr(self, name)}; allowed: above 0")
        for name in ("ttft_s", "tpot_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"service: {name}={value}; allowed: above 0, or none")
        for name in ("skew", "head_width"):
            if not getattr(self, name) >= 0:
                raise InputError(f"service: {name}={getattr(self, name)}; allowed: at least 0")

    @property
    def mean_context(self) -> float:
        """Cached tokens of a sequence, mean over its generation: `prompt + generated / 2` (Yun, arXiv 2404.02852)."""
        return self.prompt + self.generated / 2


NUMBER_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
"""Bytes of a weight or a cached value, by the name of its type."""
SERVICE = Service()
"""The defaults."""


@dataclass(frozen=True)
class Layout:
    """How one replica lies on its G devices; arrays are several layouts, of a shape that broadcasts against the models.

    By matrix: each is split over all devices, which all work on every token: two all-reduces of b d elements a layer
    (Shoeybi et al. 2019, arXiv 1909.08053). `by_expert`: the experts are split, all else is copied and the sequences are
    shared out: two all-to-alls of b k d / G elements a layer and device (GShard, arXiv 2006.16668).
    """

    n_devices: Values = 1
    by_expert: bool | npt.NDArray[np.bool_] = False

    def __post_init__(self) -> None:
        if np.any(np.asarray(self.n_devices) < 1):
            raise InputError(f"layout: {self.n_devices} devices; allowed: at least 1")


ALONE = Layout()


def distinct_experts(n_experts: int, top_k: float, batch: Values, skew: float = 0.0) -> Values:
    """Experts of one layer that a batch of tokens touches, expected: `sum_e 1 - (1 - p_e)^b`.

    Tokens choose independently, expert e with probability p_e; without `skew` p_e = k/E and the sum is
    `E (1 - (1 - k/E)^b)`: an upper bound where routing is skewed. With it p_e falls as rank^-skew (of mean k/E, none above
    1). It is the number of expert weight blocks that a decode step reads; k experts at b = 1, all of them at large b.
    """
    if n_experts == 1:
        return np.ones_like(np.asarray(batch, dtype=float))[()]
    if top_k >= n_experts:
        return 0.0 * batch + n_experts
    if not skew:
        return n_experts * -np.expm1(batch * np.log1p(-top_k / n_experts))
    chosen = _chances(n_experts, top_k, skew)
    tokens = np.asarray(batch, dtype=float)[..., None]
    with np.errstate(divide="ignore"):
        missed = np.where(chosen < 1, np.exp(tokens * np.log1p(-np.minimum(chosen, 1 - 1e-16))), 0.0)
    return np.sum(1.0 - missed, axis=-1)[()]


def _chances(n_experts: int, top_k: float, skew: float) -> npt.NDArray[np.float64]:
    """How likely a token chooses each expert: falling as rank^-skew, k in all, what exceeds 1 shared out below."""
    weights = np.arange(1, n_experts + 1, dtype=float) ** -skew
    chosen = np.minimum(weights * top_k / weights.sum(), 1.0)
    for _ in range(n_experts):
        left = top_k - chosen.sum()
        open_ = chosen < 1
        if left < 1e-12 or not open_.any():
            break
        chosen[open_] = np.minimum(chosen[open_] + left * weights[open_] / weights[open_].sum(), 1.0)
    return chosen


def skew_of(n_experts: int, top_k: float, batches: npt.ArrayLike, touched: npt.ArrayLike) -> float:
    """The skew at which batches of these sizes touch as many experts as was observed, least squares; 0 where as many as
    an even router or more. Searched over [0, 8].
    """
    sizes, seen = np.asarray(batches, dtype=float), np.asarray(touched, dtype=float)
    if n_experts <= top_k or np.all(seen >= distinct_experts(n_experts, top_k, sizes) * (1 - 1e-9)):
        return 0.0
    found = minimize_scalar(
        lambda skew: float(np.sum((distinct_experts(n_experts, top_k, sizes, skew) - seen) ** 2)),
        bounds=(0.0, 8.0), method="bounded", options={"xatol": 1e-6},
    )  # fmt: skip
    return float(found.x)


def weight_bytes_read(sizes: ModelSizes, tokens: Values, service: Service, layout: Layout = ALONE) -> Values:
    """Bytes of weights that the busiest device reads in a pass over `tokens` tokens: shared parts, routers, experts touched.

    One device: `bytes (n_active + n_router + (U - k) n_expert)`, at one token the active parameters, at many everything.
    Split by matrix, that divided by G; by expert, the shared parts are copied and each device reads its 1/G of the experts
    touched by all tokens. With `reads_all` every expert is read.
    """
    routed = min(sizes.top_k, sizes.n_experts)
    touched = sizes.n_experts if service.reads_all else distinct_experts(sizes.n_experts, routed, tokens, service.skew)
    # Counts of somebody else's table may say of k and N_total what no model can have: never less than nothing.
    shared = np.maximum(sizes.n_active + sizes.n_router - routed * sizes.n_expert, 0.0)
    experts = touched * sizes.n_expert / layout.n_devices
    return service.bytes_per_weight * (shared / np.where(layout.by_expert, 1, layout.n_devices) + experts)


def weight_bytes(sizes: ModelSizes, bytes_per_weight: float, layout: Layout = ALONE) -> Values:
    """Bytes that each device must hold: every expert and every router, however few are active.

    Split by matrix, that divided by G; by expert, the experts are divided and the rest is copied.
    """
    everything = sizes.n_total + sizes.n_router
    experts = np.minimum(sizes.n_experts * sizes.n_expert, everything)
    copied = np.where(layout.by_expert, everything - experts, 0.0)
    return bytes_per_weight * (copied + (everything - copied) / layout.n_devices)[()]


def largest_batch(sizes: ModelSizes, on: Device, service: Service, layout: Layout = ALONE) -> Values:
    """Sequences that fit beside the weights, over all devices: `G (M0 - weights) / (mean context x cache of a token)`.

    Yun et al. (arXiv 2404.02852), b_max, in bytes and with every expert resident. Not rounded; below 1: none.
    """
    free = on.memory - weight_bytes(sizes, service.bytes_per_weight, layout)
    each = service.mean_context * sizes.kv_elements_per_token * service.bytes_per_kv
    return layout.n_devices * free / each


def decode_work(
    sizes: ModelSizes, on: Device, batch: Values, context: float, service: Service, layout: Layout = ALONE
) -> Work:
    """One decode step of `batch` sequences with `context` cached tokens each.

    Reads the weights touched and the cache; `b (2 n_active + 4 n_layers T d_model)` FLOPs (laws sheet, section 4.2).
    """
    cache = batch * context * sizes.kv_elements_per_token * service.bytes_per_kv
    attention = 4.0 * batch * sizes.n_layers * context * sizes.d_model
    return _work(sizes, on, batch, batch, context, cache, attention, service, layout)


def prefill_work(sizes: ModelSizes, on: Device, requests: Values, service: Service, layout: Layout = ALONE) -> Work:
    """The prefill of `requests` prompts: as a decode step, over all their tokens, with causal attention.

    A token attends to half the prompt on average, hence `2 n_layers prompt d_model` FLOP of attention per token. Less
    than one request (at steady state, one every few steps) is its part of one whole request.
    """
    whole = np.maximum(requests, 1.0)
    tokens = whole * service.prompt
    cache = tokens * sizes.kv_elements_per_token * service.bytes_per_kv
    attention = 2.0 * tokens * sizes.n_layers * service.prompt * sizes.d_model
    one = _work(sizes, on, tokens, whole, service.prompt, cache, attention, service, layout)
    return replace(one, prompts=one.layers).times(requests / whole)


def decode_seconds(
    sizes: ModelSizes, on: Device, batch: Values, context: float, service: Service, layout: Layout = ALONE
) -> Values:
    """Seconds of one decode step (`decode_work`)."""
    return decode_work(sizes, on, batch, context, service, layout).seconds(on, service.efficiency, service.overlap)


def prefill_seconds(
    sizes: ModelSizes, on: Device, requests: Values, service: Service, layout: Layout = ALONE
) -> Values:
    """Seconds of a prefill (`prefill_work`)."""
    return prefill_work(sizes, on, requests, service, layout).seconds(on, service.efficiency, service.overlap)


def _work(
    sizes: ModelSizes,
    on: Device,
    tokens: Values,
    sequences: Values,
    context: float,
    cache: Values,
    attention: Values,
    service: Service,
    layout: Layout,
) -> Work:
    """A pass over the tokens of some sequences, with the bytes of their cache and the FLOPs of their attention."""
    devices = np.asarray(layout.n_devices, dtype=float)
    # Whole sequences are shared out: of 33 on 32 devices one has two, and one alone leaves 31 devices to their experts.
    busy = np.where(layout.by_expert, sequences / np.ceil(sequences / devices), devices)
    copies = np.where(layout.by_expert, busy, 1.0)  # a split by matrix has every device at every token
    routed = sizes.n_experts > 1
    touched = distinct_experts(sizes.n_experts, sizes.top_k, tokens, service.skew) if routed else 0.0
    in_experts = 2.0 * tokens * sizes.top_k * sizes.n_expert if routed else 0.0
    elsewhere = np.maximum(2.0 * tokens * (sizes.n_active + sizes.n_router) - in_experts, 0.0) + attention
    padding: Values = 0.0
    again: Values = 0.0
    if routed and service.loops:
        padding, again = looped(tokens, touched, sizes.n_experts, sizes.top_k, sizes.n_expert)
    written, largest = elements_written(
        tokens,
        sizes.n_layers,
        sizes.d_model,
        routed=sizes.top_k if routed else 0.0,
        n_heads=sizes.d_model / service.head_width if service.head_width else 0.0,
        sequences=sequences,
        context=context,
    )
    return Work(
        layers=sizes.n_layers,
        experts=sizes.n_layers * touched / np.where(layout.by_expert, devices, 1.0),
        activations=written / copies,
        largest=largest / copies,
        bytes=weight_bytes_read(sizes, tokens, service, layout) + cache / busy,
        rereads=service.bytes_per_weight * again / devices,
        flops=elsewhere / busy + (in_experts + padding) / devices,
        communication_s=communication_seconds(sizes, on, tokens / busy * devices, service, layout),
    )


def communication_seconds(sizes: ModelSizes, on: Device, tokens: Values, service: Service, layout: Layout) -> Values:
    """Seconds that devices send and wait in one pass over `tokens` tokens; 0 on one device.

    By matrix: two ring all-reduces a layer, each 2 (G-1)/G of the activations over the link. By expert: two all-to-alls a
    layer, of k copies of each device's tokens, (G-1)/G of which leave it; nothing for a dense model, whose replicas only
    share out sequences. Each transfer waits the link's latency once a step of the ring, or once. More devices than the link
    joins send over the fabric.
    """
    devices = np.asarray(layout.n_devices, dtype=float)
    away = (devices - 1) / devices
    exchanged = sizes.top_k if sizes.n_experts > 1 else 0.0
    sent = away * tokens * sizes.d_model * np.where(layout.by_expert, exchanged / devices, 2.0)
    waits = np.where(layout.by_expert, (devices > 1) * (exchanged > 0), 2 * (devices - 1))
    link = np.where(devices > on.link_devices, on.fabric, on.link)
    return (2 * sizes.n_layers * (sent * service.bytes_per_kv / link + waits * on.link_latency_s))[()]
