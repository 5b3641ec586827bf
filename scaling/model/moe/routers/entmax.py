"""The gate of multilinear mixtures, which is sparse without a top-k."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from scaling.config.model import ModelConfig
from scaling.model.moe.routing import Routing, Tokens, routing_of_mask

# The zero initialisation of G gives a zero vector, whose normalisation has a Jacobian of 1/sqrt(eps): 10 instead of 316
# at the usual 1e-5.
EPSILON = 1e-2


@jax.custom_jvp
def entmax15(logits_TxE: jax.Array) -> jax.Array:
    """1.5-entmax, p_e = max(z_e / 2 - theta, 0)^2 with theta such that the row sums to 1 (arXiv 1905.05702).

    Sparse, invariant to shifts, uniform at z = 0. Computed exactly by sorting: the support is the largest one whose
    smallest member is above its theta.
    """
    half_TxE = (logits_TxE - jnp.max(logits_TxE, axis=-1, keepdims=True)) / 2
    sorted_TxE = -jnp.sort(-half_TxE, axis=-1)
    size_E = jnp.arange(1, logits_TxE.shape[-1] + 1)
    mean_TxE = jnp.cumsum(sorted_TxE, axis=-1) / size_E
    mean_square_TxE = jnp.cumsum(sorted_TxE**2, axis=-1) / size_E
    spread_TxE = size_E * (mean_square_TxE - mean_TxE**2)
    theta_TxE = mean_TxE - jnp.sqrt(jnp.maximum((1 - spread_TxE) / size_E, 0.0))
    support_Tx1 = jnp.sum(theta_TxE <= sorted_TxE, axis=-1, keepdims=True)
    theta_Tx1 = jnp.take_along_axis(theta_TxE, support_Tx1 - 1, axis=-1)
    return jnp.maximum(half_TxE - theta_Tx1, 0.0) ** 2


@entmax15.defjvp
def _entmax15_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """dp = s (dz - (s . dz) / sum s) with s = sqrt(p): arXiv 1905.05702."""
    (logits,), (tangent,) = primals, tangents
    p = entmax15(logits)
    root = jnp.sqrt(p)
    mean = jnp.sum(root * tangent, axis=-1, keepdims=True) / jnp.sum(root, axis=-1, keepdims=True)
    return p, root * (tangent - mean)


class Entmax(nn.Module):
    """muMoE, arXiv 2402.12550, section 3: a = entmax_1.5(norm(x G)) with G [D, E] initially zero, so a = 1/E.

    Every expert with a > 0 is active, and factorised experts (`cp`, `ring`) enter the product for any a.
    `gate_norm: layer` normalises over the experts of a token; `batch`, as in the paper's vision models, over the tokens
    of the batch, so that later tokens leak into earlier ones (needs `leak_study`). Neither has an affine part. Epsilon
    of the normalisation is 1e-2 instead of 1e-5 because of the zero initialisation.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_TxD: jax.Array, tokens: Tokens) -> Routing:
        weight_DxE = self.param("weight", nn.initializers.zeros_init(), (x_TxD.shape[-1], self.config.n_experts))
        raw_TxE = x_TxD.astype(jnp.float32) @ weight_DxE.astype(jnp.float32)
        axis = -1 if self.config.gate_norm == "layer" else 0
        centred_TxE = raw_TxE - jnp.mean(raw_TxE, axis=axis, keepdims=True)
        variance = jnp.mean(centred_TxE**2, axis=axis, keepdims=True)
        logits_TxE = centred_TxE * jax.lax.rsqrt(variance + EPSILON)
        gates_TxE = entmax15(logits_TxE)
        return routing_of_mask(gates_TxE > 0, gates_TxE, gates_TxE, logits_TxE=logits_TxE)
