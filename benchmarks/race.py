"""The quickstart's cells by the usual way against `scaling sweep run`, end to end.

    BENCH_PYTHON=/path/to/venv/bin/python python -m benchmarks.race --json

The usual way: Hugging Face's Mixtral (for E = 1 Mistral, its dense form) with PyTorch, a process for each cell, two at
a time, one thread each, the longest first. Shapes, batches, learning rates and held-out windows are ours. Its settings
at each shape, which implementation of experts and attention and whether glibc keeps its memory, are the fastest of all,
measured before and not counted; torch.compile is not among them, because a cell of this size trains for less time than
it compiles. Not counted either: preparing the text, which is ready in files. A cell of ours is a cell of theirs with
its router metrics, curves and rows on disk.

cold, warm: wall time of theirs over ours, from the start of the command to the last row, with an empty cache of texts
and programs and with a full one. Latency, which theirs does not measure, is left out.
compile_share: compilation over wall time, summed over our cells, cold.
parallel_efficiency: our cells' wall time one by one over twice the training phase of two workers, warm.

About 25 minutes on two quiet cores that do nothing else; a ratio within one run is worth more than any of its seconds.
The other interpreter: python -m venv /tmp/peer && /tmp/peer/bin/pip install torch transformers numpy
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks import peer, steps, studies
from benchmarks.peer import KEEP_MEMORY, ROOT, Settings, Shape
from scaling import data
from scaling.config.run import RunConfig
from scaling.data.batches import TrainBatches, eval_windows
from scaling.training.schedule import learning_rate
from sweeps.grid import load_grid

AT_ONCE = 2
GOALS = {
    "cold": "at least 3",
    "warm": "at least 5",
    "compile_share": "at most .20",
    "parallel_efficiency": "at least .90",
}
INSTALL = "needs torch and transformers: pip install 'moe-scaling[bench]', or name an interpreter in BENCH_PYTHON"


@dataclass(frozen=True)
class Theirs:
    """A cell by the usual way: its file, its work in FLOPs, and the environment of its process."""

    file: Path
    work: float
    environment: dict[str, str]


def say(text: str) -> None:
    """Progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def shape_of(cell: RunConfig) -> Shape:
    """What both train."""
    model, dense = cell.model, cell.model.n_experts == 1
    return Shape(
        model.d_model,
        model.n_layers,
        model.n_experts,
        1 if dense else model.top_k,
        model.dense_width if dense else model.d_expert,
        model.d_head,
        cell.data.vocab_size,
        cell.train.sequences,
        cell.train.seq_len,
    )


def written(cell: RunConfig, settings: Settings, file: Path) -> None:
    """Write what the process of a cell reads."""
    corpus, train = data.prepare(cell.data), cell.train
    batches = TrainBatches(corpus.tokens(), train.seq_len, train.sequences, cell.seed)
    windows = eval_windows(corpus.heldout(), train.seq_len, cell.data.eval_windows)
    np.savez(
        file,
        shape=json.dumps(asdict(shape_of(cell))),
        settings=json.dumps(asdict(settings)),
        seed=cell.seed,
        batches=np.stack([batches(step) for step in range(cell.steps)]).astype(np.uint16),
        rates=np.array([learning_rate(cell, step) for step in range(cell.steps)]),
        windows=windows.tokens.astype(np.uint16),
        weight=windows.weight,
    )


def prepared(cells: Sequence[RunConfig], folder: Path) -> list[Theirs]:
    """The cells in files, with the fastest settings of each shape, the longest first."""
    found: dict[Shape, tuple[Settings, bool]] = {}
    theirs = []
    for number, cell in enumerate(cells):
        shape = shape_of(cell)
        if shape not in found:
            settings, kept, said = steps.fastest_peer(shape, None, threads=1)
            found[shape] = settings, kept
            say(f"  d={shape.d_model} E={shape.n_experts}: {said}")
        settings, kept = found[shape]
        file = folder / f"{number}.npz"
        written(cell, settings, file)
        work = steps.train_flops_per_token(shape) * cell.steps * shape.tokens
        theirs.append(Theirs(file, work, KEEP_MEMORY if kept else {}))
    return sorted(theirs, key=lambda one: -one.work)


def raced(theirs: Sequence[Theirs]) -> tuple[float, list[float]]:
    """Seconds of all cells by the usual way, and their held-out losses. Raises RuntimeError where one fails."""

    def train(one: Theirs) -> float:
        command = [peer.interpreter(), "-m", "benchmarks.mixtral_cell", str(one.file)]
        environment = os.environ | one.environment | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(f"{one.file.name}: {ended.stderr[-2000:]}")
        loss = float(json.loads(ended.stdout)["loss"])
        say(f"  theirs: {one.file.name} {loss:.3f}")
        return loss

    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        losses = list(pool.map(train, theirs))
    return time.perf_counter() - started, losses


def measure(grid: str) -> dict[str, float]:
    """The figures of a grid. Raises RuntimeError where either side fails."""
    with tempfile.TemporaryDirectory() as folder:
        say("the usual way: fastest settings of each shape")
        theirs = prepared(load_grid(grid).cells, Path(folder))
        say(f"the usual way: {len(theirs)} cells, {AT_ONCE} at a time")
        seconds, losses = raced(theirs)
        say(f"the usual way: {seconds:.1f} s, mean held-out loss {np.mean(losses):.3f}")
    swept = studies.run_sweeps(grid, say)
    say(f"ours: cold {swept.cold.whole_s:.1f} s, warm {swept.warm.whole_s:.1f} s; {swept}")
    figures = {
        "cold": seconds / swept.cold.whole_s,
        "warm": seconds / swept.warm.whole_s,
        "compile_share": swept.cold.compile_share,
        "parallel_efficiency": swept.parallel_efficiency,
    }
    return {name: round(figure, 4) for name, figure in figures.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.race", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--grid", default=studies.GRID, help="a grid.yaml or the name of one; default: quickstart")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args(arguments)
    if not peer.available():
        raise SystemExit(INSTALL)
    try:
        figures = measure(options.grid)
    except RuntimeError as error:
        raise SystemExit(f"failed: {error}") from error
    if options.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:20} {figure:.3f}  (goal {GOALS[name]})" for name, figure in figures.items()))


if __name__ == "__main__":
    main()
