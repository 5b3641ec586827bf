"""What would change the decision: cases with one thing different, volumes at which E changes, the plane of best E."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from analysis.decision.recommendation import EXTRAPOLATION_LIMIT
from analysis.report.blocks import ACTIVE, TOKENS, Block, Cell, bullets, field, picture, table, text, three_digits
from analysis.report.plots import decision as decision_plots
from analysis.report.study import Answer, Study
from scaling.formatting import cost, experts, experts_cell, listed, plural, sentence, si

TITLE = "What would change it"
NOT_STORED = (
    "What would change it is not stored with this answer: `scaling recommend` computes it unless `what_if` is off."
)
_MOST = 3  # cases on the first page

WhatIf = Mapping[str, Any]


def what_if(study: Study) -> list[Block]:
    """What changes the answer in a line each, the picture, and every case that was tried."""
    answer = study.decision
    lines, cases = changes(answer), (answer.get("what_if") or {}).get("cases", ())
    blocks = [bullets(lines)] if lines else [text(NOT_STORED)]
    if decision_plots.what_would_change in decision_plots.drawn(study):
        blocks.append(picture("what_would_change", _caption(study)))
    if study.curves.without_plane:
        blocks.append(text(sentence(f"There is no plane of budgets and volumes: {study.curves.without_plane}")))
    return [*blocks, _cases(answer, cases)] if cases else blocks


def changes(answer: Answer) -> list[str]:
    """What would change the decision and what would not, one line each; empty where the answer was stored without."""
    stored = answer.get("what_if")
    return [*_changing(stored), *_unchanged(answer), *_crossovers(stored, stored["crossovers"])] if stored else []


def in_short(answer: Answer) -> list[str]:
    """The same for the first page: the first few cases, and the nearest volume at which another E overtakes."""
    stored = answer.get("what_if")
    if not stored:
        return []
    lines = _changing(stored)
    more = [f"{plural(len(lines) - _MOST, 'more case')} would change it: section “{TITLE}”"] if lines[_MOST:] else []
    return [*(lines[:_MOST] + more or _unchanged(answer)), *_crossovers(stored, _nearest(stored)[:1])]


def _changing(stored: WhatIf) -> list[str]:
    cases = [case for case in stored["cases"] if case["changes"]]
    return [f"if {case['what']} were {case['value']}, {_then(case['n_experts'])}" for case in cases]


def _then(n_experts: int | None) -> str:
    return "no E could answer" if n_experts is None else f"{experts(n_experts)} would be best"


def _unchanged(answer: Answer) -> list[str]:
    """The things that do not change the best E in any case tried."""
    cases = answer["what_if"]["cases"]
    changing = {case["what"] for case in cases if case["changes"]}
    names = dict.fromkeys(case["what"] for case in cases if case["what"] not in changing)
    best = experts(answer["recommendation"]["n_experts"])
    return [f"{best} remains best when varying {listed(names)}"] if names else []


def _nearest(stored: WhatIf) -> list[Mapping[str, Any]]:
    """Crossovers by their distance, in logarithms, from what is served, the middle of the volumes."""
    served = math.sqrt(math.prod(stored["volumes"] or ()))
    return sorted(stored["crossovers"], key=lambda crossing: abs(math.log(crossing["volume"] / served)))


def _crossovers(stored: WhatIf, shown: Iterable[Mapping[str, Any]]) -> list[str]:
    """Volumes at which one E overtakes another, or that there is none among those tried."""
    if stored["volumes"] is not None and not stored["crossovers"]:
        low, high = stored["volumes"]
        return [f"from {si(low)} to {si(high)} tokens served no other E overtakes"]
    return [
        f"at {si(at['volume'])} tokens served {experts(at['after'])} overtakes {experts(at['before'])}" for at in shown
    ]


def _caption(study: Study) -> str:
    curves, lines = study.curves, []
    if len(decision_plots.shown_cases(study)):
        lines.append(
            "The best model if one thing were different, at the law's estimate: its lifetime cost against the "
            "answer's, and its E; red where the best E changes"
        )
    if curves.plane is not None:
        plane = "The best E at every training budget and volume served, at the estimate; the star is the question"
        if study.decision["question"].get("requests_per_month") is not None:
            plane += ", whose load is kept: more tokens are a longer life"
        if curves.most_budget is not None and curves.most_budget < curves.plane.budgets[-1]:
            plane += f"; hatched, budgets beyond {EXTRAPOLATION_LIMIT:g} times the largest run, which decide nothing"
        lines += [plane, "– where no E can answer"] if (curves.plane.best < 0).any() else [plane]
    return " ".join(map(sentence, lines))


def _cases(answer: Answer, cases: Iterable[Mapping[str, Any]]) -> Block:
    total, unit = answer["recommendation"]["cost"]["total"], answer["recommendation"]["cost"]["unit"]
    columns: dict[str, Cell] = {
        "changed": field("what"),
        "to": field("value"),
        "E": lambda case: experts_cell(case["n_experts"]) + (" *" if case["changes"] else ""),
        "active": ACTIVE,
        "tokens": TOKENS,
        f"cost, {unit}": lambda case: cost(case["cost"], unit),
        "times": field("cost", lambda value: three_digits(value / total)),
    }
    caption = (
        "Every case that was tried, at the estimate of the law, among the E that could answer; * where the best E "
        "changes. “times” is the lifetime cost over that of the answer."
    )
    return table(cases, columns, caption, wide="to")
