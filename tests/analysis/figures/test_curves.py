"""Training curves as they are drawn: the values of the tables, finished and running cells alike."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from told import CORPUS, ONE, TWO, steps

import scaling
from analysis.figures import style
from scaling.errors import InputError
from scaling.schema import to_arrow, write_parquet
from sweeps.live import LiveWriter
from sweeps.store import Store

ROWS = [(256, 5.0), (512, 4.0), (1024, 3.0)]  # tokens, loss
RUNS = {"dense": (1, None), "sparse": (8, 2.0)}  # E, largest expert load


def write_study(folder: Path) -> Path:
    for run_id, (n_experts, load) in RUNS.items():
        run = {"run_id": run_id, "status": "ok", "n_experts": n_experts, "tokens": 1024, "lr": 0.01, "d_model": 16}
        curve = [
            {"step": tokens // 256, "tokens": tokens, "loss": loss, "lr": 0.01, "grad_norm": 1.0}
            | ({"max_load": load, "max_load_chance": 1.2} if load else {})
            for tokens, loss in ROWS
        ]
        write_parquet(folder / "runs" / f"{run_id}.parquet", to_arrow("runs", [run]), folder)
        write_parquet(folder / "curves" / f"{run_id}.parquet", to_arrow("curves", curve), folder)
    return folder


def lines(page: Figure, title: str) -> list[np.ndarray]:
    """The lines of the panel with a title that begins so."""
    (ax,) = (ax for ax in page.axes if ax.get_title(loc="left").startswith(title))
    (drawn,) = (one for one in ax.collections if isinstance(one, LineCollection))
    return [np.asarray(path.vertices) for path in drawn.get_paths()]


def rings(page: Figure) -> list[tuple[float, float]]:
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for ax in page.axes
        for line in ax.get_lines()
        if line.get_marker() == "o"
    ]


def test_each_panel_has_the_curves_of_the_runs_that_have_its_quantity(tmp_path: Path) -> None:
    page = scaling.study(write_study(tmp_path)).plot_curves()
    assert len(page.axes) == 4
    middle = [128.0, 384.0, 768.0]  # of the steps that a row averages
    for line in lines(page, "Training loss"):
        np.testing.assert_allclose(line, np.column_stack([middle, [5.0, 4.0, 3.0]]))
    for line in lines(page, "Learning rate"):
        np.testing.assert_allclose(line, [[tokens, 0.01] for tokens, _ in ROWS])
    assert len(lines(page, "Training loss")) == 2
    assert len(lines(page, "Expert load")) == 1  # a dense model has none
    assert rings(page) == []


def test_where_and_by_choose_runs_and_colours(tmp_path: Path) -> None:
    study = scaling.study(write_study(tmp_path))
    page = study.plot_curves(where="n_experts == 1")
    assert len(lines(page, "Training loss")) == 1
    assert len(page.axes) == 3
    palette = style.colours([1, 8])
    drawn: Any = next(one for one in study.plot_curves().axes[0].collections if isinstance(one, LineCollection))
    assert {style.mpl.colors.to_hex(colour) for colour in drawn.get_colors()} == {palette[1], palette[8]}
    same: Any = next(one for one in study.plot_curves(by="lr").axes[0].collections if isinstance(one, LineCollection))
    assert len({style.mpl.colors.to_hex(colour) for colour in same.get_colors()}) == 1
    with pytest.raises(InputError, match="no such column"):
        study.plot_curves(by="colour")
    with pytest.raises(InputError, match="selects no run"):
        study.plot_curves(where="n_experts == 3")


@pytest.mark.parametrize("finished", [False, True])
def test_a_running_cell_is_drawn_beside_finished_ones_and_ends_in_a_ring(tmp_path: Path, finished: bool) -> None:
    if finished:
        write_study(tmp_path)
    with suppress(RuntimeError), LiveWriter(Store(tmp_path), [ONE, TWO], CORPUS, 60.0) as writer:
        for last in (4, 8):
            writer.trained(steps(last, 4))
            writer._tell()
        raise RuntimeError
    study = scaling.study(tmp_path)
    page = study.plot_curves()
    assert len(lines(page, "Training loss")) == 1 + 2 * finished
    going = lines(study.plot_curves(where="running"), "Training loss")
    np.testing.assert_allclose(going, [[[512, 2.5], [1536, 6.5]]])  # four steps of 256 tokens a line
    assert (1536.0, 6.5) in rings(page)
    columns = pd.DataFrame([{"run_id": ONE.run_id(CORPUS), "n_experts": ONE.model.n_experts}])
    assert len(study.plot_curves(where=f"n_experts == {columns['n_experts'][0]}").axes) == 3


def test_a_study_without_curves_says_so(tmp_path: Path) -> None:
    run = {"run_id": "one", "status": "ok", "n_experts": 1}
    write_parquet(tmp_path / "runs" / "one.parquet", to_arrow("runs", [run]), tmp_path)
    with pytest.raises(InputError, match="no curves"):
        scaling.study(tmp_path).plot_curves()
