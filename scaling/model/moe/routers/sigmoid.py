"""Normalised sigmoid gating, in the theoretical form and that of DeepSeek-V3."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from scaling.model.moe.routers.token_choice import TokenChoice, gather_chosen


class Sigmoid(TokenChoice):
    """Scores s = sigmoid(z); the weight of a chosen expert is `route_scale` s_e over a sum of scores.

    `normalise_over: all` divides by the sum over all experts (arXiv 2505.10860, which proves its rates for this form),
    `selected` by the sum over the chosen ones (DeepSeek-V3, arXiv 2412.19437, eqs. 12 to 16, with route_scale 2.5);
    they agree at k = E. Experts are selected by v = s + b and weighted by s without the bias (`bias_rate`,
    TokenChoice).

    Group-limited selection: the score of each of `n_groups` groups is the sum of its two largest v, or its largest v
    without a bias. The best `groups_kept` groups are kept and the others masked with -inf, since a mask of 0 could
    exceed a negative v. DeepSeek-V3 has 256 experts in 8 groups, of which 4 are kept.
    """

    def gates(self, logits_TxE: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(logits_TxE)

    def select(self, score_TxE: jax.Array) -> jax.Array:
        config = self.config
        if config.groups_kept < config.n_groups:
            by_group_TxGxE = score_TxE.reshape(score_TxE.shape[0], config.n_groups, -1)
            counted = min(2, by_group_TxGxE.shape[-1]) if config.bias_rate else 1
            group_TxG = jnp.sum(jax.lax.top_k(by_group_TxGxE, counted)[0], axis=-1)
            kept = jax.lax.top_k(group_TxG, config.groups_kept)[1]
            is_kept_TxG = jnp.any(kept[:, :, None] == jnp.arange(config.n_groups), axis=1)
            score_TxE = jnp.where(is_kept_TxG[:, :, None], by_group_TxGxE, -jnp.inf).reshape(score_TxE.shape)
        return super().select(score_TxE)

    def weights(self, logits_TxE: jax.Array, gates_TxE: jax.Array, chosen_TxK: jax.Array) -> jax.Array:
        chosen = gather_chosen(gates_TxE, chosen_TxK)
        over = gates_TxE if self.config.normalise_over == "all" else chosen
        return self.config.route_scale * chosen / jnp.sum(over, axis=-1, keepdims=True)

    def probabilities(self, gates_TxE: jax.Array) -> jax.Array:
        return gates_TxE / jnp.sum(gates_TxE, axis=-1, keepdims=True)
