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


def write_rates(out: Path, frame: pd.DataFrame, *, failed: Iterable[Mapping[str, Any]] = ()) -> Path:
    """A study folder of that frame, and of failed cells: `samples` is the budget, its other columns are settings."""
    names = [name for name in frame if name not in ("replicate", "risk", "seed")]
    kinds = {name: _TYPES[type(frame[name].tolist()[0])] for name in names}
    columns = {name: RUNS[name] for name in EVERY_TASK} | {
        **{name: SchemaColumn(kind, "", name) for name, kind in kinds.items()},
        "risk": SchemaColumn(pa.float64(), "", "mean over replicates"),
    }
    for values, rows in frame.groupby([*names, "seed"], sort=False):
        plain = (value.item() if isinstance(value, np.generic) else value for value in values)
        settings = dict(zip([*names, "seed"], plain, strict=True))
        row = _row(settings)
        evals = [
            {"replicate": number, "metric": "risk", "value": value}
            for number, value in zip(rows["replicate"].tolist(), rows["risk"].tolist(), strict=True)
        ]
        _write(out, "evals", row["run_id"], evals, REPLICATES)
        _write(out, "runs", row["run_id"], [row | {"status": "ok", "risk": float(rows["risk"].mean())}], columns)
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
