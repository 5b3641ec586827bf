"""Routers: token representations to a Routing. One class a method, one line in the registry."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from scaling.layers.moe.routing import Routing


class _TokenChoice(nn.Module):
    """Each token chooses its `top_k` experts of the largest logit z = x W; W [D, E] without bias.

    A choice looks at its own token alone, so it is causal. Logits and softmax are float32: the choice is discrete and
    must not depend on rounding of a lower precision.
    """

    n_experts: int
    top_k: int

    def weights(self, logits_TxE: jax.Array, chosen_TxK: jax.Array, gates_TxE: jax.Array) -> jax.Array:
        """Weight of each chosen expert's output, [T, k]."""
        raise TypeError(f"{type(self).__name__} defines no weights")

    @nn.compact
    def __call__(self, x_TxD: jax.Array) -> Routing:
        init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
        weight_DxE = self.param("weight", init, (x_TxD.shape[-1], self.n_experts))
        logits_TxE = x_TxD.astype(jnp.float32) @ weight_DxE.astype(jnp.float32)
        gates_TxE = jax.nn.softmax(logits_TxE, axis=-1)
        _, chosen_TxK = jax.lax.top_k(jax.lax.stop_gradient(logits_TxE), self.top_k)
        weight_TxK = self.weights(logits_TxE, chosen_TxK, gates_TxE)
        return Routing(chosen_TxK, weight_TxK, gates_TxE, logits_TxE)


class Switch(_TokenChoice):
    """Top-1; the weight is the chosen expert's softmax probability (Switch Transformer, arXiv 2101.03961, eq. 2).

    The probability is taken before the choice: after it a single weight would be 1 and the router would have no gradient.
    """

    def weights(self, logits_TxE: jax.Array, chosen_TxK: jax.Array, gates_TxE: jax.Array) -> jax.Array:
        return jnp.take_along_axis(gates_TxE, chosen_TxK, axis=-1)


class TopK(_TokenChoice):
    """Top-k; the weights are a softmax over the k kept logits and sum to 1 (Mixtral, arXiv 2401.04088, section 2.1).

    Equal to renormalised softmax probabilities. At k = 1 that is constant, so the probability before the choice is used.
    """

    def weights(self, logits_TxE: jax.Array, chosen_TxK: jax.Array, gates_TxE: jax.Array) -> jax.Array:
        if self.top_k == 1:
            return jnp.take_along_axis(gates_TxE, chosen_TxK, axis=-1)
        return jax.nn.softmax(jnp.take_along_axis(logits_TxE, chosen_TxK, axis=-1), axis=-1)


ROUTERS: dict[str, type[_TokenChoice]] = {"switch": Switch, "topk": TopK}
