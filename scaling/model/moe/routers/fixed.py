"""Baselines without learned routing: by token id, or at random."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from scaling.config.model import ModelConfig
from scaling.model.moe.routing import Routing, Tokens

TABLE = 20_210_604  # seed of the table of hashes, the same for every run


class Fixed(nn.Module):
    """The `top_k` experts with the largest of E numbers, independent of weights and activations, each weighted 1/k."""

    config: ModelConfig

    def numbers(self, tokens: Tokens) -> jax.Array:
        """The numbers that determine the choice, [T, E]."""
        raise TypeError(f"{type(self).__name__} defines no numbers")

    def __call__(self, x_TxD: jax.Array, tokens: Tokens) -> Routing:
        n_experts, top_k = self.config.n_experts, self.config.top_k
        _, chosen_TxK = jax.lax.top_k(self.numbers(tokens), top_k)
        gates_TxE = jnp.sum(jax.nn.one_hot(chosen_TxK, n_experts), axis=1) / top_k
        return Routing(chosen_TxK, jnp.full(chosen_TxK.shape, 1 / top_k), gates_TxE)


class Hash(Fixed):
    """Hash layers, arXiv 2106.04426, section 3: a random table, the same for all layers and seeds, maps token ids to
    experts. There are no router parameters; the gate is 1/k (k = 1 in the paper).

    The paper's best table balances loads by the frequency of ids in the corpus; this is its random table.
    """

    def numbers(self, tokens: Tokens) -> jax.Array:
        key = jax.random.key(TABLE)
        return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (self.config.n_experts,)))(tokens.id_T)


class Random(Fixed):
    """Random experts, redrawn in each training step. At inference they depend only on token, position and layer, so
    that decoding agrees with a pass over the whole sequence. The baseline for every comparison of routers."""

    def numbers(self, tokens: Tokens) -> jax.Array:
        return tokens.uniform(self.config.n_experts)
