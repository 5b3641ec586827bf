"""What watching costs and how old it is: `python -m benchmarks.watching [--json] [overhead] [lag]`.

overhead: of a step, in CPU seconds, so that other processes of the machine count little. `accounted` is the CPU time of
the thread that writes the live file and that of telling it, over that of the training. `in_turns` is the CPU time of
whole trainings of one cell, watched over unwatched, in turns in one process: the median over rounds of the ratio within
a round, with its quartiles. It would show what cannot be accounted for, but swings by percents on a busy machine.
lag: how old the step is that the files tell, at worst.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import asked
from scaling.config.data import DataConfig
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.observer import UNOBSERVED, Observer, Phase, Steps
from scaling.training import malloc
from scaling.training.trunk import train_trunks
from sweeps.live import LiveWriter
from sweeps.running import running_cells
from sweeps.store import Store

PARTS = {"overhead": "CPU seconds of a step, watched over unwatched", "lag": "age of the step that status shows"}
MOST_OVERHEAD, MOST_LAG_S = 0.01, 10.0
ROUNDS, ROUND_S = 15, 6.0
VOCABULARY = 64
CORPUS = "0" * 16
# Steps of about 1, 6 and 40 ms on one CPU thread.
SHAPES = {
    "tiny": (ModelConfig(d_model=16, n_layers=1, d_head=8, n_experts=1), 256, 32),
    "small": (ModelConfig(d_model=32, n_layers=2, d_head=16, n_experts=8), 512, 64),
    "middle": (ModelConfig(d_model=64, n_layers=2, d_head=16, n_experts=8), 2048, 128),
}


@dataclass
class Clocked:
    """An observer that takes the time of another on the thread that trains, and keeps when steps ended."""

    of: Observer
    cpu_s: float = 0.0
    ends: list[tuple[float, int]] = field(default_factory=list)

    def phase(self, name: Phase) -> None:
        self.of.phase(name)

    def trained(self, steps: Steps) -> None:
        began = time.thread_time()
        self.of.trained(steps)
        self.cpu_s += time.thread_time() - began
        self.ends.append((time.time(), steps.last))

    def reason_to_stop(self) -> BaseException | None:
        return self.of.reason_to_stop()


class Accounted(LiveWriter):
    """A live file that takes the CPU time of its thread."""

    cpu_s = 0.0

    def _beats(self) -> None:
        super()._beats()
        self.cpu_s = time.thread_time()


def cell(shape: str, steps: int) -> RunConfig:
    model, batch_tokens, seq_len = SHAPES[shape]
    train = TrainConfig(batch_tokens=batch_tokens, seq_len=seq_len, warmup_tokens=batch_tokens)
    return RunConfig(model=model, train=train, data=DataConfig(), tokens=steps * batch_tokens)


def train(config: RunConfig, observer: Observer) -> tuple[float, float]:
    """CPU and wall seconds of all steps of a cell on random text."""
    tokens = np.random.default_rng(0).integers(VOCABULARY, size=1 << 20).astype(np.uint16)
    kernel = "loop" if config.model.n_experts > 1 else ""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in train_trunks([[config]], tokens, VOCABULARY, kernel, None, None, observer):
        pass
    return time.process_time() - cpu, time.perf_counter() - wall


def watched(config: RunConfig) -> tuple[float, float]:
    """CPU seconds of a training, and those of them that watching took."""
    with tempfile.TemporaryDirectory() as folder:
        with Accounted(Store(Path(folder)), [config], CORPUS) as live:
            clocked = Clocked(live)
            cpu, _ = train(config, clocked)
        return cpu, clocked.cpu_s + live.cpu_s


def overhead(shape: str, rounds: int = ROUNDS, round_s: float = ROUND_S) -> dict[str, Any]:
    """Share by which a step takes longer when it is watched."""
    train(cell(shape, 50), UNOBSERVED)
    _, wall = train(cell(shape, 200), UNOBSERVED)
    config = cell(shape, max(200, int(round_s / (wall / 200))))
    ratios, accounted, step_ms = [], [], []
    for number in range(rounds):
        found: dict[bool, float] = {}
        for with_file in (number % 2 == 0, number % 2 == 1):
            if with_file:
                found[True], ours = watched(config)
                accounted.append(ours / found[True])
            else:
                found[False], _ = train(config, UNOBSERVED)
                step_ms.append(1e3 * found[False] / config.steps)
        ratios.append(found[True] / found[False] - 1)
    return {
        "step_cpu_ms": float(np.median(step_ms)),
        "steps": config.steps,
        "accounted": float(np.median(accounted)),
        "in_turns": float(np.median(ratios)),
        "in_turns_quartiles": [float(np.quantile(ratios, q)) for q in (0.25, 0.75)],
    }


def lag(shape: str = "small", seconds: float = 30.0) -> dict[str, float]:
    """The oldest step that was shown while a cell trained: seconds since the step after it had ended."""
    _, wall = train(cell(shape, 100), UNOBSERVED)
    config = cell(shape, int(seconds / (wall / 100)))
    shown: list[tuple[float, int]] = []
    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder, LiveWriter(Store(Path(folder)), [config], CORPUS) as live:
        clocked = Clocked(live)

        def look() -> None:
            while not over.wait(0.25):
                for running in running_cells(Path(folder), {config.run_id(CORPUS): "cell"}, lambda _: False):
                    shown.append((time.time(), running.step))

        watcher = threading.Thread(target=look)
        watcher.start()
        train(config, clocked)
        over.set()
        watcher.join()
    lags = []
    for at, step in shown:
        later = [ended for ended, last in clocked.ends if last > step and ended <= at]
        lags.append(at - later[0] if later else 0.0)
    return {"looks": len(lags), "median_s": float(np.median(lags)), "most_s": float(max(lags))}


def main(arguments: Sequence[str] | None = None) -> int:
    parts, as_json = asked("watching", __doc__ or "", PARTS, arguments)
    malloc.keep()
    document: dict[str, object] = {}
    ok = True
    if "overhead" in parts:
        found = {shape: overhead(shape) for shape in SHAPES}
        document["overhead"] = found
        ok = all(of["accounted"] <= MOST_OVERHEAD for of in found.values())
    if "lag" in parts:
        late = lag()
        document["lag"] = late
        ok = ok and late["most_s"] <= MOST_LAG_S
    document["ok"] = ok
    if as_json:
        print(json.dumps(document))
    else:
        for part, value in document.items():
            print(part, json.dumps(value, indent=1))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
