"""What a report is about: answers and the fits behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path

from analysis.decision.answer import Answer, read_answer
from analysis.decision.cost_curves import CostCurves, cost_curves_around
from analysis.decision.published_models import weighed_by
from analysis.fitting.fit import Fit
from analysis.fitting.fit_file import load_fit
from analysis.report.worth import worth_of_answer
from analysis.tables.runs import read_runs
from analysis.worth.worth import Worth
from scaling.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Answers and fits by name; the first answer is the decision. `made` is the report's date, None where
    it is not known.

    `notes` say what the report had to make itself.
    """

    name: str
    answers: Mapping[str, Answer]
    fits: Mapping[str, Fit]
    made: datetime | None
    notes: tuple[str, ...] = ()

    @property
    def decision(self) -> Answer:
        return next(iter(self.answers.values()))

    @cached_property
    def law_fit(self) -> Fit:
        """The fit that the decision rests on; where it is not here, the first of its law."""
        fits = list(self.fits.values())
        behind = (fit for fit in fits if self.decision.rests_on(fit))
        of_its_law = (fit for fit in fits if fit.law == self.decision.recommendation.law)
        return next(behind, next(of_its_law, fits[0]))

    @cached_property
    def worth(self) -> Worth | None:
        """What the E of the decision is worth over a dense model; None where there is nothing to say."""
        return worth_of_answer(self.decision, self.law_fit)

    @property
    def curves(self) -> CostCurves:
        """The plane and the prices around the decision."""
        return self.decision.cost_curves or CostCurves()


def subject_of(answer: Answer, fit: Fit, name: str, made: datetime) -> Subject:
    """An answer alone, with the fit behind it."""
    return Subject(name=name, answers={name: with_curves(answer, fit)}, fits={fit_name(answer, fit): fit}, made=made)


def read_subject(path: Path, fit: str | Path | None = None) -> Subject:
    """An answer's file alone, dated as the file is. Raises InputError as `fit_behind` does, or for another file."""
    answer = read_answer(path)
    made = datetime.fromtimestamp(int(path.stat().st_mtime)).astimezone()
    return subject_of(answer, fit_behind(answer, path, fit), path.stem, made)


def fit_behind(answer: Answer, path: Path, fit: str | Path | None = None) -> Fit:
    """The fit that an answer's file names, or `fit` instead; a relative name is tried beside that file too.

    The laws of an ensemble are weighed again by the runs that the answer names. Raises InputError where a file cannot
    be read, or it is another fit.
    """
    if not (fit or answer.law_file):
        raise InputError(f"{path}: the answer does not name the fit behind it: give `fit`")
    named = _here_or_beside(path, str(fit or answer.law_file))
    found = load_fit(named)
    runs = answer.asked.names.get("weigh_by") if answer.asked else None
    if runs is not None:
        found = weighed_by(found, read_runs(_here_or_beside(path, runs)), answer.question.family)
    if not answer.rests_on(found):
        raise InputError(
            f"{path}: the answer does not rest on {named}, which has changed or is another fit: ask again with "
            "`scaling recommend`, or give `fit`"
        )
    return found


def _here_or_beside(path: Path, named: str) -> str:
    beside = path.parent / named
    return str(beside) if beside.exists() and not Path(named).exists() else named


def with_curves(answer: Answer, fit: Fit) -> Answer:
    """The answer with the curves around it, where it was stored without."""
    if answer.cost_curves is not None:
        return answer
    return replace(answer, cost_curves=cost_curves_around(fit, answer.recommendation))


def fit_name(answer: Answer, fit: Fit) -> str:
    """What an answer calls the fit behind it."""
    return answer.law_file or fit.law
