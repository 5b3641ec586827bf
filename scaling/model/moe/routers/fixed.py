"""Baselines that learn nothing: what routing by token id, or by chance, is worth."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from scaling.config.model import ModelConfig
from scaling.model.moe.routing import Routing, Tokens

TABLE = 20_210_604  # of the one table of hashes, whatever the seed of a run


class Fixed(nn.Module):
    """Experts of the `top_k` largest of numbers that no weight or activation touches; each output weighs 1/k."""

    config: ModelConfig

    def numbers(self, tokens: Tokens) -> jax.Array:
        """Random numbers that decide, [T, E]."""
        raise TypeError(f"{type(self).__name__} defines no numbers")

    def __call__(self, x_TxD: jax.Array, tokens: Tokens) -> Routing:
        n_experts, top_k = self.config.n_experts, self.config.top_k
        _, chosen_TxK = jax.lax.top_k(self.numbers(tokens), top_k)
        gates_TxE = jnp.sum(jax.nn.one_hot(chosen_TxK, n_experts), axis=1) / top_k
        return Routing(chosen_TxK, jnp.full(chosen_TxK.shape, 1 / top_k), gates_TxE)


class Hash(Fixed):
    """Hash layers, arXiv 2106.04426, section 3: the experts of a token are fixed by its id, through one random table
    for all layers and seeds. No router parameters; the gate is 1 (1/k for each of k, the paper has k = 1).

    The paper's best table balances the loads by the frequency of ids in the corpus; this is its random one.
    """

    def numbers(self, tokens: Tokens) -> jax.Array:
        key = jax.random.key(TABLE)
        return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (self.config.n_experts,)))(tokens.id_T)


class Random(Fixed):
    """Experts by chance: drawn anew in each training step; at inference fixed by token, position and layer, so that
    decoding gives what the whole sequence gives. The floor of every comparison of routers: experts without routing."""

    def numbers(self, tokens: Tokens) -> jax.Array:
        return tokens.uniform(self.config.n_experts)
