"""`scaling import`: somebody else's table as a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import DropHighest, Json, Maps, Where, pairs
from scaling.cli.output import note, note_table, print_answer


def import_table(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="Somebody's runs: a CSV, TSV, JSON, JSON lines or Parquet file.")
    ],
    out: Annotated[Path, typer.Option(help="Study folder to write.")],
    maps: Maps = None,
    where: Where = None,
    drop_highest_loss: DropHighest = 0,
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Leave out rows that repeat an earlier one in every cell.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a study folder of somebody else's table, so that every later command can read it.

    Keeps the columns that the run table knows. Where tokens are missing, D = C/(6 N); counts that follow from others
    are derived. What the counts are taken for, what was derived and what was left out is printed.
    """
    from analysis.tables.import_study import import_runs

    table_read, part, unknown = import_runs(table, out, pairs(maps, "--map"), where, drop_highest_loss, drop_duplicates)
    told = {
        "study": str(out),
        "part": str(part),
        "n_runs": len(table_read),
        "dropped": table_read.dropped,
        "notes": table_read.notes,
        "ignored_columns": unknown,
    }
    note_table(table_read.dropped, table_read.notes)
    if unknown:
        note(f"columns left behind: {', '.join(unknown)}")
    print_answer(told, as_json, f"{len(table_read)} runs in {part}")
