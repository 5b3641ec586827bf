"""Softmax-gated logistic experts: slow sums, EM, an independent optimiser, and what no gate can identify."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from scaling.tasks.statistics import gated_classification as model
from scaling.tasks.statistics.draws import generator
from scaling.tasks.statistics.gated_classification import COVARIATE, TRANSFORMS, Mixture
from scaling.tasks.statistics.train_classification import N_CLASSES, truth
from scaling.tasks.statistics.voronoi import Exponents, distances_of_softmax

GATES = tuple(TRANSFORMS)


def random_mixture(seed: int, n_experts: int = 3) -> Mixture:
    rng = np.random.default_rng(seed)
    return Mixture(rng.standard_normal((n_experts, 2)), rng.standard_normal((n_experts, N_CLASSES, 2)))


def test_probabilities_are_those_of_a_loop():
    mixture, reads = random_mixture(0), np.tanh(COVARIATE)
    chances = mixture.chances(reads)
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-14)
    for g in (0, 100, 255):
        gates = np.exp(mixture.gate[:, 0] + reads[g] * mixture.gate[:, 1])
        expected = np.zeros(N_CLASSES)
        for i in range(3):
            logits = np.exp(mixture.experts[i, :, 0] + COVARIATE[g] * mixture.experts[i, :, 1])
            expected += gates[i] / gates.sum() * logits / logits.sum()
        np.testing.assert_allclose(chances[g], expected, rtol=1e-13)


def test_free_parameters_are_the_same_mixture_and_its_loss_is_that_of_its_probabilities():
    mixture, reads = random_mixture(1), np.cos(COVARIATE)
    again = model.mixture(mixture.free(), 3, N_CLASSES)
    np.testing.assert_allclose(again.chances(reads), mixture.chances(reads), rtol=1e-12)
    table = model.drawn(generator(0, 1000, 0), 1000, mixture.chances(reads))
    assert table.sum() == 1000
    loss = model.loss(jnp.asarray(mixture.free()), table, COVARIATE, reads, 3)
    assert float(loss) == pytest.approx(-(table * np.log(mixture.chances(reads))).sum() / 1000, rel=1e-12)


def test_atoms_do_not_depend_on_how_the_last_class_and_gate_are_written():
    mixture = random_mixture(2)
    one, other = mixture.atoms(), model.mixture(mixture.free(), 3, N_CLASSES).atoms()
    np.testing.assert_allclose(one.parameters[:, 1:], other.parameters[:, 1:], atol=1e-12)
    np.testing.assert_allclose(np.diff(one.parameters[:, 0]), np.diff(other.parameters[:, 0]), atol=1e-12)
    np.testing.assert_allclose(one.masses / one.masses[0], other.masses / other.masses[0], rtol=1e-12)


@pytest.mark.parametrize("reads", ["x", "cos"])
def test_em_never_lowers_the_likelihood(reads):
    read = TRANSFORMS[reads](COVARIATE)
    table = model.drawn(generator(0, 500, 0), 500, truth(reads, False).chances(read))
    parameters = jnp.asarray(3 * random_mixture(3).free())  # far from the maximum
    losses = []
    for _ in range(60):
        losses.append(float(model.loss(parameters, table, COVARIATE, read, 3)))
        parameters = model.em(parameters, table, COVARIATE, read, 3, 1)
    assert np.diff(losses).max() <= 1e-13
    assert losses[-1] < losses[0] - 0.1


def test_the_fit_is_as_good_as_that_of_another_optimiser():
    reads = TRANSFORMS["x"](COVARIATE)
    true = truth("x", False)
    table = model.drawn(generator(4, 2000, 0), 2000, true.chances(reads))
    found = model.fit(true.free()[None] + 0.3, table, reads, 15.0, 2, 20)

    def negative(parameters):
        return -(table * np.log(model.mixture(parameters, 2, N_CLASSES).chances(reads))).sum() / 2000

    # Sequential quadratic programming with differences for slopes: another algorithm, no code of ours but the model.
    bounds = [(-15, 15)] * len(true.free())
    other = scipy.optimize.minimize(
        negative, true.free(), method="SLSQP", bounds=bounds, options={"maxiter": 500, "ftol": 1e-12}
    )
    assert found.converged
    # Both end within .001 nats of the maximum over the whole sample.
    assert found.loss == pytest.approx(other.fun, abs=1e-3 / 2000)


def test_a_planted_truth_is_found_from_far_away():
    reads = TRANSFORMS["tanh"](COVARIATE)
    true = truth("tanh", False)
    table = 1e6 * true.chances(reads) / len(COVARIATE)  # the counts that are expected
    starts = np.stack([random_mixture(seed, 2).free() for seed in range(4)])
    found = model.mixture(model.fit(starts, table, reads, 15.0, 2, 100).parameters, 2, N_CLASSES)
    size = true.atoms().parameters.shape[1]
    distance = distances_of_softmax(found.atoms(), true.atoms(), Exponents(np.ones(size), np.ones(size)))
    assert distance.loss < 1e-2  # the climb ends within 1e-3 nats of 1e6 samples: parameters to some 1e-3


@pytest.mark.parametrize("reads", GATES)
def test_intercepts_of_two_experts_without_slopes_are_not_identified_by_any_gate(reads):
    true, read = truth(reads, True), TRANSFORMS[reads](COVARIATE)
    assert not true.experts[0, :, 1].any()
    one = np.exp(true.experts[0, :, 0])
    one /= one.sum()
    other = one + np.array([0.1, -0.1])
    third = one - np.array([0.1, -0.1])  # their mean is the true expert's probabilities
    experts = np.zeros((3, N_CLASSES, 2))
    experts[0, :, 0], experts[1, :, 0], experts[2] = np.log(other), np.log(third), true.experts[1]
    gate = true.gate[[0, 0, 1]] - np.array([[np.log(2), 0], [np.log(2), 0], [0, 0]])
    divided = Mixture(gate, experts)
    np.testing.assert_allclose(divided.chances(read), true.chances(read), rtol=1e-12)
    size = true.atoms().parameters.shape[1]
    found = distances_of_softmax(divided.atoms(), true.atoms(), Exponents(np.ones(size), np.full(size, 2.0)))
    assert found.together[-1] > 0.1


@pytest.mark.parametrize(("reads", "rank"), [("x", 2), ("sigmoid", 3), ("tanh", 3), ("cos", 3)])
def test_only_the_plain_gate_mixes_its_slope_with_that_of_an_expert_without_one(reads, rank):
    read = TRANSFORMS[reads](COVARIATE)

    def numerator(gate_slope, slope, intercept):
        """Gate times probability of the first of two classes, at all values of x."""
        return jnp.exp(gate_slope * read) * jax.nn.sigmoid(slope * COVARIATE + intercept)

    at = (0.7, 0.0, 0.4)
    of_intercept = jax.jacfwd(numerator, argnums=2)
    columns = np.stack(
        [jax.jacfwd(of_intercept, argnums=0)(*at), jax.jacfwd(numerator, argnums=1)(*at), of_intercept(*at)], axis=1
    )
    assert np.linalg.matrix_rank(columns, tol=1e-8 * np.linalg.norm(columns)) == rank


def test_a_table_of_counts_has_the_proportions_of_its_probabilities():
    chances = truth("x", False).chances(COVARIATE)
    table = model.drawn(generator(0, 10**6, 0), 10**6, chances)
    expected = 10**6 * chances / len(COVARIATE)
    chi_square = ((table - expected) ** 2 / expected).sum()
    cells = table.size - 1
    assert abs(chi_square - cells) < 5 * np.sqrt(2 * cells)  # five standard deviations of a chi-square


def test_draws_depend_on_seed_size_and_replicate():
    draws = {generator(*key).integers(2**62) for key in itertools.product((0, 1), (10, 11), (0, 1))}
    assert len(draws) == 8
    assert generator(3, 4, 5).random() == generator(3, 4, 5).random()
