"""Somebody else's tokens per second: the efficiency at which the serving model reproduces what they measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.readers import numbers
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.serving import replicas
from scaling.serving.device import Device
from scaling.serving.service import SERVICE, Layout, ModelSizes, Service
from scaling.serving.step_time import ASSUMED, TERMS, Efficiency
from scaling.serving.steps import prefill_work

# Ours first, then vLLM's serving benchmark and its results' usual spellings.
NAMES: Mapping[str, tuple[str, ...]] = {
    "batch": ("batch", "max_concurrency", "concurrency", "batch_size"),
    "prompt": ("prompt", "input_len", "random_input_len", "input_tokens"),
    "generated": ("generated", "output_len", "random_output_len", "output_tokens"),
    "n_devices": ("n_devices", "tensor_parallel_size"),
    "output_throughput": ("output_throughput", "tokens_per_s"),
    "tpot_ms": ("tpot_ms", "mean_tpot_ms", "median_tpot_ms"),
    "ttft_ms": ("ttft_ms", "mean_ttft_ms", "median_ttft_ms"),
}
MEASURES = ("output_throughput", "tpot_ms", "ttft_ms")
_SIZES = ("n_active", "n_total", "n_layers", "d_model")
_DEFAULTS = {"n_experts": 1.0, "top_k": 1.0, "n_router": 0.0, "n_devices": 1.0}


def measured_throughput(
    frame: pd.DataFrame, on: Device, service: Service = SERVICE, source: str = "the table"
) -> Efficiency:
    """The assumed shares of bandwidth and peak, both times the one factor at which the model gives the measured speed.

    A row is a model (`n_active`, `n_total`, `n_layers`, `d_model`, and `n_experts`, `top_k`, `n_router` where it is no
    dense one), `batch` sequences at once, and one of `MEASURES`, the first that it has: `output_throughput` in
    generated tokens per second of a replica, `tpot_ms`, `ttft_ms`; other spellings in `NAMES`. `prompt` and `generated`
    tokens are those of `service` where the table is silent. With the formulas of `scaling.serving.replicas.METRICS` a
    time is A/f + c, c what devices send each other, so f = A / (time - c); the median over rows is taken.

    Raises InputError where a column is missing, no row can be used, or a time is below what the data sheet allows.
    """
    rows = _usable_rows(frame, service, source)
    factors, floors = zip(*(_factor(row, on, service) for _, row in rows.iterrows()), strict=True)
    too_fast = [label + 1 for label, floor in zip(rows.index, floors, strict=True) if floor > 1]
    if too_fast:
        raise InputError(
            f"{source}: {on.title} can neither read nor compute as fast as rows {listed(too_fast, most=40)} say; check "
            f"the units of {', '.join(MEASURES)} (tokens/s of one replica, ms), the device and the number of devices"
        )
    factor = float(np.median(factors))
    capped = min(factor, 1 / max(ASSUMED.bandwidth_share, ASSUMED.flops_share))
    excess = f"; {factor:.3g} would be needed, but no share may exceed 1" if capped < factor else ""
    origin = f"scaled by {capped:.3g} to the measured speed of {source}, {len(rows)} rows{excess}"
    return Efficiency(ASSUMED.bandwidth_share * capped, ASSUMED.flops_share * capped, source=origin)


def _usable_rows(frame: pd.DataFrame, service: Service, source: str) -> pd.DataFrame:
    """The usable rows, by our names, as numbers; `measure` and `value` are what was measured."""
    defaults = _DEFAULTS | {"prompt": float(service.prompt), "generated": float(service.generated)}
    columns: dict[str, Array] = {}
    for name in (*_SIZES, *_DEFAULTS, *NAMES):
        theirs = next((spelling for spelling in NAMES.get(name, (name,)) if spelling in frame), None)
        if theirs is not None:
            values = numbers(frame[theirs]).floats
            columns[name] = np.where(np.isnan(values), defaults.get(name, np.nan), values)
        elif name in defaults:
            columns[name] = np.full(len(frame), defaults[name])
    measures = [name for name in MEASURES if name in columns]
    missing = [name for name in (*_SIZES, "batch") if name not in columns]
    missing += [] if measures else [" or ".join(MEASURES)]
    if missing:
        there = listed(frame.columns, most=40)
        raise InputError(f"{source}: the column {', '.join(missing)} is missing; the table has {there}")
    table = pd.DataFrame(columns)
    measured = table[measures].where(table[measures] > 0)
    table["measure"] = measured.notna().idxmax(axis=1)
    table["value"] = measured.bfill(axis=1).iloc[:, 0]
    needed = [*_SIZES, "batch", "prompt", "generated", "n_devices", "n_experts", "top_k"]
    cells = table[[*needed, "value"]].to_numpy(dtype=float)
    usable = np.isfinite(cells) & (cells > 0)
    if not usable.all(axis=1).any():
        lacking = listed(
            name for name, column in zip([*needed, " or ".join(measures)], usable.T, strict=True) if not column.all()
        )
        raise InputError(
            f"{source}: no row has positive {', '.join(needed)} and a measured {' or '.join(measures)}; "
            f"not in every row: {lacking}"
        )
    return table[usable.all(axis=1)]


def _factor(row: pd.Series[Any], on: Device, service: Service) -> tuple[float, float]:
    """What both shares must be multiplied with, and the roofline floor over the measured time."""
    sizes = ModelSizes(
        kv_elements_per_token=2 * row["n_layers"] * row["d_model"],
        n_experts=int(row["n_experts"]),
        **{name: row[name] for name in (*_SIZES, "n_router", "top_k")},
    )
    service = replace(service, prompt=int(row["prompt"]), generated=int(row["generated"]))
    layout, batch = Layout(int(row["n_devices"])), row["batch"]
    iteration = replicas.iteration(sizes, on, batch, service, layout)
    seconds = batch / row["value"] if row["measure"] == "output_throughput" else row["value"] / 1e3
    if row["measure"] == "ttft_ms":
        iteration = np.asarray(replicas.ttft(iteration, prefill_work(sizes, on, 1.0, service, layout).terms(on)))
    terms = dict(zip(TERMS, iteration, strict=True))
    assumed = terms["bytes"] / ASSUMED.bandwidth_share + terms["flops"] / ASSUMED.flops_share
    sending = float(terms["communication"])
    floor = max(float(terms["bytes"]), float(terms["flops"])) + sending
    return float(assumed / max(seconds - sending, 1e-300)), floor / seconds
