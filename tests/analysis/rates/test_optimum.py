"""The minimum over a setting: exact on parabolas in its logarithm, at the ends of the grid, and on level ground."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.rates.optimum import minima

M = np.log([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0])  # gaps that differ


@pytest.mark.parametrize("place", [0.9, 1.2, 1.386, 1.7, 2.0])
def test_a_parabola_has_its_vertex(place):
    curves = np.stack([0.7 * (M - place) ** 2, 3.0 * (M - place) ** 2 - 5.0])
    found = minima(M, curves)
    assert found.log_m == pytest.approx([place, place], abs=1e-12)  # three points determine a parabola
    nearest = M[np.abs(M - place).argmin()]
    assert found.log_grid == pytest.approx([nearest, nearest])
    assert not found.edge.any()


def test_a_curve_that_falls_or_rises_throughout_ends_at_the_edge():
    found = minima(M, np.stack([-M, M]))
    assert found.log_m == pytest.approx([M[-1], M[0]])
    assert found.edge.all()


def test_level_ground_and_short_grids_have_the_point_itself():
    level = np.array([3.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0])
    assert minima(M, np.zeros((1, len(M)))).edge.all()
    assert minima(M, level[None]).log_m[0] == pytest.approx((M[1] + M[2]) / 2)  # the vertex between two equal points
    two = minima(M[:2], np.array([[2.0, 1.0]]))
    assert (two.log_m[0], bool(two.edge[0])) == (M[1], True)


def test_the_vertex_stays_between_the_middles_of_the_gaps():
    curves = np.random.default_rng(0).normal(size=(500, len(M)))
    found = minima(M, curves)
    for row in np.flatnonzero(~found.edge):
        place = int(curves[row].argmin())
        low, high = (M[place - 1] + M[place]) / 2, (M[place] + M[place + 1]) / 2
        assert low - 1e-12 <= found.log_m[row] <= high + 1e-12


def test_a_curve_with_a_gap_has_no_minimum():
    curves = np.tile((M - 1.2) ** 2, (2, 1))
    curves[1, 3] = np.nan
    assert np.isnan(minima(M, curves).log_m).tolist() == [False, True]
