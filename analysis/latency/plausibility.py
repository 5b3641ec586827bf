"""Measured times against what a device can do: rows that are faster than it, and units that would explain them."""

from __future__ import annotations

import numpy as np

from analysis.latency.table import LatencyTable
from analysis.tables.rows import rows_of
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import si
from scaling.serving.device import Device, roofline_seconds

_LEAST_SHARE = 0.01
"""Of the roofline, reached by the fastest row: below it a wrong unit is more likely than a slow kernel."""
_UNITS = {1e-3: "seconds", 1e3: "microseconds", 1e6: "nanoseconds"}
"""Units that times may be in instead of milliseconds, by how many of them a millisecond has."""
_SUFFIX = {"seconds": "time_s", "microseconds": "time_us", "nanoseconds": "time_ns"}
_FEW = 0.05
"""FLOPs of a token, and bytes of a step, over its active parameters: fewer are in another unit."""
_APART = 100.0
"""Times the law's prediction from which a row is more likely in another unit than slow."""


def floor_seconds(table: LatencyTable, on: Device) -> Array:
    """The roofline of each row: the larger of FLOPs over peak and counted bytes over the bandwidth of the memory that
    holds them (`scaling.serving.device.roofline_seconds`)."""
    counted = zip(table.column("flops"), table.column("bytes"), strict=True)
    return np.array([roofline_seconds(flops, n_bytes, on) for flops, n_bytes in counted])


def doubts_of_times(table: LatencyTable, on: Device) -> list[str]:
    """Rows under the roofline of the device, and a unit that all times may be in.

    Raises InputError, naming a row and the likely unit, where more than half of the rows are under it.
    """
    shares = floor_seconds(table, on) / table.seconds
    under = shares > 1
    if np.mean(under) > 0.5:
        every = "all" if under.all() else f"{under.sum()} of {len(under)}"
        raise InputError(
            f"{table.source}: {every} rows are faster than {on.title} can be: {_rates(table, int(np.argmax(shares)))}. "
            f"{_remedy(shares)}"
        )
    doubts = []
    if under.any():
        rows, fastest = rows_of(table).named(under), _rates(table, int(np.argmax(shares)))
        doubts.append(
            f"{under.sum()} measured times lie under the roofline floor ({rows}): {fastest}; another device, or a busy "
            "one when calibrated?"
        )
    slow = _slow(table, shares)
    return [*doubts, *slow]


def doubts_of_counts(table: LatencyTable) -> list[str]:
    """Rows whose FLOPs or bytes are far too few for the parameters that every token uses."""
    of = {name: table.column(name) for name in ("batch", "context", "n_active")}
    tokens = of["batch"] * np.where(table.frame["phase"].eq("prefill").to_numpy(), of["context"], 1.0)
    doubts = []
    for name, least, unit in (("flops", of["n_active"] * tokens, "FLOPs"), ("bytes", of["n_active"], "bytes")):
        few = table.column(name) < _FEW * least
        if few.any():
            doubts.append(
                f"{name} {rows_of(table).named(few)} are too few for n_active parameters: are they in {unit}, not in "
                "millions or billions?"
            )
    return doubts


def doubts_of_residuals(table: LatencyTable, modelled_over_measured: Array) -> list[str]:
    """Rows that differ so much from the law of the others that they may be in another unit."""
    doubts = []
    for unit, rows in (
        ("microseconds", modelled_over_measured < 1 / _APART),
        ("seconds", modelled_over_measured > _APART),
    ):
        if rows.any():
            doubts.append(
                f"time_ms {rows_of(table).named(rows)} differs more than {_APART:g}-fold from the law of the "
                f"other rows: is it in {unit}?"
            )
    return doubts


def _slow(table: LatencyTable, shares: Array) -> list[str]:
    """A doubt where no row, or none of one phase, comes near what the device can do."""
    phases = table.frame["phase"].to_numpy()
    best = {phase: float(shares[phases == phase].max()) for phase in sorted(set(phases))}
    slow = {phase: share for phase, share in best.items() if share < _LEAST_SHARE}
    if not slow:
        return []
    share = max(slow.values())
    where = "no row reaches" if len(slow) == len(best) else f"no {next(iter(slow))} row reaches"
    likely = "check the units of time_ms, flops and bytes"
    for factor, unit in _UNITS.items():
        if _LEAST_SHARE <= share * factor <= 1.5:
            likely = (
                f"are the times in {unit}, not milliseconds? In {unit} it would be {share * factor:.0%}: then name the "
                f"column {_SUFFIX[unit]}"
            )
    return [
        f"{where} more than {share:.2g} of what the device can do (its bandwidth or peak FLOP/s): {likely}; shapes "
        "that are too small leave only fixed costs to measure"
    ]


def _factor(unit: str) -> float:
    return next(factor for factor, name in _UNITS.items() if name == unit)


def _rates(table: LatencyTable, place: int) -> str:
    """What the row at a place would have reached."""
    row, here = table.frame.iloc[place], np.arange(len(table)) == place
    seconds = row["time_ms"] / 1e3
    rates = f"{si(row['bytes'] / seconds)} bytes/s and compute {si(row['flops'] / seconds)} FLOP/s"
    return (
        f"the {row['phase']} at batch {row['batch']:g} and context {row['context']:g} {rows_of(table).named(here)}, "
        f"with time_ms {row['time_ms']:.4g}, would read {rates}"
    )


def _remedy(shares: Array) -> str:
    if np.median(shares * _factor("seconds")) <= 1:
        return (
            "Are the times in seconds, not milliseconds? Then name the column time_s, or `map` time_ms=NAME*1e3; else "
            "name the device with `device`"
        )
    return "Check the units of time_ms, flops and bytes, and the device (`device`)"
