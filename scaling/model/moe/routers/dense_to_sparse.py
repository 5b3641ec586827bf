"""EvoMoE: a gate that starts dense and is annealed to top-1."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from scaling.config import chance_levels
from scaling.config.model import ModelConfig
from scaling.model.moe.routers.token_choice import linear_logits
from scaling.model.moe.routing import Routing, Tokens, routing_of_mask


class DenseToSparse(nn.Module):
    """EvoMoE, arXiv 2112.14397, section 4, in three phases of the training:

    1. For `dense_tokens` one expert takes every token. It is then copied to all experts, with `masked_share` of the
       weights of each copy set to zero (`training/phases.py`). The paper describes diversification, but the released
       code lacks it; random masks are our interpretation.
    2. For `anneal_tokens`, g = softmax((z + Gumbel) / tau), and every expert with g above a threshold takes the token,
       with weight softmax(z)_e (`gate_weight: softmax`) or g_e (`gumbel`), not renormalised. tau falls from `tau_max`
       to `tau_min`, exponentially or linearly: from 2 to .3 in the paper, from 1 to .5 in the code. The threshold is
       .001 as released, but at most .1/E. Even tau = .3 leaves four of eight experts active at equal logits.
    3. Top-1 with its softmax probability, as in Switch. Inference always works like this.

    Its balance penalty is E sum_e mean(g)_e mean(mask)_e. At equal logits this is the mean number of active experts, so
    it is not comparable between steps. Dropless; the compute follows the number of active experts at every step.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_TxD: jax.Array, tokens: Tokens) -> Routing:
        config, n_experts = self.config, self.config.n_experts
        logits_TxE = linear_logits(self, x_TxD, n_experts)
        gates_TxE = jax.nn.softmax(logits_TxE, axis=-1)
        _, best_Tx1 = jax.lax.top_k(jax.lax.stop_gradient(logits_TxE), 1)
        if tokens.training is None:
            return Routing(best_Tx1, jnp.take_along_axis(gates_TxE, best_Tx1, axis=-1), gates_TxE, logits_TxE)

        batch, step = tokens.training.batch_tokens, tokens.training.step
        dense_steps, anneal_steps = config.dense_steps(batch), -(-config.anneal_tokens // batch)
        progress = jnp.clip((step - dense_steps) / anneal_steps, 0.0, 1.0)
        alone, sparse = step < dense_steps, step >= dense_steps + anneal_steps

        tau = chance_levels.temperature(progress, config.tau_max, config.tau_min, config.anneal)
        gumbel_TxE = -jnp.log(-jnp.log(jnp.clip(tokens.uniform(n_experts), 1e-12, 1 - 1e-7)))
        noisy_TxE = jax.nn.softmax((logits_TxE + gumbel_TxE) / tau, axis=-1)
        first_TxE = jnp.broadcast_to(jnp.arange(n_experts) == 0, gates_TxE.shape)
        best_TxE = best_Tx1 == jnp.arange(n_experts)
        mask_TxE = jnp.where(
            alone, first_TxE, jnp.where(sparse, best_TxE, noisy_TxE > chance_levels.threshold(n_experts))
        )
        soft_TxE = jnp.where(sparse, gates_TxE, noisy_TxE)
        weight_TxE = gates_TxE if config.gate_weight == "softmax" else soft_TxE
        return routing_of_mask(
            mask_TxE,
            jnp.where(alone, 1.0, weight_TxE),
            gates_TxE,
            logits_TxE=jnp.where(alone, 0.0, logits_TxE),  # no gradient for an unused router
            balance=(
                jnp.where(alone, 0.0, jnp.mean(soft_TxE, axis=0)),
                jnp.mean(mask_TxE.astype(jnp.float32), axis=0),
            ),
        )
