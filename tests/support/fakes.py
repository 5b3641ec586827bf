"""Fake work that takes no time, or FAKE_SECONDS, and fails on demand, for testing sweeps without training.

The seed of a cell decides its behaviour; every call is logged to the file FAKE_LOG.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from scaling import data
from scaling.config.run import RunConfig
from scaling.config.run_row import describe
from scaling.observer import Steps

ERROR, MEMORY, DIVERGED, KILLED, HANGS, FOREIGN, KILLED_ONCE, WARNS, STEPS, COMPILES = range(101, 111)


def note(word: str) -> None:
    """Append one line to the log in a single write, from any process."""
    with open(os.environ["FAKE_LOG"], "a", encoding="utf-8") as log:
        log.write(word + "\n")


def train(cells: list[RunConfig], checkpoints: Path, observer: Any) -> Iterator[Any]:
    """Rows with a loss that depends only on the configuration."""
    for cell in cells:
        yield one(cell, checkpoints, observer)


def take_steps(run_id: str, checkpoints: Path, observer: Any) -> None:
    """FAKE_STEPS steps of 50 ms, from a checkpoint and with one where the observer has a reason to stop."""
    saved = checkpoints / "step"
    first, total = int(saved.read_text()) if saved.exists() else 0, int(os.environ.get("FAKE_STEPS", "40"))
    for step in range(first, total):
        observer.phase("train")
        time.sleep(0.05)
        note(f"step {run_id} {step}")
        observer.trained(Steps(0, True, step + 1, ("loss",), [np.ones((1, 1), np.float32)], (0.1,), 0.05))
        if reason := observer.reason_to_stop():
            checkpoints.mkdir(parents=True, exist_ok=True)
            saved.write_text(str(step + 1))
            raise reason
    shutil.rmtree(checkpoints, ignore_errors=True)


def one(config: RunConfig, checkpoints: Path, observer: Any) -> Any:
    """The rows of one cell, or its failure."""
    row = describe(config, data.prepare(config.data).hash)
    if config.seed == STEPS:
        take_steps(row["run_id"], checkpoints, observer)
    if config.seed == COMPILES:  # as long as FAKE_STEPS says, and hears nothing
        observer.phase("compile")
        time.sleep(0.05 * int(os.environ.get("FAKE_STEPS", "40")))
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    note(f"train {row['run_id']}")
    if config.seed == WARNS:
        logging.getLogger("scaling.training").warning("a checkpoint is damaged")
    if config.seed == ERROR:
        raise ValueError("an unlucky seed\nwith a second line")
    if config.seed == MEMORY:
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes")
    if config.seed == KILLED and not Path(os.environ.get("FAKE_MERCY", "/nonexistent")).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if config.seed == KILLED_ONCE:
        before = Path(os.environ["FAKE_LOG"]).read_text(encoding="utf-8").count(f"train {row['run_id']}")
        if before == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    if config.seed == HANGS and not Path(os.environ["FAKE_MERCY"]).exists():
        note(f"hangs {row['run_id']}")
        observer.phase("train")
        time.sleep(600)
    if config.seed == FOREIGN:
        row["run_id"] = "0" * 16
    row |= {"threads": 1, "started_at": "2026-01-01T00:00:00+00:00", "wall_s": 2.0}
    if config.seed == DIVERGED:
        return SimpleNamespace(run=row | {"status": "diverged", "error": "loss is nan at step 3"}, evals=[], curves=[])
    row |= {"status": "ok", "error": "", "loss_val": 1.0 + 1.0 / config.tokens, "train_s": 1.0}
    evals = [{"document": f"doc{i}", "n_tokens": 10, "n_bytes": 10, "loss": 2.0 + i} for i in range(3)]
    curves = [{"step": config.steps, "tokens": row["tokens"], "lr": row["lr"], "loss": 2.0}]
    return SimpleNamespace(run=row, evals=evals, curves=curves)


def measure(config: RunConfig) -> list[dict[str, Any]]:
    """Latency rows; logs the number of threads. The shape with d_model = 48 kills the process."""
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    note(f"measure {config.shape_id()} {os.environ['NPROC']} {os.environ['JAX_PLATFORMS']}")
    if config.model.d_model == 48:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.model.d_model == 80:
        raise RuntimeError("this shape cannot be measured")
    return [
        {"shape_id": config.shape_id(), "phase": phase, "batch": 1, "context": 16, "time_ms": 1.5}
        for phase in ("prefill", "decode")
    ]
