"""Fused attention equals the plain products, in values and gradients, and is taken where a device has it.

cuDNN runs on its own devices alone, so here the other implementation of the same call of JAX stands in for it: what is
tested is everything around the kernel, and `benchmarks.gpu` tests the kernel on the day.
"""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from routing_cases import F32

from scaling.config.model import ModelConfig
from scaling.model import attention
from scaling.model.attention import Attention, attend, fused, implementation
from scaling.model.transformer import empty_caches


def heads(batch, n_heads, n_kv_heads, length, width):
    keys = jax.random.split(jax.random.key(length), 3)
    sizes = (n_heads, n_kv_heads, n_kv_heads)
    return [jax.random.normal(k, (batch, n, length, width)) for k, n in zip(keys, sizes, strict=True)]


@pytest.fixture
def stand_in(monkeypatch):
    """A device on which cuDNN's attention runs: it is the same function, computed by XLA."""
    monkeypatch.setattr(attention, "implementation", lambda dtype, width: "cudnn")
    monkeypatch.setattr(attention, "fused", functools.partial(fused, by="xla"))


@pytest.mark.parametrize(("n_heads", "n_kv_heads", "length"), [(4, 4, 16), (6, 2, 9), (4, 1, 2)])
def test_fused_attention_is_the_plain_one_in_values_and_gradients(n_heads, n_kv_heads, length):
    query, key, value = heads(2, n_heads, n_kv_heads, length, 8)
    visible = jnp.concatenate([jnp.tril(jnp.ones((length, length), bool))] * (n_heads // n_kv_heads))

    def plain(query, key, value):
        rows = query.reshape(2, n_kv_heads, -1, 8)
        return attend(rows, key, value, visible).reshape(query.shape).transpose(0, 2, 1, 3).reshape(2, length, -1)

    def with_gradients(way):
        return jax.jit(jax.value_and_grad(lambda *qkv: jnp.sum(jnp.sin(way(*qkv))), argnums=(0, 1, 2)))

    (total, gradients), (other, others) = (
        with_gradients(way)(query, key, value) for way in (plain, functools.partial(fused, by="xla"))
    )
    np.testing.assert_allclose(total, other, **F32)
    for one, two in zip(gradients, others, strict=True):
        np.testing.assert_allclose(one, two, **F32)


@pytest.mark.parametrize("n_kv_heads", [4, 2])
def test_a_layer_computes_the_same_with_either(n_kv_heads, stand_in, monkeypatch):
    """Alone and as a prefill that fills its cache; a token against the cache and packed documents, which the fused
    kernel does not do, are the same programs to the last bit."""
    config = ModelConfig(d_model=32, d_head=8, n_layers=1, n_kv_heads=n_kv_heads)
    layer, x = Attention(4, n_kv_heads, 1.0), jax.random.normal(jax.random.key(0), (3, 12, 32))
    params = jax.jit(layer.init)(jax.random.key(1), x)
    document = jnp.asarray(np.repeat([[0, 1, 2]], 3, axis=0).repeat(4, axis=1))

    def everything():
        (cache,) = empty_caches(config, 3, 12)
        alone = jax.jit(layer.apply)(params, x)[0]
        prefill, cache = jax.jit(layer.apply)(params, x, cache, jnp.int32(0))
        decode, _ = jax.jit(layer.apply)(params, x[:, -1:], cache, jnp.int32(11))
        packed = jax.jit(layer.apply)(params, x, None, 0, document)[0]
        return (alone, prefill), (decode, packed)

    sequences, others = everything()
    monkeypatch.undo()
    plain_sequences, plain_others = everything()
    for one, other in zip(sequences, plain_sequences, strict=True):
        np.testing.assert_allclose(one, other, **F32)
        assert np.any(np.asarray(one != other)), "the two are different programs"
    for one, other in zip(others, plain_others, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(others[0][:, 0], sequences[0][:, -1], **F32)


def test_the_fused_kernel_lowers_for_cuda_with_its_gradient_and_for_trunks_side_by_side(monkeypatch):
    """All but the compilation by cuDNN happens here: shapes and dtypes that it refuses are found without a device."""
    checks = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(checks, "check_cudnn_version", lambda: 91_900)
    monkeypatch.setattr(checks, "check_compute_capability", lambda capability: True)
    monkeypatch.setattr(checks, "is_cuda_compute_capability_equal", lambda capability: False)

    def gradients(*qkv):
        return jax.grad(lambda *qkv: jnp.sum(jnp.sin(fused(*qkv).astype(jnp.float32))), (0, 1, 2))(*qkv)

    for function, trunks in ((gradients, ()), (jax.vmap(gradients), (3,))):
        shapes = [jax.ShapeDtypeStruct((*trunks, 2, n, 64, 32), jnp.bfloat16) for n in (4, 2, 2)]
        text = jax.jit(function).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
        assert text.count("custom_call @__cudnn$fmhaSoftmax") == 2, "forward and backward"


def on(monkeypatch, capability, platform="gpu", compiles=True):
    device = SimpleNamespace(platform=platform, compute_capability=capability)
    monkeypatch.setattr(attention, "_device_in_use", lambda: device)
    monkeypatch.setattr(attention, "_compiles", lambda dtype, width: compiles)


def test_fused_attention_is_taken_where_the_device_and_the_dtype_have_it(monkeypatch):
    assert implementation("bfloat16", 128) == "xla"  # the CPU of this test
    on(monkeypatch, "9.0")
    assert [implementation(dtype, 128) for dtype in ("bfloat16", "float16", "float32")] == ["cudnn", "cudnn", "xla"]
    assert [implementation("bfloat16", width) for width in (8, 12, 256, 264)] == ["cudnn", "xla", "cudnn", "xla"]
    on(monkeypatch, "8.0")
    assert [implementation("bfloat16", width) for width in (128, 136)] == ["cudnn", "xla"]
    for capability, platform, compiles in [("7.5", "gpu", True), ("gfx942", "gpu", True), ("9.0", "tpu", True),
                                           ("9.0", "gpu", False)]:  # fmt: skip
        on(monkeypatch, capability, platform, compiles)
        assert implementation("bfloat16", 64) == "xla"


def test_a_device_without_the_kernel_is_found_by_trying_it():
    assert not attention._compiles("bfloat16", 64)  # no cuDNN here


def test_the_sum_of_the_shares_is_the_same_by_a_product_and_by_a_reduction(monkeypatch):
    """The two ways to normalise, on a CPU and elsewhere."""
    query, key, value = heads(2, 3, 3, 7, 8)
    visible = jnp.tril(jnp.ones((7, 7), bool))
    here = attend(query, key, value, visible)
    on(monkeypatch, "9.0")
    np.testing.assert_allclose(here, attend(query, key, value, visible), **F32)
