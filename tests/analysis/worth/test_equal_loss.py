"""Models of equal loss: planted factors, published ratios, and a baseline against itself."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.decision.question import Question
from analysis.fitting.published import published
from analysis.worth.equal_loss import Comparison, effective_size
from analysis.worth.leverage import leverage_worth
from scaling.errors import InputError
from tests.support.worth import multiplied

JOINT = published("joint-moe-2025")


def ratio(fit, e, budget, base=1, **more):
    matched = Comparison(fit, base, **more).at(e, budget, fit.params, 1)
    return float(np.exp(matched.log_speedup[0]))


@pytest.mark.parametrize("power", [-0.3, 0.0, 0.5, 1.2])
@pytest.mark.parametrize("budget", [1e18, 1e24])
def test_a_planted_factor_of_compute_is_the_speedup(power, budget):
    fit = multiplied(power)
    assert ratio(fit, 16, budget) == pytest.approx(16**power, rel=1e-8)
    assert ratio(fit, 16, budget, base=4) == pytest.approx(4**power, rel=1e-8)


@pytest.mark.parametrize("e", [1, 8])
def test_the_baseline_against_itself_is_worth_one(e):
    assert ratio(JOINT, e, 1e21, base=e) == pytest.approx(1.0, rel=1e-9)


def test_the_speedup_agrees_with_the_closed_form_of_the_optimum():
    """An independent way: N* and D* in closed form, and C_base by bisection on the closed-form loss."""
    law, params = JOINT.definition, JOINT.params

    def least(e, budget):
        n, d = law.optimum(params, budget, e)
        return float(law.loss(params, {"n_active": n, "tokens": d, "n_experts": float(e)}))

    wanted, low, high = least(8, 1e22), 1e20, 1e26
    for _ in range(200):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if least(1, middle) > wanted else (low, middle)
    assert ratio(JOINT, 8, 1e22) == pytest.approx(low / 1e22, rel=1e-7)


@pytest.mark.parametrize(
    ("router", "at_1e8", "at_5e6"),
    [  # laws.md 1.4, from the constants as printed by arXiv 2202.01169: N_bar(1e8, 64) and N_bar(5e6, 128)
        ("s-base", 4.593e8, 5.183e7),
        ("rl-r", 3.612e8, 4.891e7),
        ("hash", 3.785e8, 4.699e7),
    ],
)
def test_effective_parameter_counts_of_clark(router, at_1e8, at_5e6):
    fit = published(f"clark-2022-{router}")
    for n, e, printed in ((1e8, 64, at_1e8), (5e6, 128, at_5e6)):
        found = effective_size(fit, fit.params, e, np.array([n]))[0]
        assert found == pytest.approx(printed, rel=5e-4 / 3.6)  # half a unit of the fourth digit
        # The identity of the paper: a dense model of N_bar parameters has the loss.
        dense = fit.definition.log_loss(fit.params, {"n_dense_nonembed": found, "n_experts": 1.0})
        routed = fit.definition.log_loss(fit.params, {"n_dense_nonembed": n, "n_experts": float(e)})
        assert float(dense) == pytest.approx(float(routed), abs=1e-10)


def test_a_law_without_tokens_is_compared_at_those_of_all_its_runs():
    """At one D the ratio of compute is that of the sizes, N_bar/N."""
    fit = published("clark-2022-s-base")
    size = effective_size(fit, fit.params, 64, np.array([1e8]))[0]
    assert ratio(fit, 64, 6 * 1e8 * 130e9, tokens=130e9) == pytest.approx(size / 1e8, rel=1e-9)


@pytest.mark.parametrize(
    ("active", "granularity", "budget", "printed", "tolerance"),
    [  # laws.md 1.8 (arXiv 2507.17702; its text says "more than 7x" of the first)
        (0.031, 12, 1e22, 7.2449, 1e-3),
        (0.034, 12, 1e22, 6.9614, 1e-3),
        (0.031, 12, 1e21, 5.7437, 1e-3),
        (0.034, 8, 1e20, 4.3625, 1e-3),
        (1.0, 1.0, 1e20, 0.99529, 1e-4),
    ],
)
def test_efficiency_leverage_at_the_published_points(active, granularity, budget, printed, tolerance):
    settings = {"activation_ratio": active, "granularity": float(granularity)}
    found = leverage_worth(published("leverage-2025"), Question(train_flops=budget, settings=settings), [budget])
    (one,) = found.worth
    assert one.compute_speedup == pytest.approx(printed, abs=tolerance)
    assert one.baseline_flops == pytest.approx(one.compute_speedup * budget)
    assert one.time_speedup is None
    assert one.reason


def test_leverage_falls_short_without_its_columns():
    with pytest.raises(InputError, match="granularity"):
        leverage_worth(
            published("leverage-2025"), Question(train_flops=1e20, settings={"activation_ratio": 0.1}), [1e20]
        )
    settings = {"activation_ratio": 0.1, "granularity": 4.0}
    asked = Question(train_flops=1e20, reference_experts=4, settings=settings)
    with pytest.raises(InputError, match="dense models alone"):
        leverage_worth(published("leverage-2025"), asked, [1e20])
