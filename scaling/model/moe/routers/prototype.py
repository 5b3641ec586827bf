"""Expert prototyping: one expert from each of k groups."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from scaling.model.moe.routers.token_choice import TokenChoice, gather_chosen


class Prototype(TokenChoice):
    """M6-T, arXiv 2105.15082, section 3.2: E experts in k prototypes of E/k, softmax and top-1 within each,
    y = sum_j P_j[i_j] F_{j, i_j}(x) with i_j = argmax P_j.

    k = 1 is Switch; at k = E every gate is 1. `capacity_per` sets whether the capacity grows with k ("kx") or is that
    of a top-1 router ("1x"). The paper trains without a balance penalty and reports that one hurts (`balance_coef: 0`);
    here it is on by default, as for all routers.
    """

    def gates(self, logits_TxE: jax.Array) -> jax.Array:
        return jax.nn.softmax(self.by_softmax(logits_TxE), axis=-1).reshape(logits_TxE.shape)

    def select(self, score_TxE: jax.Array) -> jax.Array:
        by_group_TxKxG = self.by_softmax(score_TxE)
        return jnp.argmax(by_group_TxKxG, axis=-1) + jnp.arange(self.config.top_k) * by_group_TxKxG.shape[-1]

    def weights(self, logits_TxE: jax.Array, gates_TxE: jax.Array, chosen_TxK: jax.Array) -> jax.Array:
        return gather_chosen(gates_TxE, chosen_TxK)

    def probabilities(self, gates_TxE: jax.Array) -> jax.Array:
        return gates_TxE / self.config.top_k

    def by_softmax(self, logits_TxE: jax.Array) -> jax.Array:
        return logits_TxE.reshape(logits_TxE.shape[0], self.config.top_k, -1)
