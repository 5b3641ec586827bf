"""The work of prefill and decode steps on one or several devices, and the memory that a model needs.

Everything follows from counts (`ModelSizes`), so that a law's continuous N can be priced; counts may be NumPy arrays,
and then so are results. Times are estimates from data sheets and reached shares of the peaks, which
`analysis.latency.law` fits to measured steps; `scaling.serving.replicas` derives throughput, latency and prices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from scaling.arrays import Array, Values
from scaling.serving.collectives import all_reduce_seconds, exchange_seconds
from scaling.serving.departures import PhaseDepartures, times
from scaling.serving.device import Device
from scaling.serving.expert_load import distinct_experts
from scaling.serving.service import ALONE, AttentionSizes, Layout, ModelSizes, Service
from scaling.serving.step_time import StepWork, elements_written, looped, total_seconds


def weight_bytes_read(sizes: ModelSizes, tokens: Values, service: Service, layout: Layout = ALONE) -> Values:
    """Bytes of weights that the busiest device reads in a pass: shared parts, routers, activated experts.

    On one device `bytes (n_active + n_router + (U - k) n_expert)`: the active parameters for one token, all for many.
    Split by matrix, that divided by G; split by expert, each device reads the shared parts and 1/G of the activated
    experts. With `reads_all` every expert is read.
    """
    routed = min(sizes.top_k, sizes.n_experts)
    read = sizes.n_experts if service.reads_all else distinct_experts(sizes.n_experts, routed, tokens, service.skew)
    # k and N_total of imported tables may be inconsistent, so keep this at least 0.
    shared = np.maximum(sizes.n_active - sizes.n_lookup + sizes.n_router - routed * sizes.n_expert, 0.0)
    experts = service.expert_bytes * read * sizes.n_expert / layout.n_devices
    return service.bytes_per_weight * shared / np.where(layout.by_expert, 1, layout.n_devices) + experts


def weight_bytes(sizes: ModelSizes, service: Service, layout: Layout = ALONE) -> Values:
    """Bytes of weights that each device must hold: all experts and routers, whether active or not.

    Split by matrix, they are divided by G; split by expert, only the experts are, and the rest is copied.
    """
    everything = sizes.n_total + sizes.n_router
    experts = np.minimum(sizes.n_experts * sizes.n_expert, everything) if sizes.n_experts > 1 else 0.0 * everything
    rest = service.bytes_per_weight * (everything - experts)
    return (rest / np.where(layout.by_expert, 1, layout.n_devices) + service.expert_bytes * experts / layout.n_devices)[
        ()
    ]


def largest_batch(sizes: ModelSizes, on: Device, service: Service, layout: Layout = ALONE) -> Values:
    """Sequences that fit in addition to the weights, `G (M0 - weights) / (mean context x cache of a token)`.

    Yun et al. (arXiv 2404.02852), b_max, in bytes and with every expert resident. Not rounded; below 1 nothing fits.
    """
    free = on.memory - weight_bytes(sizes, service, layout)
    # Split by expert, each device holds the sequences that it serves; by matrix, its share of every sequence.
    kept = sum(
        group.cached(service.mean_context) / np.where(layout.by_expert, layout.n_devices, _shares(group, layout))
        for group in sizes.layers_of_attention
    )
    return free / (kept * service.bytes_per_kv)


def _shares(group: AttentionSizes, layout: Layout) -> Values:
    """Over how many devices tensor parallelism divides a cache: heads are not split, and a latent vector serves all."""
    return np.minimum(layout.n_devices, group.splits)


def decode_work(
    sizes: ModelSizes, on: Device, batch: Values, context: float, service: Service, layout: Layout = ALONE
) -> StepWork:
    """One decode step of `batch` sequences with `context` cached tokens each.

    Reads shared parts, activated experts and the cache; `b (2 n_active + 4 n_layers T d_model)` FLOPs for plain
    multi-head attention (laws sheet 4.2), else those of `ModelSizes.attention`.
    """
    return _work(sizes, on, _Pass(batch, batch * (1.0 + service.drafted), context, decode=True), service, layout)


def prefill_work(sizes: ModelSizes, on: Device, requests: Values, service: Service, layout: Layout = ALONE) -> StepWork:
    """The prefill of `requests` prompts: like a decode step over all their tokens, with causal attention.

    A token attends to half the prompt on average, hence `2 n_layers prompt d_model` FLOP of attention per token. A
    fraction of a request (at steady state, one every few steps) costs that fraction of a whole one.
    """
    whole = np.maximum(requests, 1.0)
    prompts = _Pass(
        whole, whole * service.prompt * (1.0 - service.prefix_hit), service.prompt, decode=False, hit=service.prefix_hit
    )
    work = _work(sizes, on, prompts, service, layout)
    return replace(work, prompts=work.layers).times(requests / whole)


def decode_terms(
    sizes: ModelSizes, on: Device, batch: Values, context: float, service: Service, layout: Layout = ALONE
) -> Array:
    """Terms of the time of one decode step (`StepWork.terms`), with what was measured near it (`departures`)."""
    work = decode_work(sizes, on, batch, context, service, layout)
    return _terms(work, on, service, service.departures.decode, _place(sizes, batch, context))


def prefill_terms(sizes: ModelSizes, on: Device, requests: Values, service: Service, layout: Layout = ALONE) -> Array:
    """Terms of the time of a prefill (`StepWork.terms`), with what was measured near it (`departures`)."""
    work = prefill_work(sizes, on, requests, service, layout)
    place = _place(sizes, np.maximum(requests, 1.0), service.prompt)
    return _terms(work, on, service, service.departures.prefill, place)


def decode_seconds(
    sizes: ModelSizes, on: Device, batch: Values, context: float, service: Service, layout: Layout = ALONE
) -> Values:
    """Seconds of one decode step (`decode_terms`)."""
    return total_seconds(decode_terms(sizes, on, batch, context, service, layout), service.efficiency)


def prefill_seconds(
    sizes: ModelSizes, on: Device, requests: Values, service: Service, layout: Layout = ALONE
) -> Values:
    """Seconds of a prefill (`prefill_terms`)."""
    return total_seconds(prefill_terms(sizes, on, requests, service, layout), service.efficiency)


def _terms(
    work: StepWork, on: Device, service: Service, departures: PhaseDepartures | None, place: tuple[Values, ...]
) -> Array:
    terms = work.terms(on, service.efficiency if service.overlap else None)
    if departures is None:
        return terms
    factor = np.broadcast_to(times(departures, place), terms.shape[1:])
    return np.concatenate([terms[:-1] * factor, terms[-1:]])  # nobody measured communication


def _place(sizes: ModelSizes, batch: Values, context: float) -> tuple[Values, ...]:
    """The `PLACE` of a step."""
    top_k = sizes.top_k if sizes.n_experts > 1 else 1.0
    return sizes.n_experts, top_k, sizes.d_model, sizes.n_layers, batch, context


@dataclass(frozen=True)
class _Pass:
    """A pass over the tokens of some sequences, each with `context` cached tokens at its end."""

    sequences: Values
    tokens: Values
    context: float
    decode: bool
    hit: float = 0.0

    def attention_flops(self, sizes: ModelSizes) -> Values:
        """FLOPs of attention of all tokens over all layers."""
        return self.tokens * sum(
            group.decode_flops * group.attended(self.context)
            if self.decode
            else group.prefill_flops * group.attended_in_prompt(self.context, self.hit)
            for group in sizes.layers_of_attention
        )

    def cache_bytes(self, sizes: ModelSizes, service: Service, layout: Layout, busy: Values) -> Values:
        """Bytes of the cache that the busiest device reads; `busy` devices share out the sequences."""
        return service.bytes_per_kv * sum(
            self.sequences * group.cached(self.context) / np.where(layout.by_expert, busy, _shares(group, layout))
            for group in sizes.layers_of_attention
        )


def _work(sizes: ModelSizes, on: Device, of: _Pass, service: Service, layout: Layout) -> StepWork:
    devices = np.asarray(layout.n_devices, dtype=float)
    # Sequences are not split: of 33 on 32 devices, one device has two; a single one uses the other 31 only for experts.
    busy = np.where(layout.by_expert, of.sequences / np.ceil(of.sequences / devices), devices)
    copies = np.where(layout.by_expert, busy, 1.0)  # split by matrix, every device processes every token
    activated: Values = 0.0
    in_experts: Values = 0.0
    padding: Values = 0.0
    again: Values = 0.0
    routed = sizes.n_experts > 1
    if routed:
        activated = distinct_experts(sizes.n_experts, sizes.top_k, of.tokens, service.skew)
        in_experts = 2.0 * of.tokens * sizes.top_k * sizes.n_expert
        if service.loops:
            padding, again = looped(of.tokens, activated, sizes.n_experts, sizes.top_k, sizes.n_expert)
    # FLOPs count as at the device's own peak: fewer in a faster number format.
    slower, of_experts = (on.peak_flops / on.peak(name) for name in (service.arithmetic, service.arithmetic_of_experts))
    elsewhere = (
        np.maximum(2.0 * of.tokens * (sizes.n_active - sizes.n_lookup + sizes.n_router) - in_experts, 0.0) * slower
    )
    elsewhere = elsewhere + of.attention_flops(sizes)
    cache = of.cache_bytes(sizes, service, layout, busy)
    written, largest = elements_written(
        of.tokens,
        sizes.n_layers,
        sizes.d_model,
        routed=sizes.top_k if routed else 0.0,
        n_heads=sizes.d_model / service.head_width if service.head_width else 0.0,
        kv_width=sizes.kv_elements_per_token / (2.0 * sizes.n_layers),
        sequences=of.sequences,
        context=of.context,
    )
    return StepWork(
        layers=sizes.n_layers,
        experts=sizes.routed_share * sizes.n_layers * activated / np.where(layout.by_expert, devices, 1.0),
        activations=written / copies,
        largest=largest / copies,
        bytes=weight_bytes_read(sizes, of.tokens, service, layout) + cache,
        rereads=service.expert_bytes * again / devices,
        flops=elsewhere / busy + (in_experts + padding) * of_experts / devices,
        communication_s=communication_seconds(sizes, on, of.tokens / busy * devices, layout),
    )


def communication_seconds(sizes: ModelSizes, on: Device, tokens: Values, layout: Layout) -> Values:
    """Seconds of communication in one pass over `tokens` tokens; 0 on one device (`scaling.serving.collectives`).

    Split by matrix: two all-reduces per layer. Split by expert: a dispatch and a combination per layer with experts, of
    each device's share of the tokens; none for a dense model, whose devices only divide the sequences.
    """
    devices = np.asarray(layout.n_devices, dtype=float)
    reduced = 2.0 * sizes.n_layers * all_reduce_seconds(tokens * sizes.d_model, devices, on)
    exchanged: Values = 0.0
    if sizes.n_experts > 1:
        once = exchange_seconds(tokens / devices, sizes.top_k, sizes.d_model, devices, on)
        exchanged = sizes.routed_share * sizes.n_layers * once
    return np.where(layout.by_expert, exchanged, reduced)[()]
