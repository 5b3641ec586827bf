"""Seconds of the communication between the devices of a replica: a latency, and bytes over a reached share of the link.

    all-reduce                    4.2 us + .33 us log2 G + 1.46 x bytes sent / link (others: `COLLECTIVES`)
    exchange, low latency         10.3 us + 1.85 x bytes / link to dispatch, 10.3 us + 2.03 x bytes / link to combine
    exchange, high throughput     26.7 us + 1.78 x bytes / link to dispatch, 38.5 us + 1.62 x bytes / link to combine

The low-latency exchange sends every copy of a token to its expert; that of high throughput sends one copy to a device,
or over a fabric one to a node, where it is passed on. An engine takes the faster (the first for decode, the second for
prompts). Fitted to tables of ai-dynamo/aiconfigurator at 095f58a (Apache-2.0) on one node of H200: vLLM's all-reduce
within CUDA graphs (69 rows, median error 8 %, 26 % at the 90th percentile), DeepEP's low-latency kernels (176 rows, 8
and 27 % for dispatch, 5 and 14 % for combine) and its normal ones with the best number of multiprocessors (414 shapes,
6 and 16 %, 10 and 21 %). NCCL's collectives (504 rows) are within 6 to 9 % and 17 to 23 %.
`python -m benchmarks.serving` measures these errors again.

Over a fabric between nodes, where only what leaves the node counts, DeepEP's own tables on H800 with 50 GB/s a device
(its docs/legacy.md, 16 to 256 devices) give 38 GB/s to dispatch and 40 to combine at low latency and 43 with high
throughput; latencies are those within a node.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.arrays import Values
from scaling.serving.device import Device

DISPATCHED, COMBINED = 1.0, 2.0
"""Bytes of an element that is dispatched (FP8) and combined (16 bits), as DeepEP sends them."""
_NODE = 8  # devices of a node where the fabric joins nodes
_AT_CALIBRATION_S = 5e-6  # latency of a link, as the device table assumes it where these were measured


@dataclass(frozen=True)
class Collective:
    """`start_s + doubling_s log2 G + share w + root sqrt(w 1 us)`, w the time of the bytes that a device sends at the
    peak of its link: (G - 1)/G of the message, twice in an all-reduce."""

    start_s: float
    doubling_s: float
    share: float
    root: float = 0.0
    passes: int = 1


COLLECTIVES = {
    "all_reduce": Collective(4.2e-6, 0.33e-6, 1.46, passes=2),
    "all_reduce eager": Collective(19.4e-6, 0.68e-6, 1.42, passes=2),
    "all_reduce nccl": Collective(1.2e-6, 4.7e-6, 1.18, 3.5, passes=2),
    "all_gather nccl": Collective(2.2e-6, 2.8e-6, 1.28, 4.3),
    "reduce_scatter nccl": Collective(2.7e-6, 2.4e-6, 1.35, 3.2),
    "alltoall nccl": Collective(6.6e-6, 0.46e-6, 1.27, 3.9),
}
"""Collectives by name; serving is priced with the first, which vLLM runs within CUDA graphs."""


@dataclass(frozen=True)
class Exchange:
    """Kernels that dispatch and combine: seconds, and the time of bytes over that of the link or fabric at its peak."""

    dispatch_s: float
    combine_s: float
    dispatch_share: float
    combine_share: float
    dispatch_fabric: float
    combine_fabric: float


LOW_LATENCY = Exchange(10.3e-6, 10.3e-6, 1.85, 2.03, 1.32, 1.25)
HIGH_THROUGHPUT = Exchange(26.7e-6, 38.5e-6, 1.78, 1.62, 1.16, 1.16)


def all_reduce_seconds(elements: Values, devices: Values, on: Device, bytes_per_element: float = 2.0) -> Values:
    """One all-reduce of this many elements over devices; 0 on one device."""
    return collective_seconds(COLLECTIVES["all_reduce"], bytes_per_element * elements, devices, on)


def collective_seconds(of: Collective, message: Values, devices: Values, on: Device) -> Values:
    """One collective of a message of this many bytes over G devices; 0 on one device.

    Over more devices than the link joins, bytes go over the fabric, which is assumed to take twice the latency.
    """
    count = np.maximum(np.asarray(devices, dtype=float), 1.0)
    beyond = count > on.link_devices
    wire = of.passes * (count - 1.0) / count * message / np.where(beyond, on.fabric, on.link)
    latency = np.where(beyond, 2.0, 1.0) * _slower(on) * (of.start_s + of.doubling_s * np.log2(count))
    return np.where(count > 1, latency + of.share * wire + of.root * np.sqrt(1e-6 * wire), 0.0)[()]


def exchange_seconds(tokens: Values, top_k: Values, d_model: Values, devices: Values, on: Device) -> Values:
    """A dispatch of the tokens of one device to k experts each and the combination of what comes back, by the faster
    kernels; 0 on one device."""
    return np.minimum(
        sum(dispatch_and_combine(LOW_LATENCY, tokens, top_k, d_model, devices, on)),
        sum(dispatch_and_combine(HIGH_THROUGHPUT, tokens, top_k, d_model, devices, on)),
    )


def dispatch_and_combine(
    kernels: Exchange, tokens: Values, top_k: Values, d_model: Values, devices: Values, on: Device
) -> tuple[Values, Values]:
    """Seconds of the two, each over G devices that share out the tokens' experts evenly.

    What goes to other nodes is passed on there, so that the slower of fabric and link decides.
    """
    count = np.maximum(np.asarray(devices, dtype=float), 1.0)
    nodes = np.where(count > on.link_devices, np.maximum(count / _NODE, 1.0), 1.0)
    elements = tokens * d_model
    low_latency = kernels is LOW_LATENCY
    on_link = elements * (top_k * (1.0 - 1.0 / count) if low_latency else _reached(count, top_k)) / on.link
    if low_latency:
        on_link = np.where(nodes > 1, 0.0, on_link)
    on_fabric = elements * (top_k * (1.0 - 1.0 / nodes) if low_latency else _reached(nodes, top_k)) / on.fabric
    dispatch = np.maximum(kernels.dispatch_share * on_link, kernels.dispatch_fabric * on_fabric)
    combine = np.maximum(kernels.combine_share * on_link, kernels.combine_fabric * on_fabric)
    return (
        np.where(count > 1, _slower(on) * kernels.dispatch_s + DISPATCHED * dispatch, 0.0)[()],
        np.where(count > 1, _slower(on) * kernels.combine_s + COMBINED * combine, 0.0)[()],
    )


def _reached(ends: Values, top_k: Values) -> Values:
    """Of n ends, how many beside the sender's k copies reach: `(n - 1) (1 - (1 - 1/n)^k)`."""
    return (ends - 1.0) * -np.expm1(top_k * np.log1p(-1.0 / np.maximum(ends, 1.0 + 1e-9)))


def _slower(on: Device) -> float:
    """The latency of this link over that of the measured one."""
    return on.link_latency_s / _AT_CALIBRATION_S
