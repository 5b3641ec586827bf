"""Step times of a width, side by side: ours at each number of experts, our dense model, Mixtral, a matrix product.

All are children of their own with one program each, and take turns in rounds of a few steps: a ratio is the median over
rounds of the ratio within a round. The speed of a shared host swings for minutes, which falls on both sides of a round
alike and would not on two medians.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.ours import model_config
from benchmarks.peer import KEEP_MEMORY, SHAPES, Peer, Settings, Shape
from scaling.config import counts

THREADS = 2
PRODUCT = 1024  # square, float32
WARM_UP = 12  # steps, in which the heap of a child settles
ROUNDS = 7
ROUND_S = 0.5  # of one contestant, but at least 3 steps
LOSS_RTOL = 1e-4


def head_width(d_model: int) -> int:
    """Of both sides: 32 at d_model 64, else 64."""
    return 32 if d_model == 64 else 64


MOE = tuple(replace(shape, d_head=head_width(shape.d_model)) for shape in SHAPES)


def name_of(shape: Shape) -> str:
    """`d_model-n_layers-E-k`."""
    return f"{shape.d_model}-{shape.n_layers}-{shape.n_experts}-{shape.top_k}"


def dense_twin(shape: Shape) -> Shape:
    """The dense model of equal active parameters: one MLP of width top_k * d_expert."""
    return replace(shape, n_experts=1)


def train_flops_per_token(shape: Shape) -> float:
    """Forward and backward, in the convention of `scaling.config.counts`: 6 FLOPs for each matrix parameter that a
    token uses, router and head in, and 6 L d (T + 1) for causal attention."""
    return 3 * counts.prefill_flops_per_token(model_config(shape), shape.vocab_size, shape.seq_len)


@dataclass(frozen=True)
class Times:
    """Median seconds of a step, or of a product, in each round, by contestant."""

    rounds: dict[str, list[float]]
    notes: tuple[str, ...] = ()

    def ratio(self, one: str, other: str) -> float:
        """Time of one over that of the other: the median over rounds."""
        return float(np.median(np.divide(self.rounds[one], self.rounds[other])))

    def median(self, name: str) -> float:
        return float(np.median(self.rounds[name]))

    def matmul_fraction(self, name: str, shape: Shape) -> float:
        """Counted FLOP/s of a step over the FLOP/s of the product."""
        return train_flops_per_token(shape) * shape.tokens / (2 * PRODUCT**3) * self.ratio("product", name)


def ours(threads: int = THREADS, *arguments: str) -> Peer:
    return Peer(threads, python=sys.executable, module="benchmarks.ours", arguments=arguments)


def race(
    shapes: list[Shape], *, dense: bool, theirs: bool, product: bool, say: Callable[[str], None], rounds: int = ROUNDS
) -> Times:
    """Time the shapes, all of one width. Contestants are `ours <shape>`, `dense`, `theirs <shape>` and `product`.

    theirs: Mixtral at the same weights and tokens, in its fastest settings, which are measured first. Raises PeerError,
    and ValueError when the two sides' first losses differ.
    """
    clocks: dict[str, Callable[[int], list[float]]] = {}
    notes = []
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:

        def enter(child: Peer, shape: Shape, settings: Settings, inputs: Path | None, name: str) -> float:
            """Start a contestant; its first loss."""
            child = stack.enter_context(child)
            clocks[name] = lambda steps: child.run(shape, settings, steps, inputs)[0]
            return child.run(shape, settings, 1, inputs)[1][0]

        for shape in shapes:
            name, inputs = name_of(shape), Path(folder) / f"{name_of(shape)}.npz"
            first = enter(ours(), shape, Settings(), inputs, f"ours {name}")
            if not theirs:
                continue
            say(f"  Mixtral's settings at {name}")
            settings, kept, said = fastest_peer(shape, inputs)
            peer = Peer(THREADS, environment=KEEP_MEMORY if kept else None)
            their_first = enter(peer, shape, settings, inputs, f"theirs {name}")
            notes.append(f"Mixtral {name}: {said}; first loss {their_first:.6f}, ours {first:.6f}")
            say(notes[-1])
            if not abs(their_first - first) <= LOSS_RTOL * abs(first):
                raise ValueError(f"{name}: first losses differ: theirs {their_first}, ours {first}; not the same model")
        if dense:
            enter(ours(), dense_twin(shapes[0]), Settings(), None, "dense")
        if product:
            multiplier = stack.enter_context(ours(THREADS, "--whole"))
            clocks["product"] = lambda steps: multiplier.ask(product=PRODUCT, steps=steps)["seconds"]
        return Times(take_turns(clocks, rounds), tuple(notes))


def fastest_peer(shape: Shape, inputs: Path | None, threads: int = THREADS) -> tuple[Settings, bool, str]:
    """Mixtral's fastest settings, whether glibc keeps its memory, and what was measured of all."""
    found, said = [], []
    for kept in (False, True):
        with Peer(threads, environment=KEEP_MEMORY if kept else None) as peer:
            best, speed = peer.fastest(shape, inputs, steps=2, rounds=2)
        found.append((speed[best], best, kept))
        memory = "memory kept" if kept else "memory as glibc does"
        all_ = ", ".join(f"{one.experts}+{one.attention} {tokens:,.0f}" for one, tokens in speed.items())
        said.append(f"{memory}: {all_}")
    _, best, kept = max(found, key=lambda one: one[0])
    chosen = f"{best.experts}+{best.attention}, {'memory kept' if kept else 'memory as glibc does'}"
    return best, kept, f"{chosen} chosen (tokens/s; {'; '.join(said)})"


def take_turns(clocks: dict[str, Callable[[int], list[float]]], rounds: int) -> dict[str, list[float]]:
    """Median seconds of each contestant's steps in each round, after the warm-up."""
    steps = {}
    for name, clock in clocks.items():
        warm = float(np.median(clock(WARM_UP)[WARM_UP // 2 :]))
        steps[name] = max(3, min(20, round(ROUND_S / warm)))
    seconds: dict[str, list[float]] = {name: [] for name in clocks}
    for _ in range(rounds):
        for name, clock in clocks.items():
            seconds[name].append(float(np.median(clock(steps[name]))))
    return seconds
