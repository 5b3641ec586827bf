"""The kernels for Hopper devices: their lowering for CUDA, and our use of them with stand-ins that run here."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.config.model import ModelConfig
from scaling.model.moe import dispatch, hopper
from scaling.model.moe.experts import GATED_MLP
from scaling.training import kernel_choice

library = pytest.importorskip("jax.experimental.pallas.ops.gpu.ragged_dot_mgpu")
transposed = pytest.importorskip("jax.experimental.pallas.ops.gpu.transposed_ragged_dot_mgpu")
SIZES = jnp.array([128, 0, 256], jnp.int32)  # of 512 rows: 128 belong to no expert


@pytest.fixture
def stand_ins(monkeypatch):
    """The two kernels as JAX computes them anywhere; what they leave undefined is not a number."""

    def product(lhs, rhs, *, group_sizes, transpose_rhs=False, **_):
        rhs = jnp.swapaxes(rhs, 1, 2) if transpose_rhs else rhs
        defined = jnp.arange(len(lhs))[:, None] < jnp.sum(group_sizes)
        return jnp.where(defined, jax.lax.ragged_dot(lhs, rhs, group_sizes), jnp.nan)

    monkeypatch.setattr(library, "ragged_dot", product)
    monkeypatch.setattr(
        transposed, "transposed_ragged_dot",
        lambda lhs, rhs, *, group_sizes, **_: transposed.ref_transposed_ragged_dot(lhs, rhs, group_sizes),
    )  # fmt: skip


def test_products_and_gradients_are_those_of_any_grouped_product(stand_ins):
    rows, weight = jnp.ones((512, 128), jnp.bfloat16), jnp.full((3, 128, 256), 2.0**-8, jnp.bfloat16)
    kinds = jax.random.normal(jax.random.key(0), rows.shape, jnp.bfloat16)

    def loss(way):
        def total(rows, weight):
            return jnp.sum(jnp.sin(way(rows, weight, SIZES)[:384].astype(jnp.float32)))

        return jax.grad(total, (0, 1))(kinds, weight)

    for one, other in zip(loss(hopper.ragged_dot), loss(jax.lax.ragged_dot), strict=True):
        assert one.dtype == jnp.bfloat16
        scale = float(np.max(np.abs(other.astype(jnp.float32))))  # 2^-8: both are rounded to bfloat16
        np.testing.assert_allclose(one.astype(jnp.float32), other.astype(jnp.float32), atol=2**-7 * scale, rtol=0)


@pytest.mark.parametrize(("width", "dtype"), [(96, jnp.bfloat16), (128, jnp.float32)])
def test_shapes_that_the_kernel_does_not_take_are_refused_and_the_choice_goes_on(width, dtype):
    with pytest.raises(NotImplementedError, match="multiples of 128"):
        hopper.ragged_dot(jnp.ones((128, width), dtype), jnp.ones((2, width, 128), dtype), jnp.array([128, 0]))


def test_a_layer_with_its_gradient_lowers_for_cuda(monkeypatch):
    """All but the compilation of the kernel happens here, so wrong shapes and dtypes are found without a device."""

    class OnHopper:
        def __getattr__(self, name):
            return getattr(jax, name)

        def devices(self):
            return [SimpleNamespace(core_count=132)]

    monkeypatch.setattr(transposed, "jax", OnHopper())
    model = ModelConfig(d_model=128, d_head=128, d_expert=256, n_experts=2, top_k=1, router="topk", dtype="bfloat16")
    inputs = kernel_choice.layer_inputs(model, 128, jax.devices()[0])

    def loss(weights, x, routing):
        return jnp.sum(dispatch.grouped(x, routing, GATED_MLP, weights, "hopper").astype(jnp.float32) ** 2)

    lowered = jax.jit(jax.grad(loss, (0, 1))).trace(*inputs).lower(lowering_platforms=("cuda",))
    calls = lowered.as_text().count("custom_call @mosaic_gpu")
    assert calls == 9, "three products, and for each two gradients"


def test_the_kernel_is_a_candidate_on_hopper_alone(monkeypatch):
    of = {c: kernel_choice.candidates(SimpleNamespace(compute_capability=c)) for c in ("8.0", "9.0", "10.0")}
    assert [c for c, kernels in of.items() if "hopper" in kernels] == ["9.0"]
    assert "hopper" not in kernel_choice.candidates(jax.devices()[0])
