"""Router metrics of a comparison: levels beside chance, decode times, saturation along training."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.methods.comparison import MethodComparison
from analysis.tables import study as study_module
from scaling.schema import CHANCES

METRICS = (
    "load_cv", "max_load", "utilisation", "router_entropy", "experts_per_token", "gate_sum", "dropped_frac", "distinct_1",
    "distinct_8", "distinct_64", "saturation_5", "saturation_50", "change_rate", "specialisation",
)  # fmt: skip


def router_metrics(made: MethodComparison) -> pd.DataFrame:
    """What the routers did, beside chance: `method`, `metric`, `value` (mean over seeds), `least`, `most`, `chance`.

    `chance` is the same metric of independent uniform choices of as many experts, NaN where it is not defined.
    """
    found = []
    for metric in (name for name in METRICS if name in made.runs):
        by_chance = f"{metric.removesuffix('_50').removesuffix('_5')}_chance"
        known = by_chance in CHANCES and by_chance in made.runs
        for method, mine in made.runs.dropna(subset=[metric]).groupby("method"):
            each, chance = mine[metric], float(mine[by_chance].mean()) if known else float("nan")
            found.append((method, metric, float(each.mean()), float(each.min()), float(each.max()), chance))
    return pd.DataFrame(found, columns=["method", "metric", "value", "least", "most", "chance"])


def decode_times(study: str | Path, made: MethodComparison) -> pd.DataFrame:
    """Measured decode steps: `method`, `batch`, `context`, `time_ms`, `time_q25_ms`, `time_q75_ms`, and `times`, over
    the reference's at the same batch. At the longest context; medians over the seeds' measurements; empty without
    any."""
    rows = study_module.rows(Path(study), "latency")
    columns = ["method", "batch", "context", "time_ms", "time_q25_ms", "time_q75_ms"]
    if rows.empty:
        return pd.DataFrame(columns=[*columns, "times"])
    rows = rows[rows["phase"] == "decode"].merge(made.runs[["run_id", "method"]], on="run_id")
    rows = rows[rows["context"] == rows["context"].max()]
    found = rows.groupby(["method", "batch", "context"], as_index=False)[columns[3:]].median()
    base = found[found["method"] == made.reference].set_index("batch")["time_ms"]
    return found.assign(times=found["time_ms"] / found["batch"].map(base))


def saturation(study: str | Path, made: MethodComparison) -> pd.DataFrame:
    """Share of the final experts that tokens had chosen already: `method`, `tokens`, `saturation`, `chance`; means over
    seeds.

    The last probe is the final routing itself, so every curve ends at 1.
    """
    columns = ["method", "tokens", "saturation", "chance"]
    curves = []
    for _, run in made.runs.iterrows():
        curve = study_module.curve(Path(study), str(run["run_id"]))
        if {"saturation", "saturation_chance"} <= set(curve.columns):
            curves.append(curve.dropna(subset=["saturation"]).assign(method=run["method"]))
    if not curves:
        return pd.DataFrame(columns=columns)
    both = pd.concat(curves).rename(columns={"saturation_chance": "chance"})
    return both.groupby(["method", "tokens"], as_index=False)[["saturation", "chance"]].mean()[columns]
