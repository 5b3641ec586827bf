"""`scaling report`: a study folder -> report.pdf."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def report(
    study: Annotated[Path, typer.Argument(metavar="DIR", help="Study folder, as `sweep run --out` wrote it.")],
    out: Annotated[Path | None, typer.Option(help="PDF to write; DIR/report.pdf if not given.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also write page 1's figure: .png, .svg or .pdf.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, messages on stderr.")] = False,
) -> None:
    """Write the report of a study: the decision first, then the evidence.

    It uses DIR/fits/*.json and DIR/recommendations/*.json; what is missing is made with the defaults, and it says so.
    """
    from analysis.report.build import build_report

    made = build_report(study, study / "report.pdf" if out is None else out, picture)
    for note in made.notes:
        print(note, file=sys.stderr)
    drawn = None if made.picture is None else str(made.picture)
    if as_json:
        print(json.dumps({"report": str(made.path), "picture": drawn, "notes": list(made.notes)}))
    else:
        print(*filter(None, (made.path, drawn)), sep="\n")
