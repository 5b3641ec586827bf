"""E = 1 in a table of routed models, however it is written, and E that cannot be told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.laws import HOFFMANN, JOINT_MOE, SPARSITY
from analysis.tables import runs
from analysis.tables.import_study import import_runs
from scaling.errors import InputError


def grid(experts=(1, 4, 8)):
    """A loss that falls with E, for three sizes and three budgets each."""
    rows = [
        {
            "n_experts": e,
            "n_active": n,
            "tokens": d * n,
            "loss_val": 1.7 + 400 / n**0.34 / e**0.05 + 400 / (d * n) ** 0.28,
        }
        for e in experts
        for n in (6e7, 1.3e8, 3.5e8)
        for d in (8.0, 30.0, 120.0)
    ]
    return pd.DataFrame(rows)


def written(dense, routed=lambda e: e, frame=None):
    """The grid with E as text or numbers."""
    frame = grid() if frame is None else frame
    cells = [dense if e == 1 else routed(int(e)) for e in frame["n_experts"]]
    return frame.assign(n_experts=pd.Series(cells, dtype=object))


def said(table):
    return " ".join([*table.notes, *map(str, table.doubts)])


@pytest.mark.parametrize("dense", [0, "0", "0.0", 1, "1", "1.0", "dense", "Dense", "none", "-", " dense "])
def test_a_dense_model_is_one_expert(dense, tmp_path):
    table = runs.read_runs(written(dense), law=JOINT_MOE)
    assert table.column("n_experts").tolist() == grid()["n_experts"].tolist()
    assert not table.dropped
    path = tmp_path / "t.csv"
    written(dense).to_csv(path, index=False)
    assert runs.read_runs(path, law=JOINT_MOE).column("n_experts").tolist() == grid()["n_experts"].tolist()


@pytest.mark.parametrize(
    "routed", ["{} experts", "E={}", "{}E", "{}x7B", "{} Experts", "n_experts: {}", "{}x1.5b", "{}.0"]
)
def test_words_of_one_meaning_are_counts(routed):
    table = runs.read_runs(written("dense", routed.format), law=JOINT_MOE)
    assert table.column("n_experts").tolist() == grid()["n_experts"].tolist()
    assert "n_experts" in said(table)


@pytest.mark.parametrize(
    ("cell", "meaning"),
    [
        ("2/8", "n_experts = 8 and top_k = 2"),
        ("2 of 8", "n_experts = 8 and top_k = 2"),
        ("128+1", "n_experts = 128"),
        ("many", "no count"),
    ],
)
def test_words_of_several_meanings_are_refused_by_row(cell, meaning, tmp_path):
    frame = written(1).astype({"n_experts": object})
    frame.loc[[12, 20], "n_experts"] = cell
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    for read in (lambda: runs.read_runs(frame, law=JOINT_MOE), lambda: import_runs(path, tmp_path / "study")):
        with pytest.raises(InputError, match="rows 13") as error:
            read()
        assert meaning in str(error.value)
        assert "`where` 'n_experts >= 1'" in str(error.value)
    assert len(runs.read_runs(frame, where="n_experts >= 1", law=JOINT_MOE)) == len(frame) - 2
    assert len(runs.read_runs(frame, law=HOFFMANN)) == len(frame)  # a law without E does not ask


EVIDENCE = {
    "n_total is n_active": lambda f: f.assign(n_total=np.where(f["n_experts"] == 1, 1.001, 3) * f["n_active"]),
    "they are called dense": lambda f: f.assign(Model=np.where(f["n_experts"] == 1, "dense-small", "moe")),
    "they have no top_k": lambda f: f.assign(top_k=np.where(f["n_experts"] == 1, np.nan, 2)),
    "their loss is above": lambda f: f,
}


@pytest.mark.parametrize("reason", EVIDENCE)
def test_a_blank_is_dense_where_something_shows_it(reason):
    frame = EVIDENCE[reason](grid())
    if "above" not in reason:
        frame["tokens"] *= 1 + 0.001 * np.arange(len(frame))  # no two rows compare
    table = runs.read_runs(written(None, frame=frame), law=JOINT_MOE)
    assert table.column("n_experts").tolist() == grid()["n_experts"].tolist()
    assert "blank in 9 rows" in said(table)
    assert reason in said(table)


AGAINST = {
    "nothing": lambda f: f.assign(tokens=f["tokens"] * (1 + 0.001 * np.arange(len(f)))),
    "more parameters are held": lambda f: f.assign(n_total=2 * f["n_active"]),
    "k is 2": lambda f: f.assign(top_k=2),
    "other rows are dense": lambda f: pd.concat([f, f[:9].assign(n_experts=1.0)], ignore_index=True),
    "their losses are among the others": lambda f: f.assign(loss_val=f["loss_val"].where(f["n_experts"] < 8, 9.0)),
}


@pytest.mark.parametrize("case", AGAINST)
def test_a_blank_is_refused_by_row_where_nothing_shows_it(case):
    frame = grid((4, 8)).astype({"n_experts": float})
    frame.loc[[3, 4, 5], "n_experts"] = np.nan
    frame = AGAINST[case](
        frame if case == "their losses are among the others" else frame.assign(loss_val=frame["loss_val"])
    )
    if case not in ("nothing", "their losses are among the others"):
        frame.loc[[3, 4, 5], "loss_val"] += 1.0  # as dense ones would
    with pytest.raises(InputError, match=r"n_experts is blank in rows 4, 5, 6.*`where` 'n_experts >= 1'"):
        runs.read_runs(frame, law=JOINT_MOE)
    assert len(runs.read_runs(frame, where="n_experts >= 1", law=JOINT_MOE)) == len(frame) - 3


def test_rows_that_are_left_out_anyway_need_no_count():
    frame = grid().astype({"n_experts": float}).assign(status="ok")
    frame.loc[[9, 10], ["n_experts", "status", "loss_val"]] = [np.nan, "crashed", np.nan]
    assert len(runs.read_runs(frame, law=JOINT_MOE)) == len(frame) - 2


@pytest.mark.parametrize("k", [0, None, 1, "-", "dense", "0"])
def test_the_k_of_a_dense_model_blocks_nothing(k):
    frame = grid().assign(n_total=lambda f: f["n_active"] * (1 + 0.5 * (f["n_experts"] - 1)))
    frame["top_k"] = pd.Series([k if e == 1 else 2 for e in frame["n_experts"]], dtype=object)
    table = runs.read_runs(frame, law=SPARSITY)
    assert len(table) == len(frame)
    assert table.frame.groupby("n_experts")["top_k"].unique().map(list).tolist() == [[1], [2], [2]]
    assert "not a number" not in said(table)
