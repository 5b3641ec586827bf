"""Somebody else's tokens per second: the efficiency at which the serving model reproduces what they measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.latency.cells import refuse_other_devices
from analysis.latency.reported_names import DEVICES, plain_name
from analysis.latency.reported_table import SIZES, ReportedTable, read_reported, sequences_in_flight
from analysis.tables.reading_log import rows_named
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import listed, plural
from scaling.serving import replicas
from scaling.serving.device import Device
from scaling.serving.measured_range import MeasuredRange
from scaling.serving.precision import number_format, served_in
from scaling.serving.service import SERVICE, Layout, ModelSizes, Service
from scaling.serving.step_time import ASSUMED, TERMS, Efficiency
from scaling.serving.steps import prefill_work

_APART = 2.0
"""Times the sequences at once, above which tokens/s and latency of a row contradict them."""
_ROUGHLY = 0.15
"""Relative difference within which a row's tokens/s times its devices agree with its latency."""
_UNLIKE = 10.0
"""Times the factor of the other rows from which a row is in doubt."""
_SLOW = 0.03
"""Of the assumed shares: a device that reaches less is more likely measured in another unit."""
_GROUPED = 8
"""Heads of a query that share keys and values in usual models."""
_EIGHT_BITS = "fp8"
_NO_SHARE = "no share may exceed 1"


def measured_throughput(
    frame: pd.DataFrame, on: Device, service: Service = SERVICE, source: str = "the table"
) -> Service:
    """The service with the assumed shares of bandwidth and peak, both times the one factor at which the model gives the
    measured speed, and with what was measured and assumed (`measured_range`).

    A row is a model (`n_active`, `n_total`, `n_layers`, `d_model`; `n_experts`, `top_k` where it is no dense one),
    the sequences at once, and a measured speed (`analysis.latency.reported_names`); keys and values of `n_kv_heads` and
    the bytes of `dtype` where there are such columns. With the formulas of `scaling.serving.replicas.METRICS` a time is
    A/f + c, c what devices send each other, so f = A / (time - c); the median over rows is taken.

    Raises InputError where a column is missing, no row can be used, a time is below what the data sheet allows, weights
    do not fit, or tokens/s and latency of a row contradict its sequences at once.
    """
    table = read_reported(frame, service, source)
    rows = table.frame
    for name in (str(name) for name in frame if plain_name(str(name)) in DEVICES):
        refuse_other_devices(frame.loc[rows.index], name, on, source)
    _require_arithmetic(table, on)
    _require_fit(table, on)
    doubts = _agreement(table)
    factors, floors = (
        np.array(values) for values in zip(*(_factor(row, on, service) for row in _rows(rows)), strict=True)
    )
    if np.any(floors > 1):
        raise InputError(_too_fast(table, on, service, floors))
    factor = float(np.median(factors))
    capped = min(factor, 1 / max(ASSUMED.bandwidth_share, ASSUMED.flops_share))
    excess = f"; {factor:.3g} would be needed, but {_NO_SHARE}" if capped < factor else ""
    origin = f"scaled by {capped:.3g} to the measured speed of {source}, {plural(len(rows), 'row')}{excess}"
    efficiency = Efficiency(ASSUMED.bandwidth_share * capped, ASSUMED.flops_share * capped, source=origin)
    return replace(service, efficiency=efficiency, measured_range=_range_of(table, _doubts(table, factors) + doubts))


def _range_of(table: ReportedTable, doubts: list[str]) -> MeasuredRange:
    rows = table.frame
    experts, top_k = rows["n_experts"].to_numpy(), rows["top_k"].to_numpy()

    def ends(values: Array) -> tuple[float, ...]:
        return float(values.min()), float(values.max())

    return MeasuredRange(
        what="the throughput table",
        n_experts=tuple(np.unique(experts).astype(int).tolist()),
        top_k=tuple(np.unique(top_k[experts > 1]).tolist()),
        batch=ends(rows["batch"].to_numpy()),
        context=ends((rows["prompt"] + rows["generated"] / 2).to_numpy()),
        d_model=ends(rows["d_model"].to_numpy()),
        n_layers=ends(rows["n_layers"].to_numpy()),
        experts_cost=False,
        doubts=tuple(doubts),
    )


def _doubts(table: ReportedTable, factors: Array) -> list[str]:
    """What was assumed and understood, and the rows whose speed is unlike the others'."""
    doubts = list(table.notes)
    if table.assumed:
        silent = ", ".join(f"{what} (no column `{column}`)" for column, what in table.assumed.items())
        doubts.insert(0, f"not in every row, so assumed: {silent}")
    labels, middle = table.frame.index, np.median(factors)
    unlike = (factors > _UNLIKE * middle) | (factors < middle / _UNLIKE)
    if unlike.any():
        doubts.append(
            f"the speed {rows_named(labels[unlike])} is more than {_UNLIKE:g} times that of other rows, or less"
        )
    if middle < _SLOW:
        doubts.append(
            f"only {middle:.2g} of the assumed efficiency is reached: are times in microseconds, not milliseconds, or "
            "is tokens/s that of one user or device, or requests/s?"
        )
    if middle * max(ASSUMED.bandwidth_share, ASSUMED.flops_share) > 1:
        doubts.append(f"more than the device's peak is needed, and {_NO_SHARE}: {_explained(table.assumed)}")
    return doubts


def _require_arithmetic(table: ReportedTable, on: Device) -> None:
    """Raises InputError naming rows of a number format that the device does not multiply."""
    for name, rows in table.frame.groupby("weights", sort=False):
        try:
            served_in(SERVICE, on, weights=str(name))
        except InputError as error:
            raise InputError(f"{table.source}: {error} ({rows_named(rows.index)})") from error


def _require_fit(table: ReportedTable, on: Device) -> None:
    """Raises InputError naming rows whose weights alone do not fit the memory of their devices."""
    weights = table.frame["n_total"] + table.frame["n_router"]
    wide = table.frame["weights"].map(lambda name: number_format(name, "dtype").bits / 8).to_numpy(float)
    needed = weights.to_numpy(float) * wide / table.frame["n_devices"].to_numpy(float)
    over = needed > on.memory
    if over.any():
        place = int(np.argmax(over))
        rows = rows_named(table.frame.index[over])
        raise InputError(
            f"{table.source}: the weights {rows} do not fit: {needed[place] / 1e9:.4g} GB a device at {wide[place]:g} "
            f"bytes each, and {on.title} has {on.memory / 1e9:g} GB; say on how many devices a replica lies "
            "(column `n_devices` or column `tensor_parallel_size`), or the precision of its weights (column `dtype`: "
            "fp8)"
        )


def _agreement(table: ReportedTable) -> list[str]:
    """A doubt of rows whose tokens/s times latency is fewer than their sequences at once, but for what a long wait for
    the first token may explain. Raises InputError naming rows where it contradicts them."""
    rows = table.frame
    in_flight, batch = sequences_in_flight(rows), rows["batch"].to_numpy(float)
    complete, devices = rows["ttft_ms"].notna().to_numpy(), rows["n_devices"].to_numpy(float)
    with np.errstate(invalid="ignore"):
        ratio = in_flight / batch
        of_one = (devices > 1) & (np.abs(ratio * devices - 1) < _ROUGHLY)
        apart, few = (ratio > _APART) | (complete & (ratio < 1 / _APART)) | of_one, ratio < 1 / _APART
    place = int(np.argmax(apart | few))
    words = (
        f"tokens/s times latency {rows_named(rows.index[apart if apart.any() else few])} makes {in_flight[place]:.3g} "
        f"sequences at once, and the row says {batch[place]:.3g}: is tokens/s that of one device (call it "
        "`output_throughput_per_gpu`), or of prompts and output together (`total_token_throughput`), are the times in "
        "another unit, or was the concurrency a limit that was not reached (give the measured one as `concurrency`)?"
    )
    if apart.any():
        raise InputError(f"{table.source}: {words}")
    return [words] if few.any() else []


def _too_fast(table: ReportedTable, on: Device, service: Service, floors: Array) -> str:
    """What to say of rows faster than the device: which, by how much, and what would explain the fastest."""
    rows = table.frame
    place = int(np.argmax(floors))
    row = rows.iloc[place]
    lacks_eight_bits = () if _EIGHT_BITS in dict(on.peaks) else ("dtype",)
    assumed = {column: what for column, what in table.assumed.items() if column not in lacks_eight_bits}
    found = _explanations(row, assumed, lambda other: _factor(other, on, service)[1] <= 1)
    none = "nothing that the table leaves open explains it, so the number or its unit is wrong"
    why = f"what would explain it: {'; or '.join(found)}" if found else none
    return (
        f"{table.source}: {on.title} can neither read nor compute as fast as {row['measure']} says "
        f"{rows_named(rows.index[floors > 1], rows['speed'].astype(object))}: {rows_named(rows.index[[place]])} by "
        f"{floors[place]:.3g} times; {why}. Check the device and the units, too"
    )


def _explained(assumed: dict[str, str]) -> str:
    """What could be stated where no single statement explains a speed."""
    open_ = [f"column `{column}` ({what} is assumed)" for column, what in assumed.items() if column != "n_router"]
    return f"state {listed(open_)}" if open_ else "no column is left that could explain it"


def _explanations(
    row: pd.Series[Any], assumed: dict[str, str], possible: Callable[[pd.Series[Any]], bool]
) -> list[str]:
    """What makes the speed of a row possible, in words with the remedy: a column that was assumed and may be otherwise,
    several of them where none is enough alone, or another unit."""
    silent: dict[str, tuple[str, dict[str, Any]]] = {
        "n_kv_heads": (
            "grouped-query or latent attention, which caches less than 2 d_model a layer: state the column "
            "`n_kv_heads` and `head_dim`, or `kv_elements_per_token`",
            {"kv_elements_per_token": row["kv_elements_per_token"] / _GROUPED},
        ),
        "dtype": ("weights of 8 bits: state column `dtype` fp8", {"weights": _EIGHT_BITS}),
        "n_devices": ("a replica on several devices: state column `n_devices`", {"n_devices": 8.0}),
    }
    told = [change for column, change in silent.items() if column in assumed]
    if row["measure"] == "output_throughput":
        output = row["generated"] / (row["prompt"] + row["generated"])
        unit = (
            "prompts and output counted together: name it `total_token_throughput`",
            {"speed": row["speed"] * output},
        )
    else:
        seconds = f"{row['measure'].removesuffix('_ms')}_s"
        unit = (f"seconds, not milliseconds: name it `{seconds}`", {"speed": row["speed"] * 1e3})
    alone = [words for words, change in (*told, unit) if possible(_with(row, change))]
    together = {name: value for _, change in told for name, value in change.items()}
    if alone or not together or not possible(_with(row, together)):
        return alone
    return [" together with ".join(words for words, _ in told)]


def _with(row: pd.Series[Any], change: dict[str, Any]) -> pd.Series[Any]:
    other = row.copy()
    for name, value in change.items():
        other[name] = value
    return other


def _rows(rows: pd.DataFrame) -> list[pd.Series[Any]]:
    return [row for _, row in rows.iterrows()]


def _sizes(row: pd.Series[Any]) -> ModelSizes:
    counts: dict[str, Any] = {name: float(row[name]) for name in (*SIZES, "kv_elements_per_token", "n_router", "top_k")}
    return ModelSizes(n_experts=int(row["n_experts"]), **counts)


def _layout(row: pd.Series[Any]) -> Layout:
    return Layout(int(row["n_devices"]))


def _factor(row: pd.Series[Any], on: Device, service: Service) -> tuple[float, float]:
    """What both shares must be multiplied with, and the roofline floor over the measured time.

    Products run in the arithmetic of the weights' number format (`scaling.serving.precision`).
    """
    sizes, layout, batch = _sizes(row), _layout(row), row["batch"]
    lengths = replace(service, prompt=round(row["prompt"]), generated=max(1, round(row["generated"])))
    service = served_in(lengths, on, weights=row["weights"], kv=row["kv"])
    iteration = replicas.iteration(sizes, on, batch, service, layout)
    seconds = batch / row["speed"] if row["measure"] == "output_throughput" else row["speed"] / 1e3
    if row["measure"] == "ttft_ms":
        iteration = np.asarray(replicas.ttft(iteration, prefill_work(sizes, on, 1.0, service, layout).terms(on)))
    terms = dict(zip(TERMS, iteration, strict=True))
    assumed = terms["bytes"] / ASSUMED.bandwidth_share + terms["flops"] / ASSUMED.flops_share
    sending = float(terms["communication"])
    floor = max(float(terms["bytes"]), float(terms["flops"])) + sending
    return float(assumed / max(seconds - sending, 1e-300)), floor / seconds
