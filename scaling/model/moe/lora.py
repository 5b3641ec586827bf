"""Experts that are low-rank adapters of one dense MLP.

Axes: T tokens, E experts, R rank, A inputs and B outputs of a matrix.
"""

from __future__ import annotations

import jax
from flax import linen as nn

from scaling.model.matmul import product
from scaling.model.moe.experts import ExpertSettings, GatedMLPs, Send, gated
from scaling.model.moe.routing import Routing, weights_by_expert

SCALE = 2.0  # alpha / r, the usual choice


class Adapters(nn.Module):
    """sum_e g_e (x A_e) B_e for E pairs of low-rank matrices (LoRA, arXiv 2106.09685, eq. 3); B starts at zero."""

    n_experts: int
    rank: int
    outputs: int

    @nn.compact
    def __call__(self, weight_TxE: jax.Array, x_TxA: jax.Array) -> jax.Array:
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=0, out_axis=(1, 2))
        down_AxExR = self.param("down", init, (x_TxA.shape[-1], self.n_experts, self.rank)).astype(x_TxA.dtype)
        up_ExRxB = self.param("up", nn.initializers.zeros_init(), (self.n_experts, self.rank, self.outputs))
        low_TxExR = product(x_TxA, down_AxExR.reshape(x_TxA.shape[-1], -1)).reshape(-1, self.n_experts, self.rank)
        mixed_TxExR = low_TxExR * weight_TxE[:, :, None].astype(x_TxA.dtype)
        return product(mixed_TxExR.reshape(x_TxA.shape[0], -1), up_ExRxB.astype(x_TxA.dtype).reshape(-1, self.outputs))


def lora(settings: ExpertSettings, x_TxD: jax.Array, routing: Routing, send: Send) -> jax.Array:
    """A mixture of LoRA experts as in DynMoLE (arXiv 2504.00661, section 2): each matrix W of a dense gated MLP becomes
    W + 2 sum_e g_e A_e B_e, with one gate for all three.

    For `dense_tokens` only the base trains, after that only routers and adapters. The paper adapts a pretrained model
    including its attention; here the base is trained first, and only its MLPs are adapted. The products of all adapters
    are computed, but only those of chosen ones are counted.
    """
    config, weight_TxE = settings.config, weights_by_expert(routing)
    features, hidden = x_TxD.shape[-1], config.top_k * config.d_expert
    base = GatedMLPs(None, hidden, settings.out_scale, x_TxD.dtype, name="base")(features)

    def adapted(name: str, x_TxA: jax.Array, outputs: int) -> jax.Array:
        adapters = Adapters(config.n_experts, config.lora_rank, outputs, name=f"adapters_{name}")
        return product(x_TxA, base[name]) + SCALE * adapters(weight_TxE, x_TxA)

    return adapted("down", gated(adapted("gate", x_TxD, hidden), adapted("up", x_TxD, hidden)), features)
