"""What a report contains: its sections and figures in order, as the data and the pictures that the template reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis import figures
from analysis.figures import Figure
from analysis.report.blocks import Block
from analysis.report.plots import decision as decision_plots
from analysis.report.plots import methods as method_plots
from analysis.report.plots import rates as rate_plots
from analysis.report.plots import returns as return_plots
from analysis.report.plots import study as study_plots
from analysis.report.plots import validation as validation_plots
from analysis.report.sections import (
    decision,
    law,
    methods,
    reproduction,
    runs,
    serving,
    task,
    validation,
    what_if,
    worth,
)
from analysis.report.study import ReportStudy
from analysis.report.subject import Subject
from analysis.report.task_study import TaskStudy
from scaling.errors import InputError
from scaling.formatting import sentence

_SUBTITLE = "Expert count, width and training tokens, with the cost of serving included"


def content(subject: Subject) -> dict[str, Any]:
    """The data of the template."""
    title, subtitle, front = _front(subject)
    dated = [] if subject.made is None else [f"{subject.made.day} {subject.made:%B %Y}"]
    return {
        "title": title,
        "author": "scaling",
        "kicker": " · ".join(["Plan" if type(subject) is Subject else "Scaling study", subject.name, *dated]),
        "subtitle": subtitle,
        "footer": " · ".join([subject.name, *dated, *_code(subject)]),
        **front,
        "sections": [{"title": heading, "blocks": blocks} for heading, blocks in _sections(subject)],
    }


def _front(subject: Subject) -> tuple[str, str, dict[str, Any]]:
    """Title, subtitle and first page."""
    if isinstance(subject, TaskStudy):
        source = f", {subject.task.source}" if subject.task.source else ""
        return sentence(subject.task.title).rstrip("."), f"Task {subject.task.name}{source}", task.front_page(subject)
    if subject.answers:
        return "How many experts?", _SUBTITLE, decision.front_page(subject)
    subtitle = "Routers and experts at one model size; intervals cover seeds and text"
    return methods.TITLE, subtitle, methods.front_page(_study(subject))


def _sections(subject: Subject) -> list[tuple[str, list[Block]]]:
    """The engineer's pages: those on the answer, and those on the runs where a study is reported."""
    if isinstance(subject, TaskStudy):
        return task.sections(subject)
    made_by = ("How to reproduce this", reproduction.reproduction(subject))
    if not subject.answers:
        study = _study(subject)
        return [("The ranking", methods.section(study)), ("What was run", runs.evidence(study)), made_by]
    ran, judged = [], []
    if isinstance(subject, ReportStudy):
        ran = [("What was run", runs.evidence(subject)), ("What experts do", runs.expert_effect(subject))]
        ran += [(methods.TITLE, methods.section(subject))] if subject.comparisons else []
        judged = [(validation.TITLE, validation.belief(subject))]
    return [
        ("The decision in detail", decision.decision(subject)),
        (what_if.TITLE, what_if.what_if(subject)),
        *([] if subject.worth is None else [(worth.TITLE, worth.worth(subject))]),
        *ran,
        ("The law", law.law(subject)),
        *judged,
        ("What serving costs", serving.serving(subject)),
        (serving.ASSUMPTIONS, serving.assumptions(subject)),
        made_by,
    ]


def drawn(subject: Subject) -> list[Callable[[Any], Figure]]:
    """The functions that draw the figures of this subject."""
    if isinstance(subject, TaskStudy):
        return [*return_plots.drawn(subject.returns), *rate_plots.drawn(subject.rates)]
    plots = decision_plots.drawn(subject)
    if isinstance(subject, ReportStudy):
        plots += [draw for of in (study_plots, validation_plots, method_plots) for draw in of.drawn(subject)]
    return plots


def write_contents(subject: Subject, folder: Path) -> None:
    """Write the template, its data and its figures to a folder."""
    for draw in drawn(subject):
        figures.save(draw(subject), folder / f"{draw.__name__}.svg")
    data = json.dumps(content(subject), ensure_ascii=False)
    (folder / "data.json").write_text(data, encoding="utf-8", errors="replace")  # names of files may be no text
    shutil.copy(Path(__file__).with_name("report.typ"), folder)


def write_first_figure(subject: Subject, path: Path) -> None:
    """Write the figure of page 1, as .png, .svg or .pdf. Raises InputError where there is none."""
    if isinstance(subject, TaskStudy):
        found = drawn(subject)
        if not found:
            asked = "rates" if subject.task.primary.better == "lower" else "returns"
            folder = subject.path / asked
            raise InputError(f"{subject.path}: no figure yet: `scaling {asked}` with `out` in {folder} makes one")
        figures.save(found[0](subject), path)
        return
    figures.save(decision_plots.hero(subject) if subject.answers else method_plots.methods(_study(subject)), path)


def made_at(subject: Subject) -> datetime:
    """The date of the PDF: that of the subject, so that the same study gives the same file."""
    return subject.made or datetime.fromtimestamp(0, UTC)


def _study(subject: Subject) -> ReportStudy:
    if not isinstance(subject, ReportStudy):
        raise TypeError("only a study is reported without an answer")
    return subject


def _code(subject: Subject) -> list[str]:
    """The version of the code that ran, as far as it is recorded."""
    if isinstance(subject, TaskStudy):
        return [str(version) for version in subject.runs["code_version"].iloc[-1:]]
    if not isinstance(subject, ReportStudy):
        return []
    return [str(version) for version in subject.table.frame["code_version"].dropna().iloc[-1:]]
