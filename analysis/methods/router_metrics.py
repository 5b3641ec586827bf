"""Router metrics of a comparison with their values under random routing, decode times, and saturation in training."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pandas as pd

from analysis.methods.comparison import MethodComparison
from analysis.tables.study import curve, table_rows
from scaling.errors import InputError
from scaling.schema import CHANCES

METRICS = (
    "load_cv", "max_load", "utilisation", "router_entropy", "experts_per_token", "gate_sum", "dropped_frac",
    "distinct_1", "distinct_8", "distinct_64", "saturation_5", "saturation_50", "change_rate", "specialisation",
)  # fmt: skip


def router_metrics(comparison: MethodComparison) -> pd.DataFrame:
    """Router metrics by method: `method`, `metric`, `value` (mean over seeds), `least`, `most`, `chance`.

    `chance` is the metric under independent uniform choices of as many experts, NaN where undefined.
    """
    levels = []
    for metric in (name for name in METRICS if name in comparison.runs):
        by_chance = f"{metric.removesuffix('_50').removesuffix('_5')}_chance"
        has_chance = by_chance in CHANCES and by_chance in comparison.runs
        for method, runs in comparison.runs.dropna(subset=[metric]).groupby("method"):
            values, chance = runs[metric], float(runs[by_chance].mean()) if has_chance else float("nan")
            levels.append((method, metric, float(values.mean()), float(values.min()), float(values.max()), chance))
    return pd.DataFrame(levels, columns=["method", "metric", "value", "least", "most", "chance"])


def decode_times(study: str | Path, comparison: MethodComparison) -> pd.DataFrame:
    """Measured decode steps at the longest context: `method`, `batch`, `context`, `time_ms`, `time_q25_ms`,
    `time_q75_ms` (medians over seeds) and `times`, relative to the reference at the same batch; empty without any."""
    measured = table_rows(Path(study), "latency")
    by, columns = ["method", "batch", "context"], ["time_ms", "time_q25_ms", "time_q75_ms"]
    if measured.empty:
        return pd.DataFrame(columns=[*by, *columns, "times"])
    decode = measured[measured["phase"] == "decode"].merge(comparison.runs[["run_id", "method"]], on="run_id")
    decode = decode[decode["context"] == decode["context"].max()]
    medians = decode.groupby(by, as_index=False)[columns].median()
    base = medians[medians["method"] == comparison.reference].set_index("batch")["time_ms"]
    return medians.assign(times=medians["time_ms"] / medians["batch"].map(base))


def saturation(study: str | Path, comparison: MethodComparison) -> pd.DataFrame:
    """Share of the final experts that tokens had already chosen: `method`, `tokens`, `saturation`, `chance`, means over
    seeds. The last probe is the final routing itself, so every curve ends at 1."""
    columns = ["method", "tokens", "saturation", "saturation_chance"]
    curves = []
    for run_id, method in zip(comparison.runs["run_id"], comparison.runs["method"], strict=True):
        with contextlib.suppress(InputError):  # a curve that cannot be read, which the report names
            measured = curve(Path(study), str(run_id)).assign(method=method)
            curves.append(measured.reindex(columns=columns).dropna(subset="saturation"))
    if not curves:
        return pd.DataFrame(columns=[*columns[:3], "chance"])
    means = pd.concat(curves).groupby(["method", "tokens"], as_index=False)[columns[2:]].mean()
    return means.rename(columns={"saturation_chance": "chance"})
