"""The mixture-of-experts layer, combining router, dispatch and experts."""

from __future__ import annotations

import dataclasses

import jax
from flax import linen as nn

from scaling.config.counts import places_per_token
from scaling.config.model import ModelConfig
from scaling.model.moe import dispatch
from scaling.model.moe.experts import GATED_MLP, ExpertForm, ExpertSettings, GatedMLPs, Weights
from scaling.model.moe.routing import Routing, Tokens
from scaling.model.sharding import SINGLE_DEVICE, Placement


class MoE(nn.Module):
    """E experts, routed as configured; at E = 1 one dense gated MLP of the same active width.

    out_scale: initial variance of the output projections times their fan-in.   kernel: kernel of `grouped` dispatch.
    """

    config: ModelConfig
    out_scale: float
    kernel: str = "loop"
    placement: Placement = SINGLE_DEVICE

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, tokens: Tokens) -> tuple[jax.Array, Routing | None]:
        """The output, in the shape of the input, and the routing (None for a dense model)."""
        config, features, placement = self.config, x_BxTxD.shape[-1], self.placement
        x_TxD = x_BxTxD.reshape(-1, features)
        if config.n_experts == 1:
            mlp = GatedMLPs(None, config.dense_width, self.out_scale, x_TxD.dtype, name="mlp")(features)
            return GATED_MLP(mlp, x_TxD).reshape(x_BxTxD.shape), None
        routing: Routing = config.router_facts.load()(config, name="router")(x_TxD, tokens)

        def send(form: ExpertForm, weights: Weights) -> jax.Array:
            match config.dispatch:
                case "grouped":
                    return dispatch.grouped(x_TxD, routing, form, weights, self.kernel, placement, config.top_k)
                case "capacity":
                    places = places_per_token(config)
                    return dispatch.capacity(x_TxD, routing, form, weights, config.capacity_factor, placement, places)
                case "soft":
                    return dispatch.soft(x_TxD, routing, form, weights)
                case _:
                    return dispatch.dense(x_TxD, routing, form, weights)

        settings = ExpertSettings(config, config.n_experts // placement.expert, self.out_scale)
        out_TxD = config.experts_kind.load()(settings, x_TxD, routing, send)
        if config.dispatch == "capacity":
            dropped = dispatch.dropped(routing, config.capacity_factor, placement, places_per_token(config))
            routing = dataclasses.replace(routing, dropped=dropped)
        return out_TxD.reshape(x_BxTxD.shape), routing
