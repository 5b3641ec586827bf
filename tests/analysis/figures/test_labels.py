"""Labels of figures: apart from each other, and near what they name."""

import numpy as np

from analysis.figures.style import kept_apart


def test_labels_that_are_apart_stay_where_they_are():
    np.testing.assert_allclose(kept_apart([5.0, 0.0, 2.0], 1.0), [5.0, 0.0, 2.0])


def test_labels_that_would_cover_each_other_move_alone_and_alike_to_both_sides():
    np.testing.assert_allclose(kept_apart([9.0, 2.0, 2.0, 2.0], 1.0), [9.0, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(kept_apart([0.0, 0.5, 1.0], 1.0), [-0.5, 0.5, 1.5])


def test_many_labels_are_a_gap_apart_in_their_order():
    places = np.random.default_rng(0).uniform(0, 3, 20)
    found = kept_apart(list(places), 0.25)
    order = np.argsort(places)
    assert np.diff(found[order]).min() >= 0.25 * (1 - 1e-12)
    np.testing.assert_allclose(found.mean(), places.mean())  # least squares moves no block as a whole
