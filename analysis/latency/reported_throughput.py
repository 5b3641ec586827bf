"""Somebody else's tokens per second: the efficiency at which the serving model reproduces what they measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.readers import listed, numbers
from scaling.arrays import Array
from scaling.errors import InputError
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
_USUAL = {"n_experts": 1.0, "top_k": 1.0, "n_router": 0.0, "n_devices": 1.0}


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
    columns = _columns(frame, service, source)
    factors, floors = zip(*(_factor(row, on, service) for _, row in columns.iterrows()), strict=True)
    under = [index + 1 for index, floor in enumerate(floors) if floor > 1]
    if under:
        raise InputError(
            f"{source}: rows {listed(under)} are faster than {on.title} can read and compute; check the units "
            "(tokens/s of one replica, ms), the device and the number of devices"
        )
    factor = float(np.median(factors))
    capped = min(factor, 1 / max(ASSUMED.bandwidth_share, ASSUMED.flops_share))
    told = f"scaled by {capped:.3g} to the measured speed of {source}, {len(columns)} rows" + (
        f"; {factor:.3g} would be needed, but no share may exceed 1" if capped < factor else ""
    )
    return Efficiency(ASSUMED.bandwidth_share * capped, ASSUMED.flops_share * capped, source=told)


def _columns(frame: pd.DataFrame, service: Service, source: str) -> pd.DataFrame:
    """The usable rows, by our names, as numbers; `measure` and `value` are what was measured."""
    usual = _USUAL | {"prompt": float(service.prompt), "generated": float(service.generated)}
    found: dict[str, Array] = {}
    for name in (*_SIZES, *_USUAL, *NAMES):
        theirs = next((one for one in NAMES.get(name, (name,)) if one in frame), None)
        if theirs is not None:
            values = numbers(frame[theirs]).floats
            found[name] = np.where(np.isnan(values), usual.get(name, np.nan), values)
        elif name in usual:
            found[name] = np.full(len(frame), usual[name])
    measures = [name for name in MEASURES if name in found]
    lacking = [name for name in (*_SIZES, "batch") if name not in found] + ([] if measures else [" or ".join(MEASURES)])
    if lacking:
        raise InputError(f"{source}: the column {', '.join(lacking)} is missing; the table has {listed(frame.columns)}")
    table = pd.DataFrame(found)
    measured = table[measures].where(table[measures] > 0)
    table["measure"] = measured.notna().idxmax(axis=1)
    table["value"] = measured.bfill(axis=1).iloc[:, 0]
    needed = [*_SIZES, "batch", "prompt", "generated", "n_devices", "n_experts", "top_k", "value"]
    known = table[needed].to_numpy(dtype=float)
    usable = table[(np.isfinite(known) & (known > 0)).all(axis=1)]
    if usable.empty:
        raise InputError(
            f"{source}: no row has positive {', '.join(needed[:-1])} and a measured {' or '.join(measures)}"
        )
    return usable


def _factor(row: pd.Series[Any], on: Device, service: Service) -> tuple[float, float]:
    """What both shares must be multiplied with, and the roofline floor over the measured time."""
    sizes = ModelSizes(
        n_active=row["n_active"], n_total=row["n_total"], n_router=row["n_router"], n_layers=row["n_layers"],
        d_model=row["d_model"], kv_elements_per_token=2 * row["n_layers"] * row["d_model"],
        n_experts=int(row["n_experts"]), top_k=row["top_k"],
    )  # fmt: skip
    service = replace(service, prompt=int(row["prompt"]), generated=int(row["generated"]))
    layout, batch = Layout(int(row["n_devices"])), row["batch"]
    iteration = replicas.iteration(sizes, on, batch, service, layout)
    if row["measure"] == "output_throughput":
        seconds = batch / row["value"]
    else:
        seconds = row["value"] / 1e3
    if row["measure"] == "ttft_ms":
        iteration = np.asarray(replicas.ttft(iteration, prefill_work(sizes, on, 1.0, service, layout).terms(on)))
    each = dict(zip(TERMS, iteration, strict=True))
    assumed = each["bytes"] / ASSUMED.bandwidth_share + each["flops"] / ASSUMED.flops_share
    sending = float(each["communication"])
    floor = max(float(each["bytes"]), float(each["flops"])) + sending
    return float(assumed / max(seconds - sending, 1e-300)), floor / seconds
