"""Studies of replicates with planted power laws: as a frame, and as the folder that a task of this kind leaves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from scaling.schema import EVERY_TASK, REPLICATES, RUNS, SchemaColumn, to_arrow, write_parquet

LEVELS = (100, 300, 1000, 3000, 10_000, 30_000)
Law = Callable[[Mapping[str, Any]], float]  # the settings of a cell -> the value that its replicates scatter about
_TYPES = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}


def power(slope: float, factor: float = 2.0, column: str = "samples") -> Law:
    return lambda cell: factor * cell[column] ** slope


def replicates(
    cells: Iterable[Mapping[str, Any]],
    law: Law,
    count: int = 20,
    noise: float = 0.3,
    rng: np.random.Generator | None = None,
    seed: int = 0,
    shared: float = 0.0,
) -> pd.DataFrame:
    """One row a replicate: the settings of its cell, `seed`, `replicate`, and `risk`, whose logarithm has standard
    deviation `noise` about the law; a share `shared` of that variance is common to a replicate in all cells."""
    rng = rng or np.random.default_rng(seed)
    common = rng.normal(size=count)
    rows = []
    for cell in cells:
        own = rng.normal(size=count)
        scatter = noise * (np.sqrt(shared) * common + np.sqrt(1 - shared) * own)
        values = law(cell) * np.exp(scatter)
        rows += [{**cell, "seed": seed, "replicate": i, "risk": float(v)} for i, v in enumerate(values)]
    return pd.DataFrame(rows)


def write_rates(
    out: Path,
    frame: pd.DataFrame,
    *,
    metrics: Iterable[str] = ("risk",),
    failed: Iterable[Mapping[str, Any]] = (),
) -> Path:
    """A study folder of that frame, and of failed cells: `samples` is the budget, its other columns are settings; each
    metric has the values of `risk`."""
    metrics = [*metrics]
    names = [name for name in frame if name not in ("replicate", "risk", "seed")]
    kinds = {name: _TYPES[type(frame[name].tolist()[0])] for name in names}
    columns = {name: RUNS[name] for name in EVERY_TASK} | {
        **{name: SchemaColumn(kind, "", name) for name, kind in kinds.items()},
        **{metric: SchemaColumn(pa.float64(), "", "mean over replicates") for metric in metrics},
    }
    for values, rows in frame.groupby([*names, "seed"], sort=False):
        plain = (value.item() if isinstance(value, np.generic) else value for value in values)
        settings = dict(zip([*names, "seed"], plain, strict=True))
        row = _row(settings)
        evals = [
            {"replicate": number, "metric": metric, "value": value}
            for metric in metrics
            for number, value in zip(rows["replicate"].tolist(), rows["risk"].tolist(), strict=True)
        ]
        _write(out, "evals", row["run_id"], evals, REPLICATES)
        means = dict.fromkeys(metrics, float(rows["risk"].mean()))
        _write(out, "runs", row["run_id"], [row | {"status": "ok", **means}], columns)
    for cell in failed:
        row = _row({**cell, "seed": 0})
        _write(out, "runs", row["run_id"], [row | {"status": "diverged", "error": "risk has no finite value"}], columns)
    return out


def _row(settings: Mapping[str, Any]) -> dict[str, Any]:
    inner = {name: value for name, value in settings.items() if name not in ("samples", "seed")}
    config = json.dumps(
        {"task": "planted", "settings": inner, "seed": settings["seed"], "budget": settings["samples"]}, sort_keys=True
    )
    run_id = hashlib.sha256(config.encode()).hexdigest()[:16]
    return {"run_id": run_id, "task": "planted", "study": "planted", "config": config, **settings}


def _write(out: Path, table: Any, run_id: str, rows: list[dict[str, Any]], columns: Mapping[str, Any]) -> None:
    (out / table).mkdir(parents=True, exist_ok=True)
    write_parquet(out / table / f"{run_id}.parquet", to_arrow(table, rows, columns))


def write_mixture_regression(out: Path, count: int = 12) -> Path:
    """A study like that of mixtures of polynomial experts under the oracle gate (arXiv 1110.2058): the risk of m
    experts of order k with n samples is m^-2(k + 1) + m (k + 1) / n."""
    levels = {0: (4, 8, 16, 32, 64), 1: (2, 4, 8, 16, 32)}
    cells = [
        {"gate": "oracle", "target": "smooth", "noise": 10.0**-k, "order": k, "n_experts": m, "samples": n}
        for k, experts in levels.items()
        for m in experts
        for n in (1000, 10_000, 100_000)
    ]

    def risk(cell: Mapping[str, Any]) -> float:
        terms = cell["order"] + 1
        return cell["n_experts"] ** (-2.0 * terms) + cell["n_experts"] * terms / cell["samples"]

    metrics = ("squared_error", "approximation_error", "estimation_error")
    return write_rates(out, replicates(cells, risk, count=count, noise=0.1), metrics=metrics)
