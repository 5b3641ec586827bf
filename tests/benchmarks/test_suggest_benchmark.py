"""The benchmark of suggestions: its worlds, its arithmetic, and a tiny run of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import suggest


def test_candidates_hold_the_first_grid_and_stay_within_thrice_its_largest_run():
    first, cells = suggest.first_runs(), suggest.candidates()
    held = set(zip(cells.n_experts.tolist(), cells.n_active.tolist(), cells.tokens.tolist(), strict=True))
    assert {run[:3] for run in first} <= held
    largest = max(6.0 * n * d for _, n, d, _ in first)
    assert cells.train_flops.max() <= 3.01 * largest
    sizes = {(shape, e, n) for shape, e, n in zip(cells.shape.tolist(), cells.n_experts, cells.n_active, strict=True)}
    assert len(sizes) == len({shape for shape, _, _ in sizes})  # a shape is one E and one size


@pytest.mark.parametrize("kind", suggest.QUESTIONS)
def test_worlds_differ_in_their_best_expert_count(kind):
    best = set()
    for seed in range(8):
        regrets = suggest.world(seed, kind).regrets
        assert np.nanmin(list(regrets.values())) == 0.0
        best |= {e for e, regret in regrets.items() if regret == 0.0}
    assert len(best) > 1
    assert not best & {suggest.EXPERTS[0], suggest.EXPERTS[-1]}


def test_a_trunk_shares_half_of_its_noise():
    here = suggest.world(0, "budget")
    frame = here.measure([(4, 1e8, d, seed) for seed in range(2_000) for d in (1e9, 2e9)])
    left = np.log(frame["loss_val"]).to_numpy().reshape(2_000, 2)
    left = left - left.mean(axis=0)
    # correlation one half, known to (1 - .25)/sqrt(2000) = .017; deviation to 1/sqrt(4000) = 1.6 %
    assert np.corrcoef(left.T)[0, 1] == pytest.approx(suggest.SHARED, abs=0.07)
    assert left.std() == pytest.approx(here.noise, rel=0.06)


def test_flops_to_reach_a_level_lie_straight_between_rounds():
    path = np.array([[0.0, 0.4], [10.0, 0.2], [20.0, 0.2], [30.0, 0.1]])
    assert suggest.flops_to_reach(0.3, path) == pytest.approx(5.0)
    assert suggest.flops_to_reach(0.2, path) == 10.0
    assert suggest.flops_to_reach(0.15, path) == pytest.approx(25.0)
    assert suggest.flops_to_reach(0.05, path) == float("inf")
    assert suggest.flops_to_reach(0.5, path) == 0.0


def test_the_ratio_of_paths_that_are_known():
    """One halves its regret with every unit, the other with every three: three times the FLOPs at every level."""
    fast = [[float(i), 0.4 / 2**i] for i in range(3)]
    slow = [[3.0 * i, 0.4 / 2**i] for i in range(3)]
    rows = suggest.compared([{"suggest": fast, "random": slow}] * 3)
    assert [row["ratio"] for row in rows] == pytest.approx([3.0, 3.0])
    assert [row["ratio_se"] for row in rows] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert not any(row["at_least"] for row in rows)
    short = suggest.compared([{"suggest": fast, "random": slow[:2]}] * 3)[-1]
    assert short["at_least"]
    assert short["ratio"] == pytest.approx(1.5)


def test_a_tiny_run_spends_alike_and_says_so(capsys, monkeypatch):
    monkeypatch.setattr(suggest, "DRAWS", 20)
    found = suggest.study("budget", {"suggest": 1, "random": 1}, 1.0, 0)
    largest = max(6.0 * n * d for _, n, d, _ in suggest.first_runs())
    for path in found.values():
        assert path[0] == [0.0, found["random"][0][1]]  # both begin alike
        assert 0 < path[1][0] <= largest * (1 + 1e-9)
        assert path[1][1] >= 0
    monkeypatch.setattr(suggest, "study", lambda kind, rounds, share, seed: found)
    suggest.main(["--studies", "2", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert {"round", "train_flops", "regret", "ratio", "ratio_se", "at_least"} <= set(document["rounds"][0])
    suggest.main(["--studies", "2"])
    assert "times the FLOPs" in capsys.readouterr().out
