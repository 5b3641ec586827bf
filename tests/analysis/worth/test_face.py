"""`scaling.worth`: a value with a table and a figure, of a fit, a table, a study's fit, or a method's runs."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

import scaling
from analysis.fitting.published import published
from tests.support.planted import moe_grid, table_of
from tests.support.worth import falling, multiplied, with_draws

FIT = with_draws(multiplied(), 0.05, count=100)


def test_a_fit_gives_a_table_a_figure_and_a_summary():
    found = scaling.worth(FIT, 1e20, training_speed=falling(0.2))
    assert isinstance(found, scaling.Worth)
    table = found.table()
    assert isinstance(table, pd.DataFrame)
    assert list(table["n_experts"]) == [4, 16]
    assert table["compute_speedup"].tolist() == pytest.approx([2.0, 4.0], rel=1e-8)
    figure = found.plot()
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes] == [
        "Speedup in compute", "Speedup in device time"
    ]  # fmt: skip
    compute, time = figure.axes
    for ax, values in ((compute, [2.0, 4.0]), (time, [2.0 * 4**-0.2, 4.0 * 16**-0.2])):
        points = [float(line.get_ydata()[0]) for line in ax.lines if line.get_marker() == "o"]
        assert points == pytest.approx(values, rel=1e-6)
    assert len(repr(found).splitlines()) <= 30
    assert "E = 16 is worth 4x the compute" in repr(found)
    assert "<table" in found._repr_html_()


def test_runs_alone_are_compared_cell_by_cell():
    found = scaling.worth(table_of(moe_grid(experts=(1, 4), widths=(32, 64), noise=0.003, seeds=(0, 1))))
    assert set(found.table()["curve"]) == {"same shape", "all shapes"}
    assert found.plot().axes


def test_a_method_is_tested_against_a_fit():
    dense = replace(published("chinchilla-tex"), draws={}, noise=0.003)
    size = pd.Series([1e8, 1e9])
    loss = dense.loss({"n_active": size * 1.3**0.5, "tokens": 20 * size * 1.3**0.5})
    runs = table_of(pd.DataFrame({"n_active": size, "tokens": 20 * size, "loss_val": loss}))
    found = scaling.worth(dense, 1e22, candidate=runs)
    assert found.gate is not None
    assert found.gate.alone.compute_speedup == pytest.approx(1.3, rel=1e-6)
    assert found.table()["own_shape"].tolist() == pytest.approx([1.3, 1.3], rel=1e-6)
    assert found.plot().axes


def test_money_takes_a_device_and_serving():
    fit = replace(published("joint-moe-2025"), draws={})
    trained, served = (
        scaling.worth(fit, 1e21, n_experts=8, device="h100", serve_tokens=tokens).worth[0] for tokens in (0.0, 1e13)
    )
    assert trained.cost_speedup == trained.time_speedup
    assert served.cost_speedup != pytest.approx(served.time_speedup, rel=1e-3)


def test_wrong_arguments_are_named():
    with pytest.raises(scaling.InputError, match="`train_flops`"):
        scaling.worth(FIT)
    runs = table_of(moe_grid(experts=(1, 4), widths=(32, 64)))
    with pytest.raises(scaling.InputError, match="runs have none"):
        scaling.worth(runs, 1e20)
    with pytest.raises(scaling.InputError, match="against the fit of a baseline"):
        scaling.worth(runs, candidate=runs)
    with pytest.raises(scaling.InputError, match="`of` must be a fit"):
        scaling.worth(7)  # type: ignore[arg-type]
    with pytest.raises(scaling.InputError, match="did you mean `baseline_experts`"):
        scaling.worth(FIT, 1e20, baseline_expert=4)  # type: ignore[call-arg]
