"""How fast the engine is, as ratios within one run: against Mixtral, its own dense model, a matrix product, and itself.

    python -m benchmarks.engine [--json] [part ...]

All parts take about 15 minutes on two quiet cores that do nothing else. Two CPU threads, float32, 16 x 128 tokens a
step, four layers, expert width 2 d, heads 32 wide at d = 64 and 64 wide above, on both sides. Shapes are
`d-layers-E-k`.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks import peer, steps, studies
from benchmarks.command import asked
from benchmarks.steps import MOE, Times, dense_twin, name_of, ours
from scaling.config import counts
from scaling.config.data import DataConfig
from scaling.config.model import ModelConfig

PARTS = {
    "vs_mixtral": "tokens/s, ours over Mixtral's",
    "moe_over_dense": "step time, MoE of E experts over dense of equal active parameters, d = 128",
    "grouped_e32_over_e8": "step time, 32 experts over 8, d = 128",
    "matmul_fraction": "counted FLOP/s of a step over those of a 1024^3 product",
    "trunk_over_alone": "time, three budgets of one trunk over the three alone, one thread",
    "compile_share": "compilation over wall time, summed over the cells of the quickstart",
    "parallel_efficiency": "cells' wall time one by one over twice the training phase of two workers",
}
GOALS = {
    "vs_mixtral": "at least 2, 1.5, 1.5, 1.25",
    "moe_over_dense": "at most 1.5, 2.0",
    "grouped_e32_over_e8": "at most 1.35",
    "matmul_fraction": "at least .35, .60",
    "trunk_over_alone": "at most .65",
    "compile_share": "at most .20, .03",
    "parallel_efficiency": "at least .90",
}
INSTALL = (
    "vs_mixtral needs torch and transformers: pip install 'moe-scaling[bench]', or name an interpreter in BENCH_PYTHON"
)

TRUNK = ModelConfig(d_model=16, n_experts=8, top_k=2, router="topk")  # the quickstart's smallest
TOKENS_PER_PARAMETER = (10, 20, 30)
TRUNK_ROUNDS = 3


@dataclass
class Results:
    """Figures by part, and lines with the raw medians behind them."""

    figures: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, list[str]] = field(default_factory=dict)

    def add(self, part: str, figure: Any, *raw: str) -> None:
        self.figures[part] = _rounded(figure)
        self.raw[part] = list(raw)


def _rounded(figure: Any) -> Any:
    """To four places: more is noise."""
    if isinstance(figure, dict):
        return {name: _rounded(value) for name, value in figure.items()}
    return figure if figure is None else round(float(figure), 4)


def say(text: str) -> None:
    """Progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def measure(parts: list[str]) -> Results:
    """The figures of some parts, in the order of PARTS. Raises what a child could not do."""
    results = Results()
    theirs = "vs_mixtral" in parts and peer.available()
    if "vs_mixtral" in parts and not theirs:
        say(INSTALL)
    _step_times(parts, theirs, results)
    if "trunk_over_alone" in parts:
        _trunk(results)
    if "compile_share" in parts or "parallel_efficiency" in parts:
        _sweeps(parts, results)
    ordered = {part: results.figures[part] for part in PARTS if part in parts}
    return Results(ordered, results.raw)


# ---------------------------------------------------------------------------------------------------- step times


def _step_times(parts: list[str], theirs: bool, results: Results) -> None:
    """Race each width that a part needs once, and give the parts their ratios."""
    ratios, fraction = {"moe_over_dense", "grouped_e32_over_e8"} & {*parts}, "matmul_fraction" in parts
    times: dict[int, Times] = {}
    for d_model in sorted({shape.d_model for shape in MOE}):
        if theirs or (d_model == 128 and ratios) or (d_model in (64, 256) and fraction):
            shapes = [shape for shape in MOE if shape.d_model == d_model]
            say(f"step times at d = {d_model}: {', '.join(map(name_of, shapes))}")
            product = fraction and d_model != 128
            dense = product or (d_model == 128 and "moe_over_dense" in parts)
            times[d_model] = steps.race(shapes, dense=dense, theirs=theirs, product=product, say=say)
            say(f"  {_medians(times[d_model])}")
    wide = {shape.n_experts: name_of(shape) for shape in MOE if shape.d_model == 128}
    if "vs_mixtral" in parts:
        figures = (
            {name_of(s): times[s.d_model].ratio(f"theirs {name_of(s)}", f"ours {name_of(s)}") for s in MOE}
            if theirs
            else None
        )
        notes = [note for one in times.values() for note in one.notes] if theirs else [INSTALL]
        results.add("vs_mixtral", figures, *(_medians(one) for one in times.values()), *notes)
    if "moe_over_dense" in parts:
        figures = {str(n): times[128].ratio(f"ours {name}", "dense") for n, name in wide.items()}
        results.add("moe_over_dense", figures, _medians(times[128]))
    if "grouped_e32_over_e8" in parts:
        figure = times[128].ratio(f"ours {wide[32]}", f"ours {wide[8]}")
        results.add("grouped_e32_over_e8", figure, _medians(times[128]))
    if fraction:
        one_each = {shape.d_model: shape for shape in MOE if shape.d_model in (64, 256)}
        moe = {str(d): times[d].matmul_fraction(f"ours {name_of(s)}", s) for d, s in one_each.items()}
        dense_ = {d: times[d].matmul_fraction("dense", dense_twin(s)) for d, s in one_each.items()}
        rates = {d: 2 * steps.PRODUCT**3 / times[d].median("product") / 1e9 for d in one_each}
        raw = [
            f"d = {d}: dense {dense_[d]:.3f}; the product {rates[d]:.0f} GFLOP/s; {_medians(times[d])}"
            for d in one_each
        ]
        results.add("matmul_fraction", moe, *raw)


def _medians(times: Times) -> str:
    return "ms: " + ", ".join(f"{name} {1e3 * times.median(name):.1f}" for name in times.rounds)


# --------------------------------------------------------------------------------------------- trunks and sweeps


def _trunk(results: Results) -> None:
    n_active = counts.parameters(TRUNK, DataConfig().vocab_size).n_active
    budgets = [ratio * n_active for ratio in TOKENS_PER_PARAMETER]
    say(f"trunk of {n_active:,} active parameters, budgets {budgets}")
    rounds = []
    with ours(1) as child:
        for _ in range(TRUNK_ROUNDS):
            answer = child.ask(trunk=TRUNK.model_dump(), budgets=budgets)
            rounds.append((answer["trunk"], sum(answer["alone"])))
            say(f"  {rounds[-1][0]:.1f} s and {rounds[-1][1]:.1f} s")
    together, alone = np.array(rounds).T
    raw = f"s: trunk {np.median(together):.2f}, alone {np.median(alone):.2f}, {TRUNK_ROUNDS} rounds"
    results.add("trunk_over_alone", float(np.median(together / alone)), raw)


def _sweeps(parts: list[str], results: Results) -> None:
    """What the sweeps of the quickstart say, each cell trained anew in each."""
    swept = studies.run_sweeps(studies.GRID, say, alone="parallel_efficiency" in parts)
    if "compile_share" in parts:
        named = {"cold": swept.cold, "warm": swept.warm}
        raw = [f"{name}: {one.compile_s:.1f} s of {one.wall_s:.1f} s" for name, one in named.items()]
        results.add("compile_share", {name: one.compile_share for name, one in named.items()}, *raw)
    if swept.alone is not None:
        raw = [
            f"cells one by one {swept.alone.wall_s:.1f} s; training phase of two workers, start of Ray in, "
            f"{swept.warm.phase_s:.1f} s"
        ]
        results.add("parallel_efficiency", swept.parallel_efficiency, *raw)


# ------------------------------------------------------------------------------------------------------- printing


def table(results: Results) -> str:
    """Figures with what they are, their goals and the medians behind them."""
    lines = []
    for part, figure in results.figures.items():
        goal = f"  (goal {GOALS[part]})" if part in GOALS else ""
        lines.append(f"{part}: {PARTS[part]}{goal}")
        each = figure if isinstance(figure, dict) else {"": figure}
        lines += [f"  {name:12} {'not measured' if value is None else f'{value:.3f}'}" for name, value in each.items()]
        lines += [f"    {line}" for line in results.raw.get(part, [])]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parts, as_json = asked("engine", "Speed of the engine as ratios, two CPU threads.", PARTS, arguments)
    started = time.perf_counter()
    try:
        results = measure(parts)
    except (RuntimeError, ValueError) as error:
        raise SystemExit(f"failed: {error}") from error
    say(f"{(time.perf_counter() - started) / 60:.1f} min in all")
    print(json.dumps(results.figures) if as_json else table(results))


if __name__ == "__main__":
    main()
