"""The mixture-of-experts layer: a router, a dispatch and experts put together."""

from __future__ import annotations

import jax
from flax import linen as nn

from scaling.layers.moe.dispatch import DISPATCHES
from scaling.layers.moe.experts import MLPExperts, gated_mlp
from scaling.layers.moe.routers import ROUTERS
from scaling.layers.moe.routing import Routing


class MoE(nn.Module):
    """E experts of width `d_expert`, `top_k` per token; at E = 1 one dense gated MLP of width `top_k * d_expert`.

    out_scale: variance of the output projections' initial weights times their fan-in.
    """

    n_experts: int
    top_k: int
    d_expert: int
    router: str
    dispatch: str
    out_scale: float

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array) -> tuple[jax.Array, Routing | None]:
        """Output of the input's shape, and the routing (None when dense)."""
        features = x_BxTxD.shape[-1]
        if self.n_experts == 1:
            width = self.top_k * self.d_expert
            init = nn.initializers.variance_scaling
            up_DxG = self.param("up", init(1.0, "fan_in", "normal"), (features, 2 * width))
            down_FxD = self.param("down", init(self.out_scale, "fan_in", "normal"), (width, features))
            return gated_mlp(x_BxTxD, up_DxG, down_FxD), None
        x_TxD = x_BxTxD.reshape(-1, features)
        routing = ROUTERS[self.router](self.n_experts, self.top_k, name="router")(x_TxD)
        experts = MLPExperts(self.n_experts, self.d_expert, self.out_scale, name="experts")
        out_TxD = DISPATCHES[self.dispatch](x_TxD, routing, experts)
        return out_TxD.reshape(x_BxTxD.shape), routing
