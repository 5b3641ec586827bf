"""Coverage of the intervals: the benchmark's plumbing by default, and a shorter count of it as a slow proof."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binom

from benchmarks import coverage


@pytest.mark.parametrize("name", coverage.DESIGNS)
def test_a_design_is_of_its_law_and_identifies_it(name):
    design = coverage.DESIGNS[name]
    assert set(design.truth) == set(design.law.names)
    assert design.budget == pytest.approx(10 * design.frame["train_flops"].max())
    held = coverage.study(name, 8, 0)
    assert held is not None
    assert {"loss_opt", "N_opt"} <= {key.split()[0] for key in held}
    assert ("best E" in held) == design.law.uses_experts


@pytest.mark.parametrize("noise", [coverage.independent, coverage.heavy, coverage.uneven, coverage.by_trunk])
def test_noise_is_of_the_size_it_says(noise):
    frame = coverage.grid(np.geomspace(1e8, 1e10, 40), range(1, 51), trunks=True)
    drawn = np.asarray(noise(frame, np.random.default_rng(0)))
    # 40 trunks know the shared part to 11 %; a t of three degrees of freedom knows its deviation badly.
    expected = {
        "by_trunk": np.hypot(0.003, 0.002),
        "uneven": 0.008 * np.sqrt(np.mean((frame["n_active"] / 1e8) ** -0.5)),
    }
    assert np.std(drawn) == pytest.approx(expected.get(noise.__name__, 0.004), rel=0.25)


def test_the_document(capsys):
    coverage.main(["hoffmann-normal", "--studies", "2", "--draws", "8", "--workers", "1", "--json"])
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found["studies"] == 2
    assert set(found["covered"]) == {"E", "alpha", "beta", "a", "N_opt", "loss_opt", "loss_inside"}
    with pytest.raises(SystemExit):
        coverage.main(["nothing"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "studies"),
    [("hoffmann-normal", 200), ("hoffmann-heavy", 200), ("hoffmann-trunks", 150), ("joint-moe", 60)],
)
def test_intervals_hold_the_truth_as_often_as_they_say(name, studies):
    """Not fewer than chance leaves one quantity in a thousand at 95 %; `python -m benchmarks.coverage` counts 1,000."""
    found = coverage.measure(name, studies, 400, 1)
    assert found["without a fit"] == 0
    least = binom.ppf(0.001, studies, 0.95) / studies
    assert {key: share for key, share in found["covered"].items() if share < least} == {}
