"""Training curves of a study with the columns of their runs: of finished cells, and of those that train now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.tables.expressions import where_selected
from analysis.tables.reading_log import ReadingLog
from analysis.tables.study import table_rows
from scaling import live, parts
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.schema import CURVES

RUNNING = "running"
_OF_RUN = "run_"  # before columns that runs and curves both have


def training_curves(study: Path, where: str | None = None) -> pd.DataFrame:
    """One row for each row of a curve, with `running` and the columns of its run (`run_tokens` and so on for those of
    the same name), in the order of steps.

    `where` selects runs by their columns; `running` is one of them. A cell that trains now, or whose worker died, has
    the curve of its live file. Raises InputError where the study has no curve, or none of these runs has.
    """
    runs, curves = _finished(study)
    going, told = _running(study, set(runs[parts.RUN]))
    runs = pd.concat([frame for frame in (runs, going) if len(frame)] or [runs], ignore_index=True)
    curves = pd.concat([frame for frame in (curves, told) if len(frame)] or [curves], ignore_index=True)
    if curves.empty:
        raise InputError(f"{study}: no curves, neither in curves/*.parquet or curves.parquet nor of a running cell")
    chosen = where_selected(runs, where, ReadingLog())
    both = {name: f"{_OF_RUN}{name}" for name in chosen.columns if name in curves.columns and name != parts.RUN}
    joined = curves.merge(chosen.rename(columns=both), on=parts.RUN, how="inner", validate="many_to_one")
    if joined.empty:
        some = listed(sorted(runs[parts.RUN].astype(str)), most=3)
        raise InputError(f"{study}: `where` {where!r} selects no run with a curve; there are {some}")
    return joined.sort_values([parts.RUN, "step"], kind="stable", ignore_index=True)


def _finished(study: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs and curves of the cells with a row."""
    runs = table_rows(study, "runs").drop(columns="config", errors="ignore").drop_duplicates(parts.RUN, keep="last")
    return runs.assign(**{RUNNING: False}), table_rows(study, "curves")


def _running(study: Path, done: set[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs and curves of the cells that have a live file and no row."""
    runs: dict[str, dict[str, Any]] = {}
    rows: list[dict[str, Any]] = []
    for path in live.files(study):
        if (read := live.read_beats(path)) is None:
            continue
        call, beats = read
        for cell in call.current:
            if cell.run_id in done or cell.run_id in runs:
                continue
            curve = live.curve_rows(call, beats, cell.run_id)
            if curve:
                runs[cell.run_id] = {**cell.columns, parts.RUN: cell.run_id, RUNNING: True}
                rows += [{parts.RUN: cell.run_id} | {k: v for k, v in row.items() if k in CURVES} for row in curve]
    return pd.DataFrame([*runs.values()]), pd.DataFrame(rows)
