"""The report of a study or an answer as a PDF: the decision first, then the evidence. It only lays out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.distribution import require_installed
from scaling.errors import InputError, WorkError
from scaling.files import write_atomically

if TYPE_CHECKING:
    from analysis.decision.answer import Answer
    from analysis.fitting.fit import Fit
    from analysis.report.subject import Subject

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".gz")


@dataclass(frozen=True)
class WrittenReport:
    """What was written, and what a reader of the terminal should know about it."""

    path: Path
    picture: Path | None
    notes: tuple[str, ...]


def build_report(
    source: str | Path,
    out: str | Path,
    picture: str | Path | None = None,
    *,
    answer: str | Path | None = None,
    fit: str | Path | None = None,
) -> WrittenReport:
    """Write the report of a study folder or of an answer's file to `out` (.pdf), and its first figure to `picture`.

    Of a folder it reads runs, evaluations, latency, fits/*.json and recommendations/*.json; the alphabetically first
    recommendation is the decision, or that in the file `answer`. A folder of another task than the language model is
    reported by its metrics, and its rates/*.json. Missing fits or recommendations are made with the
    defaults, and the report says so; a study of several methods, of which no law can be fitted, is a decision between
    them. An answer's file names the fit behind it; `fit` is another place of that fit. The same source gives the same
    bytes, except where a price rests on this computer's CPU, which is measured anew. Raises InputError for a source
    that cannot be read or is of another kind, for another suffix, or where matplotlib or typst are missing; WorkError
    where the PDF cannot be made.
    """
    _require_packages()
    from analysis.report.study import load_report_study
    from analysis.report.subject import read_subject
    from analysis.report.task_study import load_task_study
    from analysis.tables.study import Study
    from analysis.tables.tasks import other_task

    source = Path(source)
    if not source.exists():
        raise InputError(f"{source}: neither a study folder nor a file that `scaling recommend --out` wrote")
    if source.is_dir() and (task := other_task(Study(source).runs, source)) is not None:
        if answer is not None or fit is not None:
            raise InputError(f"{source}: `answer` and `fit` are of language models, and its task is {task}")
        return _write(lambda: load_task_study(source), out, picture)
    if source.is_dir():
        return _write(lambda: load_report_study(source, None if answer is None else Path(answer), fit), out, picture)
    if source.name.lower().endswith(_TABLES):
        raise InputError(
            f"{source} is a table of runs, and a report is made of an answer or of a study: make a study of it with "
            f"`scaling import {source} --out DIR` and report DIR, or fit it and report what `scaling recommend --out "
            "FILE` writes"
        )
    if answer is not None:
        raise InputError(f"{source} and `answer` {answer}: with `answer`, give the folder of a study")
    return _write(lambda: read_subject(source, fit), out, picture)


def report_answer(answer: Answer, fit: Fit, out: str | Path, picture: str | Path | None = None) -> WrittenReport:
    """Write the report of an answer and the fit behind it, dated now, as `build_report` does that of its file."""
    _require_packages()
    from analysis.report.subject import subject_of

    return _write(lambda: subject_of(answer, fit, Path(out).stem, datetime.now().astimezone()), out, picture)


def _require_packages() -> None:
    require_installed("the report", "matplotlib", "typst")


def _write(read: Callable[[], Subject], out: str | Path, picture: str | Path | None) -> WrittenReport:
    """Lay out what is read once the names are known to be right."""
    path = _path("out", out, ".pdf")
    picture_path = None if picture is None else _path("picture", picture, *PICTURE_SUFFIXES)
    from analysis.report.contents import made_at, write_contents, write_first_figure

    subject = read()
    with tempfile.TemporaryDirectory() as folder:
        write_contents(subject, Path(folder))
        pdf = compile_pdf(Path(folder), made_at(subject))
    write_atomically(path, pdf)
    if picture_path is not None:
        write_first_figure(subject, picture_path)
    return WrittenReport(path, picture_path, subject.notes)


def _path(field: str, name: str | Path, *suffixes: str) -> Path:
    path = Path(name)
    if path.suffix.lower() not in suffixes:
        raise InputError(f"`{field}` {path}: the name must end in {' or '.join(suffixes)}")
    return path


def compile_pdf(folder: Path, made_at: datetime) -> bytes:
    """The PDF of a folder that holds report.typ and its data, dated `made_at`; raises WorkError where typst fails.

    System fonts are left out, so that it looks the same on every machine.
    """
    import typst

    fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=True)
    try:
        pdf: bytes = typst.compile(
            folder / "report.typ", root=folder, font_paths=fonts, timestamp=int(made_at.timestamp())
        )
    except typst.TypstError as error:
        raise WorkError(f"typst could not make the report: {error}") from error
    return pdf
