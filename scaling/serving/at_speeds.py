"""Prices at many speeds of one engine: its terms are worked out once, and each draw of its coefficients weighs them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaling.arrays import Array, Values
from scaling.serving.device import Device
from scaling.serving.engine import prompt_terms
from scaling.serving.replicas import cheapest, iteration, largest_held, layouts, price
from scaling.serving.service import ModelSizes, Service

_BATCHES = 32  # of a pair of a model and a layout, from 1 to what fits: a factor 1.4 apart at 50,000
_TOGETHER = 12  # draws weighed at once


def prices_and_steps(
    sizes: ModelSizes, on: Device, services: Sequence[Service], demand: float | None = None
) -> tuple[Array, Array]:
    """USD and seconds per output token of the cheapest replica (services, models), of services that differ in their
    speed alone.

    With engines the seconds of an iteration are taken as linear between the batches tabulated, which is their form but
    for the experts that few sequences leave out.
    """
    if any(service.engine is None for service in services):
        offers = [cheapest(sizes, on, service, demand) for service in services]
        return (
            np.stack([np.asarray(each.usd_per_token) for each in offers]),
            np.stack([np.asarray(each.replica.tpot_s) for each in offers]),
        )
    service = services[0]
    every = layouts(service, sizes.n_experts, np.ndim(sizes.n_active))
    most = np.asarray(largest_held(sizes, on, service, every))
    pairs = np.flatnonzero(most.ravel() >= 1)
    held, layout = sizes.spread(most.shape).rows(pairs), every.spread(most.shape).rows(pairs)
    batch = most.ravel()[pairs] ** np.linspace(0.0, 1.0, _BATCHES)[:, None]
    terms = iteration(held, on, batch, service, layout)
    prompts = prompt_terms(held, on, service, layout)
    coefficients = np.array([each.engine.coefficients for each in services if each.engine is not None])
    rates, steps = np.zeros((2, len(services), most.size))
    for first in range(0, len(services), _TOGETHER):
        some = coefficients[first : first + _TOGETHER]
        seconds, reading = np.tensordot(some, terms, axes=1), some @ prompts
        kept, taken = _within_limits(batch, seconds, reading, service)
        beside = kept * reading / service.generated if service.apart else 0.0
        rates[first : first + _TOGETHER, pairs] = kept / (taken + beside)
        steps[first : first + _TOGETHER, pairs] = taken
    shape = (len(services), *most.shape)
    usd = np.asarray(price(every.n_devices, rates.reshape(shape), on, service, demand)[1])
    best = np.argmin(usd, axis=1)[:, None]
    chosen = [np.take_along_axis(values, best, axis=1)[:, 0] for values in (usd, steps.reshape(shape))]
    return chosen[0], chosen[1]


def _within_limits(batch: Array, seconds: Array, reading: Array, service: Service) -> tuple[Array, Values]:
    """The largest whole batch within the limits on latency and its seconds (draws, pairs); 0 where there is none."""
    limit = np.full(reading.shape, np.inf if service.tpot_s is None else service.tpot_s)
    if service.ttft_s is not None:  # half an iteration is waited for
        limit = np.minimum(limit, 2.0 * (service.ttft_s - reading))
    last = (seconds <= limit[:, None, :]).sum(axis=1) - 1
    below = np.clip(last, 0, _BATCHES - 2)
    low, high = (np.take_along_axis(seconds, place[:, None, :], axis=1)[:, 0] for place in (below, below + 1))
    columns = np.arange(batch.shape[1])
    fewer, more = batch[below, columns], batch[below + 1, columns]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(last > _BATCHES - 2, 1.0, np.clip((limit - low) / (high - low), 0.0, 1.0))
        kept = np.where(last < 0, 0.0, np.floor(fewer + share * (more - fewer) + 1e-9))
        taken = np.where(more > fewer, low + (kept - fewer) / (more - fewer) * (high - low), low)
    return kept, taken
