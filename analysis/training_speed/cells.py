"""The time that cells of a grid take to train: assumed, corrected by those that have, or by a law of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.training_speed.law import fit_training_speed
from analysis.training_speed.table import TrainingTable, by_configuration
from scaling.arrays import Array
from scaling.config.counts import parameters, train_flops
from scaling.config.run import RunConfig
from scaling.errors import InputError
from scaling.formatting import plural, si
from scaling.serving.device import Device
from scaling.serving.published_training import assumed_training_speed

# Of one thread, assumed until a study has rows. Measured on two busy cores of a server: 5e9 counted FLOP/s a core at
# d_model = 32 and 10e9 at 64 (float32, one thread a cell).
CPU_FLOPS_PER_CORE = 10e9
# Of a GPU, assumed and not measured: forward, backward and update of a layer launch about 100 kernels of 5 us.
LAYER_S = 0.5e-3
_TF32 = 0.5  # of the peak in bfloat16, which float32 products reach at most (A100 and H100 data sheets)
_CORE = Device(
    "cpu", "a CPU thread", 1e13, 1e13, 1e12, 0.05, "float32", "a bound that no core reaches", "not a price"
)  # fmt: skip


@dataclass(frozen=True)
class CellTimes:
    """Seconds of all training steps of each cell, and what says so."""

    seconds: dict[RunConfig, float]
    basis: str


def cell_times(cells: Sequence[RunConfig], measured: Mapping[RunConfig, float], on: Device | None) -> CellTimes:
    """The training time of cells, on a device or (None) on CPU threads, given the seconds of those that were trained.

    Without any: the assumed speed. With some: that, times the median of measured over assumed time; or a
    training-speed law of the study where it predicts configurations that were left out better, for the cells all of
    whose terms were measured.
    """
    seconds = np.array([_assumed(cell, on) for cell in cells])
    known = [cell for cell, time in measured.items() if time > 0]
    if not known:
        return CellTimes(_by_cell(cells, seconds), f"assumed: {_told(on)}")
    ratios = np.array([measured[cell] / _assumed(cell, on) for cell in known])
    factor = float(np.exp(np.median(np.log(ratios))))
    of = f"{plural(len(known), 'cell')} of this study"
    corrected = CellTimes(_by_cell(cells, seconds * factor), f"measured on {of}: {factor:.3g} times the assumed time")
    spread = float(np.median(np.abs(factor / ratios - 1)))
    table = _table(known, np.array([measured[cell] for cell in known]), on)
    try:
        fitted = fit_training_speed(table, np.random.default_rng(0), 0)
    except InputError:  # too few configurations
        return corrected
    error = fitted.held_out.get("configuration")
    if error is None or error.median >= spread:
        return corrected
    by_law = _table(cells, np.ones(len(cells)), on, once=False)
    terms, coefficients = by_law.terms(), np.array(fitted.law.coefficients)
    tokens = np.array([float(cell.steps * cell.train.batch_tokens) for cell in cells])
    absent = ~np.any(table.terms() != 0, axis=0)
    unknown = np.any(terms[:, absent] != 0, axis=1)
    predicted = np.where(unknown, seconds * factor, terms @ coefficients * tokens)
    basis = f"by a training-speed law of {of}, {error.median:.0%} off on configurations left out"
    return CellTimes(_by_cell(cells, predicted), basis)


def _by_cell(cells: Sequence[RunConfig], seconds: Array) -> dict[RunConfig, float]:
    return dict(zip(cells, seconds.tolist(), strict=True))


def _assumed(cell: RunConfig, on: Device | None) -> float:
    """Seconds of a cell by the assumed speed: counted FLOPs over a share of the peak that falls with E; on a GPU at
    least `LAYER_S` a layer and step."""
    flops, n_experts, speed = train_flops(cell), cell.model.n_experts, assumed_training_speed()
    if on is None:
        slower = speed.mfu_at(1) / speed.mfu_at(n_experts)
        return slower * flops / (CPU_FLOPS_PER_CORE * _used(cell, cell.resources.cpus))
    peak = on.peak_flops * (_TF32 if cell.model.dtype == "float32" else 1.0)
    at_share = flops / (peak * _used(cell, cell.resources.gpus) * speed.mfu_at(n_experts))
    return float(max(at_share, cell.steps * cell.model.n_layers * LAYER_S))


def _used(cell: RunConfig, reserved: float) -> float:
    """Devices among which a step is divided evenly, of those reserved; a share of one is that share."""
    return float(cell.train.devices(int(reserved))) if reserved >= 1 else reserved


def _told(on: Device | None) -> str:
    slope = assumed_training_speed().slope
    if on is None:
        return f"{CPU_FLOPS_PER_CORE:.0e} FLOP/s per core at E = 1, less by E^-{slope:.2f}"
    share = assumed_training_speed().mfu
    return (
        f"{share:.0%} of the peak of {on.title} ({si(on.peak_flops)} FLOP/s) at E = 1, less by E^-{slope:.2f}, and "
        f"{1e3 * LAYER_S:g} ms a layer and step at least"
    )


def _table(cells: Sequence[RunConfig], seconds: Array, on: Device | None, *, once: bool = True) -> TrainingTable:
    """Cells as rows of a training-speed table, their own resources as its device; one row a configuration if `once`."""
    first = cells[0].resources
    share = first.gpus if on is not None else float(first.cpus)
    rows = [_row(cell, time, loops=on is None) for cell, time in zip(cells, seconds.tolist(), strict=True)]
    frame = pd.DataFrame(rows)
    device = on or _CORE
    whole = Device(**{**vars(device), "peak_flops": device.peak_flops * share, "bandwidth": device.bandwidth * share})
    ready = by_configuration(frame) if once else frame.assign(rows=1, spread=1.0)
    return TrainingTable(ready, "the study", on=whole)


def _row(cell: RunConfig, seconds: float, *, loops: bool) -> dict[str, float]:
    model, train, vocab = cell.model, cell.train, cell.data.vocab_size
    sizes, routed = parameters(model, vocab), model.n_experts > 1
    top_k = float(min(model.top_k, model.n_experts)) if routed else 1.0
    return {
        "n_experts": float(model.n_experts),
        "top_k": top_k,
        "n_active": float(sizes.n_active),
        "n_total": float(max(sizes.n_total, sizes.n_active)),
        "n_router": float(sizes.router),
        "n_lookup": 0.0 if model.tie_embeddings else float(sizes.embedding),
        "n_layers": float(model.n_layers),
        "d_model": float(model.d_model),
        "batch_tokens": float(train.batch_tokens),
        "seq_len": float(train.seq_len),
        "devices": 1.0,
        "loops": loops and routed and model.dispatch == "grouped",
        "seconds": seconds / (cell.steps * train.batch_tokens),
        "busy_cores": np.nan,
    }
