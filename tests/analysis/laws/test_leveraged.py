"""Leverage on a dense law: at a budget the loss of a dense model with EL times the compute."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from analysis.fitting.leveraged import with_dense
from analysis.fitting.published import published
from analysis.laws.leveraged import leveraged
from analysis.laws.moe_shape import LEVERAGE
from scaling.columns import TOKENS
from scaling.errors import InputError

LEV, DENSE = published("leverage-2025"), published("chinchilla-epoch")
FIT = with_dense(LEV, DENSE)
SIZES = np.geomspace(1e7, 1e11, 40_001)


def least(fit, budget, **columns):
    return float(fit.loss({"n_active": SIZES, TOKENS: budget / (6.0 * SIZES), **columns}).min())


@pytest.mark.parametrize(
    ("ratio", "granularity", "budget"), [(0.031, 12.0, 1e22), (0.034, 8.0, 1e20), (0.2, 2.0, 1e19)]
)
def test_at_a_budget_it_is_the_dense_model_of_el_times_the_compute(ratio, granularity, budget):
    """To the spacing of the sizes, whose error is of second order."""
    el = float(
        LEV.loss({"activation_ratio": ratio, "granularity": granularity, "train_flops": budget})  # 7.24, 4.36, 1.9
    )
    moe = least(FIT, budget, n_experts=64.0, activation_ratio=ratio, granularity=granularity)
    assert moe == pytest.approx(least(DENSE, el * budget), abs=1e-7)


def test_a_dense_model_has_no_leverage_whatever_its_width():
    columns = {"n_active": np.array([1e9]), TOKENS: np.array([2e10])}
    with_shape = columns | {"n_experts": 1.0, "activation_ratio": 1.0, "granularity": 0.7}
    assert FIT.loss(with_shape)[0] == DENSE.loss(columns)[0]


def test_the_slope_by_tokens_is_that_of_the_formula():
    """The compute in EL moves with tokens, too."""
    columns = {"n_active": np.array([3e9]), "n_experts": 64.0, "activation_ratio": 0.05, "granularity": 8.0}

    def log_loss(log_tokens):
        return float(FIT.definition.log_loss(FIT.params, {**columns, TOKENS: np.exp(log_tokens)})[0])

    slope = FIT.definition.log_loss_by_tokens(FIT.params, {**columns, TOKENS: np.array([1e11])})[1]
    assert float(slope[0]) == pytest.approx(approx_fprime([np.log(1e11)], log_loss, 1e-6)[0], rel=1e-4)


def test_only_a_law_of_size_and_tokens_can_be_the_dense_one():
    with pytest.raises(InputError, match="needs one of size and tokens"):
        with_dense(LEV, published("joint-moe-2025"))
    with pytest.raises(InputError, match="gives its own"):
        with_dense(DENSE, DENSE)
    assert leveraged(DENSE.definition).n_column == "n_active"
    assert LEVERAGE.name in FIT.law
