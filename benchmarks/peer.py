"""The other process of a training benchmark: shapes, settings, and a child that times steps when asked.

PyTorch and JAX do not share a process: each starts threads of its own. The child waits on its input between requests,
so rounds of the two alternate and only one of them works at a time. One line of JSON each way:

    {"shape": {...}, "settings": {...}, "inputs": "weights-and-tokens.npz" or null, "steps": n}
    {"seconds": [n], "losses": [n]}   or   {"error": "..."}

A child keeps what it built, so equal requests continue the same training; `fresh: true` in a request starts it anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Shape:
    """What both train: `d_model // d_head` heads, `n_experts` gated experts of width `d_expert`, `top_k` of them a
    token."""

    d_model: int
    n_layers: int
    n_experts: int
    top_k: int
    d_expert: int
    d_head: int = 16
    vocab_size: int = 512
    sequences: int = 16
    seq_len: int = 128

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.sequences * self.seq_len


SHAPES = tuple(
    Shape(d_model, n_layers, n_experts, top_k, d_expert=2 * d_model)
    for d_model, n_layers, n_experts, top_k in [(64, 4, 8, 2), (128, 4, 8, 2), (128, 4, 32, 2), (256, 4, 8, 2)]
)


@dataclass(frozen=True)
class Settings:
    """How the peer computes a step; the optimiser's numbers are those of `TrainConfig` and `scaling.training.step`.

    experts, attention: implementations of the library, by its names.   compiled: the model through torch.compile.
    balance_coef: factor of our `balance_loss`; the peer's counts k assignments a token, so it applies this over k.
    """

    experts: str = "grouped_mm"
    attention: str = "sdpa"
    compiled: bool = False
    rate: float = 1e-3
    balance_coef: float = 0.01
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-15
    grad_clip: float = 1.0


# What the library offers on a CPU, less batched_mm, which copies three D x F matrices for each assignment: 1.6 GB a
# step at d_model 64, where it was over 20 times slower, and 26 GB at 256.
EXPERTS = ("eager", "grouped_mm")
ATTENTION = ("eager", "sdpa")
CANDIDATES = tuple(Settings(experts, attention) for experts in EXPERTS for attention in ATTENTION)
SLOWER = 1.5


def random_tokens(shape: Shape, batches: int, rng: np.random.Generator) -> np.ndarray:
    """Batches [N, B, T + 1], int32: uniform symbols."""
    return rng.integers(shape.vocab_size, size=(batches, shape.sequences, shape.seq_len + 1), dtype=np.int32)


def save_inputs(path: Path, params: Mapping[str, Any], tokens_NxBxT1: np.ndarray) -> None:
    """Weights of our Transformer and batches [N, B, T + 1], for both sides to start from; steps take the batches in
    turn."""
    weights = {f"weights/{name}": np.asarray(value) for name, value in _flat(params.get("params", params))}
    np.savez(path, tokens=tokens_NxBxT1, **weights)


def load_inputs(path: str | Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What `save_inputs` wrote: weights by name, such as `block_0/moe/experts/up`, and batches."""
    with np.load(path) as stored:
        weights = {name.removeprefix("weights/"): stored[name] for name in stored.files if name != "tokens"}
        return weights, stored["tokens"]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


# Variables that let glibc keep freed memory, which it otherwise hands back and faults in again at every step.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


class PeerError(RuntimeError):
    """The child could not do what was asked; says why."""


class Peer:
    """A running child, `python -m <module> --threads <n> <arguments>`; a context manager.

    python: by default the interpreter that has PyTorch, $BENCH_PYTHON or this one.   environment: variables to add.
    """

    def __init__(
        self,
        threads: int,
        python: str | None = None,
        environment: Mapping[str, str] | None = None,
        module: str = "benchmarks.mixtral",
        arguments: Sequence[str] = (),
    ) -> None:
        command = [python or interpreter(), "-m", module, "--threads", str(threads), *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        variables = {**os.environ, **(environment or {})}
        self.child = subprocess.Popen(command, **pipes, text=True, cwd=ROOT, env=variables)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the child by ending its input."""
        with self.child:
            pass

    def run(
        self, shape: Shape, settings: Settings, steps: int, inputs: Path | None = None, fresh: bool = False
    ) -> tuple[list[float], list[float]]:
        """Seconds and cross-entropies [nats a token] of the next `steps` steps; a loss is that before its update.

        The first call builds the model, and its first steps are slow. Raises PeerError.
        """
        where = str(Path(inputs).resolve()) if inputs else None
        request = {"shape": asdict(shape), "settings": asdict(settings), "inputs": where, "steps": steps}
        answer = self.ask(**request, fresh=fresh)
        return answer["seconds"], answer["losses"]

    def ask(self, **request: Any) -> dict[str, Any]:
        """The child's answer to a request. Raises PeerError."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        try:
            self.child.stdin.write(json.dumps(request) + "\n")
            self.child.stdin.flush()
            line = self.child.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = (
            json.loads(line) if line else {"error": f"the child ended with code {self.child.wait()}"}
        )
        if "error" in answer:
            raise PeerError(f"{request}: {answer['error']}")
        return answer

    def fastest(
        self,
        shape: Shape,
        inputs: Path | None = None,
        options: tuple[Settings, ...] = CANDIDATES,
        steps: int = 3,
        rounds: int = 3,
    ) -> tuple[Settings, dict[Settings, float]]:
        """The fastest of the options and the median tokens/s of each: rounds in turn, after one that is not counted.

        Steps at least SLOWER times as long as the fastest's in the uncounted round are not timed again.
        """
        seconds = {one: self.run(shape, one, 2, inputs)[0][1:] for one in options}
        bound = SLOWER * min(min(taken) for taken in seconds.values())
        for one in (close := [one for one in options if min(seconds[one]) < bound]):
            seconds[one].clear()
        for _ in range(rounds):
            for one in close:
                seconds[one] += self.run(shape, one, steps, inputs)[0]
        speed = {one: shape.tokens / float(np.median(taken)) for one, taken in seconds.items()}
        return max(close, key=lambda one: speed[one]), speed


def timed(step: Callable[[], tuple[float, float]], steps: int) -> dict[str, Any]:
    """The answer to a request for steps."""
    taken = [step() for _ in range(steps)]
    return {"seconds": [seconds for seconds, _ in taken], "losses": [loss for _, loss in taken]}


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child's side: answer each line of standard input with one of standard output, until the input ends. An error
    is an answer too. Whatever a library prints goes to the error stream."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            try:
                found = answer(json.loads(line))
            except Exception as error:
                found = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(found) + "\n")
            answers.flush()


def available() -> bool:
    """Whether the peer's interpreter has PyTorch and transformers, the extra `bench`."""
    find = "from importlib.util import find_spec as f; raise SystemExit(not (f('torch') and f('transformers')))"
    return subprocess.run([interpreter(), "-c", find], check=False).returncode == 0


def interpreter() -> str:
    """The Python of the peer: $BENCH_PYTHON where PyTorch lives in an environment of its own, or this one."""
    return os.environ.get("BENCH_PYTHON", sys.executable)
