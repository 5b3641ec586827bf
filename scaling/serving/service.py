"""What is served and how: sizes of a model, requests, precision, layout over devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from scaling.architecture import Architecture, attended_pairs
from scaling.arrays import Booleans, Integers, Values
from scaling.bounds import LEAST_SHARE, outside
from scaling.errors import InputError
from scaling.serving.departures import NONE_MEASURED, Departures
from scaling.serving.engine_speed import EngineSpeed
from scaling.serving.measured_range import MeasuredRange
from scaling.serving.step_time import ASSUMED, Efficiency
from scaling.summary import Settings

_MOST_DRAFTED = 64
_MOST, _MOST_OF = 1e12, {"skew": 20.0, "head_width": 1e6}
_COUNTS = ("n_active", "n_total", "kv_elements_per_token", "n_layers", "d_model", "n_router", "n_lookup")
_OF_ATTENTION = ("elements", "decode_flops", "prefill_flops", "splits", "state")


@dataclass(frozen=True, eq=False)
class AttentionSizes:
    """The attention of some of a model's layers, over all of these layers together.

    `elements` of the cache per cached token; FLOPs of a token per token that it attends to, in decode and in prefill;
    `splits`, the most devices over which tensor parallelism divides the cache (beyond them it is copied); `window`, the
    last tokens that a token attends to (None: all). `state`: elements of a sequence of any length.
    """

    elements: Values
    decode_flops: Values
    prefill_flops: Values
    splits: Values = np.inf
    window: int | None = None
    state: Values = 0.0

    def cached(self, context: Values) -> Values:
        """Elements that a sequence of this many tokens keeps."""
        return self.elements * self.attended(context) + self.state

    def attended(self, context: Values) -> Values:
        """Tokens that a token attends to in decode."""
        return context if self.window is None else np.minimum(context, self.window)

    def attended_in_prompt(self, prompt: Values, hit: float = 0.0) -> Values:
        """Tokens that a token of a prompt attends to on average: half of it, or within the window.

        With a share `hit` of the prompt cached already, the tokens after it, which attend to it too.
        """
        pairs = attended_pairs(prompt, self.window) - attended_pairs(hit * prompt, self.window)
        return pairs / (prompt * (1.0 - hit))


@dataclass(frozen=True, eq=False)
class ModelSizes:
    """The counts that decide what a model costs to serve; parameters and elements, not bytes.

    `n_active`, `n_total` as in the run table (embeddings and head in, routers out), `n_router` beside them.
    `kv_elements_per_token`: keys and values of one cached token over all layers (`2 n_layers d_model` for plain
    multi-head attention). A dense model has `n_experts = 1`, whatever `top_k` says. `attention` describes layers of
    grouped-query, latent, windowed or linear attention; empty: plain multi-head attention of width `d_model` with the
    cache of `kv_elements_per_token`. `n_lookup` of `n_active` are embeddings: held, but neither read as a whole nor
    multiplied (0: not known apart, and counted as any weight). `routed_share` is the part of the layers that have
    experts, the others are dense.
    """

    n_active: Values
    n_total: Values
    kv_elements_per_token: Values
    n_layers: Values
    d_model: Values
    n_experts: int = 1
    top_k: float = 1
    n_router: Values = 0.0
    n_lookup: Values = 0.0
    attention: tuple[AttentionSizes, ...] = ()
    routed_share: float = 1.0

    @classmethod
    def of_architecture(cls, model: Architecture) -> ModelSizes:
        """The sizes of a described model. As in the run table, embedding and head count once each, routers apart."""
        counts = model.parameters()
        attention = tuple(
            AttentionSizes(
                elements=group.count * group.attention.cached_elements,
                decode_flops=group.count * group.attention.flops_per_pair(decode=True),
                prefill_flops=group.count * group.attention.flops_per_pair(decode=False),
                splits=group.attention.most_splits,
                window=getattr(group.attention, "window", None),
                state=group.count * group.attention.state_elements,
            )
            for group in model.groups
        )
        return cls(
            n_active=model.n_active() - counts["router"],
            n_total=model.n_total - counts["router"],
            kv_elements_per_token=model.cache_elements_per_token,
            n_layers=model.n_layers,
            d_model=model.d_model,
            n_experts=model.n_experts,
            top_k=float(model.top_k),
            n_router=counts["router"],
            n_lookup=0.0 * counts["embedding"] if model.tied else counts["embedding"],
            attention=attention,
            routed_share=float(np.max(model.n_routed_layers / model.n_layers)) if model.n_experts > 1 else 1.0,
        )

    def __post_init__(self) -> None:
        if self.n_experts < 1 or self.top_k < 1 or (self.n_experts > 1 and self.top_k > self.n_experts):
            raise InputError(f"sizes: n_experts={self.n_experts}, top_k={self.top_k}; allowed: 1 <= top_k <= n_experts")
        active, total = np.asarray(self.n_active), np.asarray(self.n_total)
        if np.any(active <= 0) or np.any(total < active * (1 - 1e-9)):
            raise InputError(f"sizes: n_active={active}, n_total={total}; allowed: 0 < n_active <= n_total")

    @cached_property
    def _value(self) -> tuple[Any, ...]:
        counts = [np.asarray(getattr(self, name), dtype=float) for name in _COUNTS]
        for group in self.attention:
            counts += [np.asarray(getattr(group, name), dtype=float) for name in _OF_ATTENTION]
        windows = tuple(group.window for group in self.attention)
        plain = self.n_experts, self.top_k, self.routed_share, windows
        return *plain, *((count.shape, count.tobytes()) for count in counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelSizes) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def of(self, index: int) -> ModelSizes:
        """One of several models, by its place in the arrays."""
        return self._each(lambda count: float(np.ravel(count)[index if np.size(count) > 1 else 0]))

    def _each(self, change: Callable[[Values], Values]) -> ModelSizes:
        changed: dict[str, Any] = {name: change(getattr(self, name)) for name in _COUNTS}
        attention = []
        for group in self.attention:
            of_group: dict[str, Any] = {name: change(getattr(group, name)) for name in _OF_ATTENTION}
            attention.append(replace(group, **of_group))
        return replace(self, **changed, attention=tuple(attention))

    @cached_property
    def layers_of_attention(self) -> tuple[AttentionSizes, ...]:
        """`attention`, or the plain multi-head attention that its absence means."""
        flops = 4.0 * self.n_layers * self.d_model
        return self.attention or (AttentionSizes(self.kv_elements_per_token, flops, flops),)

    def spread(self, shape: tuple[int, ...]) -> ModelSizes:
        """Counts of this shape, in a row."""
        return self._each(lambda values: np.broadcast_to(values, shape).ravel())

    def rows(self, chosen: Integers | Booleans) -> ModelSizes:
        """Some of several models."""
        return self._each(lambda values: np.asarray(values)[chosen])

    @property
    def n_expert(self) -> Values:
        """Parameters of one expert over all layers: `(n_total - n_active) / (E - k)`; 0 where all are active."""
        spare = self.n_experts - min(self.top_k, self.n_experts)
        return (self.n_total - self.n_active) / spare if spare else 0.0 * self.n_active


@dataclass(frozen=True, repr=False)
class Service(Settings):
    """How a model is served. Every default is a stated assumption, not a measurement; replace what you know.

    A request brings `prompt` tokens and takes `generated`. `bytes_per_weight` and `bytes_per_kv` are those of weights
    and cache with their scales, `bytes_per_expert` those of routed experts where they differ; `arithmetic` and
    `expert_arithmetic` name the number format of their products (None: the device's own, and that of the other
    weights); attention multiplies in the device's own format (`scaling.serving.precision`). `utilisation`: part of the
    rented time in which replicas are busy. `max_batch`: sequences that a replica may hold at once even where more fit
    (None: what memory and the limits on latency leave). `overlap`: whether reading and computing hide each other (the
    roofline) or add up. `reads_all`: whether a step reads all experts, active or not, as kernels that loop over all of
    them do. `max_devices`: of a replica, at most; `max_fleet`: of all replicas together, where a load is given. `skew`:
    how uneven the router is (`distinct_experts`); 0 is even. `head_width`: of attention that is not fused and writes
    its scores (`elements_written`); 0 is fused attention. `loops`: whether the kernel of the experts takes their rows
    block by block (`scaling.serving.step_time.looped`), as this package's does on a CPU. `ttft_s`, `tpot_s`: limits on
    the time to the first token and on that of each further one; None: none. `engine`: the fitted speed of a serving
    engine, which then replaces `efficiency`, `departures`, `overlap`, `reads_all` and `loops` (`engine_speed`).
    `apart`: prompts are read by other devices than those that decode; else both share an iteration. `prefix_hit`: the
    share of prompt tokens whose keys and values are cached already. `drafted`: tokens that speculative decoding
    proposes in a step for each sequence, each `accepted` with that probability where those before it were (arXiv
    2211.17192). `measured_range`: what the measurement behind `efficiency` covers; None: nothing was measured.
    `departures`: how the steps of that measurement depart from `efficiency`, which then holds for steps near them too.
    """

    prompt: int = 512
    generated: int = 256
    bytes_per_weight: float = 2.0
    bytes_per_expert: float | None = None
    bytes_per_kv: float = 2.0
    arithmetic: str | None = None
    expert_arithmetic: str | None = None
    utilisation: float = 0.5
    max_batch: int | None = None
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
    engine: EngineSpeed | None = None
    apart: bool = False
    prefix_hit: float = 0.0
    drafted: int = 0
    accepted: float = 0.0
    measured_range: MeasuredRange | None = None
    departures: Departures = NONE_MEASURED

    def __post_init__(self) -> None:
        if not LEAST_SHARE <= self.utilisation <= 1:
            raise InputError(
                f"`utilisation` must be above 0 (at least {LEAST_SHARE:g}) and at most 1, found {self.utilisation:g}"
            )
        for name in ("prompt", "generated", "max_batch", "max_devices", "bytes_per_weight", "bytes_per_kv"):
            value = getattr(self, name)
            if value is not None and (wrong := outside(value, _MOST)):
                raise InputError(f"`{name}` {wrong}")
        for name in ("ttft_s", "tpot_s"):
            value = getattr(self, name)
            if value is not None and (wrong := outside(value, _MOST)):
                raise InputError(f"`{name}` {wrong} seconds")
        for name in ("prefix_hit", "accepted"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"`{name}` must be at least 0 and below 1, found {getattr(self, name):g}")
        if self.engine is not None and self.reads_all:
            raise InputError("`reads_all` says more of an assumed speed than an engine's has: give `speed` assumed")
        if not 0 <= self.drafted <= _MOST_DRAFTED:
            raise InputError(f"`drafted` must be from 0 to {_MOST_DRAFTED} tokens, found {self.drafted}")
        for name in ("skew", "head_width"):
            if not 0 <= getattr(self, name) <= _MOST_OF[name]:
                raise InputError(f"`{name}` must be from 0 to {_MOST_OF[name]:g}, found {getattr(self, name):g}")

    @property
    def tokens_a_step(self) -> float:
        """Tokens that a sequence gains in a step: 1, or with drafts 1 + a + ... + a^g = (1 - a^(g + 1))/(1 - a).

        Leviathan et al. (arXiv 2211.17192), eq. 1.
        """
        return float(sum(self.accepted**place for place in range(self.drafted + 1)))

    @property
    def prompt_per_output(self) -> float:
        """Prompt tokens that are read for each output token, but for what is cached of them."""
        return self.prompt * (1.0 - self.prefix_hit) / self.generated

    @property
    def expert_bytes(self) -> float:
        """Bytes of a weight of a routed expert."""
        return self.bytes_per_weight if self.bytes_per_expert is None else self.bytes_per_expert

    @property
    def arithmetic_of_experts(self) -> str | None:
        """The number format in which routed experts multiply."""
        return self.arithmetic if self.expert_arithmetic is None else self.expert_arithmetic

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
    (Shoeybi et al. 2019, arXiv 1909.08053). `by_expert`: the experts are split, all else is copied and the sequences
    are shared out: two all-to-alls of b k d / G elements a layer and device (GShard, arXiv 2006.16668).
    """

    n_devices: Values = 1
    by_expert: bool | Booleans = False

    def __post_init__(self) -> None:
        if np.any(np.asarray(self.n_devices) < 1):
            raise InputError(f"layout: {self.n_devices} devices; allowed: at least 1")

    def spread(self, shape: tuple[int, ...]) -> Layout:
        """Layouts of this shape, in a row."""
        return Layout(*(np.broadcast_to(value, shape).ravel() for value in (self.n_devices, self.by_expert)))

    def rows(self, chosen: Integers | Booleans) -> Layout:
        """Some of several layouts."""
        return Layout(np.asarray(self.n_devices)[chosen], np.asarray(self.by_expert)[chosen])


ALONE = Layout()
