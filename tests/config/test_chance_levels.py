"""Chance levels, against simulation and the published table."""

import numpy as np
import pytest

from scaling.config import chance_levels

# Largest load of independent uniform k-subsets over the mean load, minus 1; published and simulated by (E, k, T).
PUBLISHED = {
    (64, 6, 4096): 0.117,
    (64, 8, 4096): 0.100,
    (64, 8, 65536): 0.027,
    (8, 2, 4096): 0.040,
    (8, 2, 128): 0.22,
    (8, 1, 121): 0.38,
}


def drawn(n_experts, top_k, tokens, draws, seed=0):
    """Loads [draws, E] of tokens that each choose k of E."""
    order = np.argsort(np.random.default_rng(seed).random((draws, tokens, n_experts)), axis=2)[:, :, :top_k]
    return np.stack([np.sum(order == e, axis=(1, 2)) for e in range(n_experts)], axis=1)


@pytest.mark.parametrize("shape", PUBLISHED)
def test_largest_load_matches_the_published_one(shape):
    """Treating the loads as independent costs a tenth of the excess; the usual rule is off by up to 40 %."""
    assert chance_levels.max_load(*shape) - 1 == pytest.approx(PUBLISHED[shape], rel=0.12)


@pytest.mark.parametrize(("n_experts", "top_k", "tokens"), [(8, 1, 121), (8, 2, 128), (16, 4, 512)])
def test_levels_match_a_simulation(n_experts, top_k, tokens):
    """The mean of 2,000 draws has about 2 % of the spread of one draw. The levels of variation and utilisation use the
    mean square instead of the squared mean; these differ by 2 % at 8 loads."""
    loads = drawn(n_experts, top_k, tokens, 2000)
    mean = top_k * tokens / n_experts
    cv = loads.std(axis=1) / mean
    assert np.sqrt(np.mean(cv**2)) == pytest.approx(chance_levels.load_cv(n_experts, top_k, tokens), rel=0.03)
    assert np.mean(1 / (1 + cv**2)) == pytest.approx(chance_levels.utilisation(n_experts, top_k, tokens), rel=0.005)
    assert np.mean(loads.max(axis=1) / mean) - 1 == pytest.approx(
        chance_levels.max_load(n_experts, top_k, tokens) - 1, rel=0.12
    )
    rows = int(np.ceil(1.1 * mean))
    lost = np.maximum(loads - rows, 0).sum(axis=1).mean() / (top_k * tokens)
    assert lost == pytest.approx(chance_levels.dropped(n_experts, top_k, tokens, rows), rel=0.05)


def test_published_drop_rates():
    """Balanced random top-1 router, T = 4096, E = 64: 4.9 % at capacity factor 1, .12 % at 1.25, none at 2."""
    assert chance_levels.dropped(64, 1, 4096, 64) == pytest.approx(0.049, abs=0.0005)
    assert chance_levels.dropped(64, 1, 4096, 80) == pytest.approx(0.0012, abs=0.0001)
    assert chance_levels.dropped(64, 1, 4096, 128) < 1e-9


def test_distinct_experts():
    """k at one token, E at many; 56.44 of 64 at k = 8, b = 16 (published)."""
    assert chance_levels.distinct(64, 8, 1) == pytest.approx(8)
    assert chance_levels.distinct(64, 8, 16) == pytest.approx(56.44, abs=0.01)
    assert chance_levels.distinct(64, 8, 10_000) == pytest.approx(64, rel=1e-3)
    assert chance_levels.distinct(8, 8, 1) == 8


def test_choosing_every_expert_is_balanced():
    assert chance_levels.max_load(4, 4, 100) == 1
    assert chance_levels.load_cv(4, 4, 100) == 0
    assert chance_levels.utilisation(4, 4, 100) == 1
    assert chance_levels.saturation(4, 4) == 1


def test_specialisation_of_independent_labels():
    """Mutual information of 4,000 pairs of independent labels, by counting, over the entropy of the class."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(200):
        token_class, expert = rng.integers(0, 5, 4000), rng.integers(0, 8, 4000)
        joint = np.histogram2d(token_class, expert, bins=(5, 8))[0] / 4000
        independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
        shares.append(np.sum(joint * np.log(joint / independent)) / np.log(5))
    # The standard error of the mean of 200 chi-squared variables with 28 degrees of freedom is 2 %.
    assert np.mean(shares) == pytest.approx(chance_levels.specialisation(8, 4000, 5, np.log(5)), rel=0.08)


# Active experts of a Gumbel softmax with equal logits, 20,000 draws.
ACTIVE = {8: [8.00, 7.93, 6.40, 4.11, 1.77, 1.34], 16: [16.00, 15.73, 10.12, 5.18, 1.86, 1.37]}


@pytest.mark.parametrize("n_experts", ACTIVE)
def test_active_experts_of_the_gumbel_gate(n_experts):
    for tau, active in zip([2, 1, 0.5, 0.3, 0.1, 0.05], ACTIVE[n_experts], strict=True):
        assert chance_levels.gumbel_active(n_experts, tau) == pytest.approx(active, rel=0.02)


def test_a_uniform_gate_is_above_the_threshold():
    """The released threshold of .001 would drop every expert of a uniform gate beyond E = 1,000."""
    assert all(1 / n > chance_levels.threshold(n) for n in (2, 8, 64, 1000, 100_000))


def test_temperature_falls_between_its_limits():
    for anneal in ("exponential", "linear"):
        assert chance_levels.temperature(0.0, 2.0, 0.3, anneal) == pytest.approx(2.0)
        assert chance_levels.temperature(1.0, 2.0, 0.3, anneal) == pytest.approx(0.3)
    assert chance_levels.temperature(0.5, 2.0, 0.5, "exponential") == pytest.approx(1.0)
    assert chance_levels.temperature(0.5, 2.0, 0.5, "linear") == pytest.approx(1.25)


def test_experts_of_top_p():
    """All experts at an entropy threshold of 0, only the k best at top_p = 0, and more experts for a larger top_p."""
    assert chance_levels.entropy_or_top_p(8, 2, 1.1, 0.0, 0.75, False) == 8
    assert chance_levels.entropy_or_top_p(8, 2, 1.1, 1.0, 0.0, False) == 2
    few, many = (chance_levels.entropy_or_top_p(8, 1, 1.1, 1.0, p, False) for p in (0.5, 0.9))
    assert 1 <= few < many < 8
    assert chance_levels.entropy_or_top_p(8, 1, 1.1, 1.0, 0.5, True) > few
