"""Noise by compute: seen where it is there, not where it is not, and never continued beyond the runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.fitting.fit import fit
from analysis.fitting.fit_file import load_fit
from analysis.fitting.fitted_to import seed_deviations, seed_noise
from analysis.fitting.noise import leverage, noise_trend
from analysis.laws import HOFFMANN
from analysis.tables.runs import RunTable, read_runs
from scaling.errors import InputError
from scaling.files import write_json
from scaling.values import FIT

TRUTH = {"E": 1.8, "A": 480.0, "alpha": 0.35, "B": 2100.0, "beta": 0.37}
NOISE = 0.004


def runs(slope: float, seed: int, side: int = 7, seeds: int = 1) -> RunTable:
    """A square of sizes and tokens, with noise of `NOISE` (compute/its middle)^slope."""
    size, tokens = np.meshgrid(np.geomspace(1e7, 1e9, side), np.geomspace(2e8, 2e10, side))
    frame = pd.DataFrame({"n_active": size.ravel(), "tokens": tokens.ravel()})
    frame = pd.concat([frame.assign(seed=number) for number in range(seeds)], ignore_index=True)
    compute = frame["n_active"] * frame["tokens"]
    noise = NOISE * (compute / np.exp(np.log(compute).mean())) ** slope
    draws = np.random.default_rng(seed).standard_normal(len(frame))
    loss = HOFFMANN.loss(TRUTH, {name: frame[name].to_numpy() for name in HOFFMANN.columns})
    return read_runs(frame.assign(loss_val=loss * np.exp(noise * draws)))


def fitted(table: RunTable):
    return fit(table, HOFFMANN, n_starts=4)


@pytest.mark.parametrize(("slope", "seed"), [(-0.2, 3), (0.2, 0)])
def test_noise_that_changes_with_compute_is_seen_and_scaled_to_the_runs(slope, seed):
    table = runs(slope, seed)
    trend = fitted(table).noise_trend
    assert trend is not None
    assert trend.p_value < 0.05
    assert 0.3 < trend.slope / slope < 1.7
    scale = trend.scale(table.columns(HOFFMANN.columns))
    assert np.sqrt(np.mean(scale**2)) == pytest.approx(1.0, rel=0.05)
    ends = scale[np.argsort(table.column("n_active") * table.column("tokens"))[[0, -1]]]
    assert 2.0 < max(ends) / min(ends) <= 10 ** (4 * 0.2) * 2
    beyond = trend.scale({"n_active": 1e13, "tokens": 1e15})[0]
    assert beyond == pytest.approx(trend.most if slope > 0 else trend.least)  # not continued beyond the runs
    assert trend.standardised == pytest.approx(np.array(fitted(table).residuals) / scale, rel=1e-6)


def test_equal_noise_is_seen_as_equal_as_often_as_it_should():
    rng = np.random.default_rng(0)
    table = runs(0.0, seed=0, side=6)
    jacobian = HOFFMANN.log_loss_gradient(
        np.array([[HOFFMANN.to_coordinates(name, TRUTH[name]) for name in HOFFMANN.names]]),
        HOFFMANN.names,
        {},
        table.columns(HOFFMANN.columns),
    )[1][0]
    share, project = leverage(jacobian), np.linalg.qr(jacobian.T)[0]
    assert share == pytest.approx(np.sum(project**2, axis=1))
    alarms = 0
    for _ in range(400):
        noise = rng.standard_t(5, len(table))
        noise -= project @ (project.T @ noise)  # what a fit leaves of it
        alarms += noise_trend(HOFFMANN, table, noise, share, 5) is not None
    assert alarms <= 400 * 0.05 + 3 * np.sqrt(400 * 0.05 * 0.95)


def test_few_runs_show_no_change_of_noise():
    assert fitted(runs(-0.3, seed=1, side=3)).noise_trend is None


def test_seeds_are_judged_instead_of_residuals_where_enough_were_repeated():
    table = runs(-0.4, seed=0, side=4, seeds=3)
    off, freedom = seed_deviations(table)
    assert freedom == 32
    assert np.sqrt(np.mean(off**2)) == pytest.approx(seed_noise(table), rel=1e-9)
    trend = fitted(table).noise_trend
    assert trend is not None
    assert trend.source == "seeds"


def test_intervals_of_a_run_are_as_wide_as_noise_is_there():
    table = runs(-0.2, seed=3)
    found = fitted(table)
    draws = {name: (found.params[name],) * 200 for name in found.free}  # the law known: noise alone is left
    found = replace(found, draws=draws)
    columns = {"n_active": np.array([1e7, 1e9]), "tokens": np.array([2e8, 2e10])}
    low, high = found.prediction_interval(columns)
    of_pooled = replace(found, noise_trend=None).prediction_interval(columns)
    width, pooled = np.log(high / low), np.log(of_pooled[1] / of_pooled[0])
    assert width[1] < pooled[1] < width[0]
    scale = found.noise_trend.scale(columns)
    assert width[0] / width[1] == pytest.approx(scale[0] / scale[1], rel=0.03)


def test_a_trend_survives_its_file_and_a_damaged_one_is_named(tmp_path):
    found = fitted(runs(-0.2, seed=3))
    write_json(tmp_path / "fit.json", FIT.document(found))
    assert load_fit(str(tmp_path / "fit.json")).noise_trend == found.noise_trend
    for wrong, place in (({"least": -1.0}, "noise_trend.most"), ({"standardised": (0.1,)}, "noise_trend.standardised")):
        document = FIT.document(replace(found, noise_trend=replace(found.noise_trend, **wrong)))
        write_json(tmp_path / "bad.json", document)
        with pytest.raises(InputError, match=place):
            load_fit(str(tmp_path / "bad.json"))
