"""What a model costs to serve on a device: a ladder of concurrencies, and speed for a user against that of a device."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.fitting.bca import ENDS
from analysis.latency.speeds import Speeds
from scaling.architecture import Architecture
from scaling.arrays import Array, Booleans, Values
from scaling.errors import InputError
from scaling.serving.device import Device
from scaling.serving.replicas import Replica, holding, layouts, price, prompt_share
from scaling.serving.service import Layout, ModelSizes, Service
from scaling.serving.steps import largest_batch, weight_bytes
from scaling.summary import Summarised
from scaling.table import Table

_MOST_RUNGS = 24
_OF_POINT = (
    "ttft_ms", "tpot_ms", "tokens_per_s_per_user", "tokens_per_s_per_device", "usd_per_million_input",
    "usd_per_million_output",
)  # fmt: skip
SPLIT_OF_THE_PRICE = (
    "a device's rent is split by its time: what an iteration takes with prompts in it, less what it takes without, is "
    "the price of input tokens; the rest is that of output tokens"
)
Interval = tuple[float, float]


@dataclass(frozen=True)
class ServingPoint:
    """One replica that holds `concurrency` requests at once, with 95 % intervals (None: the speed was not measured).

    `tokens_per_s_per_device` are output tokens; `memory_gb` is what each device holds, weights and cache.
    """

    concurrency: int
    n_devices: int
    experts_split: bool
    ttft_ms: float
    tpot_ms: float
    tokens_per_s_per_user: float
    tokens_per_s_per_device: float
    usd_per_million_input: float
    usd_per_million_output: float
    memory_gb: float
    ttft_ms_interval: Interval | None = None
    tpot_ms_interval: Interval | None = None
    tokens_per_s_per_user_interval: Interval | None = None
    tokens_per_s_per_device_interval: Interval | None = None
    usd_per_million_input_interval: Interval | None = None
    usd_per_million_output_interval: Interval | None = None


@dataclass(frozen=True, repr=False)
class Serving(Summarised):
    """A model on a device. `ladder`: the cheapest layout at every concurrency; `front`: the points, over all layouts,
    that no other beats in speed for a user and in output tokens per second of a device alike; both within the limits
    on latency. `weight_gb` is of the whole model, `kv_bytes_per_token` of one more token of a sequence."""

    model: str
    source: str
    device: Device
    service: Service
    n_active: float
    n_total: float
    n_experts: int
    top_k: float
    weight_gb: float
    kv_bytes_per_token: float
    ladder: tuple[ServingPoint, ...]
    front: tuple[ServingPoint, ...]
    notes: tuple[str, ...]

    @property
    def cheapest(self) -> ServingPoint:
        """The point of least price of an output token."""
        return max(self.front, key=lambda point: point.tokens_per_s_per_device)

    def summary(self) -> Table:
        """The ladder."""
        table: Table = pkgutil.resolve_name("analysis.decision.serving_tables:ladder_table")(self)
        return table


def serve(model: Architecture, on: Device, service: Service, speeds: Speeds | None = None) -> Serving:
    """What a model reaches and costs on a device, at concurrencies 1, 2, 4, ... as far as its memory allows.

    `speeds` are draws of the device's speed, from which the intervals come. Raises InputError where the model does not
    fit the most devices of a replica, or keeps no limit on latency.
    """
    sizes = ModelSizes.of_architecture(model).of(0)
    every = layouts(service, sizes.n_experts)
    most = np.floor(np.asarray(largest_batch(sizes, on, service, every)))
    most = np.minimum(most, service.max_batch or 2.0**_MOST_RUNGS)
    if not (most >= 1).any():
        need = float(np.min(weight_bytes(sizes, service, every) / on.memory))
        raise InputError(
            f"{model.name} does not fit: its weights and one request take {need:.2g} times the memory of each of "
            f"{service.max_devices} devices ({on.title}); allow more with `max_devices`, or fewer bits with `weights`"
        )
    rungs = 2.0 ** np.arange(int(np.log2(most.max())) + 1)
    batch = np.repeat(rungs[:, None], most.size, axis=1)
    points = _Points(sizes, on, service, every.spread((most.size,)), batch)
    allowed = (batch <= most) & points.within_limits()
    if not allowed.any():
        raise InputError(
            f"{model.name} on {on.title} keeps no limit on latency (`ttft_ms`, `tpot_ms`) at any concurrency; the "
            f"least is {1e3 * float(np.min(points.replica.tpot_s)):.3g} ms per output token"
        )
    rate = np.where(allowed, points.per_device, -np.inf)
    chosen = [(rung, int(np.argmax(rate[rung]))) for rung in range(len(rungs)) if allowed[rung].any()]
    front = _front(points.per_user, points.per_device, allowed)
    return Serving(
        model=model.name,
        source=model.source,
        device=on,
        service=service,
        n_active=float(sizes.n_active),
        n_total=float(sizes.n_total + sizes.n_router),
        n_experts=sizes.n_experts,
        top_k=sizes.top_k,
        weight_gb=float(weight_bytes(sizes, service)) / 1e9,
        kv_bytes_per_token=float(sizes.kv_elements_per_token) * service.bytes_per_kv,
        ladder=_described(points.rows(chosen), speeds),
        front=_described(points.rows(front), speeds),
        notes=(speed_in_words(service), *model.notes),
    )


def speed_in_words(service: Service) -> str:
    """What the speed of a device rests on, and how far it may be off."""
    engine = service.engine
    if engine is None:
        reached = service.efficiency
        return (
            f"speed: {reached.bandwidth_share:.0%} of the bandwidth and {reached.flops_share:.0%} of the peak "
            f"({reached.source})"
        )
    return (
        f"speed {engine.name or 'of an engine'}: time per output token within {engine.error:.0%} (median) on models "
        f"that were left out; fitted to {engine.source}, {engine.date}"
    )


@dataclass(frozen=True)
class _Points:
    """Replicas at some concurrencies and layouts; arrays of one shape."""

    sizes: ModelSizes
    on: Device
    service: Service
    layout: Layout
    batch: Array

    @property
    def replica(self) -> Replica:
        return holding(self.sizes, self.on, self.service, self.layout, self.batch)

    @property
    def per_user(self) -> Array:
        return 1.0 / np.asarray(self.replica.tpot_s)

    @property
    def per_device(self) -> Array:
        return np.asarray(self.replica.output_throughput) / self.layout.n_devices

    def within_limits(self) -> Booleans:
        found, service = self.replica, self.service
        late = np.asarray(found.tpot_s) > (np.inf if service.tpot_s is None else service.tpot_s)
        return ~(late | (np.asarray(found.ttft_s) > (np.inf if service.ttft_s is None else service.ttft_s)))

    def rows(self, chosen: list[tuple[int, int]]) -> _Points:
        """Some of them, by concurrency and layout, in one row."""
        rungs, of_layouts = (np.array(each, dtype=int) for each in zip(*chosen, strict=True))
        return replace(self, layout=self.layout.rows(of_layouts), batch=self.batch[rungs, of_layouts])

    def figures(self) -> dict[str, Array]:
        """What a point reaches, by field."""
        found, service = self.replica, self.service
        _, usd = price(self.layout.n_devices, found.output_throughput, self.on, service)
        share = prompt_share(self.sizes, self.on, self.batch, service, self.layout)
        values: tuple[Values, ...] = (
            1e3 * found.ttft_s,
            1e3 * found.tpot_s,
            1.0 / found.tpot_s,
            found.output_throughput / self.layout.n_devices,
            1e6 * usd * share * service.generated / service.prompt,
            1e6 * usd * (1.0 - share),
        )
        return {name: np.asarray(value) for name, value in zip(_OF_POINT, values, strict=True)}

    @property
    def memory_gb(self) -> Array:
        """Of each device: weights, and the cache of the sequences at their mean context."""
        free = self.on.memory - weight_bytes(self.sizes, self.service, self.layout)
        full = largest_batch(self.sizes, self.on, self.service, self.layout)
        return np.asarray(self.on.memory - free + free * self.batch / full) / 1e9


def _front(per_user: Array, per_device: Array, allowed: Booleans) -> list[tuple[int, int]]:
    """Places of the points that no other allowed one beats in both, the fastest for a user first."""
    places = np.argwhere(allowed)
    user, device = per_user[allowed], per_device[allowed]
    front, best = [], -np.inf
    for index in np.lexsort((-device, -user)):
        if device[index] > best * (1 + 1e-9):
            best = device[index]
            front.append((int(places[index][0]), int(places[index][1])))
    return front


def _described(points: _Points, speeds: Speeds | None) -> tuple[ServingPoint, ...]:
    figures: dict[str, Any] = dict(points.figures())
    memory, layout = points.memory_gb, points.layout.spread(points.batch.shape)
    n_devices, experts_split = np.asarray(layout.n_devices), np.asarray(layout.by_expert)
    intervals: dict[str, Any] = {}
    if speeds is not None:
        services = speeds.services(points.service, points.sizes.n_experts)
        drawn = [replace(points, service=service).figures() for service in services]
        for name in _OF_POINT:
            low, high = np.quantile([each[name] for each in drawn], ENDS, axis=0)
            intervals[f"{name}_interval"] = list(zip(low.tolist(), high.tolist(), strict=True))
    return tuple(
        ServingPoint(
            concurrency=int(points.batch[i]),
            n_devices=int(n_devices[i]),
            experts_split=bool(experts_split[i]),
            memory_gb=float(memory[i]),
            **(
                {name: float(values[i]) for name, values in figures.items()}
                | {name: ends[i] for name, ends in intervals.items()}
            ),
        )
        for i in range(len(points.batch))
    )
