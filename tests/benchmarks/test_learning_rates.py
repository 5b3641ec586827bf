"""Optimal rates: recovered where they were planted, not known at an edge, and a rule's distance from them."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import learning_rates
from scaling.errors import InputError

RATES = [0.001, 0.002, 0.004, 0.008]


def planted(widths=(32, 64, 128), power=1.0, at_64=0.004, curvature=0.1, rates=RATES):
    """A parabola in ln lr around at_64 (64 / d)^power, at every width."""
    rows = []
    for d in widths:
        best = at_64 * (64 / d) ** power
        for tokens in (10**5, 10**6):
            for lr in rates:
                loss = 2.0 - 0.1 * np.log10(tokens) + curvature * np.log(lr / best) ** 2
                rows.append(
                    dict.fromkeys(learning_rates.SHAPE, 1)
                    | {"d_model": d, "tokens": tokens, "lr": lr, "loss_val": loss}
                )
    return pd.DataFrame(rows)


def test_the_planted_optimum_and_power_come_back():
    found = learning_rates.rate_optima(planted(rates=np.geomspace(5e-4, 4e-2, 8)), lambda row: 0.004)
    for row in found.itertuples():
        assert row.lr_optimum == pytest.approx(0.004 * 64 / row.d_model, rel=1e-6)
        truth = 0.1 * np.log(0.004 / (0.004 * 64 / row.d_model)) ** 2  # what a constant rate costs, by construction
        assert row.rule_loss - (2.0 - 0.1 * np.log10(row.tokens)) == pytest.approx(truth, abs=1e-9)
    rate, power, error = learning_rates.power_of_width(found)
    assert (rate, power) == (pytest.approx(0.004, rel=1e-6), pytest.approx(1.0, abs=1e-6))
    assert error < 1e-6


def test_an_optimum_at_the_edge_is_not_known():
    found = learning_rates.rate_optima(
        planted(widths=(8,)), lambda row: 0.004
    )  # planted at .032, the rates end at .008
    assert found["lr_optimum"].isna().all()
    assert (found["best_lr"] == 0.008).all()
    with pytest.raises(InputError, match="two widths"):
        learning_rates.power_of_width(found)


def test_a_rule_beyond_the_rates_has_no_loss():
    found = learning_rates.rate_optima(planted(widths=(64,)), lambda row: 0.1)
    assert found["rule_loss"].isna().all()


def test_two_rates_are_no_optimum():
    with pytest.raises(InputError, match="three learning rates"):
        learning_rates.rate_optima(planted(rates=[0.001, 0.002]), lambda row: 0.004)
