"""What an expert is worth in a report: a sentence on the first page, a section and its figure; or none of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from analysis.decision.answer import answer as answer_of
from analysis.decision.question import Question
from analysis.fitting.published import published
from analysis.report.contents import content, drawn
from analysis.report.plots.decision import expert_worth
from analysis.report.sections import worth
from analysis.report.subject import subject_of
from tests.support.worth import with_draws

JOINT = replace(published("joint-moe-2025"), draws={}, status="given")
DRAWN = with_draws(JOINT, 0.002, "delta", count=40)
MADE = datetime(2026, 11, 29, tzinfo=UTC)


def subject(fit, **asked):
    question = Question(train_flops=1e21, **{"n_experts": (1, 8), **asked})
    found = answer_of(fit, question, what_if=False, cost_curves=False, law_file="fit.json")
    return subject_of(found, fit, "plan", MADE)


@pytest.fixture(scope="module")
def routed():
    return subject(DRAWN)


def test_the_first_page_says_what_the_recommended_e_is_worth(routed):
    (one,) = (each for each in routed.worth.worth if each.n_experts == 8)
    assert one.compute_interval[0] < one.compute_speedup < one.compute_interval[1]
    (fact,) = worth.in_short(routed)
    assert one.sentence() in fact
    facts = next(block["items"] for block in content(routed)["summary"] if block["kind"] == "list")
    assert any(f"{one.compute_speedup:.3g}x the compute" in line for line in facts)
    assert one.train_flops == pytest.approx(routed.decision.best.train_flops)


def test_the_section_has_the_figure_and_the_speedups(routed):
    titles = [part["title"] for part in content(routed)["sections"]]
    assert worth.TITLE in titles
    blocks = next(part["blocks"] for part in content(routed)["sections"] if part["title"] == worth.TITLE)
    assert blocks[0]["path"] == "expert_worth.svg"
    assert blocks[1]["rows"][0][0] == "8"
    assert expert_worth in drawn(routed)
    compute, time = expert_worth(routed).axes
    heights = [float(line.get_ydata()[0]) for line in compute.lines if line.get_marker() == "o"]
    assert heights == pytest.approx([each.compute_speedup for each in routed.worth.worth])
    assert time.get_title(loc="left") == "Speedup in device time"


@pytest.mark.parametrize(
    "silent",
    [
        lambda: subject(DRAWN, n_experts=(1,)),  # dense is recommended
        lambda: subject(JOINT),  # no draws
        lambda: subject(replace(DRAWN, experts=(8, 16)), n_experts=(8, 16)),  # no dense runs
        lambda: subject(published("chinchilla-tex"), n_experts=()),  # no experts in the law
    ],
)
def test_nothing_is_said_where_there_is_nothing_to_say(silent):
    found = silent()
    assert found.worth is None
    assert worth.in_short(found) == []
    assert worth.TITLE not in [part["title"] for part in content(found)["sections"]]
    assert expert_worth not in drawn(found)
