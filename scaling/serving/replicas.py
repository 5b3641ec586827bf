"""What serving costs: replicas of a model, their throughput and latency under continuous batching, their price.

Names as vLLM's serving benchmark uses them (`METRICS` holds the formulas): ttft, tpot, e2el, output_throughput and
request_goodput. All are of a steady state: what a request waits in a queue comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from scaling.arrays import Array, Booleans, Integers, Values
from scaling.errors import InputError
from scaling.serving.device import Device
from scaling.serving.engine import iteration_terms, prompt_terms
from scaling.serving.service import ALONE, SERVICE, Layout, ModelSizes, Service
from scaling.serving.step_time import total_seconds
from scaling.serving.steps import (
    decode_seconds,
    decode_terms,
    largest_batch,
    prefill_seconds,
    prefill_terms,
    weight_bytes,
)

_MOST_SEQUENCES = 1e9  # where nothing is cached
_REMEMBERED = 256  # sets of models whose capacity is kept: a decision asks about most of them again
SECONDS_A_MONTH = 365.25 / 12 * 86_400.0
METRICS = {
    "tpot": "time of one iteration, L_D(b) + L_P(b/n): b sequences decode, b/n new ones prefill",
    "ttft": "tpot / 2 + L_P(1): a request comes at any time of an iteration, then its prompt is read; no queue",
    "e2el": "ttft + (n - 1) tpot",
    "output_throughput": "b / tpot, generated tokens per second of one replica",
    "request_goodput": "output_throughput / n, requests per second that keep the limits on ttft and tpot",
    "usd_per_token": "G C0 / (u output_throughput) at a utilisation u, or r G C0 / demand for r whole replicas",
}
"""Formulas for people. b sequences at once, n generated tokens of a request, G devices, C0 USD per device-second."""


@dataclass(frozen=True)
class Replica:
    """One replica that holds `batch` sequences at once, and what it reaches.

    `terms`: of the time of one iteration, as `StepWork.terms`. Where the weights do not fit, or no batch keeps the
    limits on latency, batch and throughput are 0.
    """

    n_devices: Values
    experts_split: Values  # 1 where experts are spread over the devices, 0 where matrices are
    batch: Values
    ttft_s: Values
    tpot_s: Values
    e2el_s: Values
    output_throughput: Values
    request_goodput: Values
    weight_bytes: Values
    terms: Array


@dataclass(frozen=True)
class Offer:
    """A replica, how many of it a demand takes (0: no demand was given), and USD per generated token, prompt and idle
    time in it; infinite where it cannot serve at all."""

    replica: Replica
    replicas: Values
    usd_per_token: Values


def throughput(batch: Values, prefill_s: Values, decode_s: Values) -> Values:
    """Generated tokens per second of one replica at steady state: `b / (L_P(b / n) + L_D(b))`.

    Each iteration decodes b sequences (`decode_s` seconds) and prefills the b/n new ones that take the places of those
    that have ended after n tokens (`prefill_s` seconds). Yun et al. (arXiv 2404.02852).
    """
    return batch / (prefill_s + decode_s)


def replica(sizes: ModelSizes, on: Device, service: Service = SERVICE, layout: Layout = ALONE) -> Replica:
    """A replica at the largest batch that fits its devices and keeps the limits on latency (`METRICS`).

    Throughput grows with the batch, so the largest is the cheapest.
    """
    return holding(sizes, on, service, layout, largest_within_limits(sizes, on, service, layout))


def holding(sizes: ModelSizes, on: Device, service: Service, layout: Layout, batch: Values) -> Replica:
    """The replica that holds this batch, or what one sequence would see where that is 0."""
    held = np.maximum(batch, 1.0)
    terms = iteration(sizes, on, held, service, layout)
    tpot, prompt = seconds_of(terms, service), prompt_seconds(sizes, on, service, layout)
    first = ttft(tpot, prompt)
    rate = np.where(batch >= 1, _rate(held, tpot, prompt, service), 0.0)
    plain = 0.0 * batch
    return Replica(
        n_devices=plain + layout.n_devices,
        experts_split=plain + np.where(np.asarray(layout.n_devices) > 1, layout.by_expert, False),
        batch=batch,
        ttft_s=plain + first,
        tpot_s=plain + tpot,
        e2el_s=plain + first + (service.generated - 1) * tpot,
        output_throughput=rate,
        request_goodput=rate / service.generated,
        weight_bytes=plain + weight_bytes(sizes, service, layout),
        terms=plain + terms,
    )


def iteration(sizes: ModelSizes, on: Device, batch: Values, service: Service, layout: Layout) -> Array:
    """Terms of the time of an iteration that decodes `batch` sequences and, unless prompts are read apart, prefills
    batch/n new ones; for each token that a sequence gains.

    They are those of `scaling.serving.engine_speed.TERMS` with an engine's speed, else of `StepWork.terms`.
    """
    if service.engine is not None:
        return iteration_terms(sizes, on, batch, service, layout, mixed=not service.apart)
    # Reading and computing overlap within each of the two, not across.
    decoded = decode_terms(sizes, on, batch, service.mean_context, service, layout) / service.tokens_a_step
    if service.apart:
        return decoded
    return decoded + prefill_terms(sizes, on, batch / service.generated, service, layout)


def seconds_of(terms: Array, service: Service) -> Values:
    """Seconds of an iteration or a prompt of these terms."""
    return total_seconds(terms, service.efficiency) if service.engine is None else service.engine.seconds(terms)


def prompt_seconds(sizes: ModelSizes, on: Device, service: Service, layout: Layout) -> Values:
    """Seconds of reading one prompt alone."""
    if service.engine is None:
        return prefill_seconds(sizes, on, 1.0, service, layout)
    return service.engine.seconds(prompt_terms(sizes, on, service, layout))


def _rate(batch: Values, tpot: Values, prompt_s: Values, service: Service) -> Values:
    """Generated tokens per second for each of the replica's worth of devices.

    Where prompts are read apart, other devices take `prompt_s` for every n tokens: b/(tpot + b prompt_s/n).
    """
    reading = batch * prompt_s / service.generated if service.apart else 0.0
    return batch / (tpot + reading)


def prompt_share(sizes: ModelSizes, on: Device, batch: Values, service: Service, layout: Layout) -> Values:
    """The part of the device time that prompts take, the rest being that of output tokens.

    Together in iterations: what one takes with its prompts in it, less what it takes without; apart: their own time.
    """
    decoding = seconds_of(iteration(sizes, on, batch, replace(service, apart=True), layout), service)
    if service.apart:
        whole = decoding + batch * prompt_seconds(sizes, on, service, layout) / service.generated
    else:
        whole = seconds_of(iteration(sizes, on, batch, service, layout), service)
    return 1.0 - decoding / whole


def ttft(tpot: Values, prompt_s: Values, waited: float = 0.5) -> Values:
    """Time to the first token, seconds or their terms: part of an iteration is waited for, then the prompt is read."""
    return waited * tpot + prompt_s


def largest_held(sizes: ModelSizes, on: Device, service: Service, layout: Layout) -> Values:
    """The largest whole batch that fits, whatever it takes; 0 where not even one sequence does."""
    most = service.max_batch or _MOST_SEQUENCES
    return np.floor(np.clip(largest_batch(sizes, on, service, layout), 0, most))[()]


def largest_within_limits(sizes: ModelSizes, on: Device, service: Service, layout: Layout) -> Values:
    """The largest whole batch that fits and keeps the limits on latency; 0 where not even one sequence does.

    Both latencies rise with the batch, so for every pair of a model and a layout a batch that keeps the limits and one
    that does not close in on the largest: by false position, every third step by halving. Pairs leave once settled.
    """
    most = np.asarray(largest_held(sizes, on, service, layout))
    if service.tpot_s is None and service.ttft_s is None:
        return most[()]
    batch = most.ravel()
    rows = np.flatnonzero(batch >= 1)
    pairs, high = _Pairs.of(sizes, layout, most.shape, rows, on, service), batch[rows]
    too_late = pairs.lateness(high)
    open_ = too_late > 0
    rows, pairs, high, too_late = rows[open_], pairs.rows(open_), high[open_], too_late[open_]
    low = np.ones(rows.size)
    late = pairs.lateness(low)
    batch[rows] = late <= 0
    step = 0
    while (open_ := (late <= 0) & (high - low > 1)).any():
        rows, pairs = rows[open_], pairs.rows(open_)
        low, late, high, too_late = (values[open_] for values in (low, late, high, too_late))
        step += 1
        share = late / (late - too_late) if step % 3 else 0.5
        middle = np.clip(np.floor(low + share * (high - low)), low + 1, high - 1)
        found = pairs.lateness(middle)
        kept = found <= 0
        low, late = np.where(kept, middle, low), np.where(kept, found, late)
        high, too_late = np.where(kept, high, middle), np.where(kept, too_late, found)
        batch[rows] = low
    return batch.reshape(most.shape)[()]


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a model and a layout on a device, one a place of every array, and seconds of one prompt on each."""

    sizes: ModelSizes
    layout: Layout
    on: Device
    service: Service
    prompt_s: Array

    @classmethod
    def of(
        cls, sizes: ModelSizes, layout: Layout, shape: tuple[int, ...], rows: Integers, on: Device, service: Service
    ) -> _Pairs:
        sizes, layout = sizes.spread(shape).rows(rows), layout.spread(shape).rows(rows)
        return cls(sizes, layout, on, service, np.asarray(prompt_seconds(sizes, on, service, layout)))

    def rows(self, chosen: Integers | Booleans) -> _Pairs:
        return replace(
            self, sizes=self.sizes.rows(chosen), layout=self.layout.rows(chosen), prompt_s=self.prompt_s[chosen]
        )

    def lateness(self, batch: Array) -> Array:
        """Seconds by which tpot or ttft of these batches exceed their limit; at most 0 where both are kept."""
        service = self.service
        if service.engine is not None or service.apart or service.drafted:
            return self._beyond(seconds_of(iteration(self.sizes, self.on, batch, service, self.layout), service))
        prompts = batch / service.generated
        if (service.max_batch or np.inf) <= service.generated:  # at most one prompt an iteration: that part of one
            prefill: Values = self.prompt_s * prompts
        else:
            prefill = prefill_seconds(self.sizes, self.on, prompts, service, self.layout)
        tpot = decode_seconds(self.sizes, self.on, batch, service.mean_context, service, self.layout) + prefill
        return self._beyond(tpot)

    def _beyond(self, tpot: Values) -> Array:
        service = self.service
        steady = tpot - (np.inf if service.tpot_s is None else service.tpot_s)
        return np.maximum(steady, ttft(tpot, self.prompt_s) - (np.inf if service.ttft_s is None else service.ttft_s))


@dataclass(frozen=True)
class Capacity:
    """The largest batch of models under every layout, and its throughput; their axis is before those of the models."""

    layouts: Layout
    batch: Array
    output_throughput: Array


@lru_cache(maxsize=_REMEMBERED)
def _capacity(sizes: ModelSizes, on: Device, service: Service) -> Capacity:
    every = layouts(service, sizes.n_experts, np.ndim(sizes.n_active))
    batch = np.asarray(largest_within_limits(sizes, on, service, every))
    rate = np.zeros(batch.size)
    rows = np.flatnonzero(batch)
    held, spread = sizes.spread(batch.shape).rows(rows), every.spread(batch.shape).rows(rows)
    some = batch.ravel()[rows]
    tpot = seconds_of(iteration(held, on, some, service, spread), service)
    prompt = prompt_seconds(held, on, service, spread) if service.apart else 0.0
    rate[rows] = _rate(some, tpot, prompt, service)
    return Capacity(every, batch, rate.reshape(batch.shape))


def capacity(sizes: ModelSizes, on: Device, service: Service = SERVICE) -> Capacity:
    """What replicas hold and reach, kept for other loads and prices of the same models."""
    return _capacity(sizes, *without_price(on, service))


def without_price(on: Device, service: Service) -> tuple[Device, Service]:
    """A device and a service but for what decides only the price: rent, utilisation and the size of the fleet."""
    unpriced = replace(on, usd_per_hour=0.0, price_source="", price_date="")
    return unpriced, replace(service, utilisation=1.0, max_fleet=None)


def layouts(service: Service, n_experts: int, models: int = 0) -> Layout:
    """The layouts compared, along the first of `1 + models` axes: powers of two of devices, split by matrix or, with
    experts, by expert (no more devices than experts). The fewest devices come first."""
    counts = 2 ** np.arange(1, int(np.log2(service.max_devices)) + 1)
    both = np.concatenate([[1], counts, counts[counts <= n_experts]])
    by_expert = np.arange(len(both)) > len(counts)
    order = np.argsort(both, kind="stable")
    shape = (-1, *[1] * models)
    return Layout(both[order].reshape(shape).astype(float), by_expert[order].reshape(shape))


def price(
    n_devices: Values, output_throughput: Values, on: Device, service: Service, demand: float | None = None
) -> tuple[Values, Values]:
    """Replicas and USD per generated token.

    Without a demand, at the service's utilisation: `G C0 / (u T)` (Yun et al., arXiv 2404.02852; 0 replicas).
    With one, in generated tokens per second, of whole replicas: `r = ceil(demand / (u T))`, `r G C0 / demand`, infinite
    where that takes more than `max_fleet` devices. Below one replica the price of a token is inverse to the demand, an
    idle device costs as much as a busy one: never state a price without its load. Raises InputError for a demand that
    is not positive.
    """
    per_second = on.usd_per_hour / 3600
    with np.errstate(divide="ignore"):
        if demand is None:
            return 0.0 * output_throughput, n_devices * per_second / (service.utilisation * output_throughput)
        if not demand > 0:
            raise InputError(f"price: demand={demand} tokens/s; allowed: above 0")
        # A hair less than whole, so that a demand that fills replicas exactly does not need one more by rounding.
        replicas = np.ceil(demand / (service.utilisation * output_throughput) * (1 - 1e-12))
    beyond = replicas * n_devices > (np.inf if service.max_fleet is None else service.max_fleet)
    return replicas, np.where(beyond, np.inf, replicas * n_devices * per_second / demand)[()]


def offer(
    sizes: ModelSizes, on: Device, service: Service = SERVICE, layout: Layout = ALONE, demand: float | None = None
) -> Offer:
    """A replica of one layout and its price at a demand in generated tokens per second, or at the utilisation."""
    built = replica(sizes, on, service, layout)
    return Offer(built, *price(built.n_devices, built.output_throughput, on, service, demand))


def cheapest(sizes: ModelSizes, on: Device, service: Service = SERVICE, demand: float | None = None) -> Offer:
    """The offer of least price a generated token over layouts, ties to the first: `min over G of G C0 / (u T(G))`.

    Yun et al. (arXiv 2404.02852), with modelled in place of profiled latencies.
    """
    held = capacity(sizes, on, service)
    best = np.argmin(_prices(held, on, service, demand), axis=0)
    layout = held.layouts.spread(np.shape(held.layouts.n_devices)).rows(best)
    built = holding(sizes, on, service, layout, np.take_along_axis(held.batch, best[None], axis=0)[0][()])
    return Offer(built, *price(built.n_devices, built.output_throughput, on, service, demand))


def least_price(sizes: ModelSizes, on: Device, service: Service = SERVICE, demand: float | None = None) -> Values:
    """USD per generated token of the `cheapest` offer."""
    return np.min(_prices(capacity(sizes, on, service), on, service, demand), axis=0)[()]


def _prices(held: Capacity, on: Device, service: Service, demand: float | None) -> Array:
    return np.asarray(price(held.layouts.n_devices, held.output_throughput, on, service, demand)[1])


def fewest_devices(sizes: ModelSizes, on: Device, service: Service = SERVICE) -> Values:
    """The smallest number of devices that holds the weights and one sequence within the limits; infinite where none."""
    every = layouts(service, sizes.n_experts, np.ndim(sizes.n_active))
    one = largest_within_limits(sizes, on, replace(service, max_batch=1), every)
    return np.min(np.where(one >= 1, every.n_devices, np.inf), axis=0)[()]


def sustained(sizes: ModelSizes, on: Device, service: Service, layout: Layout, demand: float) -> Replica:
    """One replica under a demand below its capacity, in generated tokens per second: at the batch the load sustains.

    The fixed point b = demand x tpot(b), by halving; below one sequence the replica is idle part of the time.
    Throughput is the demand. Raises InputError where the demand exceeds what the replica reaches.
    """
    full = replica(sizes, on, service, layout)
    if not 0 < demand <= float(full.output_throughput) * (1 + 1e-9):
        raise InputError(f"demand={demand} tokens/s; allowed: above 0, at most {float(full.output_throughput):.4g}")
    low, high = 0.0, float(full.batch)
    for _ in range(60):
        middle = 0.5 * (low + high)
        enough = middle / float(seconds_of(iteration(sizes, on, max(middle, 1.0), service, layout), service)) >= demand
        low, high = (low, middle) if enough else (middle, high)
    terms = iteration(sizes, on, max(high, 1.0), service, layout)
    tpot = float(seconds_of(terms, service))
    first = float(ttft(tpot, prompt_seconds(sizes, on, service, layout), 0.5 * min(high, 1.0)))
    return replace(
        full,
        batch=high,
        ttft_s=first,
        tpot_s=tpot,
        e2el_s=first + (service.generated - 1) * tpot,
        output_throughput=demand,
        request_goodput=demand / service.generated,
        terms=terms,
    )


def demand_of(requests_a_month: float, service: Service = SERVICE) -> float:
    """Generated tokens per second of so many requests a month, evenly spread: `requests n / seconds of a month`."""
    return requests_a_month * service.generated / SECONDS_A_MONTH
