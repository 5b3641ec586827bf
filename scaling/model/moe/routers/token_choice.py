"""Token choice: each token takes the `top_k` experts that score highest for it. The softmax routers of this kind."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from scaling.config.model import ModelConfig
from scaling.model.moe.routing import Routing, Tokens


def linear_logits(router: nn.Module, x_TxD: jax.Array, n_experts: int) -> jax.Array:
    """z = x W in float32, with W [D, E] a weight of this router. To be called in its compact method."""
    init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    weight_DxE = router.param("weight", init, (x_TxD.shape[-1], n_experts))
    return x_TxD.astype(jnp.float32) @ weight_DxE.astype(jnp.float32)


class TokenChoice(nn.Module):
    """Each token chooses its `top_k` experts of the highest score; logits z = x W, W [D, E] without bias.

    A choice looks at its own token alone, so it is causal. Logits and scores are float32: the choice is discrete and
    must not depend on rounding of a lower precision. A method says how logits become scores, select and weigh experts.

    Loss-free balancing, arXiv 2408.15664, section 3 (`bias_rate` u > 0): experts are selected by score + b and weighted
    by the score alone; after each step b_e moves by u sign(mean load - load of e), up where an expert has too few
    tokens. b is no parameter: it has no gradient, and the step moves it (`moved_bias`). It depends on earlier steps alone,
    so it stays causal. (A widely copied summary has the opposite sign, which unbalances.)

    Switch's jitter, arXiv 2101.03961, appendix: in training the input is multiplied by uniform noise in 1 +- `jitter`.
    """

    config: ModelConfig

    def read(self, x_TxD: jax.Array) -> jax.Array:
        """The representation of a token that the gate reads."""
        return x_TxD

    def gates(self, logits_TxE: jax.Array) -> jax.Array:
        """Scores that select and weigh, [T, E]."""
        return jax.nn.softmax(logits_TxE, axis=-1)

    def select(self, score_TxE: jax.Array) -> jax.Array:
        """Indices of the chosen experts, [T, k]; `score_TxE` has no gradient and the bias in it."""
        return jax.lax.top_k(score_TxE, self.config.top_k)[1]

    def weights(self, logits_TxE: jax.Array, gates_TxE: jax.Array, chosen_TxK: jax.Array) -> jax.Array:
        """Weight of each chosen expert's output, [T, k]."""
        raise TypeError(f"{type(self).__name__} defines no weights")

    def probabilities(self, gates_TxE: jax.Array) -> jax.Array:
        """The scores as probabilities, for the balance penalty and the metrics."""
        return gates_TxE

    @nn.compact
    def __call__(self, x_TxD: jax.Array, tokens: Tokens) -> Routing:
        config, n_experts = self.config, self.config.n_experts
        read_TxD = self.read(x_TxD.astype(jnp.float32))
        if config.jitter and tokens.training is not None:
            read_TxD = read_TxD * (1 + config.jitter * (2 * tokens.uniform(x_TxD.shape[-1]) - 1))
        logits_TxE = linear_logits(self, read_TxD, n_experts)
        gates_TxE = self.gates(logits_TxE)
        score_TxE = jax.lax.stop_gradient(gates_TxE if config.bias_rate else self.order(logits_TxE, gates_TxE))
        if config.bias_rate:
            bias = self.variable("balance", "bias", jnp.zeros, (n_experts,))
            score_TxE = score_TxE + bias.value
        chosen_TxK = self.select(score_TxE)
        weight_TxK = self.weights(logits_TxE, gates_TxE, chosen_TxK)
        return Routing(chosen_TxK, weight_TxK, self.probabilities(gates_TxE), self.by_softmax(logits_TxE))

    def by_softmax(self, logits_TxE: jax.Array) -> jax.Array:
        """The logits for the z-loss, those of one softmax along the last axis."""
        return logits_TxE

    def order(self, logits_TxE: jax.Array, gates_TxE: jax.Array) -> jax.Array:
        """Scores that select where no bias is added: the logits, which order experts as softmax does, unrounded."""
        return logits_TxE


def moved_bias(bias_E: jax.Array, assigned_E: jax.Array, rate: float) -> jax.Array:
    """The bias of loss-free balancing after a step in which each expert had so many tokens: b + u sign(mean - own)."""
    return bias_E + rate * jnp.sign(jnp.mean(assigned_E) - assigned_E)


def gather_chosen(values_TxE: jax.Array, chosen_TxK: jax.Array) -> jax.Array:
    """The values of the chosen experts, [T, k]."""
    return jnp.take_along_axis(values_TxE, chosen_TxK, axis=-1)


class Switch(TokenChoice):
    """Top-1; the weight is the chosen expert's softmax probability (Switch Transformer, arXiv 2101.03961, eq. 2).

    The probability is taken before the choice: after it a single weight would be 1, the router without gradient.
    """

    def weights(self, logits_TxE: jax.Array, gates_TxE: jax.Array, chosen_TxK: jax.Array) -> jax.Array:
        return gather_chosen(gates_TxE, chosen_TxK)


class TopK(TokenChoice):
    """Top-k; with `renormalise` the weights are a softmax over the k kept logits and sum to 1 (Mixtral, arXiv
    2401.04088, section 2.1; GShard's pair, arXiv 2006.16668, algorithm 1), without they are the softmax probabilities
    before the choice, which sum to less (OLMoE, arXiv 2409.02060).

    Softmax over the kept logits equals renormalised probabilities. At k = 1 that is constant, so the probability before
    the choice is used whatever `renormalise` says. GShard keeps its second expert with probability min(1, 2 g2).
    """

    def weights(self, logits_TxE: jax.Array, gates_TxE: jax.Array, chosen_TxK: jax.Array) -> jax.Array:
        if self.config.top_k == 1 or not self.config.renormalise:
            return gather_chosen(gates_TxE, chosen_TxK)
        return jax.nn.softmax(gather_chosen(logits_TxE, chosen_TxK), axis=-1)


TRANSFORMS = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "cos": jnp.cos, "identity": lambda x: x}


class Bounded(TopK):
    """Modified softmax gating, arXiv 2310.14188: the gate reads a bounded transform of its input, z = M(x) W.

    Of M elementwise sigmoid, tanh or cos the functions x^p M(x)^q are linearly independent, which is what speeds up the
    estimation of experts there; `identity` is `topk`. The paper has a dense mixture for classification; as a router of
    a language model, with a choice of k, it is ours.
    """

    def read(self, x_TxD: jax.Array) -> jax.Array:
        return TRANSFORMS[self.config.gate_transform](x_TxD)
