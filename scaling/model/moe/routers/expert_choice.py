"""Expert choice: experts take tokens, not tokens experts. Not causal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from scaling.config.model import ModelConfig
from scaling.model.moe.routers.token_choice import linear_logits
from scaling.model.moe.routing import Routing, Tokens, routing_of_mask


class ExpertChoice(nn.Module):
    """Expert choice, arXiv 2202.09368, section 3.2: S = softmax_E(x W); each expert takes its C = T k / E tokens of the
    highest score of a group, y[t] = sum over the experts e that took t of S[t, e] F_e(x[t]), not renormalised.

    Every load is exactly C, a token has k experts on average and may have none (it keeps its residual stream). A group
    is one sequence here, so a batch or its devices couple nothing. Which tokens are taken depends on all of the
    sequence: not causal, refused for language models without `leak_study`, and a lower loss of it is no result.
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
