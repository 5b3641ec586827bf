"""The loss that is kept within a budget: whose it is, by closed forms; what makes it a doubt; and what hangs on it."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from planted import PLANTED_MOE, moe_grid, table_of

from analysis.decision.allocation import Allocation
from analysis.decision.answer import Answer, answer, answer_document, parse_answer
from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.decision.reference import (
    LOSS_CHANGE,
    RATIO,
    Reference,
    ReferenceCase,
    allocation_of,
    swing_in_words,
)
from analysis.decision.tables import reference_table
from analysis.fitting.fit import Fit, fit
from analysis.fitting.published import PUBLISHED, published
from analysis.fitting.studied import Studied
from analysis.laws import HOFFMANN, JOINT_MOE
from scaling.errors import InputError
from scaling.values import plain

JOINT, EPOCH = published("joint-moe-2025"), published("chinchilla-epoch")
NAME = "published:chinchilla-epoch"
ASKED = Question(train_flops=1e23, serve_tokens=5e12)
BY_EPOCH = allocation_of(EPOCH, NAME)


def planted(spread: float = 1e-4, **changes: float) -> Fit:
    """A study with its optimum inside, whose draws agree."""
    truth = dict(PLANTED_MOE | {"omega": 0.33, "delta": -0.1} | changes)
    fitted = fit(table_of(moe_grid(params=truth)), JOINT_MOE, pin=truth)
    chance = np.random.default_rng(0)
    draws = {name: tuple(truth[name] + spread * chance.standard_normal(120)) for name in ("delta", "omega")}
    pinned = {name: pin for name, pin in fitted.pinned.items() if name not in draws}
    return replace(fitted, draws=draws, pinned=pinned, rmse_log=0.002)


SMALL = Question(train_flops=3e13, serve_tokens=1e7)


# ---------------------------------------------------------------------------------------------------- whose loss it is


@pytest.mark.parametrize("name", ["chinchilla-epoch", "chinchilla-rounded", "sardana-2024-all"])
@pytest.mark.parametrize("budget", [1e15, 3.3e21, 7e25])
def test_an_allocation_is_the_closed_form_of_its_law(name, budget):
    known = PUBLISHED[name]
    size = allocation_of(known, name).size(np.array([budget]))[0]
    assert size == pytest.approx(HOFFMANN.optimum(known.params, budget, 1)[0], rel=1e-4)


def test_an_allocation_between_budgets_and_beyond_them_is_a_power_law():
    root = Allocation("root", (1e10, 1e20), (1e5, 1e10))
    assert root.size(np.array([1e8, 1e16, 1e24])) == pytest.approx([1e4, 1e8, 1e12])


def test_the_two_laws_of_1e23_flops_and_what_this_law_makes_of_either():
    """62 B on 267 B tokens by one law, 29 B on 565 B by another: both losses are by the law asked."""
    own = recommend(JOINT, ASKED).reference
    theirs = recommend(JOINT, replace(ASKED, reference_fit=BY_EPOCH)).reference
    assert (own.n_active, own.tokens) == (pytest.approx(6.24e10, rel=2e-3), pytest.approx(2.67e11, rel=2e-3))
    n, d = HOFFMANN.optimum(EPOCH.params, 1e23, 1)
    assert (theirs.n_active, theirs.tokens) == (pytest.approx(n, rel=1e-4), pytest.approx(d, rel=1e-4))
    assert theirs.tokens_per_param == pytest.approx(d / n, rel=1e-3)
    for kept in (own, theirs):
        model = {"n_active": kept.n_active, "tokens": kept.tokens, "n_experts": 1.0}
        assert kept.loss == pytest.approx(float(JOINT.loss(model)), rel=1e-12)
        assert kept.loss_interval is None  # without draws
    assert own.loss < theirs.loss  # of all dense models of the budget the law's own is the best by that law


def test_every_choice_reaches_the_loss_of_whatever_reference():
    for kept in ({"reference_fit": BY_EPOCH}, {"reference_model": (3e10, 5e11)}, {"reference_loss": 2.03}):
        found = recommend(JOINT, replace(ASKED, **kept))
        assert found.reference.loss == pytest.approx(kept.get("reference_loss", found.reference.loss))
        for choice in (found.recommendation, *found.alternatives):
            assert choice.loss == pytest.approx(found.reference.loss, abs=1e-6)
            assert choice.train_flops <= 1e23 * (1 + 1e-6)


def test_the_interval_is_that_of_the_laws_loss_for_the_model():
    given, question = planted(0.02), replace(SMALL, reference_model=(4e5, 1.2e7))
    low, high = given.loss_interval({"n_active": 4e5, "tokens": 1.2e7, "n_experts": 1.0})
    kept = recommend(given, question).reference
    assert kept.loss_interval == pytest.approx((low[0], high[0]))
    assert low[0] <= kept.loss <= high[0]


def test_in_every_draw_a_model_has_that_draws_loss_and_a_loss_given_is_the_same_in_all():
    draws = {name: np.array([[value * 0.99], [value * 1.01]]) for name, value in JOINT.params.items()}
    columns = {"n_active": 3e10, "tokens": 5e11, "n_experts": 1.0}
    model = SizeOptimiser(JOINT, replace(ASKED, reference_model=(3e10, 5e11))).target(draws, 2)
    assert model == pytest.approx(JOINT_MOE.loss(draws, columns)[:, 0], rel=1e-12)
    n, d = HOFFMANN.optimum(EPOCH.params, 1e23, 1)
    divided = SizeOptimiser(JOINT, replace(ASKED, reference_fit=BY_EPOCH)).target(draws, 2)
    assert divided == pytest.approx(JOINT_MOE.loss(draws, columns | {"n_active": n, "tokens": d})[:, 0], rel=1e-6)
    given = SizeOptimiser(JOINT, replace(ASKED, reference_loss=2.03)).target(draws, 2)
    assert given.tolist() == [2.03, 2.03]


def test_a_reference_loss_is_a_target_loss_within_the_budget():
    """Where the budget leaves room both are one question; where it does not, the E that need more drop out."""
    unbounded = recommend(JOINT, Question(target_loss=2.03, serve_tokens=5e12))
    costs = {c.n_experts: c for c in (unbounded.recommendation, *unbounded.alternatives)}
    roomy = recommend(JOINT, Question(train_flops=1e26, reference_loss=2.03, serve_tokens=5e12))
    for choice in (roomy.recommendation, *roomy.alternatives):
        assert choice.cost.total == pytest.approx(costs[choice.n_experts].cost.total, rel=1e-6)
    tight = 0.9 * costs[32].train_flops
    bound = recommend(JOINT, Question(train_flops=tight, reference_loss=2.03, serve_tokens=5e12))
    within = (bound.recommendation, *bound.alternatives)
    assert all(choice.train_flops <= tight * (1 + 1e-6) for choice in within)
    assert all(choice.cost.total >= costs[choice.n_experts].cost.total * (1 - 1e-9) for choice in within)
    assert 1 in bound.unreachable


def test_a_budget_that_data_or_money_bounds_is_divided_by_the_same_allocation():
    little = Question(train_flops=1e23, serve_tokens=5e12, data_tokens=1e11, reference_fit=BY_EPOCH)
    kept = SizeOptimiser(JOINT, little).reference(JOINT.params, 1)
    size, tokens = float(kept.n_active[0]), float(kept.tokens[0])
    assert tokens == pytest.approx(1e11, rel=1e-6)
    assert size == pytest.approx(float(BY_EPOCH.size(np.array([6 * size * tokens]))[0]), rel=1e-6)
    assert 6 * size * tokens < 1e23
    paid = Question(train_usd=2e7, serve_tokens=5e12, device="h100", reference_fit=BY_EPOCH)
    optimiser = SizeOptimiser(JOINT, paid)
    kept = optimiser.reference(JOINT.params, 1)
    size, tokens = kept.n_active, kept.tokens
    cost = optimiser.pricing.train(optimiser.space(1).sizes(size), tokens)
    assert cost == pytest.approx([2e7], rel=1e-6)
    assert size == pytest.approx(BY_EPOCH.size(6 * size * tokens), rel=1e-6)


# -------------------------------------------------------------------------------------------------------------- doubts


def doubts(given: Fit, question: Question) -> list[str]:
    return [doubt for doubt in recommend(given, question).undecided_because if "loss to keep" in doubt]


def test_an_implausible_reference_keeps_from_decided():
    given = planted()
    plausible = replace(SMALL, reference_model=(4e5, 1.2e7))  # 30 tokens per parameter
    assert recommend(given, plausible).decided, recommend(given, plausible).undecided_because
    for model in ((4e6, 1e6), (1e4, 1e8)):  # a quarter, and 10,000
        found = recommend(given, replace(SMALL, reference_model=model))
        loss = float(given.loss({"n_active": model[0], "tokens": model[1], "n_experts": 1.0}))
        assert found.reference.loss == pytest.approx(loss)
        assert not found.decided
        assert sum("tokens per parameter" in doubt for doubt in found.undecided_because) == 1
    assert not doubts(given, replace(plausible, reference_model=None, reference_loss=2.4))  # of no model


def test_what_is_plausible_follows_the_runs_of_the_references_e():
    given, question = planted(), replace(SMALL, reference_model=(4e5, 1.2e7))
    of_dense = given.studied | {1: Studied((1.0, 4.0), given.studied[1].train_flops)}
    assert len(doubts(replace(given, studied=of_dense), question)) == 1
    assert not doubts(replace(given, studied=given.studied | {8: of_dense[1]}), question)
    assert not doubts(replace(given, studied={}), question)  # 5 to 500, where it is not known


def test_a_reference_far_beyond_the_dense_runs_is_a_doubt_though_routed_runs_were_large():
    given = planted()
    low, high = given.studied[1].train_flops
    few = given.studied | {1: replace(given.studied[1], train_flops=(low, high / 40))}
    kept = replace(SMALL, reference_model=(4e5, 1.2e7))
    assert 30 * high / 40 < 6 * 4e5 * 1.2e7
    assert len(doubts(replace(given, studied=few), kept)) == 1


def test_the_law_of_4_tokens_per_parameter_is_doubted_and_another_reference_is_not():
    assert len(doubts(JOINT, ASKED)) == 1
    assert not doubts(JOINT, replace(ASKED, reference_fit=BY_EPOCH))


# ----------------------------------------------------------------------------------------------- what hangs on it


@pytest.fixture(scope="module")
def found() -> Answer:
    return answer(JOINT, replace(ASKED, n_experts=(1, 8)), cost_curves=False)


def test_the_table_has_the_reference_asked_first_and_others_at_the_budget(found):
    first, *others = found.what_if.references
    assert first.reference == found.recommendation.reference
    assert (first.n_experts, first.changes) == (found.best.n_experts, False)
    assert first.cost == pytest.approx(found.best.cost.total, rel=2e-3)  # near, by `estimate_near`
    by_model = [case.reference for case in others if case.reference.n_active is not None]
    ratios = sorted(reference.tokens_per_param for reference in by_model)
    n, d = HOFFMANN.optimum(EPOCH.params, 1e23, 1)
    assert ratios == pytest.approx(sorted([RATIO, d / n]), rel=1e-3)
    for reference in by_model:
        assert 6 * reference.n_active * reference.tokens == pytest.approx(1e23, rel=1e-3)
        model = {"n_active": reference.n_active, "tokens": reference.tokens, "n_experts": 1.0}
        assert reference.loss == pytest.approx(float(JOINT.loss(model)), rel=1e-12)
    changed = sorted(case.reference.loss / first.reference.loss for case in others if case.reference.n_active is None)
    assert changed == pytest.approx([1 - LOSS_CHANGE, 1 + LOSS_CHANGE])
    priced = sorted((case.reference.loss, case.cost) for case in (first, *others) if case.cost is not None)
    costs = [cost for _, cost in priced]
    assert costs == sorted(costs, reverse=True)  # a lower loss costs more
    assert len(reference_table(found).rows) == len(found.what_if.references)


def test_a_loss_that_nobody_reaches_within_the_budget_is_a_row_without_a_model():
    own = recommend(JOINT, ASKED).reference.loss
    only_dense = answer(JOINT, replace(ASKED, n_experts=(1,)), cost_curves=False)
    lower = next(case for case in only_dense.what_if.references if case.reference.loss < 0.999 * own)
    assert (lower.n_experts, lower.cost, lower.changes) == (None, None, True)


def test_a_question_without_a_loss_to_keep_has_neither_reference_nor_table():
    for question in (Question(train_flops=1e21), Question(target_loss=2.1, serve_tokens=1e12)):
        without = answer(JOINT, replace(question, n_experts=(8,)), cost_curves=False)
        assert without.recommendation.reference is None
        assert without.what_if.references == ()
        assert reference_table(without) is None


# ------------------------------------------------------------------------------------------------------------- files


def test_a_file_holds_the_reference_and_one_of_before_is_still_read(found):
    for kept in ({"reference_fit": BY_EPOCH}, {"reference_model": (3e10, 5e11)}, {"reference_loss": 2.03}):
        asked = answer(JOINT, replace(ASKED, n_experts=(8,), **kept), what_if=False, cost_curves=False)
        document = json.loads(json.dumps(answer_document(asked), allow_nan=False))
        assert parse_answer(document, "x") == asked
        assert document["reference"]["loss"] == asked.recommendation.reference.loss
    older = answer_document(found)
    del older["reference"], older["what_if"]["references"]
    for name in ("reference_fit", "reference_model", "reference_loss"):
        del older["question"][name]
    read = parse_answer(older, "x")
    assert (read.recommendation.reference, read.what_if.references) == (None, ())
    assert read.question == found.question


def test_a_damaged_allocation_names_its_field():
    document = plain(replace(ASKED, reference_fit=BY_EPOCH))
    sizes = document["reference_fit"]["n_active"]
    for wrong in (sizes[:-1], [-1.0, *sizes[1:]]):
        with pytest.raises(InputError, match="reference_fit"):
            Allocation(NAME, tuple(document["reference_fit"]["train_flops"]), tuple(wrong))
    with pytest.raises(InputError, match="reference_fit"):
        Allocation(NAME, (1e20, 1e19), (1e9, 1e8))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"reference_loss": 2.0, "reference_model": (1e9, 1e10)}, {"reference_loss", "reference_model"}),
        ({"reference_loss": 2.0, "serve_tokens": 0.0}, {"reference_loss", "serve_tokens", "minimise"}),
        ({"reference_loss": 2.0, "train_flops": None, "target_loss": 2.1}, {"reference_loss", "train_flops"}),
        ({"reference_fit": BY_EPOCH, "train_flops": None, "lifetime_cost": 1e24}, {"reference_fit", "target_loss"}),
        ({"reference_model": (-1.0, 1e10)}, {"reference_model"}),
        ({"reference_loss": -1.0}, {"reference_loss"}),
    ],
)
def test_a_reference_that_contradicts_the_question_names_the_fields(fields, named):
    with pytest.raises(InputError) as refused:
        replace(ASKED, **fields)
    assert named <= set(re.findall(r"`(\w+)`", str(refused.value)))


def test_a_fit_that_divides_no_budget_is_no_reference():
    for name in ("clark-2022-hash", "leverage-2025"):
        with pytest.raises(InputError, match="`reference_fit`"):
            allocation_of(published(name), name)


def test_the_swing_names_other_experts_costs_and_losses_out_of_reach():
    kept = Reference("x", 2.0)
    same = ReferenceCase(kept, 8, 1e9, 1e10, 5e20, changes=False)
    other, unmet = replace(same, n_experts=4, cost=7e20), ReferenceCase(kept, None, None, None, None, changes=True)
    steady = swing_in_words([same, replace(same, cost=6e20)], 8, "FLOP")
    assert "E = 8 is best for whichever of 2" in steady
    assert "5×10²⁰ FLOP – 6×10²⁰ FLOP" in steady
    words = swing_in_words([same, other, unmet], 8, "FLOP")
    assert re.findall(r"E = (\d+)", words) == ["4"]
    assert "1 of them" in words
    assert swing_in_words([], 8, "FLOP") == swing_in_words([unmet], 8, "FLOP") == ""
