"""Which row of a run is its result: planted curves and trunks, in any order, with gaps, blank and repeated names."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.laws import HOFFMANN, JOINT_MOE
from analysis.tables import runs
from analysis.tables.import_study import import_runs
from scaling.errors import InputError

SIZES = (5e7, 1.2e8, 3.5e8, 7.6e8, 1.3e9)
BUDGETS = (6.0, 20.0, 70.0, 210.0)  # tokens per parameter
EARLIER = "an earlier row of the same run"


def loss(n_active, tokens):
    return 1.69 + 406.4 / n_active**0.34 + 410.7 / tokens**0.28


def finished(budgets=BUDGETS, name="run{model}-{budget}"):
    """One row for each model and budget."""
    return pd.DataFrame([
        {"run_id": name.format(model=i, budget=j), "n_active": n, "tokens": d * n, "loss_val": loss(n, d * n)}
        for i, n in enumerate(SIZES)
        for j, d in enumerate(budgets)
    ])  # fmt: skip


def along(frame, at, **columns):
    """The runs of a frame at these shares of their training, losses before the end too high by a tenth."""
    parts = [
        frame.assign(
            tokens=frame["tokens"] * share,
            loss_val=frame["loss_val"] if share == 1 else 1.1 * loss(frame["n_active"], share * frame["tokens"]),
            **{name: of(place) for name, of in columns.items()},
        )
        for place, share in enumerate(at)
    ]
    return pd.concat(parts, ignore_index=True)


def shuffled(frame):
    return frame.sample(frac=1, random_state=3).reset_index(drop=True)


def points(table):
    """What a fit sees, in no order."""
    frame = table.frame if hasattr(table, "frame") else table
    return sorted(frame[["n_active", "tokens", "loss_val"]].itertuples(index=False, name=None))


def said(table):
    return " ".join([*table.notes, *map(str, table.doubts)])


GEOMETRIC = (0.01, 0.1, 1.0)  # as budgets would be
CURVES = {
    "two runs of a model end apart": (finished(), (0.02, 0.25, 1.0), {}),
    "evenly spaced": (finished((70.0,)), (0.25, 0.5, 0.75, 1.0), {}),
    "many rows": (finished((70.0,)), tuple(np.geomspace(1e-3, 1, 12)), {}),
    "a step counts on": (finished((70.0,)), GEOMETRIC, {"_step": lambda i: 100 * i}),
    "iteration, of another case": (finished((70.0,)), GEOMETRIC, {"Iteration": lambda i: 100 * i}),
    "the learning rate changes": (finished((70.0,)), GEOMETRIC, {"lr": lambda i: 1e-3 / (1 + i)}),
    "earlier rows were running": (
        finished((70.0,)),
        GEOMETRIC,
        {"status": lambda i: "FINISHED" if i == 2 else "running"},
    ),
    "short of one budget": (finished((70.0,)).assign(max_tokens=lambda f: f["tokens"]), GEOMETRIC, {}),
    "two rows, which tell nothing": (finished((70.0,)), (0.5, 1.0), {}),
}


@pytest.mark.parametrize("case", CURVES)
def test_of_evaluations_along_training_the_last_is_the_run(case):
    ends, at, columns = CURVES[case]
    frame = along(ends, at, **columns)
    for table in (runs.read_runs(rows, law=HOFFMANN) for rows in (frame, shuffled(frame), frame[::-1])):
        assert points(table) == points(ends)
        assert dict(table.dropped) == {EARLIER: len(frame) - len(ends)}
        assert f"of {len(frame)} rows that share {len(ends)} run_ids" in said(table)
        assert "`map` trunk_id=run_id" in said(table)
        assert any(doubt.code == "rows_of_one_run" for doubt in table.doubts) == (
            case == "two rows, which tell nothing"
        )


TRUNKS = {
    "budgets in a constant ratio": (finished(name="model{model}"), {}),
    "the same tokens for every model": (finished(name="model{model}").assign(tokens=[1e9, 3e9, 1e10, 3e10] * 5), {}),
    "one model": (finished(name="model{model}")[:4], {}),
    "a trunk_id for each run_id": (
        along(finished((70.0,)), (0.25, 0.5, 0.75, 1.0)).assign(trunk_id=lambda f: f["run_id"]),
        {},
    ),
    "asked for": (along(finished((70.0,)), (0.25, 0.5, 0.75, 1.0)), {"trunk_id": "run_id"}),
}


@pytest.mark.parametrize("case", TRUNKS)
def test_one_name_for_several_budgets_is_several_points_of_a_trunk(case):
    frame, mapping = TRUNKS[case]
    table = runs.read_runs(shuffled(frame), mapping, law=HOFFMANN)
    assert points(table) == points(frame)
    assert not table.dropped
    trunks = frame["run_id"].nunique()
    assert len(set(table.trunks)) == trunks  # the bootstrap draws whole runs
    assert table.frame.groupby("n_active")["trunk_id"].nunique().eq(1).all()
    assert "run_id" not in table.frame or table.frame["run_id"].is_unique


def test_each_reading_of_budgets_can_be_asked_for():
    frame = finished(name="model{model}")
    last = runs.read_runs(frame, {"step": "tokens*1"}, law=HOFFMANN)
    assert points(last) == points(frame[frame["tokens"] == 210 * frame["n_active"]])
    assert "step" in next(str(doubt) for doubt in runs.read_runs(frame, law=HOFFMANN).doubts if "trunk" in str(doubt))


def test_budgets_that_the_table_names_are_runs_of_their_own():
    frame = along(finished((70.0,)), (0.25, 0.5, 0.75, 1.0)).assign(tokens_requested=lambda f: f["tokens"])
    assert len(runs.read_runs(frame, law=HOFFMANN)) == 20


def test_rows_without_tokens_or_without_a_loss_do_not_hide_the_last_one():
    """A tracker logs the loss less often than the step, and tokens not always."""
    curve = along(finished((70.0,)), tuple(np.linspace(0.1, 1, 10)), _step=lambda i: i)
    expected = points(curve[curve["_step"] == 8])
    curve.loc[curve["_step"] == 9, "loss_val"] = np.nan
    curve.loc[curve["_step"] == 3, ["tokens", "_step"]] = np.nan
    assert points(runs.read_runs(shuffled(curve), law=HOFFMANN)) == expected


def test_a_run_whose_loss_ends_long_before_it_does_is_left_out_by_row():
    curve = along(finished((70.0,)), tuple(np.linspace(0.1, 1, 10)))
    lost = (curve["run_id"] == "run2-0") & (curve["tokens"] > 0.65 * 70 * SIZES[2])
    curve.loc[lost, "loss_val"] = np.nan
    table = runs.read_runs(curve, law=HOFFMANN)
    assert len(table) == 4
    assert ("no loss at the end of the run", 1) in table.dropped
    assert f"no loss at the end of the run in row {np.flatnonzero(lost)[-1] + 1}" in said(table)


def test_a_run_ends_as_its_last_row_does():
    curve = along(finished((70.0,)), (0.5, 0.9, 1.0), status=lambda i: "ok")
    curve.loc[curve["run_id"].eq("run1-0") & curve["tokens"].eq(70 * SIZES[1]), ["status", "loss_val"]] = [
        "crashed",
        None,
    ]
    table = runs.read_runs(curve, law=HOFFMANN)
    assert len(table) == 4
    assert ("status crashed", 1) in table.dropped


def test_a_run_of_one_row_stays_among_runs_of_many():
    one, many = finished((20.0,)), along(finished((70.0,), "long{model}"), tuple(np.linspace(0.1, 1, 10)))
    both = pd.concat([one, many], ignore_index=True)
    assert points(runs.read_runs(shuffled(both), law=HOFFMANN)) == points(finished((20.0, 70.0)))


def test_where_nothing_says_how_far_a_row_is_the_last_in_the_file_is_taken_with_a_doubt():
    frame = finished((70.0,)).assign(note="first")
    again = pd.concat([frame.assign(loss_val=9.0), frame], ignore_index=True)
    table = runs.read_runs(again, law=HOFFMANN)
    assert points(table) == points(frame)
    doubt = next(doubt for doubt in table.doubts if doubt.code == "last_row_twice")
    assert doubt.rows == (1, 2, 3, 4, 5)
    exact = pd.concat([frame, frame], ignore_index=True)
    assert not any(doubt.code == "last_row_twice" for doubt in runs.read_runs(exact, law=HOFFMANN).doubts)


@pytest.mark.parametrize("blank", [None, "", "  ", "nan", "None", "NULL"])
def test_a_run_without_a_name_is_a_run_of_its_own(blank):
    frame = finished()
    frame.loc[frame.index % 2 == 0, "run_id"] = blank
    table = runs.read_runs(frame, law=HOFFMANN)
    assert points(table) == points(frame)
    assert "run_id is blank in 10 rows" in said(table)
    numbered = finished().assign(run_id=[float(i) if i % 2 else np.nan for i in range(20)])
    assert len(runs.read_runs(numbered, law=HOFFMANN)) == 20


NUMBERLIKE = {
    "versions": ["1.1", "1.10", "2.1", "2.10", "3"],
    "zeros before": ["1", "01", "001", "2", "02"],
    "hashes": ["10e5", "1e6", "100e4", "12", "13"],
    "18 digits": [str(412345678901234560 + i) for i in range(5)],
    "18 digits and a blank": ["", *(str(412345678901234560 + i) for i in range(4))],
}


@pytest.mark.parametrize("name", ["run_id", "Run ID", "exp"])
@pytest.mark.parametrize("case", NUMBERLIKE)
def test_names_that_would_be_one_number_are_several_runs(tmp_path, case, name):
    """Of one model, at evenly spaced tokens: as one run they would be its evaluations."""
    runs_of_a_model = pd.DataFrame({name: NUMBERLIKE[case], "n_active": 1e8, "tokens": np.arange(1, 6) * 1e9})
    runs_of_a_model["loss_val"] = loss(1e8, runs_of_a_model["tokens"]).round(6)
    maps = {"run_id": "exp"} if name == "exp" else {}
    runs_of_a_model.to_csv(tmp_path / "t.csv", index=False)
    whole = case.startswith("18")
    names = [int(cell) if cell else None for cell in NUMBERLIKE[case]] if whole else NUMBERLIKE[case]
    as_numbers = runs_of_a_model.assign(**{name: pd.array(names, dtype="Int64" if whole else "str")})
    as_numbers.to_parquet(tmp_path / "t.parquet")
    as_numbers.to_json(tmp_path / "t.json", orient="records")
    for path in (tmp_path / "t.csv", tmp_path / "t.parquet", tmp_path / "t.json"):
        assert points(runs.read_runs(path, maps)) == points(runs_of_a_model), path


def test_names_that_floats_have_lost_are_refused_by_row():
    frame = finished().assign(run_id=[np.nan, 412345678901234561, *range(18)])
    with pytest.raises(InputError, match=r"run_id .*in row 2 .*text"):
        runs.read_runs(frame)


def test_seeds_that_the_table_does_not_name_are_doubted_by_row():
    twice = pd.concat([finished(name="m{model}"), finished(name="m{model}").assign(loss_val=4.0)], ignore_index=True)
    table = runs.read_runs(twice)
    assert len(table) == 20
    (doubt,) = (doubt for doubt in table.doubts if doubt.code == "budget_twice")
    assert doubt.rows == tuple(range(1, 21))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n_active", SIZES),
        ("seed", range(5)),
        ("n_experts", (1, 2, 4, 8, 16)),
        ("width", range(64, 69)),
        ("Arch", "abcde"),
    ],
)
def test_tables_put_together_that_both_count_from_0_keep_all_runs(name, values):
    """Five tables with runs 0 to 3, which differ in one thing that shapes a run."""
    one = finished()[:4].assign(run_id=range(4))
    together = pd.concat([one.assign(**{name: value}) for value in values], ignore_index=True)
    table = runs.read_runs(shuffled(together), law=HOFFMANN)
    assert len(table) == 20
    assert f"differ in {name}: 20 runs" in said(table)


def test_tables_put_together_keep_also_the_runs_that_are_alike():
    """The first model of both is the same, at other budgets."""
    first, second = (
        finished()[:8],
        finished((10.0, 30.0, 100.0, 300.0))[[True] * 4 + [False] * 8 + [True] * 4 + [False] * 4],
    )
    together = pd.concat([first.assign(run_id=range(8)), second.assign(run_id=range(8))], ignore_index=True)
    assert points(runs.read_runs(shuffled(together), law=HOFFMANN)) == points(together)


def test_of_each_of_two_concatenated_curves_the_last_row_is_kept():
    ends = finished().assign(run_id=lambda f: f["run_id"].str[-1])  # four names, each of five models
    assert points(runs.read_runs(shuffled(along(ends, (0.25, 0.5, 0.75, 1.0))), law=HOFFMANN)) == points(ends)


def test_a_condition_on_tokens_asks_for_the_ends_of_runs_and_one_on_a_text_for_its_rows():
    ends = finished()
    curve = along(ends, (0.25, 0.5, 0.75, 1.0))
    assert points(runs.read_runs(curve, where="tokens < 1e10", law=HOFFMANN)) == points(ends[ends["tokens"] < 1e10])
    two = pd.concat([curve.assign(split="val"), curve.assign(split="train", loss_val=0.9 * curve["loss_val"])])
    two = shuffled(two)
    assert points(runs.read_runs(two, where="split == 'val'", law=HOFFMANN)) == points(ends)
    assert any(doubt.code == "last_row_twice" for doubt in runs.read_runs(two, law=HOFFMANN).doubts)


def test_two_imports_that_both_count_from_0_do_not_swallow_each_other(tmp_path):
    first, second = finished().assign(run_id=range(20)), finished((10.0, 30.0, 100.0, 300.0)).assign(run_id=range(20))
    for name, frame in (("a", first), ("b", second), ("a", first), ("b", second)):  # again: nothing is doubled
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        import_runs(tmp_path / f"{name}.csv", tmp_path / "study")
    table = runs.read_runs(tmp_path / "study", law=HOFFMANN)
    assert points(table) == points(pd.concat([first, second]))
    assert table.frame["run_id"].is_unique
    assert set(map(str, range(20))) <= set(table.frame["run_id"])


def test_overlapping_imports_of_one_table_repeat_no_run(tmp_path):
    source, frame = tmp_path / "a.csv", along(finished(), (0.02, 0.25, 1.0))
    frame.to_csv(source, index=False)
    for where in ("n_active < 1e9", "tokens > 1e9", None):
        import_runs(source, tmp_path / "study", where=where)
    table = runs.read_runs(tmp_path / "study", law=HOFFMANN)
    assert points(table) == points(finished())


def test_points_of_a_trunk_and_runs_without_a_name_are_imported_apart(tmp_path):
    frame = pd.concat([finished(name="model{model}"), finished((33.0,)).assign(run_id=None)])
    frame.to_csv(tmp_path / "a.csv", index=False)
    import_runs(tmp_path / "a.csv", tmp_path / "study")
    table = runs.read_runs(tmp_path / "study", law=HOFFMANN)
    assert points(table) == points(frame)
    assert table.frame["run_id"].is_unique
    assert len(set(table.trunks)) == 10


def test_an_import_of_which_no_row_is_usable_fails_by_row(tmp_path):
    frame = finished()
    for name, value in (("tokens", 0), ("n_active", -1), ("loss_val", None)):
        frame.assign(**{name: value}).to_csv(tmp_path / "a.csv", index=False)
        with pytest.raises(runs.InputError, match=rf"{name} (?s:.)*rows"):
            import_runs(tmp_path / "a.csv", tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_rows_are_those_of_the_file_also_for_a_second_law():
    frame = finished().assign(n_experts=[1, 8] * 10)
    frame.loc[0, "loss_val"] = np.nan  # left out first, so that rows move
    table = runs.read_runs(frame, law=HOFFMANN)
    odd = table.frame["n_experts"].mask(table.labels == 7, np.nan).where(table.labels > 6, np.nan)
    with pytest.raises(runs.InputError, match=r"n_experts missing in rows 2, 3, 4"):
        runs.replace(table, frame=table.frame.assign(n_experts=np.nan)).for_law(JOINT_MOE)
    assert len(runs.replace(table, frame=table.frame.assign(n_experts=odd)).for_law(JOINT_MOE)) == 12
