"""`scaling report`: an answer, a study folder or both -> a PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaling.cli.options import Json
from scaling.cli.output import deliver


def report(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="ANSWER|DIR", help="A file that `recommend --out` wrote, or a study folder (`sweep run --out`)."
        ),
    ],
    answer: Annotated[
        Path | None,
        typer.Option(metavar="ANSWER", help="With DIR: the answer to report, instead of DIR/recommendations/*.json."),
    ] = None,
    fit: Annotated[
        str | None, typer.Option(metavar="FIT", help="The fit behind the answer, where it is not where ANSWER says.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="PDF to write; without it ANSWER with the suffix .pdf, or DIR/report.pdf.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Also write page 1's figure: .png, .svg or .pdf.")] = None,
    as_json: Json = False,
) -> None:
    """Write the report of an answer, of a study, or of both: the decision first, then the evidence.

    Of a study it uses DIR/fits/*.json and DIR/recommendations/*.json; what is missing is made with the defaults, and it
    says so.
    """
    from analysis.report.build import build_report
    from scaling.cli.show.page import Page

    usual = source / "report.pdf" if source.is_dir() else source.with_suffix(".pdf")
    written = build_report(source, usual if out is None else out, picture, answer=answer, fit=fit)
    drawn = None if written.picture is None else str(written.picture)
    document = {"report": str(written.path), "picture": drawn, "notes": list(written.notes)}
    page = Page(str(written.path), why=() if drawn is None else (drawn,), read=tuple(written.notes))
    deliver(document, page, as_json=as_json)
