"""A latency law, and measurements, as pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.latency.coverage import FAR
from scaling.cli.show.page import Page
from scaling.cli.show.tables import text_table
from scaling.formatting import listed, plural, si
from scaling.serving.device import BUSY

if TYPE_CHECKING:
    import pandas as pd

    from analysis.latency.law import LatencyLaw
    from scaling.table import Table

PLACE = ("phase", "batch", "context", "n_experts", "top_k", "d_model", "n_layers")
_FORMULA = (
    "seconds = overhead + layers + prompts + experts + activations + bytes / (share x bandwidth) + rereads + "
    "FLOPs / (share x peak)"
)
_UNITS = {
    "overhead_s": ("µs per step", 1e6),
    "layer_s": ("µs per layer", 1e6),
    "prompt_s": ("µs per layer, added in a prefill", 1e6),
    "expert_s": ("µs per activated expert", 1e6),
    "activation_s": ("ns per element written", 1e9),
    "reread": ("of bytes / bandwidth", 1.0),
    "bandwidth_share": ("of the memory bandwidth", 1.0),
    "flops_share": ("of the peak FLOP/s", 1.0),
}
_TITLES = {
    "n_experts": "E", "top_k": "k", "d_model": "width", "n_layers": "layers", "n_heads": "heads", "d_head": "of head",
    "n_kv_heads": "kv heads",
    "phase": "phase", "batch": "batch", "context": "context",
    "time_ms": "ms", "time_q25_ms": "q25", "time_q75_ms": "q75", "tokens_per_s": "tok/s",
    "distinct_experts": "experts", "roofline_ms": "floor",
}  # fmt: skip
# Shown where they were varied.
_SHAPE = ("n_experts", "top_k", "d_model", "n_layers", "n_heads", "d_head", "n_kv_heads")


def latency_page(law: LatencyLaw, worst: pd.DataFrame, read: Sequence[str]) -> Page:
    """How well step time is predicted, the coefficients in readable units, the errors on levels left out."""
    device, error = law.device, law.held_out.get("all", law.after)
    what = "on levels left out" if "all" in law.held_out else "on the rows fitted"
    notes = []
    if law.at_bound:
        notes.append(f"at its bound (a cost of 0, or a share of 1): {listed(law.at_bound)}")
    if law.absent:
        notes.append(f"absent from these rows and taken as 0: {listed(law.absent)}")
    if law.terms_alone is not None:
        notes.append(
            "steps near measured ones are corrected by these (kriging); the terms alone are "
            f"{law.terms_alone.median:.1%} off on what was left out (median)"
        )
    caches = "".join(f", {s / 1e9:.4g} GB/s up to {b / 2**20:.3g} MiB" for b, s in device.levels)
    return Page(
        f"{device.title}: step time predicted within {error.median:.0%} (median) {what}",
        why=(
            f"Fitted to {plural(law.n_rows, 'row')} of {plural(law.n_shapes, 'shape')} in {law.dtype}; the shares "
            f"assumed without a measurement are {law.before.median:.0%} off.",
        ),
        tables=(_coefficients(law), _errors(law)),
        notes=tuple(notes),
        read=tuple(read),
        warnings=law.warnings,
        details=(
            _FORMULA,
            f"peak {device.peak_flops / 1e9:.4g} GFLOP/s, {device.bandwidth / 1e9:.4g} GB/s{caches}",
            _worst(worst),
        ),
    )


def _coefficients(law: LatencyLaw) -> Table:
    rows = []
    for name, ends in law.intervals.items():
        unit, factor = _UNITS[name]
        value, low, high = (f"{factor * seconds:.3g}" for seconds in (getattr(law.efficiency, name), *ends))
        rows.append([name, value, f"{low} to {high}", unit])
    return text_table("", ("coefficient", "value", "95 % interval", "unit"), rows, ("coefficient", "unit"))


def _errors(law: LatencyLaw) -> Table:
    by_what = {**law.held_out, "none, shares assumed": law.before, "none, the terms alone": law.after}
    rows = [
        [name, f"{error.median:.1%}", f"{error.p90:.1%}", str(error.rows), listed(error.levels, empty="")]
        for name, error in by_what.items()
    ]
    headings = ("left out", "median error", "90th percentile", "rows", "levels")
    return text_table("", headings, rows, ("left out", "levels"))


def _worst(worst: pd.DataFrame) -> Table:
    rows = [
        [str(row["phase"]), *(f"{row[name]:g}" for name in PLACE[1:]), f"{row['time_ms']:.3g}",
         f"{row['modelled_ms']:.3g}", f"{row['error']:+.0%}"]
        for row in worst.to_dict("records")
    ]  # fmt: skip
    headings = [*(_TITLES[name] for name in PLACE), "measured ms", "modelled ms", "error"]
    return text_table("Largest errors", headings, rows, ("phase",))


def bench_page(rows: Sequence[Mapping[str, Any]]) -> Page:
    """The measurements, of the shape only what was varied."""
    dtypes = listed(dict.fromkeys(row["dtype"] for row in rows))
    names = [name for name in _TITLES if name not in _SHAPE or len({row.get(name) for row in rows}) > 1]
    table = text_table(
        "", [_TITLES[name] for name in names], [[_cell(name, row[name]) for name in names] for row in rows]
    )
    busy = max(row["busy_cores"] or 0.0 for row in rows)
    warning = f"other processes used {busy:.1f} cores; timings may be off: repeat them on an idle machine"
    prompts = min((row["batch"] for row in rows if row["phase"] == "prefill"), default=1)
    together = (
        f"prompts were timed {prompts} or more at once, and prices read them one at a time: measure `batch` 1 too"
    )
    doubts = {warning: busy > BUSY, together: prompts > FAR}
    fastest = min((row for row in rows if row["phase"] == "decode"), key=lambda row: row["time_ms"], default=rows[0])
    return Page(
        f"{rows[0]['device_kind']}, {plural(rows[0]['threads'], 'thread')}, {dtypes}: fastest {fastest['phase']} step "
        f"{fastest['time_ms']:.3g} ms",
        tables=(table,),
        notes=("ms: median of the repeats; q25, q75: their quartiles; floor: the roofline; all in ms",),
        warnings=tuple(doubt for doubt, holds in doubts.items() if holds),
    )


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    return si(value) if name == "tokens_per_s" else f"{value:.3g}" if isinstance(value, float) else str(value)
