"""Tokens a second of our MoE layer against the best public kernels in JAX, forward and backward."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu import public_layer
from benchmarks.gpu.record import Record
from benchmarks.gpu.timing import Peak, peak_of, seconds, temporary_bytes
from scaling.config.model import ModelConfig
from scaling.model.moe import dispatch
from scaling.model.moe.experts import GATED_MLP
from scaling.model.moe.routing import Routing
from scaling.training import kernel_choice

Layer = Callable[..., jax.Array]
EXPERTS = (8, 32)
BOUND = "bound"
_NEEDS_S = 5.0


@dataclass(frozen=True)
class _Case:
    """A layer in one pass.   side: ours, public, or the bound.   repeats: of `timing.seconds`."""

    side: str
    kernel: str
    layer: Layer
    backward: bool
    model: ModelConfig
    repeats: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"E={self.model.n_experts} {self.side} {self.kernel}{' backward' if self.backward else ''}"

    def compiled(self, inputs: kernel_choice.LayerInputs) -> Any:
        with public_layer.lowered_as(self.kernel):
            return jax.jit(_pass(self.layer, self.backward)).lower(*inputs).compile()

    def measured(
        self, compiled: Future[Any], inputs: kernel_choice.LayerInputs, expected: np.ndarray, peak: Peak
    ) -> dict[str, Any]:
        program = compiled.result()
        one, tokens, model = seconds(lambda: program(*inputs), **self.repeats), len(inputs[1]), self.model
        flops = (3 if self.backward else 1) * 2.0 * tokens * model.top_k * 3 * model.d_model * model.d_expert
        checked = not self.backward and self.side != BOUND
        return {
            "side": self.side,
            "kernel": self.kernel,
            "n_experts": model.n_experts,
            "pass": "forward and backward" if self.backward else "forward",
            "tokens": tokens,
            "ms": 1e3 * one,
            "tokens_per_s": tokens / one,
            "of_peak": flops / one / peak.flops,
            "temporary_bytes": temporary_bytes(program),
            "relative_error": _error(program(*inputs), expected) if checked else None,
        }


def measure(record: Record, tiny: bool) -> None:
    """A case for each layer, E and pass: `side` ours, public or bound; `tokens_per_s`; `of_peak`, the share of the
    peak by counted FLOPs; `temporary_bytes`; `relative_error` of the output, to the dense reference in float32."""
    device, tokens, d_model = jax.devices()[0], *((256, 32) if tiny else (16_384, 2048))
    repeats = {"groups": 2, "group_s": 0.0} if tiny else {}
    peak = peak_of(device, 64 if tiny else 8192)
    for n_experts in EXPERTS[: 1 if tiny else 2]:
        model = ModelConfig(d_model=d_model, d_head=16, n_experts=n_experts, top_k=2, router="topk", dtype="bfloat16")
        cases = [_Case(*layer, backward, model, repeats) for layer in _layers() for backward in (False, True)]
        cases = [case for case in cases if record.owes(case.name)]
        if not cases:
            continue
        inputs = kernel_choice.layer_inputs(model, tokens, device)
        expected = _reference(inputs)
        programs = _compiled(cases, inputs) if record.left > _NEEDS_S else [Future[Any]() for _ in cases]
        for case, program in zip(cases, programs, strict=True):
            record.case(case.name, functools.partial(case.measured, program, inputs, expected, peak), needs=_NEEDS_S)


def _compiled(cases: Sequence[_Case], inputs: kernel_choice.LayerInputs) -> list[Future[Any]]:
    """The programs of all cases, compiled beside each other because nothing is being timed; but those that need a flag
    of JAX first and alone."""
    with ThreadPoolExecutor(1) as alone, ThreadPoolExecutor(8) as pool:
        flagged = {
            case.name: alone.submit(case.compiled, inputs) for case in cases if case.kernel in public_layer.FLAGGED
        }
        wait(flagged.values())
        programs = [flagged.get(case.name) or pool.submit(case.compiled, inputs) for case in cases]
        wait(programs)
    return programs


def _layers() -> list[tuple[str, str, Layer]]:
    """(side, kernel, layer), the most telling first."""

    def ours(kernel: str) -> Layer:
        return lambda weights, x, routing: dispatch.grouped(x, routing, GATED_MLP, weights, kernel)

    own = [("ours", kernel, ours(kernel)) for kernel in reversed(kernel_choice.candidates(jax.devices()[0]))]
    public = [("public", name, public_layer.layer(product)) for name, product in public_layer.products().items()]
    return [*own, *public, (BOUND, "equal shares", public_layer.equal_shares)]


def _pass(layer: Layer, backward: bool) -> Layer:
    def loss(weights: Any, x: jax.Array, routing: Any) -> jax.Array:
        return jnp.sum(layer(weights, x, routing).astype(jnp.float32) ** 2)

    return jax.grad(loss, argnums=(0, 1)) if backward else layer


def _reference(inputs: kernel_choice.LayerInputs) -> np.ndarray:
    """The dense dispatch of the first tokens in float32; it computes every expert."""
    weights, x, routing = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a, inputs)
    some = slice(0, min(len(x), 1024))
    few = Routing(routing.chosen_TxK[some], routing.weight_TxK[some], routing.gates_TxE[some])
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(dispatch.dense, static_argnums=2)(x[some], few, GATED_MLP, weights))


def _error(found: jax.Array, expected: np.ndarray) -> float:
    """Relative error of the norm, over the tokens of the reference."""
    difference = np.asarray(found[: len(expected)], np.float64) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected))
