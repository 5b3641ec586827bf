"""The benchmark of extrapolation: its document, and what it counts, on a table that is made here."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from planted import HOFFMANN_2022, table_of

from analysis.laws import HOFFMANN
from benchmarks import extrapolation

FIELDS = {"runs", "inside", "inside_single_law", "halfwidth_ratio", "median_error", "median_error_hoffmann"}


def runs(seed=0):
    size, ratio = (x.ravel() for x in np.meshgrid(np.geomspace(5e7, 2e9, 8), [5, 20, 80, 200]))
    columns = {"n_active": size, "tokens": size * ratio}
    noise = np.exp(0.003 * np.random.default_rng(seed).standard_normal(size.size))
    return pd.DataFrame(columns | {"loss_val": HOFFMANN.loss(HOFFMANN_2022, columns) * noise})


def test_any_table_is_judged_in_one_document(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SCALING_DATA", str(tmp_path))  # what --data sets is put back
    runs().to_csv(tmp_path / "planted.csv", index=False)
    assert extrapolation.main(["--json", "--data", str(tmp_path), "--table", f"planted={tmp_path}/planted.csv"]) == 0
    output = capsys.readouterr()
    document = json.loads(output.out)
    assert set(document) == {"tables", "coverage", "coverage_single_law"}
    table, compute = document["tables"]["planted"], 6 * runs()["n_active"] * runs()["tokens"]
    assert set(document["tables"]) == {"planted"}
    assert set(table) == FIELDS
    assert table["runs"] == int((compute > 0.1 * compute.max()).sum())
    assert document["coverage"] == table["inside"] / table["runs"] >= 0.8
    assert table["median_error"] < 0.01
    assert "epoch" in output.err  # the public tables are not there, and that is said


def test_intervals_are_judged_by_the_runs_above_the_cut_alone():
    """Losses that all jump by a tenth above the cut lie outside of every interval."""
    frame = runs()
    compute = 6 * frame["n_active"] * frame["tokens"]
    jumped = frame.assign(loss_val=frame["loss_val"].where(compute <= 0.1 * compute.max(), 1.1 * frame["loss_val"]))
    found = extrapolation.extrapolation(table_of(jumped))
    assert found.inside_single_law == 0
    assert found.inside < found.runs / 2
    assert found.median_error == pytest.approx(1 - 1 / 1.1, abs=0.01)


def test_a_table_without_a_name_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        extrapolation.main(["--table", "runs.csv"])
    assert end.value.code == 2
    assert "NAME=FILE" in capsys.readouterr().err
