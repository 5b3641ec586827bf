"""The tables of what a model costs to serve: the ladder of concurrencies and the front of speeds."""

from __future__ import annotations

from analysis.decision.serve import Serving, ServingPoint
from scaling.formatting import between, number, si
from scaling.table import Column, Table


def _three(value: float) -> str:
    return number(value, ".3g") if abs(value) < 999.5 else si(value)


def _ends(interval: tuple[float, float]) -> str:
    return between(interval, _three)


_POINT = (
    Column("concurrency", "requests"),
    Column("n_devices", "devices"),
    Column("experts_split", "split", lambda by_expert: "EP" if by_expert else "TP", text=True),
    Column("ttft_ms", "TTFT", _three),
    Column("tpot_ms", "TPOT", _three),
    Column("tokens_per_s_per_user", "user", _three),
    Column("tokens_per_s_per_device", "device", si),
    Column("usd_per_million_input", "in", _three),
    Column("usd_per_million_output", "out", _three),
    Column("memory_gb", "GB", _three),
)
_ENDS = (
    Column("tpot_ms_interval", "TPOT 95%", _ends),
    Column("usd_per_million_output_interval", "out 95%", _ends),
)


def ladder_table(serving: Serving, most: int | None = None, *, detailed: bool = False) -> Table:
    """The cheapest layout at every concurrency; at most so many rows, evenly among them; `detailed` with intervals."""
    return _table(
        "Cheapest layout at each concurrency (ms; tok/s a user and device; USD per M)",
        serving.ladder,
        most,
        detailed,
    )


def front_table(serving: Serving, most: int | None = None, *, detailed: bool = False) -> Table:
    """The Pareto front of speed for a user against that of a device."""
    title = "Fastest for a user first: no other layout or concurrency beats both speeds"
    return _table(title, serving.front, most, detailed)


def _table(title: str, points: tuple[ServingPoint, ...], most: int | None, detailed: bool) -> Table:
    if most is not None and len(points) > most:
        last = len(points) - 1
        points = tuple(points[round(place * last / (most - 1))] for place in range(most))
    table = Table.of(title, (*_POINT, *(_ENDS if detailed else ())), points).without_empty_columns()
    return table if any(point.experts_split for point in points) else table.without("experts_split")
