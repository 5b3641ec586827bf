"""A study of ten thousand cells: what each step of its life costs, without training anything.

`python -m benchmarks.many_cells --json` makes a study of that many cells and one of a tenth of them, whose rows,
evaluations, curves and latencies are planted and as large as those of real cells, and takes every step in a process of
its own: CPU seconds, wall seconds and the most memory, with that of its children. `growth` is the CPU seconds of
a cell between those two sizes over the same between 200 cells and the tenth: at most 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from scaling import data
from scaling.config.run import RunConfig
from scaling.config.run_row import describe
from scaling.errors import WorkError
from scaling.schema import CURVES, RUNS
from sweeps.execute import run_sweep
from sweeps.grid import load_grid
from sweeps.job import Options
from sweeps.progress import Progress
from sweeps.worker import CellFunctions

CELLS = 10_000
DOCUMENTS, CURVE_ROWS = 128, 41  # of a cell of the flagship study
TRUTH = {"E": 1.69, "A": 20.0, "B": 40.0, "alpha": 0.34, "beta": 0.28}  # 3 to 4 nats per token at these sizes
FUNCTIONS = CellFunctions("benchmarks.many_cells:train", "benchmarks.many_cells:measure")
_SEEDLESS = 200  # cells of one seed
_LEAST = 20 * _SEEDLESS
STEPS = {
    "run": "train (planted) and write every cell, one after another",
    "plan": "sweep plan",
    "survey": "which cells are done",
    "status": "sweep status",
    "again": "sweep run of the complete study",
    "read": "runs, evaluations, curves and latencies as data frames",
    "fit": "fit --law hoffmann",
    "report": "report",
    "pack": "sweep pack",
    "fit_packed": "the same fit to the packed tables",
}


@dataclass(frozen=True)
class Cost:
    """Seconds of a step and the most memory of its process or a child of it."""

    cpu_s: float
    wall_s: float
    memory_mb: float


def train(cells: Sequence[RunConfig], *_: Any) -> Iterator[Any]:
    """The rows of cells by Hoffmann's law with a noise of .4 %, as many as training gives."""
    for cell in cells:
        row = describe(cell, data.prepare(cell.data).hash)
        rng = np.random.default_rng(int(row["run_id"], 16))
        size, tokens = row["n_active"], row["tokens"]
        planted = TRUTH["E"] + TRUTH["A"] / size ** TRUTH["alpha"] + TRUTH["B"] / tokens ** TRUTH["beta"]
        loss = planted * float(np.exp(rng.normal(0, 0.004)))
        measured = {name: float(rng.uniform()) for name, c in RUNS.items() if str(c.type) == "double"}
        ended = {"status": "ok", "error": "", "tokens_own": tokens, "started_at": "2026-01-01T00:00:00+00:00"}
        row = measured | row | ended | {"loss_val": loss, "wall_s": 2.0, "train_s": 1.0, "leak": None}
        losses = loss + rng.normal(0, 0.2, DOCUMENTS)
        evals = [
            {
                "document": f"module_{i}.py",
                "n_tokens": 1000,
                "n_bytes": 1000,
                "loss": float(losses[i] - losses.mean() + loss),
            }
            for i in range(DOCUMENTS)
        ]
        names = [name for name in CURVES if name not in ("step", "tokens")]
        curves = [
            {
                "step": i,
                "tokens": i * cell.train.batch_tokens,
                **dict(zip(names, rng.uniform(size=len(names)), strict=True)),
            }
            for i in range(1, CURVE_ROWS + 1)
        ]
        yield SimpleNamespace(run=row, evals=evals, curves=curves)


def measure(config: RunConfig) -> list[dict[str, Any]]:
    """Latencies of a shape on a machine of 20 GB/s: as many rows as its `bench` has."""
    model = config.model
    sizes = {name: getattr(model, name) for name in ("n_experts", "top_k", "d_model", "n_layers", "d_expert")}
    known = {"shape_id": config.shape_id(), "platform": "cpu", "device_kind": "cpu", "dtype": "float32", "threads": 1}
    return [
        known | sizes | {"phase": phase, "batch": batch, "context": context} | _times(0.1 + 1e-6 * batch * context)
        for phase in ("prefill", "decode")
        for batch in config.bench.batch
        for context in config.bench.context
    ]


def _times(time_ms: float) -> dict[str, float]:
    return {"time_ms": time_ms, "time_q25_ms": 0.98 * time_ms, "time_q75_ms": 1.02 * time_ms}


def grid_text(folder: Path, cells: int) -> str:
    """A grid of so many cells, rounded up to whole seeds, on a text of a few lines."""
    seeds = list(range(-(-cells // _SEEDLESS)))
    return (
        f"study: many\ndata: {{corpus: files, paths: [{folder / 'text'}/*.txt], heldout_docs: 100, eval_windows: 2}}\n"
        "grid: {n_experts: [1, 2, 4, 8, 16, 32, 64, 128], d_model: [32, 48, 64, 96, 128],\n"
        f"  tokens: [0.2M, 0.4M, 0.8M, 1.6M, 3.2M], seed: {seeds}}}\n"
        "model: {n_layers: 2, top_k: 2, router: topk}\ntrain: {batch_tokens: 512, seq_len: 128}\n"
        "bench: {batch: [1, 8, 64], context: [32, 128]}\n"
    )


def made(folder: Path, cells: int) -> tuple[Path, Path]:
    """A folder with the grid of a study, and the study's folder."""
    (folder / "text").mkdir(parents=True, exist_ok=True)
    for i in range(250):
        (folder / "text" / f"{i:03}.txt").write_text(f"document {i} counts to {i + 1}, then to {i * i}.\n" * 2)
    grid = folder / "grid.yaml"
    grid.write_text(grid_text(folder, cells))
    return grid, folder / "study"


def command(step: str, grid: Path, study: Path) -> list[str]:
    """What a step runs, as a child of its own."""
    python, here = [sys.executable, "-P", "-c"], [sys.executable, "-m", "benchmarks.many_cells"]
    packed, cli = study.with_name("packed"), [*python, "from scaling.cli.main import main; main()"]
    whole = "import sys, scaling; s = scaling.study(sys.argv[1]); s.runs, s.evals, s.curves, s.latency"
    survey = "import sys, pathlib; from sweeps.store import Store; Store(pathlib.Path(sys.argv[1])).survey()"
    commands = {
        "run": [*here, "--make", str(grid), str(study)],
        "plan": [*cli, "sweep", "plan", str(grid), "--out", str(study), "--json"],
        "survey": [*python, survey, str(study)],
        "status": [*cli, "sweep", "status", str(study), "--json"],
        "again": [*cli, "sweep", "run", str(grid), "--out", str(study), "--executor", "inline", "--json"],
        "read": [*python, whole, str(study)],
        "fit": [*cli, "fit", str(study), "--law", "hoffmann", "--bootstrap", "0", "--json"],
        "report": [*cli, "report", str(study), "--out", str(study.with_name("report.pdf"))],
        "pack": [*cli, "sweep", "pack", str(study), "--out", str(packed)],
        "fit_packed": [*cli, "fit", str(packed), "--law", "hoffmann", "--bootstrap", "0", "--json"],
    }
    return commands[step]


def cost(arguments: Sequence[str], environment: dict[str, str]) -> Cost:
    """Take a step. Raises WorkError where it fails."""
    clock = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        child = os.posix_spawn(
            arguments[0], list(arguments), environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, said.fileno(), 1), (os.POSIX_SPAWN_DUP2, said.fileno(), 2)],
        )  # fmt: skip
        _, status, used = os.wait4(child, 0)
        if status:
            said.seek(0)
            raise WorkError(f"{' '.join(arguments)}: {said.read().decode(errors='replace')[-2000:]}")
    memory = used.ru_maxrss * 1024 / 1e6
    return Cost(round(used.ru_utime + used.ru_stime, 2), round(time.perf_counter() - clock, 2), round(memory, 1))


def costs(folder: Path, cells: int, steps: Sequence[str]) -> dict[str, Cost]:
    """The steps of a study of so many cells, in the order of its life."""
    grid, study = made(folder, cells)
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"SCALING_CACHE": str(folder / "cache"), "PYTHONPATH": root}
    taken = {}
    for step in steps:
        taken[step] = cost(command(step, grid, study), environment)
        print(f"  {cells:,} cells, {step}: {taken[step]}", file=sys.stderr, flush=True)
    return taken


def measured(folder: Path, cells: int, steps: Sequence[str]) -> dict[str, Any]:
    """The costs of a study of so many cells and of a tenth, and the growth of each step between the two."""
    few, some = _SEEDLESS, cells // 10
    by_size = {size: costs(folder / str(size), size, steps) for size in (few, some, cells)}
    sizes = [len(load_grid(folder / str(size) / "grid.yaml").cells) for size in by_size]
    start, small, large = by_size.values()
    growth = {
        step: round(
            (large[step].cpu_s - small[step].cpu_s) / max(0.05, small[step].cpu_s - start[step].cpu_s)
            * (sizes[1] - sizes[0]) / (sizes[2] - sizes[1]), 2,
        )
        for step in steps
    }  # fmt: skip
    return {
        "cells": sizes[2],
        "steps": {step: asdict(large[step]) for step in steps},
        "growth": growth,
        "load": os.getloadavg()[0],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_cells", description=__doc__)
    parser.add_argument("--cells", type=int, default=CELLS, help=f"of the large study, default {CELLS}")
    parser.add_argument("--folder", type=Path, help="where to make the studies, kept; default: one that is removed")
    parser.add_argument("--steps", default=",".join(STEPS), help=f"default: {','.join(STEPS)}")
    parser.add_argument("--make", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args(arguments)
    if options.cells < _LEAST:
        parser.error(f"--cells must be at least {_LEAST:,}, for a tenth to differ from {_SEEDLESS}")
    if unknown := [step for step in options.steps.split(",") if step not in STEPS]:
        parser.error(f"no step {', '.join(unknown)}; there are {', '.join(STEPS)}")
    if options.make:
        grid, out = options.make
        run_sweep(load_grid(grid), out, Options(executor="inline"), Progress(), FUNCTIONS)
        return
    with tempfile.TemporaryDirectory() as scratch:
        found = measured(options.folder or Path(scratch), options.cells, options.steps.split(","))
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['cells']:,} cells; load {found['load']:.1f}")
    for step, of_step in found["steps"].items():
        print(
            f"{step:12}{of_step['cpu_s']:8.1f} CPU s {of_step['wall_s']:8.1f} s {of_step['memory_mb']:7.0f} MB "
            f"growth {found['growth'][step]:.2f}   {STEPS[step]}"
        )


if __name__ == "__main__":
    main()
