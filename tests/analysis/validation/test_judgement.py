"""Judgements: what repeats agree on, and that neither the seed nor the number of resamples moves them."""

from __future__ import annotations

import numpy as np
import pytest
from planted import moe_grid, table_of

from analysis.fitting.bootstrap import bootstrap
from analysis.fitting.fit import fit
from analysis.fitting.objective import HUBER
from analysis.fitting.roll_out import ErrorSummary, RollOut
from analysis.laws import LAWS
from analysis.validation import judgement
from analysis.validation.checks import validate_fit
from analysis.validation.influence import Exclusion, QuantityChange, Sensitivity


def rolled(inside, interval, n=200, trunks=50):
    overall = ErrorSummary("all", n, trunks, 0.5, 0.1, 2.0, 10.0, n, int(n * inside), inside, interval)
    return RollOut("hoffmann", (), (), overall)


@pytest.mark.parametrize(
    ("intervals", "outcome"),
    [
        ([(0.88, 0.97)] * 3, "holds"),
        ([(0.70, 0.90)] * 3, "fails"),
        ([(0.85, 0.96), (0.84, 0.949), (0.85, 0.96)], "undecided"),
        ([(0.50, 0.99)] * 3, "undecided"),
    ],
)
def test_shares_hold_or_fail_where_all_repeats_agree(intervals, outcome):
    assert judgement.of_roll_out([rolled(np.mean(ends), ends) for ends in intervals]).outcome == outcome


def moved(influence):
    change = QuantityChange(1.0, 5.0, influence)
    trunk = Exclusion("trunk", "a", 1, {"alpha": change}, "alpha", influence, "")
    return Sensitivity("hoffmann", 1e20, 1, {}, (trunk,), (), 1, ())


@pytest.mark.parametrize(("influence", "outcome"), [(0.4, "holds"), (2.1, "undecided"), (3.0, "fails")])
def test_an_influence_near_two_standard_errors_decides_nothing(influence, outcome):
    assert judgement.of_sensitivity(moved(influence)).outcome == outcome


def checked(table, law, others, seed, resamples):
    rng = np.random.default_rng(seed)
    estimate = bootstrap(fit(table, law, seed=seed), table, resamples, rng)
    return validate_fit(
        estimate, table, [law, *others], rng=rng, resamples=resamples, keep_trunks=False, objective=HUBER, pin={},
        train_flops=1e20,
    )  # fmt: skip


@pytest.fixture(scope="module")
def dense():
    return table_of(moe_grid(experts=(1,), noise=0.003))


def test_neither_the_seed_nor_the_number_of_resamples_moves_a_judgement(dense):
    law, other = LAWS["hoffmann"], LAWS["kaplan"]
    found = [checked(dense, law, [other], seed, resamples) for seed, resamples in ((0, 10), (7, 40))]
    assert found[0].verdict == found[1].verdict
    assert {name: one.outcome for name, one in found[0].judgements.items()} == {
        name: one.outcome for name, one in found[1].judgements.items()
    }
    assert found[0].roll_out.overall.n_inside is not None
    assert found[0].judgements["comparison"].outcome == "holds", "the runs were planted with this law's form at E = 1"


@pytest.mark.slow
def test_ten_seeds_and_four_numbers_of_resamples_give_one_verdict(dense):
    law = LAWS["hoffmann"]
    verdicts = {
        checked(dense, law, [LAWS["kaplan"]], seed, (50, 100, 200, 400)[seed % 4]).verdict for seed in range(10)
    }
    assert len(verdicts) == 1
