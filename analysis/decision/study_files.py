"""The fit and the question that a study's folder keeps."""

from __future__ import annotations

from pathlib import Path

from analysis.decision.answer import read_answer
from analysis.decision.question import Question
from scaling.errors import InputError


def study_fit(study: Path) -> Path:
    """The one fit under a study's `fits`. Raises InputError where there is none, or several."""
    return _only_file(study, "fits", "fit", "`scaling fit` makes one, with draws")


def study_question(study: Path) -> Question:
    """The question of the one recommendation under a study's `recommendations`. Raises InputError."""
    remedy = "`scaling recommend` makes one, or ask with `train_flops` or `target_loss`"
    return read_answer(_only_file(study, "recommendations", "question", remedy)).question


def _only_file(study: Path, kind: str, field: str, remedy: str) -> Path:
    files = sorted((study / kind).glob("*.json")) if study.is_dir() else []
    if len(files) == 1:
        return files[0]
    if files:
        raise InputError(f"{study / kind} has {', '.join(path.name for path in files)}: name one with `{field}`")
    raise InputError(f"{study} has no {kind}/*.json: give `{field}`; {remedy}")
