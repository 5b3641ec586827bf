"""Our side of the benchmark of a training step, and the two other clocks it needs: a matrix product, and a trunk.

A child process of `benchmarks.peer.Peer`, one program in each, for what a process has freed of one program slows the
next. `python -m benchmarks.ours --threads 2` answers

    {"shape": {...}, "settings": {}, "inputs": "weights-and-tokens.npz" or null, "steps": n}    as the peer does
    {"product": 1024, "steps": n}      {"seconds": [n]}: a jitted float32 product of two square matrices
    {"trunk": {...}, "budgets": [...]} {"trunk": s, "alone": [s, ...]}: a trunk's cells together, and each from its
    beginning

`inputs` is written where there is no such file yet: our first weights, and random tokens. The settings are those of a
sweep's cell, `sweeps.worker.environment`: a device for each thread, or with `--whole` one device with all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer import Shape, random_tokens, save_inputs, serve, timed
from scaling.config.bench import Resources
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.training import malloc
from sweeps import worker


def model_config(shape: Shape) -> ModelConfig:
    """Our model at a shape."""
    sizes = {name: getattr(shape, name) for name in ("d_model", "n_layers", "d_head", "d_expert", "n_experts", "top_k")}
    return ModelConfig(**sizes, router="topk")


def run_config(shape: Shape, cpus: int) -> RunConfig:
    train = TrainConfig(batch_tokens=shape.tokens, seq_len=shape.seq_len, warmup_tokens=0)
    return RunConfig(model=model_config(shape), train=train, resources=Resources(cpus=cpus))


def trainer(shape: Shape, cpus: int, inputs: str | None) -> Callable[[], tuple[float, float]]:
    """A function that takes one step and returns its seconds and the cross-entropy before its update."""
    import jax

    from scaling.training.kernel_choice import kernel_of
    from scaling.training.step import metric_names
    from scaling.training.trunk import program_of

    config = run_config(shape, cpus)
    compiled = program_of(config, shape.vocab_size, kernel_of(config, jax.devices()[0]))
    state, batches = compiled.first([0]), random_tokens(shape, 8, np.random.default_rng(0))
    if inputs is not None and not Path(inputs).exists():
        save_inputs(Path(inputs), state.params, batches)
    rate, loss, taken = np.float32(1e-3), metric_names(config.model).index("loss"), 0

    def step() -> tuple[float, float]:
        nonlocal state, taken
        batch = batches[taken % len(batches)]
        taken += 1
        started = time.perf_counter()
        state, reported = compiled.step(state, batch, rate)
        jax.block_until_ready((state, reported))
        return time.perf_counter() - started, float(reported[loss])

    return step


def product(size: int) -> Callable[[], tuple[float, float]]:
    """A function that multiplies once and returns the seconds."""
    import jax

    one, other = jax.random.normal(jax.random.key(0), (2, size, size))
    multiply = jax.jit(lambda a, b: a @ b)

    def step() -> tuple[float, float]:
        started = time.perf_counter()
        multiply(one, other).block_until_ready()
        return time.perf_counter() - started, 0.0

    return step


def trunk_and_alone(model: ModelConfig, budgets: Sequence[int]) -> tuple[float, list[float]]:
    """Seconds of training the budgets of one trunk, and of each budget alone, on one device."""
    import jax

    from scaling.training import trunk
    from scaling.training.kernel_choice import kernel_of

    cells = [RunConfig(model=model, tokens=tokens) for tokens in budgets]
    kernel, vocab_size = kernel_of(cells[0], jax.devices()[0]), cells[0].data.vocab_size
    tokens = np.random.default_rng(0).integers(vocab_size - 1, size=2_000_000).astype(np.uint16)
    trunk.program_of(cells[0], vocab_size, kernel)

    def seconds(some: list[RunConfig]) -> float:
        started = time.perf_counter()
        if any(trained.error for trained in trunk.train_trunks([some], tokens, vocab_size, kernel)):
            raise RuntimeError("a cell of the trunk diverged")
        return time.perf_counter() - started

    return seconds(cells), [seconds([cell]) for cell in cells]


def answers(cpus: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Takes the steps that a request asks for, with what an equal request before it made; or trains a trunk."""
    made: dict[str, Callable[[], tuple[float, float]]] = {}

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if "trunk" in request:
            together, alone = trunk_and_alone(ModelConfig(**request["trunk"]), request["budgets"])
            return {"trunk": together, "alone": alone}
        which = json.dumps({name: value for name, value in request.items() if name not in ("steps", "fresh")})
        if request.get("fresh") or which not in made:
            if "product" in request:
                made[which] = product(request["product"])
            else:
                made[which] = trainer(Shape(**request["shape"]), cpus, request["inputs"])
        return timed(made[which], request["steps"])

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer requests for our step times, one line of JSON each.")
    parser.add_argument("--threads", type=int, required=True, help="CPU threads of XLA")
    parser.add_argument("--whole", action="store_true", help="one device with all threads, not one for each")
    options = parser.parse_args()
    os.environ |= worker.environment(options.threads, 0, spread=not options.whole)  # before JAX is imported
    malloc.keep()
    serve(answers(options.threads))


if __name__ == "__main__":
    main()
