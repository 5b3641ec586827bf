"""Language modelling: train and evaluate the cells of one call and yield their rows."""

from __future__ import annotations

import datetime
import functools
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import optax
from numpy.typing import NDArray

from scaling import data
from scaling.config import counts
from scaling.config.run import RunConfig, by_trunk
from scaling.config.run_row import cost_columns, describe
from scaling.data import tokenizer
from scaling.data.batches import EvalWindows, eval_windows
from scaling.expert_rows import capacity_rows
from scaling.model.sharding import placement_of
from scaling.model.transformer import Transformer
from scaling.observer import UNOBSERVED, Observer
from scaling.tasks.task import CellResult
from scaling.training import host, malloc, router_metrics
from scaling.training.evaluate import HeldOutLoss, HeldOutRouting, LossFunction, evaluate, leak, losses_program
from scaling.training.kernel_choice import attention_of, kernel_of
from scaling.training.program import Program
from scaling.training.trunk import TrainedCell, devices_of, program_of, train_trunks


@dataclass(frozen=True)
class _Call:
    """Everything that the cells of one call share: trunks, text, programs, and the columns about the machine.

    forward: the program of the evaluation.   held_out_routing: None for dense models.
    """

    trunks: list[tuple[RunConfig, ...]]
    corpus: data.Corpus
    windows: EvalWindows
    classes: NDArray[np.int64]
    kernel: str
    devices: tuple[jax.Device, ...]
    program: Program
    forward: Any
    held_out_routing: HeldOutRouting | None
    columns: dict[str, Any]
    compile_s: float


def versions() -> str:
    """Versions of the software, for the row."""
    parts = {"python": platform.python_version(), "jax": jax.__version__, "flax": flax.__version__}
    parts |= {"optax": optax.__version__, "numpy": np.__version__}
    return " ".join(f"{name}={version}" for name, version in parts.items())


def train_cells(
    cells: Sequence[RunConfig], checkpoints: Path | None = None, observer: Observer = UNOBSERVED
) -> Iterator[CellResult]:
    """Train and evaluate cells of one shape: the budgets of one trunk, or of several that train side by side.

    Each is yielded when it is done. A run whose loss becomes NaN has status `diverged` and no loss. `checkpoints` is
    the folder for checkpoints of long trunks; `observer` is told how far the training is. Raises InputError if the
    corpus does not suit the cells, and what the observer gives as the reason to stop.
    """
    malloc.keep()
    clock = time.perf_counter()
    call = _prepared(cells, observer)
    compile_s, shared_s = call.compile_s, time.perf_counter() - clock  # charged to the first cell
    probe = call.held_out_routing.choices if call.held_out_routing else None
    text = call.corpus.tokens(), call.corpus.vocab_size
    for trained in train_trunks(call.trunks, *text, call.kernel, checkpoints, probe, observer):
        observer.phase("evaluate")
        clock = time.perf_counter()
        row, documents = _run_row(trained, call)
        row["compile_s"] = compile_s
        row["wall_s"] = shared_s + trained.own_s + time.perf_counter() - clock
        compile_s = shared_s = 0.0
        yield CellResult(row, documents, trained.curves)


def _prepared(cells: Sequence[RunConfig], observer: Observer) -> _Call:
    started, trunks = datetime.datetime.now(datetime.UTC), by_trunk(cells)
    first = trunks[0][0]
    corpus = data.prepare(first.data)
    windows = eval_windows(corpus.heldout(), first.train.seq_len, first.data.eval_windows)
    observer.phase("compile")
    devices = devices_of(first, len(trunks))
    kernel = kernel_of(first, devices[0], len(trunks))
    clock = time.perf_counter()
    program = program_of(first, corpus.vocab_size, kernel, len(trunks))
    batch, classes = first.train.sequences, tokenizer.classes(first.data, corpus.folder)
    losses = LossFunction(first.model, corpus.vocab_size, kernel, placement_of(first, len(devices)))
    forward = losses_program(losses, devices, (batch, windows.tokens.shape[1]))
    routed = first.model.n_experts > 1
    held_out_routing = HeldOutRouting(forward, windows, batch, classes) if routed else None
    compile_s = time.perf_counter() - clock
    columns = {
        "versions": versions(),
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "dtype": first.model.dtype,
        "threads": host.threads() if devices[0].platform == "cpu" else None,
        "kernel": kernel or None,
        "attention": attention_of(first),
        "trunks_together": len(trunks),
        "started_at": started.isoformat(timespec="seconds"),
    }
    return _Call(
        trunks, corpus, windows, classes, kernel, devices, program, forward, held_out_routing, columns, compile_s
    )


def _run_row(trained: TrainedCell, call: _Call) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of a cell without its times, and its documents; also completes the curves of a routed cell."""
    config, corpus, windows = trained.config, call.corpus, call.windows
    row = describe(config, corpus.hash) | call.columns
    row |= {
        "status": "ok",
        "error": "",
        "epochs": row["tokens"] / corpus.train_tokens,
        "tokens_own": trained.tokens_own,
        "peak_memory_bytes": call.program.peak_bytes,  # what a device counts is of all that its process ever ran
    }
    error = trained.error
    if not error:
        chance_levels = functools.partial(_chance_levels, config)
        held_out = evaluate(trained.params, call.forward, windows, config.train.sequences, call.classes, chance_levels)
        if not np.isfinite(held_out.loss):
            error = f"held-out loss is {held_out.loss} after {config.steps} steps"
    if error:
        return row | {"status": "diverged", "error": error}, []
    row |= _loss_columns(trained, held_out)
    if call.held_out_routing:
        row |= _routing_columns(trained, held_out, call.held_out_routing)
        if not config.model.causal:
            network = Transformer(config.model, corpus.vocab_size, call.kernel)
            row["leak"] = leak(network, jax.device_put(trained.params, call.devices[0]), windows)
    return row | data.known_entropy(config.data, windows.tokens, windows.weight), held_out.documents


def _loss_columns(trained: TrainedCell, held_out: HeldOutLoss) -> dict[str, Any]:
    """The columns of a run that has a loss."""
    config = trained.config
    return {
        "loss_val": held_out.loss,
        "loss_val_se": held_out.se,
        "bits_per_byte": held_out.bits_per_byte,
        "loss_train": _tail_mean(trained.curves, "loss"),
        "heldout_docs": len(held_out.documents),
        "heldout_tokens": sum(document["n_tokens"] for document in held_out.documents),
        "dropped_frac": 0.0,
        "train_s": trained.train_s,
        "tokens_per_s": config.steps * config.train.batch_tokens / trained.train_s,
    }


def _tail_mean(curves: list[dict[str, Any]], name: str) -> float:
    """Mean over the last tenth of the curve."""
    return float(np.mean([row[name] for row in curves[-max(1, len(curves) // 10) :]]))


def _chance_levels(config: RunConfig, experts_per_token: float, parts: int = 1) -> dict[str, float]:
    """Chance levels of the router metrics of this cell's batches, or of `parts` of them routed separately."""
    model, tokens = config.model, config.train.batch_tokens // parts
    capped = model.dispatch == "capacity"
    rows = capacity_rows(tokens, counts.places_per_token(model), model.n_experts, model.capacity_factor)
    return router_metrics.batch_chances(model.n_experts, experts_per_token, tokens, rows if capped else None)


def _routing_columns(trained: TrainedCell, held_out: HeldOutLoss, held_out_routing: HeldOutRouting) -> dict[str, Any]:
    """The columns of a routed run, including costs by the measured experts per token; also completes the curves."""
    config, curves, probes = trained.config, trained.curves, trained.probes
    final = held_out_routing.choices(trained.params)
    router_metrics.complete_curves(probes, final, held_out_routing.statistics, curves)
    for point in curves:
        point |= _chance_levels(config, point["experts_per_token"], parts=config.train.accumulate)
    levels = router_metrics.choice_chances(config.model.n_experts, held_out.routing["experts_per_token"])
    row: dict[str, Any] = levels | {name: value for name, value in held_out.routing.items() if name != "z_loss"}
    row["balance_loss"] = _tail_mean(curves, "balance_loss")
    for name, share in (("saturation_5", 0.05), ("saturation_50", 0.5)):
        choices = router_metrics.choices_at(probes, config.steps, share)
        dense = share * config.steps < config.dense_steps  # nothing was routed yet
        row[name] = None if choices is None or dense else router_metrics.saturation(choices, final)
    row["change_rate"] = router_metrics.change_rate_at(probes, max(probes)) if probes else None
    if config.model.router_facts.varies:
        weights = np.diff([0, *(point["step"] for point in curves)])
        in_training = float(np.average([point["experts_per_token"] for point in curves], weights=weights))
        row |= cost_columns(config, row["experts_per_token"], in_training)
    return row
