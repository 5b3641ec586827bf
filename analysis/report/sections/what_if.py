"""What would change the decision: cases with one thing otherwise, volumes at which E changes, the plane of best E."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.decision.recommendation import EXTRAPOLATION_LIMIT
from analysis.report.blocks import Block, bullets, picture, sheet, text
from analysis.report.plots import decision
from analysis.report.study import Study
from scaling import formatting
from scaling.formatting import experts, sentence, si

TITLE = "What would change it"
_MOST = 3  # cases on the first page


def what_if(study: Study) -> list[Block]:
    """What changes the answer in a line each, the picture, and every case that was tried."""
    answer = study.decision
    told = changes(answer)
    blocks = [bullets(told)] if told else [text(_not_asked(answer))]
    if decision.what_would_change in decision.drawn(study):
        blocks.append(picture("what_would_change", _caption(study)))
    if study.explored.without_plane:
        blocks.append(text(sentence(f"There is no plane of budgets and volumes: {study.explored.without_plane}")))
    tried = (answer.get("what_if") or {}).get("cases", ())
    return [*blocks, _cases(answer, tried)] if tried else blocks


def changes(answer: Mapping[str, Any]) -> list[str]:
    """What would change the decision and what would not, one line each; empty where the answer was stored without
    it."""
    found = answer.get("what_if")
    if not found:
        return []
    return [*_changing(found), *_kept(answer, found), *_crossovers(found, found["crossovers"])]


def in_short(answer: Mapping[str, Any]) -> list[str]:
    """The same for the first page: the first few cases, and the nearest volume at which another E overtakes."""
    found = answer.get("what_if")
    if not found:
        return []
    told = _changing(found)
    more = len(told) - _MOST
    short = (
        [*told[:_MOST], f"{formatting.plural(more, 'more case')} would change it: section “{TITLE}”"]
        if more > 0
        else told
    )
    return [*(short or _kept(answer, found)), *_crossovers(found, _nearest(found)[:1])]


def _changing(found: Mapping[str, Any]) -> list[str]:
    return [f"if {case['what']} were {case['value']}, {_then(case)}" for case in found["cases"] if case["changes"]]


def _then(case: Mapping[str, Any]) -> str:
    return "no E could answer" if case["n_experts"] is None else f"{experts(case['n_experts'])} would be best"


def _kept(answer: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The things of which nothing that was tried changes the best E."""
    changing = {case["what"] for case in found["cases"] if case["changes"]}
    kept = list(dict.fromkeys(case["what"] for case in found["cases"] if case["what"] not in changing))
    best = experts(answer["recommendation"]["n_experts"])
    return [f"{best} stays the best whatever was tried of {', '.join(kept)}"] if kept else []


def _nearest(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Crossovers by how far from what is served they are, in logarithms."""
    if not found["crossovers"]:
        return []
    served = math.sqrt(math.prod(found["volumes"]))  # volumes go as far to either side of it
    return sorted(found["crossovers"], key=lambda one: abs(math.log(one["volume"] / served)))


def _crossovers(found: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> list[str]:
    """Volumes at which one E overtakes another; that there is none within those tried is told too."""
    if found["volumes"] is not None and not found["crossovers"]:
        low, high = found["volumes"]
        return [f"from {si(low)} to {si(high)} tokens served no other E overtakes"]
    return [
        f"at {si(one['volume'])} tokens served {experts(one['after'])} overtakes {experts(one['before'])}"
        for one in shown
    ]


def _not_asked(answer: Mapping[str, Any]) -> str:
    if "what_if" in answer:
        return "What would change it was not asked (--no-what-if)."
    return (
        "This recommendation was stored before it was asked what would change it; ask again with `scaling recommend`."
    )


def _caption(study: Study) -> str:
    found, asked = study.explored, study.decision["question"]
    told = []
    if len(decision.shown_cases(study)):
        told.append(
            "The best model if one thing were otherwise, at the law's estimate: its lifetime cost against the "
            "answer's, and its E; red where that is another"
        )
    if found.plane is not None:
        plane = "The best E at every training budget and volume served, at the estimate; the star is the question"
        if asked.get("requests_per_month") is not None:
            plane += ", whose load is kept: more tokens are a longer life"
        if found.most_budget is not None and found.most_budget < found.plane.budgets[-1]:
            plane += f"; hatched, budgets beyond {EXTRAPOLATION_LIMIT:g} times the largest run, which nothing decides"
        told += [plane, "– where no E can answer"] if (found.plane.best < 0).any() else [plane]
    return " ".join(sentence(part) for part in told)


def _cases(answer: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> Block:
    cost = answer["recommendation"]["cost"]
    rows = [
        [
            case["what"],
            case["value"],
            ("–" if case["n_experts"] is None else "dense" if case["n_experts"] == 1 else str(case["n_experts"]))
            + (" *" if case["changes"] else ""),
            *("–" if case[name] is None else si(case[name]) for name in ("n_active", "tokens")),
            "–" if case["cost"] is None else formatting.cost(case["cost"], cost["unit"]),
            "–" if case["cost"] is None else formatting.number(case["cost"] / cost["total"], ".3g"),
        ]
        for case in tried
    ]
    columns = ["changed", "to", "E", "active", "tokens", f"cost, {cost['unit']}", "times"]
    caption = (
        "Every case that was tried, at the estimate of the law, among the E that could answer; * where the best E is "
        "another. “times” is the lifetime cost over that of the answer."
    )
    return sheet(columns, rows, caption, wide=1)
