"""The answer: a recommendation with what would change it, the fits compared and the costs around it, in one file."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
from pydantic import Field, InstanceOf

from analysis.decision.answer_checks import require_sound
from analysis.decision.asked import Asked
from analysis.decision.cost_curves import CostCurves, cost_curves_around
from analysis.decision.fit_comparison import FitAlternatives, compare_fits
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.decision.recommendation import Choice, Recommendation
from analysis.decision.shape_comparison import Shapes, compare_shapes, judged
from analysis.decision.shapes import variants, with_one_bar
from analysis.decision.what_if import WhatIf, explore
from analysis.fitting.fit import Fit
from analysis.latency.speeds import Speeds
from scaling.distribution import require_installed
from scaling.errors import InputError
from scaling.formatting import money, si
from scaling.progress import Progress, silent
from scaling.serving.published_training import constant_training_speed
from scaling.summary import Summarised, summarised
from scaling.table import Table
from scaling.values import ANSWER, digest, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_OF_RECOMMENDATION = tuple(field.name for field in fields(Recommendation))


@dataclass(frozen=True, repr=False)
class Answer(Summarised):
    """A question answered: all that a report says of the decision, without a study.

    `shapes`: what every shape of experts offers, where several were compared. `what_if`: what would change it;
    `cost_curves`: the plane and the prices around it; `comparison`: the fits that
    were compared, the best first, which is the one behind the recommendation. Each is None where it was not asked for.
    `law_file` is that fit's file or `published:NAME`, `fit_hash` its `scaling.values.digest`, and `made_from` the
    digest of fit, question and the draws of the device's speed. `asked` names the fits and files it was asked with,
    None where that is not known. `fit` is that fit, which no file of an answer holds.
    """

    recommendation: Recommendation
    what_if: WhatIf | None = None
    comparison: FitAlternatives | None = None
    shapes: Shapes | None = None
    cost_curves: CostCurves | None = None
    law_file: str = ""
    fit_hash: str = ""
    made_from: str = ""
    asked: Asked | None = None
    fit: Annotated[InstanceOf[Fit] | None, Field(exclude=True)] = field(default=None, compare=False)

    @property
    def question(self) -> Question:
        return self.recommendation.question

    @property
    def best(self) -> Choice:
        """The recommended model."""
        return self.recommendation.recommendation

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The best model of every E that can answer, the recommended one among them, by ascending E."""
        return tuple(sorted((self.best, *self.recommendation.alternatives), key=lambda choice: choice.n_experts))

    def table(self) -> pd.DataFrame:
        """The best model of every E that can answer, the recommended one first (`analysis.decision.tables`)."""
        return self._choices_table.frame

    @property
    def _choices_table(self) -> Table:
        table: Table = pkgutil.resolve_name("analysis.decision.tables:choices_table")(self)
        return table

    def plot(self) -> Figure:
        """What each E offers, and how sure the choice is (`analysis.figures.answer`).

        Raises InputError where matplotlib is missing.
        """
        require_installed("a figure", "matplotlib")
        figure: Figure = pkgutil.resolve_name("analysis.figures.answer:answer_figure")(self)
        return figure

    def summary(self) -> Table:
        """The decision in a line, the choices, why it is not decided, and the warnings."""
        best, found = self.best, self.recommendation
        verdict = "Decided" if found.decided else "Not decided"
        if found.refused:
            verdict = f"No answer: {'; '.join(found.refused)}. The formula gives"
        title = (
            f"{verdict}{'' if found.refused else ':'} E = {best.n_experts}, N_active {si(best.n_active)}, "
            f"{si(best.tokens)} tokens, loss {best.loss:.4f}, cost {money(best.cost.total, best.cost.unit)}"
        )
        return summarised(self._choices_table, title, (*found.undecided_because, *found.warnings))

    def rests_on(self, fit: Fit) -> bool:
        """Whether this is the fit behind the recommendation; an answer without its hash knows the law alone."""
        return digest(fit) == self.fit_hash if self.fit_hash else fit.law == self.recommendation.law


def answer(
    fit: Fit,
    question: Question,
    speeds: Speeds | None = None,
    *,
    law_file: str = "",
    of_other_k: Mapping[str, Fit] | None = None,
    compare_with: Mapping[str, Fit] | None = None,
    what_if: bool = True,
    cost_curves: bool = True,
    names: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Answer:
    """Answer a question from a fit, or from the best of several.

    `speeds`: draws of the device's speed (`LatencyLaw.speeds`). `law_file` names the fit; `compare_with` holds other
    fits by name, of other methods, and whichever offers the best model answers (`analysis.decision.fit_comparison`).
    `of_other_k` holds fits of the same method, of runs with another k or width of experts each: every shape of theirs
    is compared, as are those that one law knows (`analysis.decision.shapes`). `what_if` adds what would change the
    answer, `cost_curves` the plane and the prices around it, about a CPU second each. `names` are those of
    files behind the question (`analysis.decision.asked`). Raises InputError as `recommend`, `compare_fits` and
    `compare_shapes` do.
    """
    comparison, fits = None, {law_file: fit, **(of_other_k or {})}
    named = tuple(fits)
    if compare_with:
        comparison = compare_fits({**fits, **compare_with}, question, speeds)
        law_file = comparison.rivals[0].name
        fits = fits if law_file in fits else {law_file: compare_with[law_file]}
        progress(0.2)
    asked, shapes = question, None
    compared = variants(fits, question)
    best = compared[0]
    if len(compared) > 1:
        shapes, best = compare_shapes(with_one_bar(compared), speeds)
        progress(0.4)
    law_file, fit, question = best.name, best.fit, best.question
    found = recommend(fit, question, speeds)
    if shapes is not None:
        found = judged(found, shapes, fit, asked)
    progress(0.6)
    changes = explore(fit, found.question, found) if what_if else None
    progress(0.8)
    return Answer(
        recommendation=found,
        what_if=changes,
        comparison=comparison,
        shapes=shapes,
        cost_curves=cost_curves_around(fit, found) if cost_curves else None,
        law_file=law_file,
        fit_hash=digest(fit),
        made_from=digest(fit, asked, *(() if speeds is None else (speeds,))),
        asked=Asked(named, tuple(compare_with or ()), names or {}, None if found.question is asked else asked),
        fit=fit,
    )


def answer_document(answer: Answer) -> dict[str, Any]:
    """The content of an answer's file: the fields of its recommendation, and beside them its own (`comparison` under
    the key `rivals`)."""
    document = ANSWER.document(answer)
    recommendation, rivals = document.pop("recommendation"), document.pop("comparison")
    return {**document, **recommendation, "rivals": rivals}


def read_answer(path: str | Path) -> Answer:
    """The answer in a file that `scaling recommend` wrote. Raises InputError naming file, field and remedy."""
    return parse_answer(ANSWER.read(path), str(path))


def parse_answer(document: Mapping[str, Any], origin: str) -> Answer:
    """The answer that `answer_document` wrote; `origin` is named where it is damaged. Raises InputError."""
    ANSWER.check(document, origin)
    recommendation = {key: value for key, value in document.items() if key in _OF_RECOMMENDATION}
    recommendation["question"] = _with_training_speed(document["question"])
    fields_of_answer = {**document, "recommendation": recommendation, "comparison": document.get("rivals")}
    answer = ANSWER.value(Answer, fields_of_answer, origin, lifted="recommendation")
    parts = {"": answer.recommendation, "what_if": answer.what_if, "rivals": answer.comparison, "shapes": answer.shapes}
    require_sound(parts | {"cost_curves": answer.cost_curves}, origin)
    return answer


def _with_training_speed(question: Any) -> Any:
    """The question in a file. Before it had a training speed, training was priced at one MFU for all E."""
    if not isinstance(question, Mapping) or "training_speed" in question or question.get("device") is None:
        return question
    return {**question, "training_speed": plain(replace(constant_training_speed(), mfu_spread=0.0))}


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
