"""DynMoLE: tokens with uncertain routing use every expert, others few."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from scaling.config.model import ModelConfig
from scaling.model.moe.routers.token_choice import linear_logits
from scaling.model.moe.routing import Routing, Tokens, routing_of_mask


def entropy(gates_TxE: jax.Array, q: float) -> jax.Array:
    """Tsallis entropy S_q = (1 - sum_e p_e^q) / (q - 1) of each row; Shannon's at q = 1, 1 - sum p^2 at 2.

    Computed as -sum p (p^(q-1) - 1) / (q - 1), which is equal for rows that sum to 1 and does not cancel near q = 1.
    """
    if q == 1:
        return -jnp.sum(gates_TxE * jnp.log(gates_TxE + 1e-20), axis=-1)
    return -jnp.sum(gates_TxE * jnp.expm1((q - 1) * jnp.log(gates_TxE + 1e-20)), axis=-1) / (q - 1)


def normalised_entropy(gates_TxE: jax.Array, q: float) -> jax.Array:
    """S_q over that of a uniform row: 1 for uniform rows, 0 for one-hot rows."""
    n_experts = gates_TxE.shape[-1]
    return entropy(gates_TxE, q) / entropy(jnp.full((1, n_experts), 1 / n_experts), q)


class Tsallis(nn.Module):
    """DynMoLE, arXiv 2504.00661, section 3: with p = softmax(z) and S its normalised Tsallis entropy (`tsallis_q`),

        mask = all experts                                   if S > entropy_threshold (a threshold of 1 disables this)
               those of cumulative p <= top_p and the top_k  otherwise
        g = mask p, not renormalised
        loss = entropy_coef mean(S) + balance_coef E sum_e mean(g)_e mean(p)_e

    As released, the balance term uses masked probabilities instead of counts, and the expert whose mass crosses top_p
    is excluded (`nucleus: exclude`); nucleus sampling includes it (`include`). Dropless and causal. The paper routes
    LoRA experts on a frozen base (`experts: lora`); `experts: mlp` routes full experts.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_TxD: jax.Array, tokens: Tokens) -> Routing:
        config, n_experts = self.config, self.config.n_experts
        logits_TxE = linear_logits(self, x_TxD, n_experts)
        gates_TxE = jax.nn.softmax(logits_TxE, axis=-1)
        uncertain_T = normalised_entropy(gates_TxE, config.tsallis_q)
        mask_TxE = self.mask(jax.lax.stop_gradient(gates_TxE), jax.lax.stop_gradient(uncertain_T))
        weight_TxE = jnp.where(mask_TxE, gates_TxE, 0.0)
        return routing_of_mask(
            mask_TxE,
            weight_TxE,
            gates_TxE,
            logits_TxE=logits_TxE,
            balance=(jnp.mean(weight_TxE, axis=0), jnp.mean(gates_TxE, axis=0)),
            penalty=config.entropy_coef * jnp.mean(uncertain_T),
        )

    def mask(self, gates_TxE: jax.Array, uncertain_T: jax.Array) -> jax.Array:
        """The mask of the experts of each token, [T, E]."""
        config = self.config
        order_TxE = jnp.argsort(-gates_TxE, axis=-1)
        rank_TxE = jnp.argsort(order_TxE, axis=-1)
        sorted_TxE = jnp.take_along_axis(gates_TxE, order_TxE, axis=-1)
        cumulative_TxE = jnp.minimum(jnp.cumsum(sorted_TxE, axis=-1), 1.0)
        if config.nucleus == "include":
            everything = config.top_p >= 1  # despite rounding of the sum
            within_TxE = (cumulative_TxE - sorted_TxE < config.top_p) | everything
        else:
            within_TxE = cumulative_TxE <= config.top_p
        mask_TxE = jnp.take_along_axis(within_TxE, rank_TxE, axis=-1) | (rank_TxE < config.top_k)
        if config.entropy_threshold < 1:
            mask_TxE = mask_TxE | (uncertain_T > config.entropy_threshold)[:, None]
        return mask_TxE
