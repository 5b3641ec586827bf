"""Worth by a law: intervals, time, money, growth, and what is said where there is no number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.decision.question import Question
from analysis.fitting.published import published
from analysis.worth.asked import question_of
from analysis.worth.of_law import curve_budgets
from analysis.worth.worth import worth_of_fit
from scaling.errors import InputError
from tests.support.worth import falling, multiplied, with_draws

BUDGET = 1e20


def asked(fit, *, budgets=(BUDGET,), speed=None, **more):
    return worth_of_fit(fit, question_of(budgets, speed=speed or falling(), **more), budgets)


def of(found, e, budget=BUDGET):
    (one,) = (each for each in found.worth if (each.n_experts, each.train_flops) == (e, budget))
    return one


def test_time_is_compute_times_the_ratio_of_mfu():
    """MFU(E)/MFU(1) = E^-slope, at the estimate and in every draw."""
    found = asked(with_draws(multiplied(), 0.05), speed=falling(0.2))
    for e in (4, 16):
        one = of(found, e)
        assert one.compute_speedup == pytest.approx(e**0.5, rel=1e-8)
        assert one.time_speedup == pytest.approx(one.compute_speedup * e**-0.2, rel=1e-8)
        assert one.time_interval == pytest.approx([end * e**-0.2 for end in one.compute_interval], rel=1e-8)
        assert one.cost_speedup == one.time_speedup  # training alone: the rent cancels
    assert of(asked(multiplied(), speed=falling(0.0)), 4).time_speedup == pytest.approx(2.0)


def test_intervals_are_quantiles_of_the_planted_draws():
    """The speedup is E^power, so draws of the power give its quantiles: .5 +- 1.96 x .05 in the exponent."""
    one = of(asked(with_draws(multiplied(), 0.05)), 16)
    assert np.log(one.compute_interval) / np.log(16) == pytest.approx([0.5 - 0.098, 0.5 + 0.098], abs=0.01)
    assert one.above_one == 1.0
    near = of(asked(with_draws(multiplied(0.0), 0.05)), 16)
    assert near.above_one == pytest.approx(0.5, abs=0.05)


def test_the_draws_of_the_training_speed_widen_time_alone():
    exact, uncertain = (
        of(asked(with_draws(multiplied(), 0.02), speed=falling(0.2, spread)), 16) for spread in (0.0, 0.1)
    )
    assert uncertain.compute_interval == exact.compute_interval
    widths = [np.ptp(np.log(one.time_interval)) / np.log(16) for one in (exact, uncertain)]
    # Independent normals: their variances add up, 1.96 x 2 x sqrt(.02^2 + .1^2).
    assert widths[1] == pytest.approx(3.92 * np.hypot(0.02, 0.1), rel=0.1)
    assert widths[0] == pytest.approx(3.92 * 0.02, rel=0.1)


@pytest.mark.parametrize("growth", [-0.02, 0.0, 0.03])
def test_growth_finds_the_planted_slope(growth):
    """f = E^.5 (C/6e18)^growth, and a dense model of equal loss takes f C: ln speedup is linear in ln C."""
    found = asked(with_draws(multiplied(growth=growth), 0.01, "growth"), budgets=(1e19, 1e21))
    (four,) = (one for one in found.growth if one.n_experts == 4)
    assert four.compute_slope == pytest.approx(growth, abs=1e-6)
    assert (four.from_flops, four.to_flops) == (1e19, 1e21)
    assert four.compute_interval == pytest.approx([growth - 0.0196, growth + 0.0196], abs=4e-3)
    assert four.compute_grows == pytest.approx({-0.02: 0.023, 0.0: 0.5, 0.03: 0.9987}[growth], abs=0.03)


def test_against_another_e_and_itself():
    found = asked(multiplied(), reference_experts=4, n_experts=(1, 4, 16))
    assert [one.n_experts for one in found.worth] == [1, 4, 16]
    assert of(found, 1).compute_speedup == pytest.approx(0.5, rel=1e-8)
    assert of(found, 4).compute_speedup == pytest.approx(1.0, rel=1e-9)
    assert of(found, 4).time_speedup == pytest.approx(1.0, rel=1e-9)
    assert of(found, 16).compute_speedup == pytest.approx(2.0, rel=1e-8)
    assert found.baseline.n_experts == 4


def test_budgets_each_once_and_in_their_order():
    found = asked(multiplied(), budgets=(1e21, 1e19, 1e21))
    assert [(one.train_flops, one.n_experts) for one in found.worth] == [(1e21, 4), (1e21, 16), (1e19, 4), (1e19, 16)]
    along = sorted({one.train_flops for one in found.curve})
    assert along[0] == 1e19
    assert along[-1] == 1e21
    assert curve_budgets([1e20]) == pytest.approx([1e19, 10**19.5, 1e20, 10**20.5, 1e21])


YUN = {
    "A": 300.0, "alpha": 0.3, "B": 0.4, "beta": 0.5, "C": 900.0, "gamma": 0.33, "F": 1.4, "d": 0.0, "E_start": 1.9,
    "E_max": 310.0,
}  # fmt: skip


def yun():
    """A law whose dense models never lose B/E_start^beta, which routed ones mostly do."""
    return replace(published("joint-moe-2025"), law="yun", params=YUN, draws={})


def test_what_no_baseline_reaches_has_no_number():
    found = asked(yun(), budgets=(1e26,), n_experts=(32,))
    one = of(found, 32, 1e26)
    assert (one.compute_speedup, one.time_speedup, one.cost_speedup) == (None, None, None)
    assert one.loss < YUN["F"] + YUN["B"] / YUN["E_start"] ** YUN["beta"]
    assert one.baseline_flops is None
    assert any(one.reason in warning for warning in found.warnings)
    assert found.to_json()["worth"][0]["compute_speedup"] is None


def test_draws_without_a_baseline_leave_the_interval_open():
    """Whether a draw has a baseline follows from its loss of E = 32 and the least one of its dense models, of at most
    1e16 parameters: F + B/E_start^beta + A/N^alpha."""
    count, budget = 24, (1e26,)
    fit = with_draws(replace(yun(), params={**YUN, "B": 0.22}), 0.05, "B", count=count)
    found = asked(fit, budgets=budget, n_experts=(32,))
    draws = np.array(fit.draws["B"])
    alone = [replace(fit, draws={}, params={**fit.params, "B": b}) for b in draws.tolist()]
    losses = [of(asked(each, budgets=budget, n_experts=(32,)), 32, 1e26).loss for each in alone]
    least = YUN["F"] + draws / YUN["E_start"] ** YUN["beta"] + YUN["A"] / 1e16 ** YUN["alpha"]
    without = np.mean(losses < least)
    assert 0.025 < without < 0.975
    one = of(found, 32, 1e26)
    assert one.unreachable == pytest.approx(without)
    assert one.compute_interval[1] == np.inf
    assert found.to_json()["worth"][0]["compute_interval"][1] is None


def test_without_draws_there_are_no_intervals():
    found = asked(multiplied())
    one = of(found, 4)
    assert (one.compute_interval, one.time_interval, one.above_one) == (None, None, None)
    assert any("no draws" in warning for warning in found.warnings)


def test_the_limits_of_the_law_travel():
    studied = {"train_flops": (1e15, 1e17), "n_active": (1e6, 1e8), "tokens": (1e8, 1e9)}
    found = asked(multiplied(domain=studied), budgets=(1e20,))
    assert all(one.extrapolated for one in found.worth)
    assert any("1e+03 times the compute of the largest run" in warning for warning in found.warnings)
    assert any("times above what was studied" in warning for warning in found.warnings)
    assert any(warning.startswith("extrapolation: n_active") for warning in found.warnings)
    near = asked(multiplied(domain={**studied, "train_flops": (1e19, 1e21)}), budgets=(1e20,))
    assert not any(one.extrapolated for one in near.worth)
    other = asked(multiplied(), n_experts=(8,), reference_experts=2)
    assert any("E = 8 was not studied" in warning for warning in other.warnings)
    assert any("baseline, E = 2, was not studied" in warning for warning in other.warnings)


def test_money_holds_serving_on_a_device():
    fit = published("joint-moe-2025")
    fit = replace(fit, draws={})
    more = {"device": "h100", "n_experts": (8,)}
    trained, served = (of(asked(fit, budgets=(1e21,), serve_tokens=t, **more), 8, 1e21) for t in (0.0, 1e13))
    assert trained.cost_speedup == pytest.approx(trained.time_speedup)
    assert served.time_speedup == trained.time_speedup
    assert served.cost_speedup != pytest.approx(trained.cost_speedup, rel=1e-3)
    # Serving alone decides at such a volume: the ratio of the prices of a token of the two models.
    pricing = Question(train_flops=1e21, serve_tokens=1e13, device="h100").pricing
    price = [
        pricing.per_token(fit.family.sizes(np.array([n]), e))[0]
        for e, n in ((1, served.baseline_n_active), (8, served.n_active))
    ]
    assert served.cost_speedup == pytest.approx(price[0] / price[1], rel=0.05)


def test_wrong_questions_are_named():
    with pytest.raises(InputError, match="says nothing about experts"):
        asked(published("chinchilla-tex"))
    with pytest.raises(InputError, match="`serve_tokens` needs `device`"):
        asked(multiplied(), serve_tokens=1e12)
    with pytest.raises(InputError, match="does not read tokens"):
        asked(published("clark-2022-hash"))
    with pytest.raises(InputError, match="another `baseline_experts`"):
        asked(multiplied(experts=(1,)))
    with pytest.raises(InputError, match="`train_flops`"):
        question_of((-1.0,))
