"""Decode and prefill over E, batch and context, and how far off a latency law is before and after it has seen them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from analysis.latency.law import fit_latency
from analysis.latency.table import device_of, read_latency
from benchmarks.gpu.record import Record, Row, read, write
from scaling.config.bench import BenchConfig
from scaling.config.data import DataConfig
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.schema import LATENCY
from scaling.training.inference_bench import measure as measured

TABLE, LAW = "latency.parquet", "law of "
SHAPES = ((1024, 1), (1024, 8), (2048, 8), (2048, 1), (1024, 32))
_NEEDS_S = 20.0
_RESAMPLES = 50


def measure(record: Record, tiny: bool) -> None:
    """A case for each width and E, whose measurements go to `latency.parquet` in the columns of `scaling bench`; then
    the law: errors `before`, by the efficiency assumed for a device that was not measured, `after`, in sample, and
    `held_out`, on each width, E, batch and context left out in turn (median and 90th percentile)."""
    table = record.path.with_name(TABLE)
    shapes = ((16, 1), (16, 4), (32, 1)) if tiny else SHAPES
    for d_model, n_experts in shapes:
        config = _config(d_model, n_experts, tiny)
        record.case(f"d={d_model} E={n_experts}", functools.partial(_rows, config, table), needs=_NEEDS_S)
    if count := len(read(table)):  # anew where a later session has added rows
        record.case(f"{LAW}{count} rows", functools.partial(_law, table, 2 if tiny else _RESAMPLES))


def _config(d_model: int, n_experts: int, tiny: bool) -> RunConfig:
    model = ModelConfig(
        d_model=d_model, n_layers=1 if tiny else 2, d_head=16 if tiny else 128, n_experts=n_experts, top_k=2,
        router="topk", dtype="bfloat16",
    )  # fmt: skip
    batch, context = ((1,), (8, 16, 32)) if tiny else ((1, 8, 64), (256, 2048))
    bench = BenchConfig(batch=batch, context=context, repeats=5 if tiny else 15)
    data = DataConfig(corpus="markov", markov_documents=300 if tiny else 1200, heldout_docs=100)
    return RunConfig(model=model, data=data, bench=bench)


def _rows(config: RunConfig, table: Path) -> dict[str, Any]:
    """Measure a shape and add its rows to the table."""
    rows = measured(config)
    known = [row for row in read(table) if row["shape_id"] != config.shape_id()]
    write(table, [*known, *({name: row.get(name) for name in LATENCY if name != "run_id"} for row in rows)])
    fastest = min(rows, key=lambda row: row["time_ms"])
    return {
        "n_experts": config.model.n_experts,
        "d_model": config.model.d_model,
        "rows": len(rows),
        "kernels": ", ".join(sorted({str(row["kernel"]) for row in rows})),
        "attention": str(rows[0]["attention"]),
        "fastest_ms": fastest["time_ms"],
        "below_roofline": sum(bool(row["roofline_ms"] and row["time_ms"] < row["roofline_ms"]) for row in rows),
        "compile_s": float(np.sum([row["compile_s"] for row in rows])),
    }


def _law(table: Path, resamples: int) -> Row:
    latency = read_latency(table)
    law = fit_latency(latency, device_of(latency), np.random.default_rng(0), resamples)
    errors = {"before": law.before, "after": law.after, "held_out": law.held_out.get("all")}
    columns = {f"{name}_{part}": getattr(error, part) for name, error in errors.items() if error
               for part in ("median", "p90")}  # fmt: skip
    return {"rows": law.n_rows, "shapes": law.n_shapes, "at_bound": ", ".join(law.at_bound), **columns}
