"""Multilinear mixtures (muMoE, arXiv 2402.12550): one tensor of all experts' weights, factorised, never materialised.

Axes: T tokens, E experts, I inputs (including the bias), O outputs, R rank, Q the ring's other rank.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from scaling.model.moe.experts import ExpertSettings, Send
from scaling.model.moe.routing import Routing, weights_by_expert


def cp_map(factors: dict[str, jax.Array], weight_TxE: jax.Array, x_TxI: jax.Array) -> jax.Array:
    """y = C ((A^T a) * (B^T u)), u = [x; 1]: the mixture sum_e a_e W_e of E linear maps, W[e, i, o] = sum_r A[e, r]
    B[i, r] C[o, r], a CP decomposition (arXiv 2402.12550, section 3). factors: expert [E, R], into [I, R], out [O, R].
    """
    gate_TxR = weight_TxE @ factors["expert"]
    into_TxR = x_TxI @ factors["into"][:-1] + factors["into"][-1]
    return (gate_TxR * into_TxR) @ factors["out"].T


def ring_map(factors: dict[str, jax.Array], weight_TxE: jax.Array, x_TxI: jax.Array) -> jax.Array:
    """y[o] = trace(sum_e a_e G1[:, e, :] . sum_i u_i G2[:, i, :] . G3[:, o, :]): the same mixture with W[e, i, o] the
    trace of three slices, a tensor ring (arXiv 2402.12550, section 3). factors: expert [Q, E, Q], into [Q, I, R], out
    [R, O, Q].
    """
    expert_QxExQ, into_QxIxR, out_RxOxQ = factors["expert"], factors["into"], factors["out"]
    gate_TxQxQ = jnp.einsum("te,aeb->tab", weight_TxE, expert_QxExQ)
    into_TxQxR = jnp.einsum("ti,bir->tbr", x_TxI, into_QxIxR[:, :-1]) + into_QxIxR[:, -1]
    both_TxQxR = jnp.einsum("tab,tbr->tar", gate_TxQxQ, into_TxQxR)
    return jnp.einsum("tar,roa->to", both_TxQxR, out_RxOxQ)


class CP(nn.Module):
    """`cp_map` with its weights, initialised as by the authors: A ~ N(1, 1), B ~ U(+-I^-1/2), C ~ U(+-R^-1/2).

    out_scale: factor of the variance of C.
    """

    n_experts: int
    outputs: int
    rank: int
    out_scale: float

    @nn.compact
    def __call__(self, weight_TxE: jax.Array, x_TxI: jax.Array) -> jax.Array:
        inputs = x_TxI.shape[-1] + 1
        factors = {
            "expert": self.param("expert", _around_one, (self.n_experts, self.rank)),
            "into": self.param("into", _uniform(inputs**-0.5), (inputs, self.rank)),
            "out": self.param("out", _uniform((self.out_scale / self.rank) ** 0.5), (self.outputs, self.rank)),
        }
        return cp_map(jax.tree.map(lambda w: w.astype(x_TxI.dtype), factors), weight_TxE.astype(x_TxI.dtype), x_TxI)


class Ring(nn.Module):
    """`ring_map` with its weights. As by the authors, G1 slices start as (1 + N(0, 1)) times the identity; G2 and G3
    are uniform, such that the output has the variance of the CP form."""

    n_experts: int
    outputs: int
    rank: int
    ring_rank: int
    out_scale: float

    @nn.compact
    def __call__(self, weight_TxE: jax.Array, x_TxI: jax.Array) -> jax.Array:
        inputs, ring = x_TxI.shape[-1] + 1, self.ring_rank
        bound = (self.out_scale / (self.rank * ring)) ** 0.5
        factors = {
            "expert": self.param("expert", _identities, (ring, self.n_experts, ring)),
            "into": self.param("into", _uniform(inputs**-0.5), (ring, inputs, self.rank)),
            "out": self.param("out", _uniform(bound), (self.rank, self.outputs, ring)),
        }
        return ring_map(jax.tree.map(lambda w: w.astype(x_TxI.dtype), factors), weight_TxE.astype(x_TxI.dtype), x_TxI)


def _around_one(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return 1 + jax.random.normal(key, shape)


def _identities(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.eye(shape[0])[:, None, :] * _around_one(key, (1, shape[1], 1))


def _uniform(bound: float) -> nn.initializers.Initializer:
    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def cp(settings: ExpertSettings, x_TxD: jax.Array, routing: Routing, send: Send) -> jax.Array:
    """Two CP maps with a GELU between them and one gate, y = W2(a) gelu(W1(a) [x; 1]), as wide as the dense twin.

    The gate mixes weights instead of outputs, which differs from a mixture of nonlinear experts. All experts enter
    every product, whatever the gate chooses, at little cost: an expert has 2 R parameters.
    """
    return _two_maps(CP, (settings.config.rank,), settings, x_TxD, routing)


def ring(settings: ExpertSettings, x_TxD: jax.Array, routing: Routing, send: Send) -> jax.Array:
    """Like `cp`, with tensor rings: `rank` between inputs and outputs, `ring_rank` on both sides of the experts."""
    ranks = (settings.config.rank, settings.config.ring_rank)
    return _two_maps(Ring, ranks, settings, x_TxD, routing)


def _two_maps(
    form: Callable[..., nn.Module], ranks: tuple[int, ...], settings: ExpertSettings, x_TxD: jax.Array, routing: Routing
) -> jax.Array:
    config, weight_TxE = settings.config, weights_by_expert(routing)
    into = form(config.n_experts, config.top_k * config.d_expert, *ranks, 1.0, name="factors_in")
    out = form(config.n_experts, x_TxD.shape[-1], *ranks, settings.out_scale, name="factors_out")
    return out(weight_TxE, jax.nn.gelu(into(weight_TxE, x_TxD)))
