"""Language modelling: train one cell, evaluate it, and give its rows."""

from __future__ import annotations

import datetime
import platform
import time
from dataclasses import dataclass
from typing import Any

import flax
import jax
import numpy as np
import optax

from scaling import data
from scaling.config import RunConfig
from scaling.data.batches import eval_windows
from scaling.rows import describe
from scaling.training import host
from scaling.training.evaluate import evaluate
from scaling.training.loop import DivergedError
from scaling.training.loop import train as train_model


@dataclass(frozen=True)
class CellResult:
    """One row of `runs`, and the cell's rows of `evals` and `curves`."""

    run: dict[str, Any]
    evals: list[dict[str, Any]]
    curves: list[dict[str, Any]]


def versions() -> str:
    """What computed the numbers, for the row."""
    parts = {"python": platform.python_version(), "jax": jax.__version__, "flax": flax.__version__}
    parts |= {"optax": optax.__version__, "numpy": np.__version__}
    return " ".join(f"{name}={version}" for name, version in parts.items())


def train(config: RunConfig) -> CellResult:
    """Train and evaluate one cell. A run that turns NaN comes back with status `diverged` and no loss.

    Raises InputError when the corpus does not suit the configuration.
    """
    host.set_up()
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    corpus = data.prepare(config.data)
    device = jax.devices()[0]
    row = describe(config, corpus.hash)
    row |= {
        "status": "ok",
        "error": "",
        "epochs": row["tokens"] / corpus.train_tokens,
        "versions": versions(),
        "platform": device.platform,
        "device_kind": device.device_kind,
        "dtype": "float32",
        "threads": host.threads(),
        "started_at": started.isoformat(timespec="seconds"),
    }
    heldout = corpus.heldout()
    try:
        trained = train_model(config, corpus.tokens(), corpus.vocab_size)
        windows = eval_windows(heldout, config.train.seq_len, config.data.eval_windows)
        sequences = config.train.batch_tokens // config.train.seq_len
        held_out = evaluate(trained.params, config.model, corpus.vocab_size, windows, sequences)
        if not np.isfinite(held_out.loss):
            raise DivergedError(f"held-out loss is {held_out.loss} after {config.steps} steps", trained.curves)
    except DivergedError as error:
        row |= {"status": "diverged", "error": str(error), "wall_s": time.perf_counter() - clock}
        return CellResult(row, [], error.curves)
    tail = trained.curves[-max(1, len(trained.curves) // 10) :]
    row |= {
        "loss_val": held_out.loss,
        "loss_val_se": held_out.se,
        "bits_per_byte": held_out.bits_per_byte,
        "loss_train": float(np.mean([one["loss"] for one in tail])),
        "heldout_docs": len(held_out.documents),
        "heldout_tokens": sum(one["n_tokens"] for one in held_out.documents),
        "dropped_frac": 0.0,
        "compile_s": trained.compile_s,
        "train_s": trained.train_s,
        "tokens_per_s": row["tokens"] / trained.train_s,
    }
    row |= data.known_entropy(config.data, windows.tokens, windows.weight)
    if held_out.routing:
        row |= {name: held_out.routing[name] for name in ("load_cv", "max_load", "router_entropy")}
        row["balance_loss"] = float(np.mean([one["balance_loss"] for one in tail]))
    row["wall_s"] = time.perf_counter() - clock
    return CellResult(row, held_out.documents, trained.curves)
