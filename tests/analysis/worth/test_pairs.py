"""Paired cells: speedups read from a curve through the baseline's cells, and what seeds say of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.worth.cells import cells_of
from analysis.worth.pairs import first_reached, paired_speedups
from analysis.worth.worth import worth_of_runs
from scaling.errors import InputError
from tests.support.planted import table_of

TOKENS = np.geomspace(1e6, 1e9, 7)
WORTH = {4: 1.7, 16: 2.6}
SLOWER = {1: 1.0, 4: 1.3, 16: 1.8}


def runs(noise=0.0, seeds=1, seed=0, experts=(1, 4, 16)) -> pd.DataFrame:
    """Two widths; ln L falls with ln D alike at every E, which is worth a planted factor of tokens."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "n_experts": e, "d_model": d, "n_layers": 2, "top_k": 1, "seed": s, "tokens": tokens, "n_active": 100.0 * d,
            "train_flops": 600.0 * d * tokens, "tokens_per_s": 1e6 / d / SLOWER[e], "run_id": f"{e}-{d}-{s}-{tokens}",
            "loss_val": 30.0 * d**-0.2 * (tokens * WORTH.get(e, 1.0)) ** -0.1 * np.exp(noise * rng.standard_normal()),
        }
        for e in experts for d in (32, 64) for tokens in TOKENS for s in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def pairs_of(frame, **more):
    return paired_speedups(cells_of(table_of(frame)), **more)


def test_a_planted_factor_is_found_between_cells_and_never_beyond_them():
    """ln C is linear in ln L here, so interpolation is exact."""
    pairs, means = pairs_of(runs())
    own = [pair for pair in pairs if pair.curve == "same shape"]
    for pair in own:
        if pair.tokens == TOKENS[-1]:
            assert pair.compute_speedup is None
            assert "below that of every baseline cell" in pair.reason
        else:
            assert pair.compute_speedup == pytest.approx(WORTH[pair.n_experts], rel=1e-9)
            assert pair.time_speedup == pytest.approx(WORTH[pair.n_experts] / SLOWER[pair.n_experts], rel=1e-9)
        assert pair.compute_interval is None, "no seed was repeated"
    for mean in means:
        if mean.curve == "same shape":
            assert (mean.n_pairs, mean.beyond) == (12, 2)
            assert mean.compute_speedup == pytest.approx(WORTH[mean.n_experts], rel=1e-9)


def test_against_all_shapes_the_cheapest_cell_counts():
    """At one loss the wider model takes (1/2)^2 of the tokens and half of the compute: 64 leads wherever it reaches."""
    pairs, _ = pairs_of(runs())
    for pair in (pair for pair in pairs if pair.curve == "all shapes" and pair.compute_speedup is not None):
        assert pair.compute_speedup <= WORTH[pair.n_experts] * (1 + 1e-9)
    cell = next(p for p in pairs if p.curve == "all shapes" and p.n_experts == 4 and p.tokens == TOKENS[3])
    assert cell.n_active == 3200.0
    assert cell.compute_speedup == pytest.approx(1.7 / 2, rel=1e-6)


def test_the_interval_of_seeds_covers_the_planted_factor():
    """Of tables with two seeds each, intervals of the means hold the truth in 95 % but for three binomial errors."""
    held = []
    for seed in range(12):
        _, means = pairs_of(runs(0.004, seeds=2, seed=seed))
        for mean in (mean for mean in means if mean.curve == "same shape"):
            low, high = mean.compute_interval
            held.append(low <= WORTH[mean.n_experts] <= high)
    assert np.mean(held) == pytest.approx(0.95, abs=3 * np.sqrt(0.05 * 0.95 / len(held)))


def test_a_curve_is_the_lower_envelope_of_its_points():
    log_cost = np.array([0.0, 1.0, 2.0, 3.0])
    losses = np.array([[4.0, 3.0, 3.5, 2.0]])
    wanted = np.array([4.5, 4.0, 3.5, 3.0, 2.5, 2.0, 1.9])
    found = first_reached(np.repeat(losses, 7, axis=0), log_cost, wanted)
    # Between 1 (loss 3) and 3 (loss 2) the third point improves on nothing: it is left out.
    np.testing.assert_allclose(found, [-np.inf, 0.0, 0.5, 1.0, 2.0, 3.0, np.inf])


def test_times_of_several_devices_are_not_compared():
    frame = runs()
    found = worth_of_runs(table_of(frame.assign(device_kind=np.where(frame["n_experts"] > 1, "a", "b"))))
    assert {pair.time_speedup for pair in found.pairs} == {None}
    assert any("different devices" in line for line in found.assumptions)
    assert worth_of_runs(table_of(frame)).pairs[0].time_speedup is not None


def test_another_baseline_and_wrong_tables():
    _, means = pairs_of(runs(), baseline_experts=4)
    by_e = {mean.n_experts: mean.compute_speedup for mean in means if mean.curve == "same shape"}
    assert by_e[16] == pytest.approx(2.6 / 1.7, rel=1e-9)
    assert by_e[1] == pytest.approx(1 / 1.7, rel=1e-9)
    with pytest.raises(InputError, match="no run has E = 2"):
        pairs_of(runs(), baseline_experts=2)
    with pytest.raises(InputError, match="nothing to compare"):
        pairs_of(runs(experts=(1,)))
    with pytest.raises(InputError, match="n_experts"):
        pairs_of(runs().drop(columns="n_experts"))
    with pytest.raises(InputError, match="d_model or n_active"):
        pairs_of(runs().drop(columns=["d_model", "n_layers", "n_active"]))
    with pytest.raises(InputError, match="train_flops, or n_active and tokens"):
        pairs_of(runs().drop(columns=["train_flops", "n_active"]))


def test_without_widths_cells_of_one_size_pair():
    _, means = pairs_of(runs().drop(columns=["d_model", "n_layers"]))
    assert {mean.n_pairs for mean in means if mean.curve == "same shape"} == {12}


def test_a_lone_baseline_cell_is_no_curve():
    frame = runs()
    lone = frame[(frame["n_experts"] > 1) | ((frame["tokens"] == TOKENS[2]) & (frame["d_model"] == 32))]
    pairs, _ = pairs_of(lone)
    assert {pair.compute_speedup for pair in pairs} == {None}
    assert all("fewer than two" in pair.reason for pair in pairs)
