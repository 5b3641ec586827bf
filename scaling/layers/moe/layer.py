"""The mixture-of-experts layer: a router, a dispatch and experts put together."""

from __future__ import annotations

import dataclasses

import jax
from flax import linen as nn

from scaling.config import ModelConfig
from scaling.layers.moe import dispatch
from scaling.layers.moe.experts import GATED_MLP, GatedMLPs
from scaling.layers.moe.routers import ROUTERS
from scaling.layers.moe.routing import Routing
from scaling.layers.placement import ALONE, Placement


class MoE(nn.Module):
    """E experts of width `d_expert`, `top_k` per token; at E = 1 one dense gated MLP of width `top_k * d_expert`.

    out_scale: variance of the output projections' initial weights times their fan-in. kernel: how `grouped` computes.
    """

    config: ModelConfig
    out_scale: float
    kernel: str = "loop"
    placement: Placement = ALONE

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array) -> tuple[jax.Array, Routing | None]:
        """Output of the input's shape, and the routing (None when dense)."""
        config, features = self.config, x_BxTxD.shape[-1]
        x_TxD = x_BxTxD.reshape(-1, features)
        if config.n_experts == 1:
            width = config.top_k * config.d_expert
            mlp = GatedMLPs(None, width, self.out_scale, x_TxD.dtype, name="mlp")(features)
            return GATED_MLP(mlp, x_TxD).reshape(x_BxTxD.shape), None
        routing = ROUTERS[config.router](config.n_experts, config.top_k, name="router")(x_TxD)
        held = config.n_experts // self.placement.expert
        experts = GatedMLPs(held, config.d_expert, self.out_scale, x_TxD.dtype, name="experts")(features)
        if config.dispatch == "grouped":
            out_TxD = dispatch.grouped(x_TxD, routing, GATED_MLP, experts, self.kernel, self.placement)
        elif config.dispatch == "capacity":
            factor = config.capacity_factor
            out_TxD = dispatch.capacity(x_TxD, routing, GATED_MLP, experts, factor, self.placement)
            routing = dataclasses.replace(routing, dropped=dispatch.dropped(routing, factor, self.placement))
        else:
            out_TxD = dispatch.dense(x_TxD, routing, GATED_MLP, experts)
        return out_TxD.reshape(x_BxTxD.shape), routing
