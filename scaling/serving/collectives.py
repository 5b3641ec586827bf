"""Seconds of the communication between the devices of a replica: a latency, and bytes over a reached share of the link.

    all-reduce             4.2 us + .33 us log2 G + 1.46 x bytes sent / link
    dispatch of experts    10.3 us + 1.85 x bytes sent / link
    combine of experts     10.3 us + 2.03 x bytes sent / link

Fitted to tables of ai-dynamo/aiconfigurator at 095f58a (Apache-2.0) on one node of H200: vLLM's all-reduce within CUDA
graphs (69 rows, median error 8 %, 26 % at the 90th percentile) and DeepEP's low-latency kernels (176 rows, 8 % and 27 %
for dispatch, 5 % and 14 % for combine). `python -m benchmarks.serving` measures these errors again.
"""

from __future__ import annotations

import numpy as np

from scaling.arrays import Values
from scaling.serving.device import Device

ALL_REDUCE_S, ALL_REDUCE_DOUBLING_S, ALL_REDUCE_SHARE = 4.2e-6, 0.33e-6, 1.46
EXCHANGE_S, DISPATCH_SHARE, COMBINE_SHARE = 10.3e-6, 1.85, 2.03
DISPATCHED, COMBINED = 1.0, 2.0
"""Bytes of an element that is dispatched (FP8) and combined (16 bits), as DeepEP sends them."""
_AT_CALIBRATION_S = 5e-6  # latency of a link, as the device table assumes it where these were measured


def all_reduce_seconds(elements: Values, devices: Values, on: Device, bytes_per_element: float = 2.0) -> Values:
    """One all-reduce of this many elements over devices, each sending 2 (G - 1)/G of them; 0 on one device."""
    count = np.maximum(np.asarray(devices, dtype=float), 1.0)
    sent = 2.0 * (count - 1.0) / count * bytes_per_element * elements
    latency = ALL_REDUCE_S + ALL_REDUCE_DOUBLING_S * np.log2(count)
    return np.where(count > 1, _slower(count, on) * latency + ALL_REDUCE_SHARE * sent / _link(count, on), 0.0)[()]


def exchange_seconds(tokens: Values, top_k: Values, d_model: Values, devices: Values, on: Device) -> Values:
    """A dispatch of the tokens of one device to k experts each and the combination of what comes back; 0 on one device.

    (G - 1)/G of the copies leave the device.
    """
    count = np.maximum(np.asarray(devices, dtype=float), 1.0)
    copies = tokens * top_k * d_model * (count - 1.0) / count
    moved = (DISPATCH_SHARE * DISPATCHED + COMBINE_SHARE * COMBINED) * copies
    return np.where(count > 1, _slower(count, on) * 2.0 * EXCHANGE_S + moved / _link(count, on), 0.0)[()]


def _link(devices: Values, on: Device) -> Values:
    """Bytes/s of the link; of the fabric where the link does not join so many devices."""
    return np.where(np.asarray(devices) > on.link_devices, on.fabric, on.link)


def _slower(devices: Values, on: Device) -> Values:
    """The latency of this link over that of the measured one; a fabric is assumed to take twice as long."""
    return on.link_latency_s / _AT_CALIBRATION_S * np.where(np.asarray(devices) > on.link_devices, 2.0, 1.0)
