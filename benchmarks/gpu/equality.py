"""Whether kernels, dispatches, routers, attention and a whole step compute on the device what they should.

Errors are relative: the norm of the difference over the norm of the reference, and the same of the worst token, which
a single token at a wrong expert brings to about 1. Tolerances are a few roundings of the number format, because a value
of a layer is rounded about eight times on its way (two products, gate, their product, output, weight, sum over k), each
to half a unit in the last place, u: 8 u of the norm. In float32 u is that of a sum over the widths, 2^-24 sqrt(terms);
a product in TF32, what JAX does with float32 on NVIDIA devices unless told otherwise, rounds its factors to 2^-11, and
bfloat16 everything to 2^-9. The worst token has four times as much. One token in a thousand at a wrong expert is an
error of .03, above all of these.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu import whole_step
from benchmarks.gpu.record import Record
from scaling.config.model import ModelConfig
from scaling.config.registry import EXPERTS, ROUTERS
from scaling.model import attention
from scaling.model.moe import dispatch
from scaling.model.moe.experts import GATED_MLP
from scaling.model.moe.layer import MoE
from scaling.model.moe.routing import Routing, Tokens
from scaling.training import kernel_choice

ROUNDINGS = 8
WORST_TOKEN = 4
Case = tuple[str, Callable[[], Any], Callable[[Any], Mapping[str, Any]]]
"""Name, what compiles its programs (several at a time, in threads), what runs them and compares."""
_NEEDS_S = 4.0


def tolerance(dtype: str, terms: int) -> float:
    """Of the norm of a layer's output or gradient in `float32`, `tf32` or `bfloat16`; `terms` in its longest sum."""
    unit = {"float32": 2.0**-24 * terms**0.5, "tf32": 2.0**-11, "bfloat16": 2.0**-9}[dtype]
    return ROUNDINGS * unit


def measure(record: Record, tiny: bool) -> None:
    """A case for each comparison: `off`, `worst_token_off`, `gradients_off`, `tolerance` of the first, `passed`."""
    for cases in (_kernels(tiny), _attention(tiny), _routers(tiny), whole_step.cases(tiny)):
        owed = [case for case in cases if record.owes(case[0])]
        with ThreadPoolExecutor(max(2, min(8, (os.cpu_count() or 1) // 2))) as pool:
            compiled = [(name, pool.submit(compile_), compare) for name, compile_, compare in owed]
            for name, programs, compare in compiled:
                record.case(name, functools.partial(_compared, programs, compare), needs=_NEEDS_S)
                if record.left < _NEEDS_S:
                    pool.shutdown(wait=False, cancel_futures=True)


def _compared(programs: Future[Any], compare: Callable[[Any], Mapping[str, Any]]) -> Mapping[str, Any]:
    return compare(programs.result())


def verdict(what: str, dtype: str, terms: int, found: Any, expected: Any) -> dict[str, Any]:
    """The columns of a comparison of outputs [T, D] and of gradients, trees (None without any)."""
    limit = tolerance(dtype, terms)
    (out, gradients), (out_, gradients_) = found, expected
    row: dict[str, Any] = {
        "what": what,
        "dtype": dtype,
        "off": relative(out, out_),
        "worst_token_off": _worst_token(out, out_),
        "gradients_off": None if gradients is None else _worst_leaf(gradients, gradients_),
        "tolerance": limit,
    }
    passed = row["off"] <= limit and row["worst_token_off"] <= WORST_TOKEN * limit
    return row | {"passed": bool(passed and (gradients is None or row["gradients_off"] <= WORST_TOKEN * limit))}


def relative(found: Any, expected: Any) -> float:
    """Norm of the difference over the norm of what is expected; infinite for what is not finite."""
    one, other = (np.asarray(jax.device_get(x)).astype(np.float64) for x in (found, expected))
    if not np.isfinite(one).all():
        return float("inf")
    return float(np.linalg.norm(one - other) / max(float(np.linalg.norm(other)), 1e-30))


def _worst_token(found: Any, expected: Any) -> float:
    one, other = (np.asarray(jax.device_get(x)).astype(np.float64).reshape(-1, x.shape[-1]) for x in (found, expected))
    usual = np.sqrt(np.mean(np.sum(other**2, axis=1)))  # a token's own output may happen to be near zero
    return float(np.max(np.linalg.norm(one - other, axis=1)) / usual)


def _worst_leaf(found: Any, expected: Any) -> float:
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(relative(one, other) for one, other in leaves)


# ------------------------------------------------------------------------------------------ kernels and dispatches


def _kernels(tiny: bool) -> Iterator[Case]:
    """Every dispatch and kernel in three precisions at four loads, against the dense one of the same numbers in
    float32."""
    tokens, d_model, n_experts = (64, 16, 4) if tiny else (2048, 512, 16)
    model = ModelConfig(d_model=d_model, d_head=16, n_experts=n_experts, top_k=2, router="topk")
    ways: dict[str, Callable[..., jax.Array]] = {
        f"kernel {kernel}": functools.partial(_grouped, kernel) for kernel in kernel_choice.candidates(jax.devices()[0])
    }
    ways |= {"dispatch dense": _dense, "dispatch capacity": _capacity}
    exact = kernel_choice.layer_inputs(model, tokens, jax.devices()[0])
    reference = _with_gradients(_dense, "highest", exact)
    for precision in ("float32", "tf32", "bfloat16"):
        dtype = "bfloat16" if precision == "bfloat16" else "float32"
        inputs = kernel_choice.layer_inputs(model.model_copy(update={"dtype": dtype}), tokens, jax.devices()[0])
        for name, way in ways.items():
            if tiny and precision == "tf32":
                continue

            def compile_(way: Any = way, precision: str = precision, inputs: Any = inputs) -> Any:
                return _with_gradients(way, _PRECISION[precision], inputs), inputs

            def compare(compiled: Any, name: str = name, precision: str = precision) -> dict[str, Any]:
                program, inputs = compiled
                exact = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a, inputs)
                rows = []
                for load, chosen in _loads(tokens, n_experts).items():
                    found, expected = (
                        run(weights, x, _routed(routing, chosen))
                        for run, (weights, x, routing) in ((program, inputs), (reference, exact))
                    )
                    rows.append(verdict(name, precision, tokens, found, expected) | {"load": load})
                return max(rows, key=lambda row: row["worst_token_off"]) | {"loads": len(rows)}

            yield f"{name} {precision}", compile_, compare


_PRECISION = {"float32": "highest", "tf32": "default", "bfloat16": "default"}


def _with_gradients(way: Callable[..., jax.Array], precision: str, inputs: Any) -> Any:
    """The compiled output and gradients by weights, tokens and routing weights."""

    def loss(weights: Any, x: jax.Array, weight_TxK: jax.Array, routing: Routing) -> tuple[jax.Array, jax.Array]:
        out = way(x, routing.replace(weight_TxK=weight_TxK), weights)  # type: ignore[attr-defined]
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    def both(weights: Any, x: jax.Array, routing: Routing) -> tuple[jax.Array, Any]:
        gradients, out = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(weights, x, routing.weight_TxK, routing)
        return out, gradients

    with jax.default_matmul_precision(precision):
        return jax.jit(both).lower(*inputs).compile()


def _grouped(kernel: str, x: jax.Array, routing: Routing, weights: Any) -> jax.Array:
    return dispatch.grouped(x, routing, GATED_MLP, weights, kernel)


def _dense(x: jax.Array, routing: Routing, weights: Any) -> jax.Array:
    return dispatch.dense(x, routing, GATED_MLP, weights)


def _capacity(x: jax.Array, routing: Routing, weights: Any) -> jax.Array:
    """With room for every token at every expert, so that none is dropped."""
    factor = routing.gates_TxE.shape[1] / routing.chosen_TxK.shape[1]
    return dispatch.capacity(x, routing, GATED_MLP, weights, factor)


def _loads(tokens: int, n_experts: int) -> dict[str, np.ndarray]:
    """Choices [T, 2]: of a random router, all on two experts, none on half of them, and one token beside the rest."""
    rng = np.random.default_rng(0)
    random = np.argsort(rng.random((tokens, n_experts)), axis=1)[:, :2]
    one = np.broadcast_to([0, 1], (tokens, 2)).copy()
    beside = one.copy()
    beside[tokens // 2] = [n_experts - 1, n_experts - 2]
    half = np.argsort(rng.random((tokens, n_experts // 2)), axis=1)[:, :2] * 2
    return {"random": random, "all on two": one, "every other": half, "one beside": beside}


def _routed(routing: Routing, chosen: np.ndarray) -> Routing:
    return routing.replace(chosen_TxK=jnp.asarray(chosen, jnp.int32))  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------- attention


def _attention(tiny: bool) -> Iterator[Case]:
    """Attention in bfloat16 as the device computes it, plain and fused, with as many and with fewer keys than queries,
    against plain products in float32."""
    batch, length, width = (1, 16, 8) if tiny else (2, 1024, 128)
    for n_heads, n_kv_heads in [(4, 4)] if tiny else [(8, 8), (8, 2)]:
        keys = jax.random.split(jax.random.key(0), 3)
        shapes = [(batch, n, length, width) for n in (n_heads, n_kv_heads, n_kv_heads)]
        qkv = [jax.random.normal(key, shape, jnp.bfloat16) for key, shape in zip(keys, shapes, strict=True)]
        qkv[0] = qkv[0] * width**-0.5
        for fused in (False, True):
            if fused and attention.implementation("bfloat16", width) == "xla":
                continue  # the row of the device says that it has none

            def compile_(qkv: Any = qkv, fused: bool = fused) -> Any:
                exact = [x.astype(jnp.float32) for x in qkv]
                ways = ((attention.fused if fused else _plain, qkv, "default"), (_plain, exact, "highest"))
                return [(_attention_program(way, inputs, precision), inputs) for way, inputs, precision in ways]

            def compare(programs: Any, fused: bool = fused) -> dict[str, Any]:
                found, expected = (program(*inputs) for program, inputs in programs)
                what = f"attention {'fused' if fused else 'plain'}"
                return verdict(what, "bfloat16", length, found, expected)

            yield f"attention {n_heads} on {n_kv_heads} {'fused' if fused else 'plain'}", compile_, compare


def _plain(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    batch, _, length, width = query.shape
    rows = query.reshape(batch, key.shape[1], -1, width)
    visible = jnp.concatenate([jnp.tril(jnp.ones((length, length), bool))] * (query.shape[1] // key.shape[1]))
    mixed = attention.attend(rows, key, value, visible).reshape(query.shape)
    return mixed.transpose(0, 2, 1, 3).reshape(batch, length, -1)


def _attention_program(way: Callable[..., jax.Array], qkv: Any, precision: str) -> Any:
    def loss(*qkv: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = way(*qkv)
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    def both(*qkv: jax.Array) -> tuple[jax.Array, Any]:
        gradients, out = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*qkv)
        return out, gradients

    with jax.default_matmul_precision(precision):
        return jax.jit(both).lower(*qkv).compile()


# --------------------------------------------------------------------------------------------- routers and experts


def _routers(tiny: bool) -> Iterator[Case]:
    """Every router with plain experts, every form of experts with `topk`: the layer on the device against this
    computer's CPU, in float32. Choices that rounding flips at a tie are counted apart (`flipped`)."""
    pairs = [(router, "mlp") for router in ROUTERS] + [("topk", form) for form in EXPERTS if form != "mlp"]
    length, sequences = (8, 2) if tiny else (64, 4)
    for router, form in pairs[:: len(pairs) - 1] if tiny else pairs:
        facts = ROUTERS[router]
        sizes: dict[str, Any] = {"d_model": 32, "d_head": 16, "n_experts": 4, "d_expert": 16, "rank": 6, "slots": 4}
        if "anneal_tokens" in facts.options:
            sizes |= {"dense_tokens": 0}
        top_k = 1 if facts.without_k else 2
        model = ModelConfig(router=router, experts=form, top_k=top_k, leak_study=not facts.causal, **sizes)
        yield f"router {router} {form}", functools.partial(_layer_programs, model, length, sequences), _same_layer


def _layer_programs(model: ModelConfig, length: int, sequences: int) -> Any:
    """(program, inputs) on the device and on the CPU."""
    rng = np.random.default_rng(0)
    moe = MoE(model, 1.0, "" if model.dispatch != "grouped" else "batched")
    x = rng.normal(size=(sequences, length, model.d_model)).astype(np.float32)
    ids = rng.integers(0, 50, sequences * length).astype(np.int32)

    def known(id_T: jax.Array) -> Tokens:
        return Tokens(id_T, jnp.tile(jnp.arange(length), sequences), length, 0, None)

    shapes = jax.eval_shape(moe.init, jax.random.key(0), jnp.asarray(x), known(jnp.asarray(ids)))
    params = jax.tree.map(
        lambda leaf: (rng.normal(size=leaf.shape) / max(1, leaf.shape[-2] if leaf.ndim > 1 else 1) ** 0.5).astype(
            leaf.dtype
        ),
        shapes,
    )

    def both(params: Any, x: jax.Array, id_T: jax.Array) -> tuple[jax.Array, jax.Array, Any]:
        def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
            applied: Any = moe.apply(params, x, known(id_T))
            out, routing = applied
            return jnp.sum(jnp.sin(out)), (out, routing.chosen_TxK)

        gradients, (out, chosen) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
        return out, chosen, gradients

    programs = []
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            inputs = jax.device_put((params, x, ids), device)
            programs.append((jax.jit(both).lower(*inputs).compile(), inputs))
    return programs


def _same_layer(programs: Any) -> dict[str, Any]:
    (out, chosen, gradients), (out_, chosen_, gradients_) = (program(*inputs) for program, inputs in programs)
    flipped = np.any(np.sort(np.asarray(chosen)) != np.sort(np.asarray(chosen_)), axis=-1)
    width = out.shape[-1]
    kept = [np.asarray(x).reshape(-1, width)[~flipped] for x in (out, out_)]
    same = (None, None) if flipped.any() else (gradients, gradients_)
    row = verdict("layer on the device and on the CPU", "float32", out.size // width, (kept[0], same[0]),
                  (kept[1], same[1]))  # fmt: skip
    share = float(np.mean(flipped))
    return row | {"flipped": share, "passed": row["passed"] and share <= 0.01}
