"""Language modelling: train one cell, evaluate it, and give its rows."""

from __future__ import annotations

import datetime
import functools
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import optax

from scaling import architecture, data
from scaling.config import counts as cost
from scaling.config.run import RunConfig
from scaling.config.run_row import cost_columns, describe
from scaling.data import tokenizer
from scaling.data.batches import eval_windows
from scaling.model.sharding import placement
from scaling.model.transformer import Transformer
from scaling.training import host, malloc, router_metrics
from scaling.training.evaluate import HeldOutLoss, HeldOutRouting, evaluate, leak, losses_program
from scaling.training.host import peak_bytes
from scaling.training.kernel_choice import kernel_of
from scaling.training.trunk import TrainedCell, bundles, devices_of, program_of, train_trunks


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


def train_cells(cells: Sequence[RunConfig], checkpoints: Path | None = None) -> Iterator[CellResult]:
    """Train and evaluate cells of one shape: the budgets of one trunk, or of several that train side by side.

    Each comes when it is done. A run that turns NaN comes back with status `diverged` and no loss. `checkpoints` is the
    folder where a long trunk leaves what it can go on from. Raises InputError when the corpus does not suit the cells.
    """
    malloc.keep()
    started, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    trunks = bundles(cells)
    first = trunks[0][0]
    corpus = data.prepare(first.data)
    windows = eval_windows(corpus.heldout(), first.train.seq_len, first.data.eval_windows)
    devices = devices_of(first, len(trunks))
    where = placement(first, len(devices))
    kernel = kernel_of(first, devices[0], len(trunks))
    compiling = time.perf_counter()
    program = program_of(first, corpus.vocab_size, kernel, len(trunks))
    batch, classes = first.train.sequences, tokenizer.classes(first.data, corpus.folder)
    eval_shape = (batch, windows.tokens.shape[1])
    forward = losses_program(first.model, corpus.vocab_size, kernel, where, devices, eval_shape)
    watch = HeldOutRouting(forward, windows, batch, classes) if first.model.n_experts > 1 else None
    by_chance = functools.partial(_chances, first)
    compile_s = time.perf_counter() - compiling
    beside_s = time.perf_counter() - clock  # what the first cell of the call pays for all
    shared = {
        "versions": versions(),
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "dtype": first.model.dtype,
        "threads": host.threads() if devices[0].platform == "cpu" else None,
        "kernel": kernel or None,
        "trunks_together": len(trunks),
        "started_at": started.isoformat(timespec="seconds"),
    }
    probe = watch.choices if watch else None
    for trained in train_trunks(trunks, corpus.tokens(), corpus.vocab_size, kernel, checkpoints, probe):
        clock = time.perf_counter()
        config = trained.config
        row = describe(config, corpus.hash) | shared
        row |= {
            "status": "ok",
            "error": "",
            "epochs": row["tokens"] / corpus.train_tokens,
            "tokens_own": trained.tokens_own,
            "compile_s": compile_s,
            "peak_memory_bytes": peak_bytes(program, devices),
        }
        compile_s = 0.0
        documents: list[dict[str, Any]] = []
        error = trained.error
        if not error:
            held_out = evaluate(trained.params, forward, windows, batch, classes, by_chance)
            if not np.isfinite(held_out.loss):
                error = f"held-out loss is {held_out.loss} after {config.steps} steps"
        if error:
            row |= {"status": "diverged", "error": error}
        else:
            documents = held_out.documents
            row |= _losses(trained, held_out)
            row |= _routing(trained, held_out, watch, by_chance) if watch else {}
            if watch and not config.model.causal:
                network = Transformer(config.model, corpus.vocab_size, kernel)
                row["leak"] = leak(network, jax.device_put(trained.params, devices[0]), windows)
            row |= data.known_entropy(config.data, windows.tokens, windows.weight)
        row["wall_s"] = beside_s + trained.own_s + time.perf_counter() - clock
        beside_s = 0.0
        yield CellResult(row, documents, trained.curves)


def _losses(trained: TrainedCell, held_out: HeldOutLoss) -> dict[str, Any]:
    """The columns that only a run with a loss has."""
    tail = trained.curves[-max(1, len(trained.curves) // 10) :]
    config = trained.config
    row: dict[str, Any] = {
        "loss_val": held_out.loss,
        "loss_val_se": held_out.se,
        "bits_per_byte": held_out.bits_per_byte,
        "loss_train": float(np.mean([one["loss"] for one in tail])),
        "heldout_docs": len(held_out.documents),
        "heldout_tokens": sum(one["n_tokens"] for one in held_out.documents),
        "dropped_frac": 0.0,
        "train_s": trained.train_s,
        "tokens_per_s": config.steps * config.train.batch_tokens / trained.train_s,
    }
    return row


def _chances(config: RunConfig, experts_per_token: float, parts: int = 1) -> dict[str, float]:
    """Chance levels of the router metrics of this cell's batches, or of parts of them that are routed apart."""
    model, tokens = config.model, config.train.batch_tokens // parts
    capped = model.dispatch == "capacity"
    rows = architecture.capacity_rows(tokens, cost.places_per_token(model), model.n_experts, model.capacity_factor)
    return router_metrics.batch_chances(model.n_experts, experts_per_token, tokens, rows if capped else None)


def _routing(
    trained: TrainedCell, held_out: HeldOutLoss, watch: HeldOutRouting, by_chance: Callable[..., dict[str, float]]
) -> dict[str, Any]:
    """The columns that only a routed run has; completes the curves, and recounts what depends on how many experts the
    router has chosen."""
    config, curves = trained.config, trained.curves
    final = watch.choices(trained.params)
    router_metrics.settled(trained.probes, final, watch.division, curves)
    for one in curves:
        one |= by_chance(one["experts_per_token"], parts=config.train.accumulate)
    levels = router_metrics.choice_chances(config.model.n_experts, held_out.routing["experts_per_token"])
    row: dict[str, Any] = levels | {name: value for name, value in held_out.routing.items() if name != "z_loss"}
    tail = curves[-max(1, len(curves) // 10) :]
    row["balance_loss"] = float(np.mean([one["balance_loss"] for one in tail]))
    for name, share in (("saturation_5", 0.05), ("saturation_50", 0.5)):
        then = router_metrics.at_share(trained.probes, config.steps, share)
        idle = share * config.steps < config.dense_steps  # nothing was routed yet
        row[name] = None if then is None or idle else router_metrics.saturation(then, final)
    row["change_rate"] = router_metrics.rate_at(trained.probes, max(trained.probes)) if trained.probes else None
    if config.model.router_facts.varies:
        weights = np.diff([0, *(one["step"] for one in curves)])
        training = float(np.average([one["experts_per_token"] for one in curves], weights=weights))
        row |= cost_columns(config, row["experts_per_token"], training)
    return row
