"""Imports: another table as a study folder, in our columns."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.tables.counts import COUNTS
from analysis.tables.rows import Rows, rows_of
from analysis.tables.run_names import named_apart, named_by_content
from analysis.tables.runs import RunTable, read_runs
from scaling.arrays import Booleans
from scaling.columns import TOKENS
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.schema import RUNS, SCHEMA_VERSION, arrow_schema, write_parquet


def import_runs(
    source: str | Path,
    out: Path,
    mapping: Mapping[str, str] | None = None,
    where: str | None = None,
    drop_highest_loss: int = 0,
    drop_duplicates: bool = False,
) -> tuple[RunTable, Path, tuple[str, ...]]:
    """Write a table's runs as one part under `out`/runs; returns the table, the part's path and the columns left out.

    The part is named by its content, so importing a table twice writes it once, and overlapping imports into one study
    repeat no run (`analysis.tables.run_names`). The study is called after the folder, in the letters of such names.
    Counts are rounded to whole numbers. Raises InputError for a table
    without loss, tokens or any parameter count, or without a row that has all three, and for a value that does not fit
    its column's type.
    """
    study = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(os.path.abspath(out)).name).strip("-._") or "study"
    table = read_runs(source, mapping, where, None, drop_highest_loss, drop_duplicates)
    if TOKENS not in table.frame or not any(name in table.frame for name in COUNTS):
        raise InputError(
            f"{source}: an import needs tokens (or train_flops and n_active) and a parameter count such as n_active"
        )
    _require_usable(rows_of(table))
    frame = table.frame[[name for name in RUNS if name in table.frame]]
    frame = frame.assign(study=study, status="ok", error="", schema_version=SCHEMA_VERSION)
    frame["run_id"] = named_by_content(table.frame)
    for name, column in RUNS.items():
        if name not in frame:
            frame[name] = None
        elif column.type == pa.int64():
            frame[name] = _whole(frame[name], str(source))
        elif column.type == pa.string():
            frame[name] = frame[name].astype("str").where(frame[name].notna(), None)
    frame, note = named_apart(frame[list(RUNS)], out)
    try:
        part = pa.Table.from_pandas(frame, schema=arrow_schema("runs"), preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{source}: a value does not fit its column ({error})") from error
    digest = hashlib.sha256(np.ascontiguousarray(pd.util.hash_pandas_object(frame, index=False)).tobytes())
    path = out / "runs" / f"{digest.hexdigest()[:16]}.parquet"
    write_parquet(path, part, root=out)
    table = replace(table, notes=(*table.notes, *note))
    return table, path, tuple(str(name) for name in table.frame.columns if name not in RUNS)


def _whole(counts: pd.Series[Any], source: str) -> pd.Series[Any]:
    """Counts rounded to whole numbers. Raises InputError for a count that does not fit in 64 bits."""
    whole = counts.round()
    beyond = whole[whole.abs() >= 2.0**63]
    if len(beyond):
        raise InputError(
            f"{source}: {counts.name} = {beyond.iloc[0]:g} is too large for a count; drop such rows with `where`"
        )
    return whole.astype("Int64")


def _require_usable(rows: Rows) -> None:
    """Raise InputError, by row, where no run has both tokens and a parameter count."""
    counts = [name for name in COUNTS if name in rows.frame]
    with_count = np.any([_positive(rows, name) for name in counts], axis=0)
    for name, usable in ((TOKENS, _positive(rows, TOKENS)), (listed(counts), with_count)):
        if not usable.any():
            raise rows.refusal(f"no run can be used: {name} is missing or not positive {rows.named(~usable)}")
    if not (with_count & _positive(rows, TOKENS)).any():
        raise rows.refusal(f"no run can be used: none has both {TOKENS} and {listed(counts)}")


def _positive(rows: Rows, name: str) -> Booleans:
    values = rows.floats(name)
    return np.isfinite(values) & (values > 0)
