"""Hand-written backward passes compared with JAX's derivatives of the plain formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.model.attention import ROTARY_BASE, attend, rotary_tables, to_heads
from scaling.model.matmul import product, product_of_sequences
from scaling.model.moe.experts import gated
from scaling.model.moe.kernels import _copies


def same(ours, plain, arguments, terms):
    """Value and gradients of both with respect to all arguments, under a loss with curvature.

    The two take the same sums of `terms` products in another order: float32 rounding grows with its root, on the scale
    of the largest value. 16 is for the chain of operations that a term is.
    """

    def value_and_gradients(function):
        def loss(*arguments):
            value = function(*arguments)
            return jnp.sum(jnp.sin(value)), value

        return jax.jit(jax.value_and_grad(loss, tuple(range(len(arguments))), has_aux=True))(*arguments)

    ((_, value), gradients), ((_, plain_value), plain_gradients) = map(value_and_gradients, (ours, plain))
    for found, expected in zip((value, *gradients), (plain_value, *plain_gradients), strict=True):
        scale = float(np.max(np.abs(expected)))
        assert scale > 0
        np.testing.assert_allclose(found, expected, rtol=0, atol=16 * 2.0**-24 * np.sqrt(terms) * max(1.0, scale))


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def causal(new, all_):
    return jnp.arange(all_)[None, :] <= jnp.arange(new)[:, None] + all_ - new


@pytest.mark.parametrize("name", ["causal", "a cache that is longer", "documents"])
def test_attention(name):
    new, all_ = (5, 9) if name.startswith("a cache") else (9, 9)
    seen = causal(new, all_)
    if name == "documents":
        number = jnp.array([[0, 0, 0, 1, 1, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 2, 3, 3]])
        seen = seen & (number[:, None, :, None] == number[:, None, None, :])
    query, key, value = 3 * normal(2, 3, new, 4), normal(2, 3, all_, 4, seed=1), normal(2, 3, all_, 4, seed=2)

    def plain(query, key, value):
        score = jnp.where(seen, jnp.einsum("bhtk,bhsk->bhts", query, key), -jnp.inf)
        return jnp.einsum("bhts,bhsk->bhtk", jax.nn.softmax(score, axis=-1), value)

    same(lambda q, k, v: attend(q, k, v, seen), plain, (query, key, value), terms=all_ * 4)


def test_attention_does_not_overflow_for_large_scores():
    """exp(900) is not a float32: the largest score of a row is taken off first, and the weight is all on it."""
    query, value = jnp.full((1, 1, 2, 1), 900.0), jnp.array([[[[1.0], [5.0]]]])
    key = jnp.array([[[[0.0], [1.0]]]])
    out = attend(query, key, value, causal(2, 2))
    np.testing.assert_array_equal(out[0, 0, :, 0], [1.0, 5.0])
    gradients = jax.grad(lambda *a: jnp.sum(attend(*a, causal(2, 2))), (0, 1, 2))(query, key, value)
    assert all(np.all(np.isfinite(g)) for g in gradients)


def test_rotation():
    """Against multiplication by exp(i position base^(-2 j / K)) of complex numbers."""
    position = jnp.array([0, 3, 17, 40])

    heads, width = 3, 8

    def plain(x):  # query and key turn, the query is scaled, the value stays
        query, key, value = x.reshape(2, 4, 3, heads, width).transpose(2, 0, 3, 1, 4)
        half = width // 2
        angle = position[:, None] * ROTARY_BASE ** (-jnp.arange(half) / half)

        def turn(part):
            turned = (part[..., :half] + 1j * part[..., half:]) * jnp.exp(1j * angle)
            return jnp.concatenate([turned.real, turned.imag], axis=-1)

        return jnp.stack([turn(query) / width**0.5, turn(key), value])

    # Angles reach 40, where a unit in the last place is 40 x 2^-24: as good as 40^2 more terms.
    same(lambda x: to_heads(x, *rotary_tables(position, width)), plain, (normal(2, 4, 3, heads * width),), terms=40**2)


@pytest.mark.parametrize(("rows", "into", "out"), [(7, 3, 5), (7, 5, 3), (4, 6, 6)])
def test_product(rows, into, out):
    same(product, lambda x, w: x @ w, (normal(rows, into), normal(into, out, seed=1)), terms=max(rows, into, out))


def test_product_of_sequences():
    same(product_of_sequences, lambda x, w: x @ w, (normal(2, 7, 3), normal(3, 5, seed=1)), terms=14)


def test_gated():
    """The logistic function's tails included."""
    gate = jnp.concatenate([5 * normal(40), jnp.array([0.0, 60.0, -60.0])])
    same(gated, lambda g, u: g * u / (1 + jnp.exp(-g)), (gate, normal(43, seed=1)), terms=1)


def test_copies_of_weights():
    """An expert of several blocks and one of none."""
    expert = jnp.array([0, 2, 2, 3, 2])
    same(lambda w: _copies(w, expert), lambda w: w[expert], (normal(4, 3, 2),), terms=3)
