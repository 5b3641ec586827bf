"""What one training token asks of its device, as terms of its time.

    seconds = sum_i c_i x_i

Terms of FLOPs, optimiser and messages are seconds at the peaks of the device's data sheet, so that c = 1 is the peak;
the others are counts, and their c is in seconds. What a step does once is shared by its tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from scaling.architecture import attended_pairs
from scaling.arrays import Array, Values
from scaling.serving.device import Device
from scaling.serving.expert_load import distinct_experts
from scaling.serving.service import ModelSizes
from scaling.serving.step_time import looped

TERMS: dict[str, str] = {
    "dense products": "forward and backward products with weights that every token meets, over the peak's time",
    "expert products": "products with experts and routers, rows of padding in them, over the peak's time",
    "attention scores": "products of queries, keys and values, over the peak's time",
    "activations": "seconds an element of the residual stream and layer (norms, rotations, sums)",
    "dispatch": "seconds an element that goes to an expert and back, k d a routed layer",
    "routing": "seconds a logit of a router, E a token and routed layer",
    "step": "seconds a step",
    "layers": "seconds a layer and step",
    "experts": "seconds an expert, routed layer and step",
    "optimiser": "of reading and writing parameters, moments and gradients, over the bandwidth's time",
    "optimiser beyond caches": "the same once more, where it moves more bytes than the last cache holds",
    "messages": "of adding the gradients of data-parallel devices, over the link's time",
}
"""The terms, with the meaning of their coefficients."""
LEAST = np.array([1.0, 1.0, 1.0, *[0.0] * (len(TERMS) - 3)])
"""The smallest possible coefficients: products at the peak, and nothing else that takes time."""
OPTIMISER_BYTES = 28.0
"""Of AdamW in float32, a parameter and step: weight, gradient and two moments read, weight and moments written."""
_GRADIENT_BYTES = 4.0
_PASSES = 3.0  # a backward pass costs twice the forward pass


@dataclass(frozen=True)
class TrainingWork:
    """What one token asks of one device, in the order of `TERMS`. Arrays are several models.

    FLOPs a token, forward and backward: `dense_flops`, `expert_flops`, `attention_flops`. Elements a token over all
    layers: `activations`, `dispatched`, `logits` of routers. Counts of a step: `layers`, `experts` over all layers,
    `parameters` that are held, `gradients` that are sent (0 on one device). `tokens`: of a step, on one device.
    """

    dense_flops: Values
    expert_flops: Values
    attention_flops: Values
    activations: Values
    dispatched: Values
    logits: Values
    layers: Values
    experts: Values
    parameters: Values
    gradients: Values
    tokens: Values

    @classmethod
    def of(
        cls, models: ModelSizes, tokens: Values, seq_len: Values, devices: Values = 1, *, loops: bool = False
    ) -> TrainingWork:
        """The work of a token of these models, `tokens` of a step on each of `devices`, sequences of `seq_len`.

        6 FLOPs an active weight (embeddings, where they are known apart, are looked up), 3 forward passes of causal
        attention. With `loops` the experts' rows are padded to blocks (`scaling.serving.step_time.looped`).
        """
        routed, top_k = float(models.n_experts > 1), min(models.top_k, models.n_experts)
        layers = models.n_layers * models.routed_share * routed
        experts, padding = routed * top_k * models.n_expert, np.zeros(())
        if loops and routed and np.all(np.isfinite(tokens)):
            activated = distinct_experts(models.n_experts, top_k, tokens)
            padding = np.asarray(looped(tokens, activated, models.n_experts, top_k, models.n_expert)[0] / tokens)
        return cls(
            dense_flops=2.0 * _PASSES * (models.n_active - models.n_lookup - experts),
            expert_flops=_PASSES * (2.0 * (experts + models.n_router) + padding),
            attention_flops=_PASSES
            * sum(
                group.prefill_flops * attended_pairs(seq_len, group.window) / seq_len
                for group in models.layers_of_attention
            ),
            activations=models.n_layers * models.d_model,
            dispatched=layers * top_k * models.d_model,
            logits=layers * models.n_experts,
            layers=models.n_layers,
            experts=layers * models.n_experts,
            parameters=models.n_total + models.n_router,
            gradients=2.0 * (devices - 1.0) / devices * (models.n_total + models.n_router),
            tokens=tokens,
        )

    def terms(self, on: Device) -> Array:
        """The terms of a token's time, axis 0 in the order of `TERMS`. A device without caches in its row has none of
        the term beyond them, which on it is part of the other."""
        moved = np.asarray(OPTIMISER_BYTES * self.parameters)
        update, last = moved / on.bandwidth / self.tokens, max((size for size, _ in on.levels), default=np.inf)
        values = (
            self.dense_flops / on.peak_flops,
            self.expert_flops / on.peak_flops,
            self.attention_flops / on.peak_flops,
            self.activations,
            self.dispatched,
            self.logits,
            1.0 / self.tokens,
            self.layers / self.tokens,
            self.experts / self.tokens,
            update,
            np.where(moved > last, update, 0.0),
            _GRADIENT_BYTES * self.gradients / on.link / self.tokens,
        )
        shape = np.broadcast_shapes(*(np.shape(getattr(self, field.name)) for field in fields(self)))
        return np.stack([np.broadcast_to(np.asarray(value, dtype=float), shape) for value in values])
