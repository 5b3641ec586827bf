"""The envelope of training curves: closed forms, edges, intervals, curves on disk."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from isoflop_runs import DENSE, curves, optimum
from planted import table_of

from analysis.isoflop.envelope import envelope, training_curves
from scaling.errors import InputError


def test_the_envelope_follows_the_closed_form_optimum():
    found = envelope(table_of(curves(points=200)))
    best = optimum(DENSE, found.train_flops)
    inner = ~found.edge
    # Sizes stand a factor 1.17 apart, and a model is chosen over about that much around its optimum.
    off = np.log(found.n_opt[inner] / best[inner])
    assert np.abs(off).max() < np.log(1e4) / 59
    assert found.n_law.exponent == pytest.approx(0.456526, abs=0.005)  # laws.md 1.2, a of the TeX set
    np.testing.assert_allclose(
        6 * found.n_opt * found.d_opt, found.train_flops, rtol=1e-3
    )  # tokens linear in ln C between
    assert len(found.train_flops) == 1500
    assert found.exponent_interval is None


def test_the_ends_of_the_envelope_are_edges():
    found = envelope(table_of(curves(models=8)))
    assert found.edge[0]
    assert found.edge[-1]
    assert 0 < found.edge.mean() < 1
    assert found.n_models <= 6
    assert {*np.unique(found.n_opt[found.edge])} >= {1e7, 1e11}


def test_without_trunks_the_runs_of_one_size_are_a_curve():
    frame = curves(models=20)
    named, bare = (envelope(table_of(one)) for one in (frame, frame.drop(columns="trunk_id")))
    np.testing.assert_array_equal(named.n_opt, bare.n_opt)


def test_the_envelopes_interval_is_as_wide_as_the_exponent_scatters():
    def noisy(seed):
        frame = curves(models=40)
        return table_of(frame.assign(loss_val=frame["loss_val"] * np.exp(0.01 * noise(seed)).repeat(12)))

    def noise(seed):
        return np.random.default_rng(seed).standard_normal(40)

    scatter = np.std([envelope(noisy(seed)).n_law.exponent for seed in range(16)], ddof=1)
    found = [envelope(noisy(seed), rng=np.random.default_rng(seed), draws=60) for seed in range(4)]
    width = np.mean([np.ptp(one.exponent_interval) for one in found])
    # Sixteen give a deviation to 18 %, sixty draws the ends of an interval to 15 %, and a resample holds 63 % of the
    # curves.
    assert 2 * 1.96 * scatter / 1.6 < width < 2 * 1.96 * scatter * 1.6
    # The regression takes 1,500 points for as many observations; there are 40 curves.
    assert width > 2 * np.mean([np.ptp(one.n_law.exponent_interval) for one in found])


def test_training_curves_make_an_envelope(tmp_path):
    frame = curves(models=20)
    frame["tokens"] = frame["tokens"].round()  # a table of curves counts whole tokens
    frame["train_flops"] = 6 * frame["n_active"] * frame["tokens"]
    (tmp_path / "curves").mkdir()
    runs = []
    for trunk, mine in frame.groupby("trunk_id", sort=False):
        last = mine.iloc[-1]
        for run_id, share in ((f"{trunk}-short", 0.5), (f"{trunk}-long", 1.0)):
            runs.append({**last, "run_id": run_id, "tokens": share * last["tokens"],
                         "train_flops": share * last["train_flops"], "loss_val": 9.0})  # fmt: skip
        part = mine[["tokens"]].astype("int64").assign(step=range(len(mine)), loss=mine["loss_val"])
        part.to_parquet(tmp_path / "curves" / f"{trunk}-long.parquet")
    table = table_of(pd.DataFrame(runs))
    made, judge = envelope(training_curves(tmp_path, table)), envelope(table_of(frame))
    np.testing.assert_allclose(made.train_flops, judge.train_flops, rtol=1e-9)
    np.testing.assert_array_equal(made.n_opt, judge.n_opt)
    with pytest.raises(InputError, match="no training curves"):
        training_curves(tmp_path / "elsewhere", table)
    with pytest.raises(InputError, match="no column 'run_id'"):
        training_curves(tmp_path, table_of(frame))
