"""The report of a study as a PDF: the decision first, then the evidence. It computes nothing; it lays out."""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from scaling.errors import InputError, WorkError
from scaling.files import write_atomically

_PICTURES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class WrittenReport:
    """What was written, and what a reader of the terminal should know about it."""

    path: Path
    picture: Path | None
    notes: tuple[str, ...]


def build_report(study_dir: str | Path, out: str | Path, picture: str | Path | None = None) -> WrittenReport:
    """Write the report of a study folder to `out` (.pdf), and its first figure to `picture` (.png, .svg or .pdf).

    Reads runs, evaluations, latency, fits/*.json and recommendations/*.json; the alphabetically first recommendation is
    the decision. Where fits or recommendations are missing they are made with the defaults and the report says so; but
    several methods make no law, and then the decision is which of them. The
    same folder gives the same bytes, except where a price rests on this computer's CPU, which is measured anew. Raises
    InputError for a folder without usable runs, for another suffix, or where matplotlib or typst are missing; WorkError
    where the PDF cannot be made.
    """
    _require("matplotlib", "typst")
    path, drawn = _named("--out", out, ".pdf"), None if picture is None else _named("--picture", picture, *_PICTURES)
    from analysis import figures
    from analysis.report.plots import study as pictures
    from analysis.report.study import load_report_study

    study = load_report_study(Path(study_dir))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _draw(study, root)
        (root / "data.json").write_text(json.dumps(_content(study), ensure_ascii=False), encoding="utf-8")
        shutil.copy(Path(__file__).with_name("report.typ"), root)
        pdf = _compile(root, _made_at(study))
    write_atomically(path, pdf)
    if drawn is not None:
        drawn.parent.mkdir(parents=True, exist_ok=True)
        figures.save((pictures.hero if study.answers else pictures.methods)(study), drawn)
    return WrittenReport(path, drawn, study.notes)


def _named(option: str, name: str | Path, *suffixes: str) -> Path:
    path = Path(name)
    if path.suffix not in suffixes:
        raise InputError(f"{option} {path}: allowed are names that end in {', '.join(suffixes)}")
    return path


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"the report needs {' and '.join(missing)}; install with: pip install 'scaling[report]'")


def _content(study: Any) -> dict[str, Any]:
    """The data of the template."""
    from analysis.report.sections import decision, law, methods, reproduction, runs, serving, validation, what_if

    several = [(methods.TITLE, methods.section)] if study.comparisons else []
    if study.answers:
        title, about = (
            "How many experts?",
            "How many experts, how wide and how many tokens, once serving is paid for too",
        )
        front = decision.front_page(study)
        parts = [
            ("The decision in detail", decision.decision),
            (what_if.TITLE, what_if.what_if),
            ("What was run", runs.evidence),
            ("What experts do", runs.expert_effect),
            *several,
            ("The law", law.law),
            (validation.TITLE, validation.belief),
            ("What serving costs", serving.serving),
            ("Assumptions and warnings", serving.assumptions),
        ]
    else:
        title, about = (
            methods.TITLE,
            "Ways of routing and forms of experts at one size, with seeds and documents in the intervals",
        )
        front = methods.front_page(study)
        parts = [("The ranking", methods.section), ("What was run", runs.evidence)]
    parts.append(("How to reproduce this", reproduction.reproduction))
    return {
        "title": title,
        "author": "scaling",
        "kicker": f"Scaling study · {study.name}",
        "subtitle": about,
        "footer": " · ".join([study.name, *_footer(study)]),
        **front,
        "sections": [{"title": heading, "blocks": make(study)} for heading, make in parts],
    }


def _draw(study: Any, folder: Path) -> None:
    from analysis import figures
    from analysis.report.plots import decision as serving_pictures
    from analysis.report.plots import study as pictures
    from analysis.report.plots import validation as check_pictures

    drawn: list[Callable[[Any], Any]] = []
    if study.answers:
        drawn += [
            pictures.hero,
            pictures.coverage,
            pictures.loss_against_size_and_tokens,
            pictures.loss_against_experts,
        ]
        drawn += [pictures.parameters]
        drawn += [pictures.paired] if len(study.effects.rows) else []
        drawn += [pictures.latency] if len(study.latency) else []
        drawn += serving_pictures.drawn(study)
        drawn += check_pictures.drawn(study)
    if study.comparisons:
        drawn.append(pictures.methods)
        drawn += [pictures.router_metrics_beside_chance] if len(pictures.shown_metrics(study)) else []
        drawn += [pictures.saturation] if len(pictures.shown_saturation(study)) else []
    for draw in drawn:
        figures.save(draw(study), folder / f"{draw.__name__}.svg")


def _footer(study: Any) -> list[str]:
    """Date and code of the runs, as far as they are recorded."""
    frame = study.table.frame
    dated = [f"runs of {_made_at(study):%d %B %Y}"] if frame["started_at"].notna().any() else []
    return dated + ([str(frame["code_version"].dropna().iloc[-1])] if frame["code_version"].notna().any() else [])


def _made_at(study: Any) -> datetime:
    """When the last run started: the report's date, so that the same study gives the same file."""
    started = study.table.frame["started_at"].dropna()
    return datetime.fromisoformat(started.max() if len(started) else "1970-01-01T00:00:00+00:00")


def _compile(root: Path, made_at: datetime) -> bytes:
    """The PDF. System fonts are left out, so that it looks the same on every machine."""
    import typst

    fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=True)
    try:
        pdf: bytes = typst.compile(root / "report.typ", root=root, font_paths=fonts, timestamp=int(made_at.timestamp()))
    except typst.TypstError as error:
        raise WorkError(f"typst could not make the report: {error}") from error
    return pdf
