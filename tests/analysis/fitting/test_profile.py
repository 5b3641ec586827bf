"""Profiles against closed forms and against fits with the parameter pinned."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted import moe_grid, table_of

from analysis.fitting.bootstrap import bootstrap
from analysis.fitting.fit import fit
from analysis.fitting.objective import Objective
from analysis.fitting.profile import profile
from analysis.laws import HOFFMANN, JOINT_MOE, law_named
from scaling.errors import InputError

TRUTH = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.36}


def dense(noise=0.004, seed=0, truth=TRUTH):
    size, tokens = (x.ravel() for x in np.meshgrid(np.geomspace(1e8, 1e10, 6), np.geomspace(2e9, 2e11, 6)))
    loss = HOFFMANN.loss(truth, {"n_active": size, "tokens": tokens})
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(size.size))
    return table_of(pd.DataFrame({"n_active": size, "tokens": tokens, "loss_val": loss}))


def test_a_linear_parameter_rises_as_its_parabola():
    """With the exponents pinned, raw least squares is linear in E, A and B: rise = (E - E^)^2 / [(X'X)^-1]_EE."""
    table = dense()
    pins = {"alpha": TRUTH["alpha"], "beta": TRUTH["beta"]}
    fitted = bootstrap(
        fit(table, HOFFMANN, objective=Objective("least-squares", "raw"), pin=pins), table, 60, np.random.default_rng(0)
    )
    found = profile(fitted, table, "E")
    n, d = table.column("n_active"), table.column("tokens")
    design = np.column_stack([np.ones(len(n)), n ** -pins["alpha"], d ** -pins["beta"]])
    scale = np.linalg.norm(design, axis=0)
    variance = np.linalg.inv((design / scale).T @ (design / scale))[0, 0] / scale[0] ** 2
    expected = (np.array(found.values) - fitted.params["E"]) ** 2 / variance
    assert found.rise == pytest.approx(expected, rel=1e-5, abs=1e-12)
    low, high = found.interval
    assert high - fitted.params["E"] == pytest.approx(fitted.params["E"] - low, rel=1e-3)  # a parabola is even
    assert high - fitted.params["E"] == pytest.approx(np.sqrt(found.threshold * variance), rel=1e-3)


@pytest.mark.parametrize(("objective", "name"), [("huber", "alpha"), ("huber", "B"), ("lad", "E")])
def test_a_rise_is_that_of_a_fit_with_the_parameter_pinned(objective, name):
    table = dense()
    fitted = bootstrap(fit(table, HOFFMANN, objective=Objective(objective)), table, 60, np.random.default_rng(0))
    found = profile(fitted, table, name)
    held = list(zip(found.values, found.rise, strict=True))
    for value, rise in (held[0], held[len(held) // 3], held[-1]):
        pinned = fit(table, HOFFMANN, objective=Objective(objective), pin={name: value})
        assert rise == pytest.approx(pinned.objective - fitted.objective, rel=1e-4, abs=1e-9)


def test_interval_holds_estimate_and_about_what_the_bootstrap_says():
    """Both are of one size to first order; a quarter of the width allows for 200 draws and for the curvature."""
    table = dense()
    fitted = bootstrap(fit(table, HOFFMANN), table, 200, np.random.default_rng(0))
    for name in ("E", "alpha", "beta"):
        low, high = profile(fitted, table, name).interval
        assert low < fitted.params[name] < high
        bca = fitted.intervals[name]
        assert high - low == pytest.approx(bca[1] - bca[0], rel=0.35)


def test_an_end_that_the_runs_do_not_bound_is_open():
    """E of 1 to 8 do not say at which E the effect of experts saturates, however far beyond."""
    truth = {"a": -0.082, "b": -0.108, "c": 0.009, "d": 1.104, "E_start": 1.847, "E_max": 314.478}
    clark = law_named("clark")
    table = table_of(
        moe_grid(experts=(1, 2, 4, 8), tokens=(1e6,), seeds=range(3), params=truth, law=clark, noise=0.003)
    )
    pins = {"E_start": truth["E_start"]}
    fitted = bootstrap(fit(table, clark, pin=pins, auto_pin=False), table, 60, np.random.default_rng(0))
    assert profile(fitted, table, "E_max").interval[1] is None


def test_a_law_with_experts_and_pins():
    table = table_of(moe_grid(noise=0.003))
    fitted = bootstrap(fit(table, JOINT_MOE), table, 60, np.random.default_rng(0))
    low, high = profile(fitted, table, "delta").interval
    assert low < -0.15 < high  # planted; the noise is one draw, seeded
    with pytest.raises(InputError, match="free parameters of this fit"):
        profile(fitted, table, "E_max")


def test_what_cannot_be_profiled_is_named():
    table = dense()
    fitted = fit(table, HOFFMANN)
    with pytest.raises(InputError, match="needs the bootstrap draws"):
        profile(fitted, table, "E")
    drawn = bootstrap(fitted, table, 20, np.random.default_rng(0))
    with pytest.raises(InputError, match="the table that was fitted"):
        profile(drawn, table_of(table.frame.iloc[:30]), "E")
