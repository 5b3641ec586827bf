"""What training costs by its speed: closed forms, budgets spent to the cent, what a slope and its spread decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

from analysis.decision.answer import answer, answer_document, parse_answer
from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.decision.size_search import Optimum
from analysis.decision.training_price import training_price
from analysis.decision.what_if import explore
from analysis.fitting.published import published
from scaling.errors import InputError
from scaling.serving.devices import device
from scaling.serving.measured_range import MeasuredRange
from scaling.serving.published_training import assumed_training_speed, constant_training_speed
from scaling.serving.training_speed import MfuByExperts, TrainingLaw

JOINT = replace(published("joint-moe-2025"), draws={})
H100 = device("h100")
EXPERTS = (1, 2, 4, 8, 16, 32)
HOURLY = H100.usd_per_hour
LAW = TrainingLaw(
    name="planted",
    coefficients=(2.0, 2.5, 2.0, 1e-13, 1e-13, 1e-12, 1e-3, 1e-5, 1e-5, 1.5, 0.0, 1.0),
    drawn=(),
    scatter=0.2,
    source="a test",
    batch_tokens=65_536.0,
    seq_len=2_048.0,
    domain=MeasuredRange("a test"),
)


def certain(slope: float, mfu: float = 0.4) -> MfuByExperts:
    """A share of the peak that is known."""
    return MfuByExperts("given", mfu, slope, "a test")


def drawn_alike(rows: int = 400):
    """The fit with draws that do not differ: all that varies is the training speed."""
    return replace(JOINT, draws={name: (value,) * rows for name, value in JOINT.params.items()})


def test_a_training_price_by_hand():
    """Sardana et al. (arXiv 2401.00448), dollar form: 1e21 FLOPs at 40 % of 9.894e14 FLOP/s are 701.9 hours."""
    question = Question(train_flops=1e21, device="h100", usd_per_hour=2.0, n_experts=(1,))
    assert recommend(JOINT, question).recommendation.cost.train == pytest.approx(1403.77, rel=1e-5)


@pytest.mark.parametrize("speed", [None, certain(0.3), LAW])
def test_usd_are_device_seconds_at_the_price(speed):
    """By hand: 6 N D / (peak MFU(E)) seconds; of a law its own seconds of these models."""
    question = Question(train_flops=1e21, device="h100", training_speed=speed, n_experts=EXPERTS)
    found = recommend(JOINT, question)
    for choice in (found.recommendation, *found.alternatives):
        flops = 6 * choice.n_active * choice.tokens
        if isinstance(speed, TrainingLaw):
            models = question.pricing.structure(JOINT.family.sizes(np.array([choice.n_active]), choice.n_experts))
            seconds = float(speed.seconds(models, H100)[0]) * choice.tokens
        else:
            slope = assumed_training_speed().slope if speed is None else speed.slope
            seconds = flops / (H100.peak_flops * 0.4 * choice.n_experts**-slope)
        assert choice.train_device_hours == pytest.approx(seconds / 3600, rel=1e-12)
        assert choice.cost.train == pytest.approx(seconds / 3600 * HOURLY, rel=1e-12)
        assert choice.train_mfu == pytest.approx(flops / (H100.peak_flops * seconds), rel=1e-12)


@pytest.mark.parametrize("speed", [None, LAW])
def test_a_budget_in_money_is_spent_to_the_cent_at_every_e(speed):
    question = Question(train_usd=12_345.67, device="h100", training_speed=speed, n_experts=EXPERTS)
    found = recommend(JOINT, question)
    choices = (found.recommendation, *found.alternatives)
    assert [choice.cost.train for choice in choices] == pytest.approx([12_345.67] * len(EXPERTS), abs=0.005)
    assert len({choice.train_flops for choice in choices}) == len(EXPERTS)  # which buys other FLOPs at each E
    for choice in choices:  # and the size is the best for the money
        size = choice.n_active * np.geomspace(0.5, 2.0, 2_001)
        sizes = JOINT.family.sizes(size, choice.n_experts)
        tokens = 12_345.67 / question.pricing.train_per_token(sizes)
        loss = JOINT.loss({"n_active": size, "tokens": tokens, "n_experts": float(choice.n_experts)})
        assert choice.loss <= loss.min() * (1 + 1e-9)


def test_a_cost_within_a_budget_in_money_keeps_it():
    """The bar is the reference's for the same money, and no model takes more."""
    found = recommend(JOINT, Question(train_usd=5e3, serve_tokens=1e12, device="h100", n_experts=(1, 32)))
    choices = (found.recommendation, *found.alternatives)
    assert max(choice.cost.train for choice in choices) <= 5e3 * (1 + 1e-6)
    bar = recommend(JOINT, Question(train_usd=5e3, device="h100", n_experts=(1,))).recommendation.loss
    assert [choice.loss for choice in choices] == pytest.approx([bar] * len(choices), rel=1e-9)


def test_flops_stay_flops_and_their_price_depends_on_e():
    found = recommend(JOINT, Question(train_flops=1e21, device="h100", n_experts=EXPERTS))
    by_e = {choice.n_experts: choice for choice in (found.recommendation, *found.alternatives)}
    assert [by_e[e].train_flops for e in EXPERTS] == pytest.approx([1e21] * len(EXPERTS), rel=1e-12)
    speed = assumed_training_speed()
    ratio = by_e[32].cost.train / by_e[1].cost.train
    assert ratio == pytest.approx(speed.mfu_at(1) / speed.mfu_at(32), rel=1e-12)


def test_the_slope_alone_changes_the_e_that_is_chosen():
    """E = 32 is worth so many times the compute of a dense model; it is chosen until 32^slope takes as much time."""
    routed = recommend(JOINT, Question(train_flops=1e22, n_experts=(32,))).recommendation.loss

    def beyond(log_flops):
        dense = recommend(JOINT, Question(train_flops=float(np.exp(log_flops)), n_experts=(1,)))
        return dense.recommendation.loss - routed

    worth = float(np.exp(brentq(beyond, np.log(1e22), np.log(1e24), rtol=1e-9))) / 1e22
    turning = np.log(worth) / np.log(32)
    for slope, chosen in ((0.0, 32), (turning - 1e-3, 32), (turning + 1e-3, 1)):
        usd = 1e22 / (H100.peak_flops * 0.4 * 32**-slope) * HOURLY / 3600  # which buys 1e22 FLOPs at E = 32
        question = Question(train_usd=usd, device="h100", training_speed=certain(slope), n_experts=(1, 32))
        assert recommend(JOINT, question).recommendation.n_experts == chosen


@pytest.mark.parametrize("speed", [assumed_training_speed(), LAW])
@pytest.mark.parametrize("n_experts", [1, 8])
def test_draws_of_the_speed_widen_the_cost_as_a_log_normal_factor(speed, n_experts):
    """Independent factors: standard deviations of ln(cost) add in squares, the slope's times ln E."""
    question = Question(train_flops=1e21, device="h100", training_speed=speed, n_experts=(n_experts,))
    found = recommend(drawn_alike(), question).recommendation
    of_slope = 0.0 if speed is LAW else np.log(n_experts) * speed.slope_spread
    level = 0.0 if speed is LAW else speed.mfu_spread
    spread = np.sqrt(level**2 + of_slope**2 + speed.scatter**2)
    low, high = np.log(np.array(found.cost_interval) / found.cost.total) / spread
    # The ends of 400 draws have a standard error of .13 and, through their share below the estimate, of another .13.
    assert (low, high) == pytest.approx((-1.96, 1.96), abs=0.36)
    one = Optimum(*(np.full(400, value) for value in (found.n_active, found.tokens, found.cost.total)))
    costs = SizeOptimiser(JOINT, question).lifetime(n_experts, one, drawn=True)
    # Evenly spread quantiles in random orders: correlations of .05 between factors.
    assert np.std(np.log(costs)) == pytest.approx(spread, rel=0.06)
    assert np.mean(np.log(costs)) == pytest.approx(np.log(found.cost.total), abs=0.02 * spread)
    assert recommend(
        drawn_alike(), replace(question, training_speed=replace(speed, **known(speed)))
    ).recommendation.cost_interval == (pytest.approx((found.cost.total, found.cost.total), rel=1e-3))


def known(speed):
    """The fields that make a speed certain."""
    return {"scatter": 0.0} | ({} if speed is LAW else {"mfu_spread": 0.0, "slope_spread": 0.0})


def test_own_scatter_of_an_e_decides_who_is_best():
    """Two E that cost the same are each best in half of the draws; with a common factor alone one always is."""
    even = Question(train_usd=1e4, device="h100", n_experts=(16, 32), training_speed=certain(0.0))
    better = recommend(drawn_alike(), even).recommendation
    scattered = replace(certain(0.0), scatter=0.5)
    found = recommend(drawn_alike(), replace(even, training_speed=scattered))
    assert better.probability_best == 1.0
    assert 0.4 < found.probability_best[better.n_experts] < 0.75
    common = replace(certain(0.0), mfu_spread=0.5)
    assert recommend(drawn_alike(), replace(even, training_speed=common)).recommendation.probability_best == 1.0
    assert found.recommendation.regret > 0.01


def test_prices_of_a_law_from_the_table_are_its_own():
    """In searches of many rows: to 1e-4, at the estimate and in each draw."""
    question = Question(train_flops=1e21, device="h100", training_speed=LAW)
    space = SizeOptimiser(JOINT, question).space(8)
    size = np.geomspace(1e8, 1e11, 333)
    exact = question.pricing.train_per_token(JOINT.family.sizes(size, 8))
    rows = space.sizes(np.tile(size, (3, 1)))
    assert training_price(question.pricing, space, 3)(rows) == pytest.approx(np.tile(exact, (3, 1)), rel=1e-4)
    factors = LAW.draws(3, 8)[:, :1] / LAW.coefficients[0]  # one scatter of all terms, as there is one row drawn
    drawn = training_price(question.pricing, space, 3, drawn=True)(rows)
    assert drawn == pytest.approx(factors * exact, rel=1e-4)


def test_a_law_holds_for_the_peaks_that_it_was_fitted_at():
    """A CPU's peaks are measured anew at every look: neither the time nor the share of the peak moves with them."""
    fitted = replace(LAW, device=H100)
    slower = replace(H100, peak_flops=H100.peak_flops / 2, bandwidth=H100.bandwidth / 2)
    sizes = JOINT.family.sizes(np.array([1e9]), 8)
    first, second = (
        Question(train_flops=1e21, device="h100", rented=rented, training_speed=fitted).pricing
        for rented in (H100, slower)
    )
    assert second.train_seconds(sizes) == pytest.approx(first.train_seconds(sizes), rel=1e-12)
    assert second.train_mfu(sizes) == pytest.approx(first.train_mfu(sizes), rel=1e-12)


def test_mfu_is_that_at_one_expert():
    falling = Question(train_flops=1e21, device="h100", mfu=0.6).pricing.training_speed
    assert falling == assumed_training_speed(0.6)
    assert (falling.mfu_at(1), falling.mfu_spread) == (0.6, 0.0)
    assert falling.mfu_at(32) < 0.6
    flat = Question(train_flops=1e21, device="h100", mfu=0.6, training_speed=constant_training_speed())
    assert [flat.pricing.training_speed.mfu_at(e) for e in (1, 8, 32)] == [0.6] * 3
    with pytest.raises(InputError, match="mfu"):
        Question(train_flops=1e21, device="h100", mfu=0.6, training_speed=LAW)
    with pytest.raises(InputError, match=r"training_speed.*device"):
        Question(train_flops=1e21, training_speed=LAW)
    free = replace(H100, usd_per_hour=0.0)
    with pytest.raises(InputError, match="usd_per_hour"):
        Question(train_usd=1e3, device="h100", rented=free)


def test_what_if_varies_the_training_speed():
    question = Question(train_usd=1e4, device="h100", training_speed=certain(0.5), n_experts=(1, 32))
    cases = explore(JOINT, question, recommend(JOINT, question)).cases
    of_training = {case.value: case.n_experts for case in cases if case.what == "MFU of training"}
    assert list(of_training) == ["20% at E = 1", "60% at E = 1", "40% at every E"]
    assert of_training["40% at every E"] == 32
    of_law = explore(
        JOINT, replace(question, training_speed=LAW), recommend(JOINT, replace(question, training_speed=LAW))
    )
    assert [case.value for case in of_law.cases if case.what == "training speed"] == ["22% slower", "18% faster"]


def test_an_assumed_fall_that_decides_is_a_doubt():
    """Where the ends of the published slopes lead to another E; not where the speed was measured or nothing is paid."""
    question = Question(train_usd=1e4, device="h100", n_experts=EXPERTS)
    ends = [
        recommend(JOINT, replace(question, training_speed=certain(slope))).recommendation.n_experts
        for slope in assumed_training_speed().slope
        + 1.96 * assumed_training_speed().slope_spread * np.array([-1, 0, 1])
    ]
    assert ends[1] != ends[2]  # the case is planted so that it matters
    found = recommend(JOINT, question)
    assert any("assumed, not measured" in doubt and f"E = {ends[2]}" in doubt for doubt in found.undecided_because)
    for changed in ({"training_speed": certain(0.2)}, {"train_usd": None, "train_flops": 1e22}):
        others = recommend(JOINT, replace(question, **changed)).undecided_because
        assert not any("training speed is assumed" in doubt for doubt in others)


def test_an_answer_holds_its_training_speed_and_an_older_one_had_one_mfu_for_all():
    question = Question(train_flops=1e21, device="h100", mfu=0.5, training_speed=assumed_training_speed())
    document = answer_document(answer(JOINT, question, what_if=False, cost_curves=False))
    read = parse_answer(document, "answer.json")
    assert read.question == question
    assert read.best.train_mfu == pytest.approx(assumed_training_speed(0.5).mfu_at(read.best.n_experts))
    for choice in (document["recommendation"], *document["alternatives"]):
        del choice["train_device_hours"], choice["train_mfu"]
    del document["question"]["training_speed"]
    older = parse_answer(document, "answer.json").question.pricing.training_speed
    assert [older.mfu_at(e) for e in (1, 32)] == [0.5, 0.5]
    law = replace(question, mfu=None, training_speed=LAW)
    document = answer_document(answer(JOINT, law, what_if=False, cost_curves=False))
    assert parse_answer(document, "answer.json").question.training_speed == LAW
