"""The simulation of effective speedups: one study of each truth, and what is told of several."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.worth.equal_loss import Comparison
from benchmarks.worth import FACTOR, JUDGED, TRUTHS, study, summary, truth_of


@pytest.mark.parametrize("name", TRUTHS)
def test_a_study_judges_every_interval(name):
    one = study(name, 30, True, 1)
    assert set(one["held"]) == {
        f"compute, E = {JUDGED}", f"time, E = {JUDGED}", "method, alone", "method, 30 times beyond"
    }  # fmt: skip
    for judged in one["held"].values():
        assert judged["held"] + judged["below"] + judged["above"] == 1.0
        assert judged["width"] > 0


def test_the_planted_factor_is_what_e_is_worth():
    truth, noise = truth_of("factor", 3)
    assert truth.law is FACTOR
    matched = Comparison(truth.exact, 1).at(JUDGED, 1e21, dict(truth.params), 1)
    assert matched.log_speedup[0] == pytest.approx(truth.params["power"] * np.log(JUDGED), rel=1e-6)
    assert 0.002 <= noise <= 0.01


def test_shares_are_counted():
    judged = [{"held": h, "below": 1 - h, "above": 0.0, "width": w} for h, w in ((1, 2), (0, 4))]
    found = summary([{"held": {"x": one}, "cpu_s": 1.0} for one in judged])
    assert found["coverage"]["x"] == {"held": 0.5, "below": 0.5, "above": 0.0, "median_width": 3.0}
