"""What would change the decision: cases with one thing different, volumes at which E changes, the plane of best E."""

from __future__ import annotations

import math
from collections.abc import Iterable

from analysis.decision.answer import Answer
from analysis.decision.recommendation import EXTRAPOLATION_LIMIT
from analysis.decision.tables import reference_table, what_if_table
from analysis.decision.what_if import Crossover, WhatIf
from analysis.report import blocks
from analysis.report.blocks import Block, bullets, picture, text
from analysis.report.plots import decision as decision_plots
from analysis.report.study import ReportStudy
from analysis.report.subject import Subject
from scaling.formatting import experts, listed, plural, sentence, si

TITLE = "What would change it"
NOT_STORED = (
    "What would change it is not stored with this answer: `scaling recommend` computes it unless `what_if` is off."
)
_MOST = 3  # cases on the first page


def what_if(subject: Subject) -> list[Block]:
    """What changes the answer in a line each, the picture of every case that was tried and, in the report of a study,
    their table."""
    answer, lines = subject.decision, changes(subject.decision)
    parts = [bullets(lines)] if lines else [text(NOT_STORED)]
    if decision_plots.what_would_change in decision_plots.drawn(subject):
        parts.append(picture("what_would_change", _caption(subject)))
    if subject.curves.without_plane:
        parts.append(text(sentence(f"There is no plane of budgets and volumes: {subject.curves.without_plane}")))
    if isinstance(subject, ReportStudy) and (cases := what_if_table(answer)) is not None:
        caption = "Every case that was tried, at the estimate of the law, among the E that could answer"
        parts.append(blocks.values(cases, caption))
    if (references := reference_table(answer)) is not None:
        caption = (
            "What hangs on the loss that is kept within the budget, the one asked first: whose loss it could be, by "
            "this law, and the best model then"
        )
        parts.append(blocks.values(references, caption))
    return parts


def changes(answer: Answer) -> list[str]:
    """What would change the decision and what would not, one line each; empty where the answer was stored without."""
    stored = answer.what_if
    if stored is None:
        return []
    return [*_told_from(answer), *_changing(stored), *_unchanged(answer), *_crossovers(stored, stored.crossovers)]


def in_short(answer: Answer) -> list[str]:
    """The same for the first page: the first few cases, and the nearest volume at which another E overtakes."""
    stored = answer.what_if
    if stored is None:
        return []
    lines = _changing(stored)
    remaining = plural(len(lines) - _MOST, "more case")
    more = [f"{remaining} would change it: section “{TITLE}”"] if lines[_MOST:] else []
    tried = plural(len(stored.cases), "case")
    steady = [f"{_steady(answer)} in each of the {tried} of section “{TITLE}”"] if stored.cases else []
    return [*_told_from(answer), *(lines[:_MOST] + more or steady), *_crossovers(stored, _nearest(stored)[:1])]


def _told_from(answer: Answer) -> list[str]:
    """Where the best E at the estimate is another than the one recommended, that the cases start from it."""
    best = answer.recommendation.best_at_estimate
    if best == answer.best.n_experts:
        return []
    return [f"at the estimate, a mean of the laws, {experts(best)} is best: what changes the answer is told from there"]


def _changing(stored: WhatIf) -> list[str]:
    cases = [case for case in stored.cases if case.changes]
    return [f"if {case.what} were {case.value}, {_then(case.n_experts)}" for case in cases]


def _then(n_experts: int | None) -> str:
    return "no E could answer" if n_experts is None else f"{experts(n_experts)} would be best"


def _unchanged(answer: Answer) -> list[str]:
    """The things that do not change the best E in any case tried."""
    cases = () if answer.what_if is None else answer.what_if.cases
    changing = {case.what for case in cases if case.changes}
    names = dict.fromkeys(case.what for case in cases if case.what not in changing)
    return [f"{_steady(answer)} when varying {listed(names)}"] if names else []


def _steady(answer: Answer) -> str:
    return f"{experts(answer.recommendation.best_at_estimate)} remains best"


def _nearest(stored: WhatIf) -> list[Crossover]:
    """Crossovers by their distance, in logarithms, from what is served, the middle of the volumes."""
    served = math.sqrt(math.prod(stored.volumes or ()))
    return sorted(stored.crossovers, key=lambda crossing: abs(math.log(crossing.volume / served)))


def _crossovers(stored: WhatIf, shown: Iterable[Crossover]) -> list[str]:
    """Volumes at which one E overtakes another, or that there is none among those tried."""
    if stored.volumes is not None and not stored.crossovers:
        low, high = stored.volumes
        return [f"from {si(low)} to {si(high)} tokens served no other E overtakes"]
    return [f"at {si(at.volume)} tokens served {experts(at.after)} overtakes {experts(at.before)}" for at in shown]


def _caption(subject: Subject) -> str:
    curves, lines = subject.curves, []
    if len(decision_plots.shown_cases(subject.decision)):
        lines.append(
            "The best model if one thing were different, at the law's estimate: its lifetime cost against the "
            "answer's, and its E; red where the best E changes"
        )
    if curves.plane is not None:
        plane = "The best E at every training budget and volume served, at the estimate; the star is the question"
        if subject.decision.question.requests_per_month is not None:
            plane += ", whose load is kept: more tokens are a longer life"
        if curves.most_budget is not None and curves.most_budget < curves.plane.budgets[-1]:
            plane += f"; hatched, budgets beyond {EXTRAPOLATION_LIMIT:g} times the largest run, which decide nothing"
        lines += [plane, "– where no E can answer"] if (curves.plane.best < 0).any() else [plane]
    return " ".join(map(sentence, lines))
