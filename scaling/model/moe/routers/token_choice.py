"""Token choice: each token takes the `top_k` experts with the highest scores. Also its softmax routers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from scaling.config.model import ModelConfig
from scaling.model.moe.routing import Routing, Tokens


def linear_logits(router: nn.Module, x_TxD: jax.Array, n_experts: int) -> jax.Array:
    """z = x W in float32, with W [D, E] a weight of this router. Must be called in its compact method.

    Its number of outputs does not grow with the width, so in the maximal update parametrisation its initial variance
    falls with 1/D^2, as that of an output (arXiv 2203.03466, table 3).
    """
    init = nn.initializers.variance_scaling(1.0 / router.config.width_ratio, "fan_in", "normal")
    weight_DxE = router.param("weight", init, (x_TxD.shape[-1], n_experts))
    return x_TxD.astype(jnp.float32) @ weight_DxE.astype(jnp.float32)


class TokenChoice(nn.Module):
    """Each token chooses the `top_k` experts with the highest scores; logits z = x W, W [D, E] without bias.

    A choice depends only on its own token, so it is causal. Logits and scores are float32, because the discrete choice
    must not depend on the rounding of a lower precision. Subclasses define scores, selection and weights.

    Loss-free balancing, arXiv 2408.15664, section 3 (`bias_rate` u > 0): experts are selected by score + b and weighted
    by the score. After each step b_e changes by u sign(mean load - load of e), upwards for an expert with too few
    tokens (`moved_bias`); b is not a parameter and has no gradient. It depends only on earlier steps, so routing stays
    causal. (A widely copied summary has the opposite sign, which unbalances.)

    Switch's jitter, arXiv 2101.03961, appendix: in training the input is multiplied by uniform noise in 1 +- `jitter`.
    """

    config: ModelConfig

    def read(self, x_TxD: jax.Array) -> jax.Array:
        """The input of the gate."""
        return x_TxD

    def gates(self, logits_TxE: jax.Array) -> jax.Array:
        """Scores for selection and weights, [T, E]."""
        return jax.nn.softmax(logits_TxE, axis=-1)

    def select(self, score_TxE: jax.Array) -> jax.Array:
        """Indices of the chosen experts, [T, k]; `score_TxE` includes the bias and has no gradient."""
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
        """The logits for the z-loss, with those of one softmax along the last axis."""
        return logits_TxE

    def order(self, logits_TxE: jax.Array, gates_TxE: jax.Array) -> jax.Array:
        """Scores for selection without a bias: the logits, in the order of the softmax but without its rounding."""
        return logits_TxE


def moved_bias(bias_E: jax.Array, assigned_E: jax.Array, rate: float) -> jax.Array:
    """The bias of loss-free balancing after a step with these loads: b + u sign(mean load - load)."""
    return bias_E + rate * jnp.sign(jnp.mean(assigned_E) - assigned_E)


def gather_chosen(values_TxE: jax.Array, chosen_TxK: jax.Array) -> jax.Array:
    """The values of the chosen experts, [T, k]."""
    return jnp.take_along_axis(values_TxE, chosen_TxK, axis=-1)


class Switch(TokenChoice):
    """Top-1; the weight is the chosen expert's softmax probability (Switch Transformer, arXiv 2101.03961, eq. 2).

    The probability is that before the choice; renormalised, it would be 1 and the router would get no gradient.
    """

    def weights(self, logits_TxE: jax.Array, gates_TxE: jax.Array, chosen_TxK: jax.Array) -> jax.Array:
        return gather_chosen(gates_TxE, chosen_TxK)


class TopK(TokenChoice):
    """Top-k. With `renormalise` the weights are a softmax over the k chosen logits, equal to renormalised probabilities
    (Mixtral, arXiv 2401.04088, section 2.1; GShard, arXiv 2006.16668, algorithm 1). Without it they are the softmax
    probabilities before the choice, which sum to less than 1 (OLMoE, arXiv 2409.02060).

    At k = 1 renormalised weights are constant, so the probability before the choice is always used. GShard keeps its
    second expert with probability min(1, 2 g2).
    """

    def weights(self, logits_TxE: jax.Array, gates_TxE: jax.Array, chosen_TxK: jax.Array) -> jax.Array:
        if self.config.top_k == 1 or not self.config.renormalise:
            return gather_chosen(gates_TxE, chosen_TxK)
        return jax.nn.softmax(gather_chosen(logits_TxE, chosen_TxK), axis=-1)


TRANSFORMS = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, "cos": jnp.cos, "identity": lambda x: x}


class Bounded(TopK):
    """Modified softmax gating, arXiv 2310.14188: the gate sees a bounded transform of its input, z = M(x) W.

    For M elementwise sigmoid, tanh or cos the functions x^p M(x)^q are linearly independent, which makes experts
    converge faster in the paper; `identity` is `topk`. The paper has a dense mixture for classification; its use as a
    top-k router of a language model is ours.
    """

    def read(self, x_TxD: jax.Array) -> jax.Array:
        return TRANSFORMS[self.config.gate_transform](x_TxD)
