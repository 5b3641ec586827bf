"""What the tests of the report share: its data as read back, the template compiled, and checks made once and
quickly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typst

from analysis import laws
from analysis.decision import cost_curves
from analysis.decision.answer import Answer
from analysis.fitting import fit
from analysis.report import contents
from analysis.report import study as studies
from analysis.validation import checks
from scaling.values import digest

COMPARED = (
    laws.JOINT_MOE,
    laws.HOFFMANN,
    laws.law_named("overtraining"),
    laws.law_named("fine-grained"),
)  # the last is never served
_BLANK = '<svg xmlns="http://www.w3.org/2000/svg" width="160" height="60"/>'
_MADE: dict[tuple[str, int], checks.Checks] = {}


def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few resamples, folds and laws, and each fit checked once in a session: at its first budget, which moves advice
    alone."""
    monkeypatch.setattr(checks, "RESAMPLES", 10)
    monkeypatch.setattr(checks, "FOLDS", 3)
    monkeypatch.setattr(checks, "LAWS", {law.name: law for law in COMPARED})
    monkeypatch.setattr(studies, "DRAWS", 40)
    monkeypatch.setattr(studies, "fit", partial(fit.fit, n_starts=8))
    coarse(monkeypatch)

    def once(fit: Any, table: Any, train_flops: float) -> checks.Checks:
        key = digest(fit), len(table)
        if key not in _MADE:
            _MADE[key] = checks.check(fit, table, train_flops)
        return _MADE[key]

    monkeypatch.setattr(studies, "check", once)


def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few cells of the plane (an odd number: the question is its middle) and few loads."""
    monkeypatch.setattr(cost_curves, "CELLS", 3)
    monkeypatch.setattr(cost_curves, "LOADS", 60)


def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checks at all and little explored, for studies whose tests are about something else."""
    coarse(monkeypatch)
    refused = partial(checks.Checks, resamples=0, refused="the test does without")
    monkeypatch.setattr(studies, "check", refused)


def store(path: Path, document: Any) -> None:
    """Write a fit or an answer into a study folder."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")


def altered(answer: Answer, **changes: Any) -> Answer:
    """The answer with another recommendation."""
    return replace(answer, recommendation=replace(answer.recommendation, **changes))


def strings(node: Any) -> Iterator[str]:
    """Every string in a JSON document."""
    if isinstance(node, str):
        yield node
    else:
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from strings(value)


def section(document: Any, title: str) -> Any:
    return next(part["blocks"] for part in document["sections"] if part["title"] == title)


def tables(blocks: Any) -> list[Any]:
    return [block for block in blocks if block["kind"] == "table"]


def words(blocks: Any) -> str:
    """All text of some blocks."""
    return " ".join(strings(blocks))


def column(table: Any, name: str) -> list[str]:
    """The cells of a table under a header."""
    return [row[table["columns"].index(name)] for row in table["rows"]]


def template_warnings(study: Any, folder: Path) -> list[str]:
    """What typst has to say about a study's report, written to a folder. Its figures are drawn, and blank ones laid
    out: rendering takes most of the time, and is tested where whole reports are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contents.figures, "save", lambda _, path: path.write_text(_BLANK, encoding="utf-8"))
        contents.write_contents(study, folder)
    fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=True)
    _, warnings = typst.compile_with_warnings(folder / "report.typ", root=folder, font_paths=fonts)
    return [warning.message for warning in warnings]
