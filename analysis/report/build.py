"""The report of a study as a PDF: the decision first, then the evidence. It computes nothing; it lays out."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from scaling.errors import InputError, WorkError
from scaling.files import write_atomically

PICTURE_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class WrittenReport:
    """What was written, and what a reader of the terminal should know about it."""

    path: Path
    picture: Path | None
    notes: tuple[str, ...]


def build_report(study_dir: str | Path, out: str | Path, picture: str | Path | None = None) -> WrittenReport:
    """Write the report of a study folder to `out` (.pdf), and its first figure to `picture` (.png, .svg or .pdf).

    Reads runs, evaluations, latency, fits/*.json and recommendations/*.json; the alphabetically first recommendation is
    the decision. Missing fits or recommendations are made with the defaults, and the report says so; a study of several
    methods, of which no law can be fitted, is a decision between them. The same folder gives the same bytes, except
    where a price rests on this computer's CPU, which is measured anew. Raises InputError for a folder without usable
    runs, for another suffix, or where matplotlib or typst are missing; WorkError where the PDF cannot be made.
    """
    missing = [name for name in ("matplotlib", "typst") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"the report needs {' and '.join(missing)}; install with: pip install 'moe-scaling[report]'")
    path = _path("out", out, ".pdf")
    picture_path = None if picture is None else _path("picture", picture, *PICTURE_SUFFIXES)
    from analysis.report.contents import made_at, write_contents, write_first_figure
    from analysis.report.study import load_report_study

    study = load_report_study(Path(study_dir))
    with tempfile.TemporaryDirectory() as folder:
        write_contents(study, Path(folder))
        pdf = compile_pdf(Path(folder), made_at(study))
    write_atomically(path, pdf)
    if picture_path is not None:
        write_first_figure(study, picture_path)
    return WrittenReport(path, picture_path, study.notes)


def _path(field: str, name: str | Path, *suffixes: str) -> Path:
    path = Path(name)
    if path.suffix not in suffixes:
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
