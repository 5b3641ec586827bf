"""The tables of what experts are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis.worth.speedup import span, times
from scaling.formatting import flops, percent, si
from scaling.table import Column, Table

if TYPE_CHECKING:
    from analysis.worth.worth import Worth

_EXPERTS, _COMPUTE = Column("n_experts", "E"), Column("train_flops", "C", flops, "FLOPs")
_SIZE, _TOKENS = Column("n_active", "N_active", si), Column("tokens", "tokens", si)
_LOSS = Column("loss", "loss", "{:.4f}".format)


def tables_of(found: Worth) -> tuple[Table, ...]:
    """All tables, the first the answer."""
    if found.gate is not None:
        tables = [_runs(found)]
        if found.gate.at:
            tables.append(_at_budgets(found))
        return tuple(tables)
    tables = [_at_budgets(found)] if found.worth else []
    tables += [_growth(found)] if found.growth else []
    tables += [_means(found)] if found.paired else []
    return tuple(tables)


def pairs_table(found: Worth) -> Table:
    """Every cell against both curves of the baseline."""
    columns = (
        _EXPERTS, Column("curve", "against", text=True), _COMPUTE, _SIZE, _TOKENS, _LOSS, Column("seeds", "seeds"),
        *_ratio("compute"), *_ratio("time"), Column("reason", "", text=True),
    )  # fmt: skip
    return Table.of("Cells against the baseline's cells", columns, found.pairs).without_empty_columns()


def _at_budgets(found: Worth) -> Table:
    columns = (
        _EXPERTS, _COMPUTE, *_ratio("compute"), *_ratio("time"), *_ratio("cost"),
        Column("above_one", "> 1", percent), Column("time_above_one", "> 1 in time", percent), _LOSS,
    )  # fmt: skip
    note = "> 1: share of the draws in which the speedup exceeds 1"
    known = any(one.above_one is not None for one in found.worth)
    title = f"Speedup over {_baseline(found)} at equal loss"
    table = Table.of(title, columns, found.worth, (note,) if known else ()).without_empty_columns()
    same = all(one.cost_speedup == one.time_speedup for one in found.worth)
    return table.without("cost_speedup", "cost_interval") if same else table


def _growth(found: Worth) -> Table:
    of_compute = (
        Column("compute_slope", "in compute", _signed), Column("compute_interval", "95% interval", _slopes),
        Column("compute_grows", "grows", percent),
    )  # fmt: skip
    of_time = (
        Column("time_slope", "in time", _signed), Column("time_interval", "95% interval ", _slopes),
        Column("time_grows", "grows ", percent),
    )  # fmt: skip
    columns = (_EXPERTS, *of_compute, *of_time)
    first = found.growth[0]
    title = f"Growth from {flops(first.from_flops)} to {flops(first.to_flops)} FLOPs: d ln speedup / d ln C"
    note = "grows: share of the draws in which the slope is positive"
    known = first.compute_grows is not None
    table = Table.of(title, columns, found.growth, (note,) if known else ()).without_empty_columns()
    same = all(_alike(one.compute_slope, one.time_slope) for one in found.growth)
    return table.without(*(column.field for column in of_time)) if same else table


def _alike(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) < 5e-4


def _means(found: Worth) -> Table:
    columns = (
        _EXPERTS, Column("curve", "against cells of", text=True), Column("n_pairs", "cells"),
        Column("beyond", "beyond"), *_ratio("compute"), *_ratio("time"),
    )  # fmt: skip
    note = "beyond: cells whose loss lies below that of every baseline cell; they are worth more, and not in the mean"
    return Table.of(
        f"Mean speedup over {_of_experts(found)} by paired cells", columns, found.paired, (note,)
    ).without_empty_columns()


def _runs(found: Worth) -> Table:
    assert found.gate is not None
    columns = (
        _EXPERTS, _COMPUTE, _SIZE, _TOKENS, _LOSS,
        Column("own_shape", "own shape", times), Column("frontier", "frontier", times),
        Column("interval", "95% interval", _between),
    )  # fmt: skip
    title = f"What each run is worth against {_baseline(found)}"
    note = f"own shape: against a baseline of as many tokens per parameter; the interval is of {found.gate.against}"
    return Table.of(title, columns, found.gate.runs, (note,)).without_empty_columns()


def _baseline(found: Worth) -> str:
    name, law = _of_experts(found), found.baseline.law
    return f"{name} by {law}" if law else name


def _of_experts(found: Worth) -> str:
    return "dense" if found.baseline.n_experts == 1 else f"E = {found.baseline.n_experts}"


def _ratio(what: str) -> tuple[Column, Column]:
    """A speedup and its interval."""
    return (
        Column(f"{what}_speedup", f"in {what}", times),
        Column(f"{what}_interval", "95% interval", _between),
    )


def _between(interval: tuple[float, float]) -> str:
    return span(interval).strip(" ()") or "–"


def _slopes(interval: tuple[float, float]) -> str:
    return f"{_signed(interval[0])} to {_signed(interval[1])}"


def _signed(value: Any) -> str:
    return f"{value:+.3f}".replace("-", "−")
