"""Where the tables of a study are."""

from __future__ import annotations

import os
from pathlib import Path

from scaling.schema import Table

RUN = "run_id"


def part_path(study: Path, table: Table, run_id: str) -> Path:
    """The part of a run."""
    return study / table / f"{run_id}.parquet"


def packed_path(study: Path, table: Table) -> Path:
    """The packed table."""
    return study / f"{table}.parquet"


def part_paths(study: Path, table: Table) -> list[Path]:
    """The parts of a table by name, readable or not."""
    folder = study / table
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError:  # no folder, or one that we may not list
        return []
    return [folder / name for name in sorted(names) if name.endswith(".parquet") and not name.startswith((".", "_"))]


def files(study: Path, table: Table) -> list[Path]:
    """The files of a table, readable or not: the packed one first, then the parts by name."""
    packed = packed_path(study, table)
    return [*([packed] if packed.exists() else []), *part_paths(study, table)]
