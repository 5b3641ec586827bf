"""Imports: another table as a study folder, in our columns."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from analysis.tables.counts import COUNTS
from analysis.tables.runs import RunTable, read_runs
from scaling.columns import TOKENS
from scaling.errors import InputError
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

    The part is named by its content, so importing a table twice writes it once. Without a column `run_id` a run is
    named by its row's content, so overlapping imports into one study repeat no run. Counts are rounded to whole
    numbers. Raises InputError for a table without loss, tokens or any parameter count, and for a value that does not
    fit its column's type.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", out.name):
        raise InputError(
            f"`out` {out}: {out.name!r} is not a valid study name: use letters, digits, dots, dashes and underscores"
        )
    table = read_runs(source, mapping, where, None, drop_highest_loss, drop_duplicates)
    if TOKENS not in table.frame or not any(name in table.frame for name in COUNTS):
        raise InputError(
            f"{source}: an import needs tokens (or train_flops and n_active) and a parameter count such as n_active"
        )
    frame = table.frame[[name for name in RUNS if name in table.frame]]
    frame = frame.assign(study=out.name, status="ok", error="", schema_version=SCHEMA_VERSION)
    if "run_id" not in frame:
        frame["run_id"] = _content_ids(table.frame)
    for name, column in RUNS.items():
        if name not in frame:
            frame[name] = None
        elif column.type == pa.int64():
            frame[name] = _whole(frame[name], str(source))
        elif column.type == pa.string():
            frame[name] = frame[name].astype("str").where(frame[name].notna(), None)
    try:
        part = pa.Table.from_pandas(frame[list(RUNS)], schema=arrow_schema("runs"), preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{source}: a value does not fit its column ({error})") from error
    digest = hashlib.sha256(np.ascontiguousarray(pd.util.hash_pandas_object(frame[list(RUNS)], index=False)).tobytes())
    path = out / "runs" / f"{digest.hexdigest()[:16]}.parquet"
    write_parquet(path, part, root=out)
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


def _content_ids(frame: pd.DataFrame) -> list[str]:
    """A name for every row, the hash of its content; the second of equal rows ends in "-2", and so on."""
    hashes = pd.util.hash_pandas_object(frame, index=False)
    copies = hashes.groupby(hashes).cumcount()
    return [f"{row:016x}" + (f"-{copy + 1}" if copy else "") for row, copy in zip(hashes, copies, strict=True)]
