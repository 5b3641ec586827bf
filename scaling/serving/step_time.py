"""Work: what one step asks of a device, and how long it takes there.

    seconds = overhead + layers + prompts + experts + activations + bytes / bandwidth + rereads + FLOPs / peak +
    communication

A sum of terms, each with a coefficient of the device: estimates from a data sheet and the shares of it that are
reached. `scaling.training.inference_bench` measures steps, `analysis.latency.law` fits the coefficients to them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from scaling.architecture import block_rows
from scaling.arrays import Array, Values
from scaling.errors import InputError
from scaling.serving.device import Device


@dataclass(frozen=True)
class Efficiency:
    """What a device reaches of its data sheet, and what every step costs beside.

    `bandwidth_share`, `flops_share`: parts of the peaks that are reached. `overhead_s`: of a step; `layer_s`: of each
    layer in it; `prompt_s`: of each layer of a prefill beside; `expert_s`: of each activated expert of a layer (launch,
    gather and scatter); `activation_s`: of each element that is written between products (`elements_written`);
    `reread`: of weights that are read again, in units of their bytes over the bandwidth (`looped`): less than 1 /
    bandwidth_share where a cache holds them. `source`: the defaults are assumed, `analysis.latency.law` measures them.
    """

    bandwidth_share: float = 0.6
    flops_share: float = 0.4
    overhead_s: float = 0.0
    layer_s: float = 0.0
    prompt_s: float = 0.0
    expert_s: float = 0.0
    activation_s: float = 0.0
    reread: float = 0.0
    source: str = "assumed, not measured"

    def __post_init__(self) -> None:
        for name in ("bandwidth_share", "flops_share"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"efficiency: {name}={getattr(self, name)}; allowed: above 0, at most 1")
        for name in ("overhead_s", "layer_s", "prompt_s", "expert_s", "activation_s", "reread"):
            if not getattr(self, name) >= 0:
                raise InputError(f"efficiency: {name}={getattr(self, name)}; allowed: at least 0")

    def coefficients(self) -> Array:
        """The factors of `StepWork.terms`, in its order."""
        per_count = (self.overhead_s, self.layer_s, self.prompt_s, self.expert_s, self.activation_s)
        return np.array([*per_count, 1 / self.bandwidth_share, self.reread, 1 / self.flops_share, 1.0])

    @classmethod
    def of(cls, coefficients: npt.ArrayLike, source: str) -> Efficiency:
        """The efficiency with these factors of `StepWork.terms`; that of communication is 1 and may be left out."""
        values = np.asarray(coefficients, dtype=float).tolist()
        overhead, layer, prompt, expert, activation, reading, again, computing, *_ = values
        return cls(1 / reading, 1 / computing, overhead, layer, prompt, expert, activation, again, source)


ASSUMED = Efficiency()
TERMS = ("overhead", "layers", "prompts", "experts", "activations", "bytes", "rereads", "flops", "communication")
"""The terms of a step's time, in the order of `StepWork.terms` and `Efficiency.coefficients`."""
LEAST = Efficiency(bandwidth_share=1.0, flops_share=1.0).coefficients()
"""The smallest coefficients that are possible: no cost below 0, no device beyond its data sheet."""
_READING, _FLOPS = [TERMS.index("bytes"), TERMS.index("rereads")], TERMS.index("flops")
STREAM, DISPATCH = 20, 10


@dataclass(frozen=True)
class StepWork:
    """What one step asks of the busiest device of a replica.

    `layers`: passed through, and `prompts`: those of them that are passed by a prompt. `experts`: activated, over all
    layers; 0 in a dense model. `activations`: elements written between products, and `largest`: bytes of the largest
    array of them (`elements_written`). `bytes`: read, weights and cache, and `rereads`: weights that a kernel reads
    again (`looped`). `flops`. `communication_s`: sending and waiting. `steps`: how many steps this is; the part of one
    where a step serves others too.
    """

    layers: Values
    experts: Values
    activations: Values
    bytes: Values
    flops: Values
    communication_s: Values = 0.0
    steps: Values = 1.0
    largest: Values = 0.0
    prompts: Values = 0.0
    rereads: Values = 0.0

    def times(self, factor: Values) -> StepWork:
        """So many times the work."""
        return StepWork(**{f.name: getattr(self, f.name) * factor for f in fields(self)})

    def terms(self, on: Device, overlapped: Efficiency | None = None) -> Array:
        """The terms of the time, axis 0 in the order of `TERMS`: seconds at the peaks of `on`, counts for the rest.

        With `overlapped` reading, for the first time and again, and computing hide each other at this efficiency (the
        roofline): the shorter of the two is 0. Without it they add up.

        Bytes are taken at the speed of main memory, also where a cache holds them: there a kernel's instructions bind,
        not the cache (results/latency-cpu). Only the floor, `roofline_seconds`, goes by the cache. Where the
        device has caches and the largest array of activations does not fit the last, elements go to main memory and
        come back, 8 bytes of each; without caches that is part of what each costs.
        """
        last = max((size for size, _ in on.levels), default=np.inf)
        spilled = np.where(self.largest > last * self.steps, 8.0 * self.activations, 0.0)
        reading = (self.bytes + spilled) / on.bandwidth
        counts = (self.steps, self.layers, self.prompts, self.experts, self.activations)
        peaks = (reading, self.rereads / on.bandwidth, self.flops / on.peak_flops)
        terms = np.stack(np.broadcast_arrays(*counts, *peaks, self.communication_s)).astype(float)
        if overlapped is not None:
            factors = overlapped.coefficients()
            reading_s = np.tensordot(factors[_READING], terms[_READING], axes=1)
            bound_by_reading = reading_s >= factors[_FLOPS] * terms[_FLOPS]
            terms[_READING] = np.where(bound_by_reading, terms[_READING], 0.0)
            terms[_FLOPS] = np.where(bound_by_reading, 0.0, terms[_FLOPS])
        return terms

    def seconds(self, on: Device, efficiency: Efficiency, overlap: bool = False) -> Values:
        """Seconds of the step, reading and computing overlapped or not (`terms`)."""
        return np.tensordot(efficiency.coefficients(), self.terms(on, efficiency if overlap else None), axes=1)[()]


def elements_written(
    tokens: Values,
    n_layers: Values,
    d_model: Values,
    *,
    routed: Values = 0.0,
    n_heads: Values = 0.0,
    sequences: Values = 0.0,
    context: Values = 0.0,
) -> tuple[Values, Values]:
    """Elements that a step writes between its products over all layers, and bytes of the largest array of them.

    Of each token and layer about 20 d: norms (2 d), queries, keys and values (3 d), turned (3 d), mixed and back (3 d),
    hidden units of a gated MLP of width 2 d (6 d), sums (3 d). In a routed layer (`routed` is k, 0 elsewhere) 10 k d
    more: rows sorted by expert, their blocks and what comes back. Attention that is not fused also writes its scores, H
    elements for each pair of a token and a place of the `context`, and copies the values of each sequence, context x d;
    `n_heads` 0 is fused attention. The largest array is read and written: in float32, 8 bytes an element.
    """
    stream = tokens * d_model
    scores = tokens * context * n_heads
    copied = sequences * context * d_model * np.sign(n_heads)
    elements = n_layers * ((STREAM + DISPATCH * routed) * stream + scores + copied)
    return elements, 8.0 * np.maximum(stream, scores)


def looped(
    tokens: Values, activated: Values, n_experts: Values, top_k: Values, n_expert: Values
) -> tuple[Values, Values]:
    """The extra work of a kernel that takes the rows of the activated experts in blocks of R, one after another.

    FLOPs on rows of padding, and parameters read again, because each block reads its expert's. The shares of U
    activated experts end anywhere in their last block, so `T k / R + U (R - 1) / (2 R)` blocks are in use (of even
    shares that are hardly more than a block up to a fifth more). `n_expert`: parameters of one expert over all layers.
    """
    rows, assignments = block_rows(tokens, top_k, n_experts), tokens * top_k
    blocks = assignments / rows + activated * (rows - 1) / (2 * rows)
    return 2.0 * n_expert * (blocks * rows - assignments), n_expert * np.maximum(blocks - activated, 0.0)
