"""The work of one step and its time on a device.

    seconds = overhead + layers + prompts + experts + activations + bytes / bandwidth + rereads + FLOPs / peak +
    communication

Each term has a coefficient of the device, estimated from its data sheet and the shares of the peaks that are reached.
`scaling.training.inference_bench` measures steps, and `analysis.latency.law` fits the coefficients to them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from scaling.arrays import Array, Values
from scaling.bounds import LEAST_SHARE
from scaling.errors import InputError
from scaling.expert_rows import block_rows
from scaling.serving.device import Device

_MOST = 1e6  # seconds of a fixed cost, and readings of a weight


@dataclass(frozen=True)
class Efficiency:
    """The shares of its peaks that a device reaches, and the fixed costs of a step.

    `bandwidth_share`, `flops_share`: reached shares of the peaks. Seconds: `overhead_s` per step, `layer_s` per layer,
    `prompt_s` per layer of a prefill in addition, `expert_s` per activated expert of a layer (launch, gather and
    scatter), `activation_s` per element written between products (`elements_written`). `reread`: cost of weights that
    are read again (`looped`), relative to their bytes over the bandwidth; below 1 / bandwidth_share if a cache holds
    them. `source`: the defaults are assumed, `analysis.latency.law` fits them.
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
            if not LEAST_SHARE <= getattr(self, name) <= 1:
                raise InputError(
                    f"`{name}` must be above 0 (at least {LEAST_SHARE:g}) and at most 1, found {getattr(self, name):g}"
                )
        for name in ("overhead_s", "layer_s", "prompt_s", "expert_s", "activation_s", "reread"):
            if not 0 <= getattr(self, name) <= _MOST:
                raise InputError(f"`{name}` must be from 0 to {_MOST:g}, found {getattr(self, name):g}")

    def coefficients(self) -> Array:
        """The factors of `StepWork.terms`, in the same order."""
        per_count = (self.overhead_s, self.layer_s, self.prompt_s, self.expert_s, self.activation_s)
        return np.array([*per_count, 1 / self.bandwidth_share, self.reread, 1 / self.flops_share, 1.0])

    @classmethod
    def of(cls, coefficients: npt.ArrayLike, source: str) -> Efficiency:
        """The efficiency with these factors of `StepWork.terms`; that of communication is 1 and may be omitted."""
        values = np.asarray(coefficients, dtype=float).tolist()
        overhead, layer, prompt, expert, activation, reading, again, computing, *_ = values
        return cls(1 / reading, 1 / computing, overhead, layer, prompt, expert, activation, again, source)


ASSUMED = Efficiency()
TERMS = ("overhead", "layers", "prompts", "experts", "activations", "bytes", "rereads", "flops", "communication")
"""The terms of a step's time, in the order of `StepWork.terms` and `Efficiency.coefficients`."""
LEAST = Efficiency(bandwidth_share=1.0, flops_share=1.0).coefficients()
"""The smallest possible coefficients: fixed costs of 0 and full use of the peaks."""
_READING, _FLOPS = [TERMS.index("bytes"), TERMS.index("rereads")], TERMS.index("flops")
STREAM, DISPATCH, KEYS_AND_VALUES = 20, 10, 4  # the last is a part of the first
_PIECE = 1_000


@dataclass(frozen=True)
class StepWork:
    """The work of one step on the busiest device of a replica.

    `layers`: number of layers, and `prompts`: number of them in a prefill. `experts`: activated experts over all
    layers, 0 in a dense model. `activations`: elements written between products, and `largest`: bytes of the largest
    array among them (`elements_written`). `bytes`: weights and cache read, and `rereads`: bytes of weights that a
    kernel reads again (`looped`). `flops`. `communication_s`: time of transfers. `steps`: number of steps, or the
    fraction of a step that is shared.
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
        """The work times a factor."""
        return StepWork(**{f.name: getattr(self, f.name) * factor for f in fields(self)})

    def terms(self, on: Device, overlapped: Efficiency | None = None) -> Array:
        """The terms of the time, axis 0 in the order of `TERMS`: seconds at the peaks of `on`, or counts.

        With `overlapped`, reading (including rereads) and computing overlap at this efficiency, as in the roofline, and
        the shorter of the two is 0. Without it they add up.

        Bytes are read at the speed of main memory even if a cache holds them, because a kernel is then limited by its
        instructions (results/latency-cpu); only the lower bound `roofline_seconds` uses the speed of caches. If the
        largest array of activations does not fit the last cache, its elements are written to main memory and read back,
        8 bytes each; on devices without caches this is part of the cost per element.
        """
        last = max((size for size, _ in on.levels), default=np.inf)
        spilled = np.where(self.largest > last * self.steps, 8.0 * self.activations, 0.0)
        reading = (self.bytes + spilled) / on.bandwidth
        counts = (self.steps, self.layers, self.prompts, self.experts, self.activations)
        peaks = (reading, self.rereads / on.bandwidth, self.flops / on.peak_flops)
        values = (*counts, *peaks, self.communication_s)
        terms = np.empty((len(values), *np.broadcast_shapes(*map(np.shape, values))))
        for index, value in enumerate(values):
            terms[index] = value
        if overlapped is not None:
            factors = overlapped.coefficients()
            reading_s = np.tensordot(factors[_READING], terms[_READING], axes=1)
            bound_by_reading = reading_s >= factors[_FLOPS] * terms[_FLOPS]
            terms[_READING] = np.where(bound_by_reading, terms[_READING], 0.0)
            terms[_FLOPS] = np.where(bound_by_reading, 0.0, terms[_FLOPS])
        return terms

    def seconds(self, on: Device, efficiency: Efficiency, overlap: bool = False) -> Values:
        """Seconds of the step, reading and computing overlapped or not (`terms`)."""
        return total_seconds(self.terms(on, efficiency if overlap else None), efficiency)


def total_seconds(terms: Array, efficiency: Efficiency) -> Values:
    """Seconds of a step of these `StepWork.terms`: `sum_i coefficient_i term_i`.

    In pieces that BLAS does not share out: its threads would wait at full load for longer than the sum takes.
    """
    factors, flat = efficiency.coefficients(), terms.reshape(len(terms), -1)
    pieces = [np.tensordot(factors, flat[:, i : i + _PIECE], axes=1) for i in range(0, max(flat.shape[1], 1), _PIECE)]
    return np.concatenate(pieces).reshape(terms.shape[1:])[()]


def elements_written(
    tokens: Values,
    n_layers: Values,
    d_model: Values,
    *,
    routed: Values = 0.0,
    n_heads: Values = 0.0,
    kv_width: Values | None = None,
    sequences: Values = 0.0,
    context: Values = 0.0,
) -> tuple[Values, Values]:
    """Elements that a step writes between its products over all layers, and bytes of the largest array of them.

    About 20 d per token and layer: norms (2 d), queries, keys and values (3 d), rotated (3 d), attention output (3 d),
    hidden units of a gated MLP of width 2 d (6 d), sums (3 d). A routed layer (`routed` is k, else 0) adds 10 k d for
    rows sorted by expert, their blocks and the results. Attention that is not fused also writes its scores, H elements
    per pair of a token and a position of the `context`, and copies the values of each sequence, context x d; `n_heads`
    0 means fused attention. Keys and values of fewer heads are `kv_width` wide instead of d, before and after their
    rotation and as copied. The largest array is written and read in float32, 8 bytes per element.
    """
    stream = tokens * d_model
    scores = tokens * context * n_heads
    of_keys = d_model if kv_width is None else kv_width
    copied = sequences * context * of_keys * np.sign(n_heads)
    elements = n_layers * (
        (STREAM + DISPATCH * routed) * stream - KEYS_AND_VALUES * tokens * (d_model - of_keys) + scores + copied
    )
    return elements, 8.0 * np.maximum(stream, scores)


def looped(
    tokens: Values, activated: Values, n_experts: Values, top_k: Values, n_expert: Values
) -> tuple[Values, Values]:
    """The extra work of a kernel that processes the rows of the activated experts in blocks of R, one after another.

    It consists of FLOPs on padding rows, and of parameters read again, because every block reads those of its expert.
    The rows of U activated experts end uniformly in their last block, so `T k / R + U (R - 1) / (2 R)` blocks are used
    (up to a fifth more for equal shares slightly larger than a block). `n_expert`: parameters of one expert over all
    layers.
    """
    rows, assignments = block_rows(tokens, top_k, n_experts), tokens * top_k
    blocks = assignments / rows + activated * (rows - 1) / (2 * rows)
    return 2.0 * n_expert * (blocks * rows - assignments), n_expert * np.maximum(blocks - activated, 0.0)
