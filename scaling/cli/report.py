"""`scaling report`: a study folder -> report.pdf."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import Json
from scaling.cli.output import note, print_answer


def report(
    study: Annotated[Path, typer.Argument(metavar="DIR", help="Study folder, as `sweep run --out` wrote it.")],
    out: Annotated[Path | None, typer.Option(help="PDF to write; DIR/report.pdf if not given.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also write page 1's figure: .png, .svg or .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """Write the report of a study: the decision first, then the evidence.

    It uses DIR/fits/*.json and DIR/recommendations/*.json; what is missing is made with the defaults, and it says so.
    """
    from analysis.report.build import build_report

    written = build_report(study, study / "report.pdf" if out is None else out, picture)
    for text in written.notes:
        note(text)
    drawn = None if written.picture is None else str(written.picture)
    document = {"report": str(written.path), "picture": drawn, "notes": list(written.notes)}
    print_answer(document, as_json, "\n".join(filter(None, (str(written.path), drawn))))
