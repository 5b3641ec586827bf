"""Metrics of choices on a fixed text: identical and independent choices, and small cases counted by hand."""

import numpy as np
import pytest

from scaling.config import chance_levels
from scaling.training import router_metrics


def uniform(layers, tokens, n_experts, top_k, seed):
    """Independent uniform k-subsets, bool [L, T, E]."""
    order = np.argsort(np.random.default_rng(seed).random((layers, tokens, n_experts)), axis=-1)
    return np.argsort(order, axis=-1) < top_k


def test_identical_choices_are_saturated_and_unchanged():
    choices = uniform(2, 50, 8, 2, seed=0)
    assert router_metrics.saturation(choices, choices) == 1
    assert router_metrics.change_rate(choices, choices) == 0


@pytest.mark.parametrize(("n_experts", "top_k"), [(8, 2), (64, 8), (16, 1)])
def test_independent_choices_are_at_their_chance_levels(n_experts, top_k):
    """Within three standard errors: of one of n T k assignments the variance is at most 1/4."""
    one, other = (uniform(4, 2000, n_experts, top_k, seed) for seed in (1, 2))
    error = 3 * 0.5 / np.sqrt(4 * 2000 * top_k)
    assert router_metrics.saturation(one, other) == pytest.approx(chance_levels.saturation(n_experts, top_k), abs=error)
    assert router_metrics.change_rate(one, other) == pytest.approx(
        1 - chance_levels.saturation(n_experts, top_k), abs=error
    )
    for batch in router_metrics.BATCHES:
        # Of 4 x 2000 / b batches, each with a deviation of less than sqrt(E) / 2.
        error = 3 * np.sqrt(n_experts) / 2 / np.sqrt(4 * (2000 // batch))
        assert router_metrics.distinct(one, batch) == pytest.approx(
            chance_levels.distinct(n_experts, top_k, batch), abs=error
        )


def test_saturation_and_change_by_hand():
    """One layer, two tokens, three experts. {0, 1} and {2} become {0} and {1}: of the two final choices one was there,
    and one of the two is new. A batch of both touches three experts before and two after."""
    before = np.array([[[1, 1, 0], [0, 0, 1]]], bool)
    after = np.array([[[1, 0, 0], [0, 1, 0]]], bool)
    assert router_metrics.saturation(before, after) == 0.5
    assert router_metrics.change_rate(before, after) == 0.5
    assert router_metrics.distinct(before, 2) == 3
    assert router_metrics.distinct(after, 2) == 2
    assert router_metrics.distinct(before, 1) == 1.5


def test_the_tokens_of_a_decode_batch_are_far_apart():
    """Four sequences of 5 tokens, each with an expert of its own: a batch of 4 has one token of each, so 4 experts."""
    choices = np.repeat(np.eye(4, dtype=bool)[:, None], 5, axis=1).reshape(1, 20, 4)
    assert router_metrics.distinct(choices, 4) == 4


def test_specialisation_is_all_or_nothing():
    """One expert per class reveals the class; experts independent of it reveal only the bias of counting."""
    classes = np.arange(4)
    ids = np.tile(np.arange(4), 500)
    told = router_metrics.ChoiceStatistics(classes)
    told.add(np.eye(4, dtype=bool)[ids][None], ids)
    assert told.metrics()["specialisation"] == pytest.approx(1)
    blind = router_metrics.ChoiceStatistics(classes)
    blind.add(uniform(8, 2000, 4, 1, seed=3), ids)
    found = blind.metrics()
    # The mean over 8 layers of a chi-squared of 9 degrees of freedom: a standard error of 17 %.
    assert found["specialisation"] == pytest.approx(found["specialisation_chance"], rel=0.5)


def test_probes_come_four_per_doubling_for_every_budget():
    steps, step = [], 0
    while step < 1000:
        step = router_metrics.next_probe(step)
        steps.append(step)
    assert steps[:9] == [16, 20, 24, 28, 32, 40, 48, 56, 64]
    assert all(sum(16 * 2**i <= s < 32 * 2**i for s in steps) == 4 for i in range(5))
    assert all(router_metrics.next_probe(s - 1) == s for s in steps)


def test_curves_take_the_latest_probe_since_the_previous_row():
    early, late, final = (uniform(1, 30, 4, 1, seed) for seed in (4, 5, 6))
    rows = [{"step": step} for step in (10, 20, 30, 40)]
    router_metrics.complete_curves(
        {16: early, 20: late}, final, lambda choices: {"distinct_1": router_metrics.distinct(choices, 1)}, rows
    )
    assert "saturation" not in rows[0]
    assert "saturation" not in rows[2]
    assert rows[1]["saturation"] == router_metrics.saturation(late, final)
    assert rows[1]["change_rate"] == router_metrics.change_rate(early, late)
    assert rows[3]["saturation"] == 1
    assert "change_rate" not in rows[3]  # no probe since the row before: the trained model stands at no fixed distance
    assert rows[1]["distinct_1"] == rows[3]["distinct_1"] == 1


def test_choices_at_a_share_of_the_training():
    probes = {16: uniform(1, 5, 4, 1, seed=7), 32: uniform(1, 5, 4, 1, seed=8)}
    assert router_metrics.choices_at(probes, 100, 0.1) is None
    assert router_metrics.choices_at(probes, 100, 0.2) is probes[16]
    assert router_metrics.choices_at(probes, 100, 0.5) is probes[32]
