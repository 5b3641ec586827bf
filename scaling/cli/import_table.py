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

    runs, part, ignored = import_runs(table, out, pairs(maps, "--map"), where, drop_highest_loss, drop_duplicates)
    note_table(runs.dropped, runs.notes)
    if ignored:
        note(f"columns left behind: {', '.join(ignored)}")
    document = {
        "study": str(out),
        "part": str(part),
        "n_runs": len(runs),
        "dropped": runs.dropped,
        "notes": runs.notes,
        "ignored_columns": ignored,
    }
    print_answer(document, as_json, f"{len(runs)} runs in {part}")
