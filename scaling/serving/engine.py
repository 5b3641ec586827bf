"""The terms of a serving engine's iteration and prompt: the x_i of `scaling.serving.engine_speed`."""

from __future__ import annotations

from typing import Any

import numpy as np

from scaling.arrays import Array, Values
from scaling.serving.device import Device
from scaling.serving.expert_load import distinct_experts
from scaling.serving.service import ALONE, AttentionSizes, Layout, ModelSizes, Service
from scaling.serving.steps import communication_seconds


def iteration_terms(
    sizes: ModelSizes, on: Device, batch: Values, service: Service, layout: Layout = ALONE, *, mixed: bool = True
) -> Array:
    """Terms of one iteration for each token that a sequence gains in it (one, or with accepted drafts more).

    `batch` sequences decode, and with `mixed` the b p/n prompt tokens a generated token that replace finished ones are
    read beside them: chunked prefill shares the reading of weights and the launches with decode, and adds its products,
    its attention and its messages.
    """
    gained = service.tokens_a_step
    fresh = service.prompt * (1.0 - service.prefix_hit) / service.generated
    held = np.asarray(batch, dtype=float)
    prompts = held * gained * fresh if mixed else 0.0 * held
    return _terms(sizes, on, service, layout, sequences=held, prompt_tokens=prompts) / gained


def prompt_terms(
    sizes: ModelSizes, on: Device, service: Service, layout: Layout = ALONE, *, prompts: Values = 1.0
) -> Array:
    """Terms of reading so many prompts at once and nothing else, but for what is cached of them."""
    fresh = 0.0 * np.asarray(sizes.n_active, dtype=float) + prompts * service.prompt * (1.0 - service.prefix_hit)
    return _terms(sizes, on, service, layout, sequences=0.0 * fresh, prompt_tokens=fresh)


def _terms(
    sizes: ModelSizes, on: Device, service: Service, layout: Layout, *, sequences: Values, prompt_tokens: Values
) -> Array:
    devices = np.asarray(layout.n_devices, dtype=float)
    apart = layout.by_expert  # attention data-parallel: sequences are shared out, experts split, the rest copied
    decoding = sequences * (1.0 + service.drafted)
    tokens = decoding + prompt_tokens
    busy = np.where(apart, np.minimum(devices, np.maximum(tokens, 1.0)), devices)
    routed = sizes.n_experts > 1
    k = min(sizes.top_k, sizes.n_experts)
    in_experts = k * sizes.n_expert if routed else 0.0 * sizes.n_active
    elsewhere = np.maximum(sizes.n_active - sizes.n_lookup + sizes.n_router - in_experts, 0.0)
    touched = distinct_experts(sizes.n_experts, k, np.where(decoding > 0, decoding, tokens), service.skew)
    expert_bytes = service.expert_bytes * touched * sizes.n_expert / devices if routed else 0.0 * elsewhere
    peak, of_experts = on.peak(service.arithmetic), on.peak(service.arithmetic_of_experts)
    context = service.mean_context
    cache = sum(sequences * group.cached(context) / _shares(group, layout, busy) for group in sizes.layers_of_attention)
    of_prompts = sum(
        group.prefill_flops * group.attended_in_prompt(service.prompt, service.prefix_hit)
        for group in sizes.layers_of_attention
    )
    of_decode = sum(group.decode_flops * group.attended(context) for group in sizes.layers_of_attention)
    values: tuple[Any, ...] = (
        service.bytes_per_weight * elsewhere / np.where(apart, 1.0, devices) / on.bandwidth,
        expert_bytes / on.bandwidth,
        service.bytes_per_kv * cache / on.bandwidth,
        2.0 * tokens * (elsewhere / peak / busy + in_experts / of_experts / devices),
        prompt_tokens * of_prompts / on.peak_flops / busy,
        decoding * of_decode / on.peak_flops / busy,
        sizes.n_layers,
        sizes.routed_share * sizes.n_layers if routed else 0.0,
        communication_seconds(sizes, on, tokens, layout),
        np.where(apart, sequences / busy, sequences) * sizes.n_layers,
    )
    return np.stack(np.broadcast_arrays(*(np.asarray(value, dtype=float) for value in values)))


def _shares(group: AttentionSizes, layout: Layout, busy: Values) -> Values:
    """Over how many devices the cache of the sequences is spread."""
    return np.where(layout.by_expert, busy, np.minimum(layout.n_devices, group.splits))
