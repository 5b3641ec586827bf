"""Distances between fitted and true atoms: worked by hand, by brute force, and what they must not depend on."""

import numpy as np
import pytest

from scaling.tasks.statistics.voronoi import Atoms, Exponents, distances, distances_of_softmax

POWERS = Exponents(np.ones(2), np.array([2.0, 4.0]))
TRUE = Atoms(np.array([1.0, 2.0]), np.array([[0.0, 0.0], [5.0, 5.0]]))


def atoms(*rows: tuple[float, float, float]) -> Atoms:
    table = np.array(rows, dtype=float)
    return Atoms(table[:, 0], table[:, 1:])


def test_a_case_worked_by_hand():
    fitted = atoms((0.4, 0.5, 0.0), (0.8, 0.0, -1.0), (1.9, 5.0, 5.2))
    found = distances(fitted, TRUE, POWERS)
    # masses: |.4 + .8 - 1| + |1.9 - 2| = .3; together: .4 * .5^2 + .8 * 1^4 = .9; alone: 1.9 * .2 = .38
    assert found.mass == pytest.approx(0.3)
    assert found.loss == pytest.approx(0.3 + 0.9 + 0.38)
    np.testing.assert_array_equal(found.occupants, [2, 1])
    np.testing.assert_allclose(found.alone, [0, 0.2], atol=1e-15)
    np.testing.assert_allclose(found.together, np.sqrt([0.4 / 1.2 * 0.25, 0.8 / 1.2]))


def test_a_true_atom_without_fitted_ones_costs_its_mass():
    found = distances(atoms((1.0, 0.0, 0.0)), TRUE, POWERS)
    assert found.loss == pytest.approx(2.0)
    np.testing.assert_array_equal(found.together, [np.nan, np.nan])


def test_the_truth_and_the_truth_with_an_atom_divided_are_at_no_distance():
    for measure in (distances, distances_of_softmax):
        assert measure(TRUE, TRUE, POWERS).loss == pytest.approx(0, abs=1e-9)
        divided = atoms((0.3, 0, 0), (0.7, 0, 0), (2, 5, 5))
        assert measure(divided, TRUE, POWERS).loss == pytest.approx(0, abs=1e-9)


def test_order_does_not_matter():
    rng = np.random.default_rng(0)
    fitted = Atoms(rng.random(4) + 0.1, rng.normal(2, 2, (4, 2)))
    order, true_order = rng.permutation(4), np.array([1, 0])
    for measure in (distances, distances_of_softmax):
        one = measure(fitted, TRUE, POWERS)
        other = measure(
            Atoms(fitted.masses[order], fitted.parameters[order]),
            Atoms(TRUE.masses[true_order], TRUE.parameters[true_order]),
            POWERS,
        )
        assert other.loss == pytest.approx(one.loss, rel=1e-12)


def test_a_softmax_gate_may_be_shifted_and_another_may_not():
    rng = np.random.default_rng(1)
    fitted = Atoms(rng.random(3) + 0.1, rng.normal(2, 2, (3, 2)))
    shifted = Atoms(7 * fitted.masses, fitted.parameters + np.array([3.0, 0.0]))
    one, other = (distances_of_softmax(each, TRUE, POWERS) for each in (fitted, shifted))
    assert other.loss == pytest.approx(one.loss, rel=1e-6)  # the search for the shift ends at a step of 1e-7
    assert distances(shifted, TRUE, POWERS).loss > 2 * distances(fitted, TRUE, POWERS).loss


@pytest.mark.parametrize("seed", range(5))
def test_the_least_over_shifts_is_that_of_brute_force(seed):
    rng = np.random.default_rng(seed)
    fitted = Atoms(rng.random(3) + 0.1, rng.normal(2, 2, (3, 2)))
    masses = 3 * fitted.masses / fitted.masses.sum()  # as many as the true ones have
    shifts = np.linspace(-10, 10, 4001)
    losses = [distances(Atoms(masses, fitted.parameters - np.array([s, 0])), TRUE, POWERS).loss for s in shifts]
    found = distances_of_softmax(fitted, TRUE, POWERS).loss
    # Its steps are finer, but for a second valley as deep as the first; a step of .005 costs up to 3 * .005 here.
    assert found == pytest.approx(min(losses), abs=0.015)
