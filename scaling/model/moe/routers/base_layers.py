"""BASE layers: a balanced assignment of tokens to experts. Not causal in training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from scaling.config.model import ModelConfig
from scaling.model.moe.routing import Routing, Tokens


def assign(affinity_TxE: jax.Array) -> jax.Array:
    """Expert of each token, [T], such that each expert has T/E tokens and the sum of affinities is maximal.

    The linear assignment problem of arXiv 2103.16716, section 3, solved exactly (optax's Hungarian algorithm).
    """
    tokens, n_experts = affinity_TxE.shape
    places_TxT = jnp.repeat(-affinity_TxE, tokens // n_experts, axis=1)
    token, place = optax.assignment.hungarian_algorithm(places_TxT)
    return jnp.zeros(tokens, jnp.int32).at[token].set((place // (tokens // n_experts)).astype(jnp.int32))


class Base(nn.Module):
    """BASE, arXiv 2103.16716, section 3: affinities a = x m_e to centroids m [E, D] (initially orthogonal, gain .1).

    In training each expert gets exactly T/E tokens of a group, with maximal sum of affinities; at inference a token
    takes its argmax. Its output is q F_e(x) + (1 - q) x with q = sigmoid(x m_e) and residual F_e, so in our residual
    block q weighs the output of the expert. The gradient reaches m only through q. There is no balance penalty.

    A group is one sequence here (in the paper, the shuffled tokens of all workers). The assignment depends on the whole
    group, so training is not causal and differs from inference: refused without `leak_study`.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_TxD: jax.Array, tokens: Tokens) -> Routing:
        n_experts = self.config.n_experts
        centroid_ExD = self.param("centroid", nn.initializers.orthogonal(0.1), (n_experts, x_TxD.shape[-1]))
        affinity_TxE = x_TxD.astype(jnp.float32) @ centroid_ExD.astype(jnp.float32).T
        fixed_TxE = jax.lax.stop_gradient(affinity_TxE)
        if tokens.training is None:
            chosen_Tx1 = jnp.argmax(fixed_TxE, axis=-1)[:, None]
        else:
            chosen_Tx1 = jax.vmap(assign)(fixed_TxE.reshape(-1, tokens.length, n_experts)).reshape(-1, 1)
        weight_Tx1 = jax.nn.sigmoid(jnp.take_along_axis(affinity_TxE, chosen_Tx1, axis=-1))
        return Routing(chosen_Tx1, weight_Tx1, jax.nn.softmax(affinity_TxE, axis=-1))
