"""Expert choice: experts choose tokens. Not causal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from scaling.config.model import ModelConfig
from scaling.model.moe.routers.token_choice import linear_logits
from scaling.model.moe.routing import Routing, Tokens, routing_of_mask


class ExpertChoice(nn.Module):
    """Expert choice, arXiv 2202.09368, section 3.2: S = softmax_E(x W); each expert takes the C = T k / E tokens of a
    group with the highest scores, y[t] = sum over the experts e that took t of S[t, e] F_e(x[t]), not renormalised.

    Every load is exactly C; a token has k experts on average and may have none. A group is one sequence here, so that
    sequences of a batch do not affect each other. The choice depends on the whole sequence: it is not causal and is
    refused for language models without `leak_study`; a lower loss is meaningless.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_TxD: jax.Array, tokens: Tokens) -> Routing:
        n_experts, top_k = self.config.n_experts, self.config.top_k
        logits_TxE = linear_logits(self, x_TxD, n_experts)
        gates_TxE = jax.nn.softmax(logits_TxE, axis=-1)
        taken = max(1, tokens.length * top_k // n_experts)
        by_expert_GxExT = jax.lax.stop_gradient(gates_TxE).reshape(-1, tokens.length, n_experts).swapaxes(1, 2)
        _, index_GxExC = jax.lax.top_k(by_expert_GxExT, taken)
        mask_GxExT = jnp.any(index_GxExC[..., None] == jnp.arange(tokens.length), axis=2)
        mask_TxE = mask_GxExT.swapaxes(1, 2).reshape(gates_TxE.shape)
        return routing_of_mask(mask_TxE, gates_TxE, gates_TxE, logits_TxE=logits_TxE)
