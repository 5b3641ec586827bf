"""Clark's bilinear law on the runs it was made from: the global minimum, the authors' own constants, the dense runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted import public_data
from scipy.optimize import minimize

from analysis.fitting.fit import fit
from analysis.fitting.objective import Objective
from analysis.fitting.published import published
from analysis.laws import law_named
from analysis.tables.runs import RunTable
from benchmarks.public import CLARK, CLARK_GOALS, CLARK_NOTEBOOK, clark_table

ROUTERS = {"Hash": 56, "RL-R": 59, "S-Base": 58}
LN10 = np.log(10)


@pytest.fixture(scope="module", params=ROUTERS)
def router(request) -> str:
    public_data(CLARK)
    return request.param


@pytest.fixture(scope="module")
def found(router):
    return fit(clark_table(router), law_named("clark"), objective=Objective("least-squares"))


def projected(table: RunTable) -> float:
    """The least mean squared error of log10 loss by variable projection: a, b, c, d by linear least squares given
    E_start and E_max, those from the best five of a grid and then by simplex."""
    size, experts, loss = (np.log10(table.column(n)) for n in ("n_dense_nonembed", "n_experts", "loss_val"))

    def error(ends: np.ndarray) -> float:
        start, most = np.exp(ends)
        if not 1 < start < most:
            return np.inf
        saturated = np.log10(1 / (1 / (10**experts - 1 + 1 / (1 / start - 1 / most)) + 1 / most))
        basis = np.column_stack([size, saturated, size * saturated, np.ones(len(size))])
        residuals = basis @ np.linalg.lstsq(basis, loss, rcond=None)[0] - loss
        return float(np.mean(residuals**2))

    grid = [np.array([x, y]) for x in np.log(np.geomspace(1.2, 20, 9)) for y in np.log(np.geomspace(40, 4000, 9))]
    options = {"xatol": 1e-8, "fatol": 1e-16, "maxiter": 2000}
    best = sorted(grid, key=error)[:5]
    return min(minimize(error, x, method="Nelder-Mead", options=options).fun for x in best)


def test_the_global_minimum(router, found):
    """The goals are minima by variable projection, rounded up in the last digit; the authors' 500 starts miss them."""
    table = clark_table(router)
    assert len(table) == ROUTERS[router]
    squares = np.log10(found.loss(table.columns(law_named("clark").columns)) / table.column("loss_val")) ** 2
    assert squares.mean() <= CLARK_GOALS[router] < CLARK_NOTEBOOK[router]
    assert found.objective == pytest.approx(squares.sum() * LN10**2, rel=1e-9)
    # Both stop within 1e-10 of a minimum's value; any other minimum is some percent away.
    assert squares.mean() == pytest.approx(projected(table), rel=1e-7)
    assert found.n_starts_at_minimum > found.n_starts / 2
    assert not found.pinned


def test_predictions_are_nearer_than_the_authors_fit_of_the_same_runs(router, found):
    """Their notebook's rms of ln loss is .00712, .00744, .00745."""
    assert found.rmse_log <= {"Hash": 0.00712, "RL-R": 0.00744, "S-Base": 0.00745}[router] + 5e-6  # printed digits


def test_rmse_of_the_published_constants(router):
    """RMSE of log10 loss .00525, .00774, .00369 at the constants as printed: which rows, which N and which
    logarithm."""
    table = clark_table(router)
    fitted = published(f"clark-2022-{router.lower()}")
    error = np.log10(fitted.loss(table.columns(law_named("clark").columns)) / table.column("loss_val"))
    expected = {"Hash": 0.00525, "RL-R": 0.00774, "S-Base": 0.00369}[router]
    assert np.sqrt(np.mean(error**2)) == pytest.approx(expected, abs=6e-6)


def test_dense_runs_follow_a_power_of_size():
    """Five dense runs, 16.5M to 1.3B: 3.162, 3.0284, 2.8486, 2.4633, 2.2420; slope -.0785, N_c 3.69e13."""
    public_data(CLARK)
    table = clark_table("Hash")
    dense = table.frame[table.frame["router_type"] == "Dense"].sort_values("n_dense_nonembed", ignore_index=True)
    assert dense["loss_val"].tolist() == pytest.approx([3.162, 3.0284, 2.8486, 2.4633, 2.2420], abs=6e-4)
    held = {"b": 0.0, "c": 0.0, "E_start": 2.0, "E_max": 300.0}
    found = fit(
        RunTable(pd.DataFrame(dense), "dense"), law_named("clark"), objective=Objective("least-squares"), pin=held
    )
    assert found.params["a"] == pytest.approx(-0.0785, abs=5e-4)
    assert 10 ** (-found.params["d"] / found.params["a"]) == pytest.approx(3.69e13, rel=0.005)  # three digits
    slope, _ = np.polyfit(np.log10(dense["n_dense_nonembed"]), np.log10(dense["loss_val"]), 1)
    assert found.params["a"] == pytest.approx(slope, rel=1e-8)
