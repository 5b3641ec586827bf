"""The parameters of a fit as a table."""

from __future__ import annotations

from analysis.fitting.fit_tables import parameter_table
from analysis.laws import HOFFMANN

PARAMS = {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28}


def cells(**columns):
    table = parameter_table(HOFFMANN, PARAMS, **columns)
    return {row[0]: row for row in table.cells}, table


def test_a_row_is_value_interval_and_meaning():
    rows, table = cells(intervals={"alpha": (0.3, 0.38)}, pinned=("beta",))
    assert table.headings == ["parameter", "value", "95 % interval", "meaning"]
    assert list(rows) == list(HOFFMANN.names)
    assert rows["alpha"][1:3] == ["0.34", "0.3 to 0.38"]
    assert rows["beta"][1:3] == ["0.28", "fixed"]
    assert rows["A"][1:] == ["406.4", "–", HOFFMANN.parameter("A").meaning]
    assert table.notes == ()


def test_an_end_at_the_bound_has_a_star_that_a_note_explains():
    low, _ = HOFFMANN.parameter("alpha").bounds
    rows, table = cells(intervals={"alpha": (low, 0.38), "beta": (0.2, 0.3)}, pinned=())
    assert rows["alpha"][2] == f"{low:.4g}* to 0.38"
    assert rows["beta"][2] == "0.2 to 0.3"
    assert len(table.notes) == 1


def test_intervals_by_profile_have_a_column_and_may_be_open():
    rows, table = cells(intervals={}, pinned=(), by_profile={"beta": (None, 0.31)})
    assert table.headings[3] == "by profile"
    assert rows["beta"][3] == "unbounded to 0.31"
    assert rows["alpha"][3] == "–"
    assert table.frame["by_profile"].notna().sum() == 1


def test_a_fit_that_failed_has_no_values():
    table = parameter_table(HOFFMANN, {}, {}, ())
    assert [row[1] for row in table.cells] == ["–"] * 5
