"""PQN of `value-rl` against an independent one, at equal frames and settings:

    BENCH_PYTHON=/path/to/venv/bin/python python -m benchmarks.rl_peer --rows rows.jsonl

Ours is the arm `dense` with the width of the published code. The other is `benchmarks.rl_torch`: PyTorch on the games
of the package `minatar`, written from the paper, in an interpreter of its own. Every seed of both is trained for the
same frames and evaluated alike: the mean return of 128 first episodes with 5 % of random actions. For each game: both
means, and the difference with its 95 % interval (Welch's t). Equal means that the interval holds 0; its width says how
large a difference could have been missed.

What differs: initial weights (normal, ours cut at two standard deviations), RAdam's epsilon (on the corrected moment in
ours), all random numbers, and the games themselves, which gymnax has written again: a full board of Asterix drops an
entity there where minatar waits. Not different: no sticky actions, rising difficulty, 1000 steps at most, cut episodes
keep the value of what would have followed.

Trainings are written to the file as they end, and those that are there are not run again. About 15 CPU minutes for ten
seeds of 0.25 M frames. The other interpreter: python -m venv /tmp/peer && /tmp/peer/bin/pip install torch numpy minatar
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.peer import Peer, interpreter
from scaling.tasks.cell import TaskCell
from scaling.tasks.value_rl import ValueRL

GAMES = ("breakout", "asterix")
OURS, TORCH = "ours", "torch"
FRAMES, SEEDS = 250_000, 10
SHARED = (
    "d_conv", "d_expert", "lr", "exploration_frames", "epsilon", "n_envs", "n_steps", "n_minibatches", "n_epochs",
    "discount", "trace",
)  # fmt: skip
MEASURED = ("episode_return", "train_return", "area", "random_return")
COMPARED = MEASURED[:3]


@dataclass(frozen=True)
class Comparison:
    """One game: the mean of a measure over the runs of each, ours minus theirs with its 95 % interval, and the share
    that the farther end of the interval is of what lies between random actions and theirs."""

    game: str
    measure: str
    runs: tuple[int, int]
    ours: float
    theirs: float
    difference: float
    low: float
    high: float
    could_be_missed: float

    @property
    def equal(self) -> bool:
        return self.low <= 0 <= self.high


def settings_of(game: str) -> ValueRL:
    """The arm that all train."""
    return ValueRL(game=game, arm="dense", d_expert=128, lr=5e-4, exploration_frames=50_000)


def trained_by_us(game: str, seed: int, frames: int) -> dict[str, float]:
    """What value-rl measures after a training."""
    from scaling.tasks.rl.training import train_cells

    cell = TaskCell(task="value-rl", settings=settings_of(game), seed=seed, budget=frames)
    run = next(iter(train_cells([cell]))).run
    return {name: float(run[name]) for name in MEASURED}


def trained_by_them(peer: Peer, game: str, seed: int, frames: int) -> dict[str, float]:
    """The same of the other implementation. Raises PeerError."""
    settings = settings_of(game).model_dump()
    answer = peer.ask(game=game, seed=seed, frames=frames, settings={name: settings[name] for name in SHARED})
    return {name: float(answer[name]) for name in MEASURED}


def rows_of(file: Path, frames: int, seeds: int) -> Iterator[dict[str, Any]]:
    """Every training, those of the file first; the others are run and added to it. Raises PeerError."""
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = [row for row in done if row["frames"] == frames and row["seed"] < seeds]
    yield from done
    there = {(row["by"], row["game"], row["seed"]) for row in done}
    with Peer(1, module="benchmarks.rl_torch") as peer:
        for seed in range(seeds):
            for game in GAMES:
                for by in (OURS, TORCH):
                    if (by, game, seed) in there:
                        continue
                    clock = time.perf_counter()
                    if by == OURS:
                        measured = trained_by_us(game, seed, frames)
                    else:
                        measured = trained_by_them(peer, game, seed, frames)
                    took = time.perf_counter() - clock
                    row = {"by": by, "game": game, "seed": seed, "frames": frames, **measured, "seconds": took}
                    with file.open("a") as rows:
                        rows.write(json.dumps(row) + "\n")
                    print(row, file=sys.stderr, flush=True)
                    yield row


def compared(rows: Sequence[dict[str, Any]], game: str, measure: str) -> Comparison:
    """Ours against theirs in one game. The interval is Welch's, of means with unequal variances."""
    ours, theirs = (
        np.array([row[measure] for row in rows if row["by"] == by and row["game"] == game]) for by in (OURS, TORCH)
    )
    random = np.mean([row["random_return"] for row in rows if row["by"] == TORCH and row["game"] == game])
    low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return Comparison(
        game=game,
        measure=measure,
        runs=(len(ours), len(theirs)),
        ours=float(ours.mean()),
        theirs=float(theirs.mean()),
        difference=float(ours.mean() - theirs.mean()),
        low=float(low),
        high=float(high),
        could_be_missed=float(max(abs(low), abs(high)) / (theirs.mean() - random)),
    )


def available() -> bool:
    """Whether the other interpreter has torch and minatar."""
    find = "from importlib.util import find_spec as f; raise SystemExit(not (f('torch') and f('minatar')))"
    return subprocess.run([interpreter(), "-c", find], check=False).returncode == 0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rl_peer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, required=True, metavar="FILE.jsonl", help="one training a line")
    parser.add_argument("--frames", type=int, default=FRAMES, help="of each training")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each game and implementation")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    options = parser.parse_args(arguments)
    if not available():
        raise SystemExit("needs torch and minatar in an interpreter: name it in BENCH_PYTHON")
    rows = list(rows_of(options.rows, options.frames, options.seeds))
    found = [compared(rows, game, measure) for game in GAMES for measure in COMPARED]
    if options.json:
        print(json.dumps([asdict(one) | {"equal": one.equal} for one in found]))
        return
    for one in found:
        print(
            f"{one.game:9} {one.measure:15} ours {one.ours:6.2f}, theirs {one.theirs:6.2f}, difference "
            f"{one.difference:+.2f} ({one.low:+.2f} to {one.high:+.2f}): {'equal' if one.equal else 'different'}; "
            f"up to {one.could_be_missed:.0%} of what was learnt; runs {one.runs[0]} and {one.runs[1]}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
