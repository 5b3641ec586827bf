"""What a report contains: its sections and figures in order, as the data and the pictures that the template reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from analysis import figures
from analysis.figures import Figure
from analysis.report.plots import decision as decision_plots
from analysis.report.plots import methods as method_plots
from analysis.report.plots import study as study_plots
from analysis.report.plots import validation as validation_plots
from analysis.report.sections import decision, law, methods, reproduction, runs, serving, validation, what_if
from analysis.report.study import Study


def content(study: Study) -> dict[str, Any]:
    """The data of the template."""
    if study.answers:
        title, subtitle = (
            "How many experts?",
            "Expert count, width and training tokens, with the cost of serving included",
        )
        front = decision.front_page(study)
        sections = [
            ("The decision in detail", decision.decision),
            (what_if.TITLE, what_if.what_if),
            ("What was run", runs.evidence),
            ("What experts do", runs.expert_effect),
            *([(methods.TITLE, methods.section)] if study.comparisons else []),
            ("The law", law.law),
            (validation.TITLE, validation.belief),
            ("What serving costs", serving.serving),
            ("Assumptions and warnings", serving.assumptions),
        ]
    else:
        title = methods.TITLE
        subtitle = "Routers and experts at one model size; intervals cover seeds and documents"
        front = methods.front_page(study)
        sections = [("The ranking", methods.section), ("What was run", runs.evidence)]
    sections.append(("How to reproduce this", reproduction.reproduction))
    return {
        "title": title,
        "author": "scaling",
        "kicker": f"Scaling study · {study.name}",
        "subtitle": subtitle,
        "footer": " · ".join([study.name, *_date_and_code(study)]),
        **front,
        "sections": [{"title": heading, "blocks": make(study)} for heading, make in sections],
    }


def drawn(study: Study) -> list[Callable[[Study], Figure]]:
    """The functions that draw the figures of this study."""
    return [
        draw for plots in (study_plots, decision_plots, validation_plots, method_plots) for draw in plots.drawn(study)
    ]


def write_contents(study: Study, folder: Path) -> None:
    """Write the template, its data and its figures to a folder."""
    for draw in drawn(study):
        figures.save(draw(study), folder / f"{draw.__name__}.svg")
    (folder / "data.json").write_text(json.dumps(content(study), ensure_ascii=False), encoding="utf-8")
    shutil.copy(Path(__file__).with_name("report.typ"), folder)


def write_first_figure(study: Study, path: Path) -> None:
    """Write the figure of page 1, as .png, .svg or .pdf."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figures.save((study_plots.hero if study.answers else method_plots.methods)(study), path)


def made_at(study: Study) -> datetime:
    """When the last run started: the report's date, so that the same study gives the same file."""
    started = study.table.frame["started_at"].dropna()
    return datetime.fromisoformat(started.max() if len(started) else "1970-01-01T00:00:00+00:00")


def _date_and_code(study: Study) -> list[str]:
    """Date and code of the runs, as far as they are recorded."""
    frame = study.table.frame
    dates = [f"runs of {made_at(study):%d %B %Y}"] if frame["started_at"].notna().any() else []
    return dates + [str(version) for version in frame["code_version"].dropna().iloc[-1:]]
