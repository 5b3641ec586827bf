"""`scaling import`: a table of runs as a study."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import DropHighest, Json, Maps, Verbose, Where, pairs
from scaling.cli.output import deliver


def import_table(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="Your runs: a CSV, TSV, JSON, JSON lines or Parquet file.")
    ],
    out: Annotated[Path, typer.Option(help="Study folder to write.")],
    maps: Maps = None,
    where: Where = None,
    drop_highest_loss: DropHighest = 0,
    drop_duplicates: Annotated[
        bool, typer.Option("--drop-duplicates", help="Leave out rows that repeat an earlier one in every cell.")
    ] = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Make a study folder of a table of runs, which every later command reads.

    Keeps the columns of the run table. Where tokens are missing, D = C/(6 N); counts that follow from others are
    derived. The conventions assumed, the columns derived and the rows left out are printed.
    """
    from analysis.tables.import_study import import_runs
    from scaling.cli.show.page import Page, of_reading
    from scaling.formatting import plural

    runs, part, ignored = import_runs(table, out, pairs(maps, "--map"), where, drop_highest_loss, drop_duplicates)
    read = list(of_reading(runs.dropped, runs.notes))
    if ignored:
        read.append(f"columns ignored: {', '.join(ignored)}")
    document = {
        "study": str(out),
        "part": str(part),
        "n_runs": len(runs),
        "dropped": runs.dropped,
        "notes": runs.notes,
        "doubts": [asdict(doubt) for doubt in runs.doubts],
        "ignored_columns": ignored,
    }
    page = Page(
        f"{plural(len(runs), 'run')} imported as study {out}",
        notes=(f"written to {part}",),
        read=tuple(read),
        warnings=tuple(map(str, runs.doubts)),
    )
    deliver(document, page, as_json=as_json, verbose=verbose)
