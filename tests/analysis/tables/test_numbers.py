"""Columns as numbers: a comma is what the whole column proves it to be, or the column is refused with a remedy."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theirs import GOOD, read

from analysis.tables.import_study import import_runs
from analysis.tables.numbers import numbers
from analysis.tables.runs import read_runs
from scaling.errors import InputError

NAN = np.nan


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["0,312", "1,000", "3,500", "10,500"], [0.312, 1.0, 3.5, 10.5]),
        (["2,51", "3,215"], [2.51, 3.215]),
        (["-0,5", "2,000"], [-0.5, 2.0]),
        (["1.234,5", "2.000", "7"], [1234.5, 2000, 7]),
        (["1.234.567", "1.234", "5"], [1234567, 1234, 5]),
        (["1 234,56", "0,5"], [1234.56, 0.5]),
        (["1,5K", "0,25 M"], [1500, 250000]),
        (["1,000,000", "2,145", "7"], [1e6, 2145, 7]),
        (["1,234.5", "2,000"], [1234.5, 2000]),
        (["1,000K", "2,000,000"], [1e6, 2e6]),
        (["1.234", "2.345"], [1.234, 2.345]),
        (["1 000 000", "1\u202f000", "1'000", "1_000", "7"], [1e6, 1000, 1000, 1000, 7]),
        (["n/a", "-", "NaN", "None", "", " ", None, "5"], [NAN] * 7 + [5]),
        (["−5", "+5", "5.", ".5", "1E9"], [-5, 5, 5, 0.5, 1e9]),
        (["a, b", "0,5", "1,000"], [NAN, 0.5, 1.0]),
    ],
)
def test_the_evidence_of_the_column_decides(cells, expected):
    found = numbers(pd.Series(cells, dtype=object))
    np.testing.assert_array_equal(found.floats, expected)
    assert not found.doubt
    assert found.unreadable.tolist() == [cell == "a, b" for cell in cells]


@pytest.mark.parametrize(
    ("cells", "unreadable"),
    [
        (["2,145"], [True]),
        (["1,000", "3,500", "12"], [True, True, False]),
        (["300,000", "2,145", "n/a"], [True, True, False]),
        (["2,145", "1.234"], [True, True]),
        (["2,51", "1.5", "1.234"], [True, False, True]),
        (["1,234.5", "0,5"], [True, True]),
        (["1.234.567", "1.5"], [True, False]),
    ],
)
def test_what_can_be_read_in_two_ways_is_not_read(cells, unreadable):
    found = numbers(pd.Series(cells))
    assert found.unreadable.tolist() == unreadable
    assert cells[0] in found.doubt


@pytest.mark.parametrize(
    "cell",
    ["12%", "$5", "1,00,000", "0x10", "٣", "１２", "∞", "#REF!", "#DIV/0!", "70M params", "2026-01-01", "1:30", "true"],
)
def test_other_text_is_no_number(cell):
    assert numbers(pd.Series([cell, "5"], dtype=object)).unreadable.tolist() == [True, False]


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([True, False]), pd.Series([True, 2, "x"], dtype=object).iloc[[0, 2]], pd.Series([1 + 2j]),
        pd.Series(pd.to_timedelta([5])), pd.Series(pd.to_datetime(["2026-01-01"])),
        pd.Series([True, None], dtype="boolean"),
    ],
)  # fmt: skip
def test_what_is_of_another_kind_is_no_number(column):
    found = numbers(column)
    assert np.isnan(found.floats).all()
    assert (found.unreadable | found.missing).all()


def test_decimals_of_parquet_are_numbers():
    assert numbers(pd.Series([Decimal("1.5"), None, Decimal("2")])).floats.tolist()[::2] == [1.5, 2.0]


def german(value: float) -> str:
    return f"{value:,.3f}".translate(str.maketrans(",.", ".,"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.decimals(0, 10**9, places=3), min_size=1, max_size=8), st.sampled_from([german, "{:,.3f}".format]))
def test_a_column_is_read_as_it_was_written_or_refused(values, write):
    """Three decimals are the worst case, "1,234": never is one reading taken for the other."""
    found = numbers(pd.Series([write(value) for value in values]))
    assert found.doubt or found.floats.tolist() == [float(value) for value in values]


COMMAS = GOOD.assign(n_active=["100,000", "100,000", "900,000", "900,000"])


def test_a_column_that_is_needed_is_refused_with_rows_and_the_map_that_decides(written):
    with pytest.raises(InputError) as error:
        read(written(COMMAS))
    for part in ("row", "1 ('100,000')", "`map` 'n_active=decimal_comma(n_active)'", "100 and as 100000"):
        assert part in str(error.value)
    path = written(COMMAS.rename(columns={"n_active": "N"}))
    with pytest.raises(InputError, match=r"n_active=decimal_point\(N\)"):
        read(path, n_active="N")
    assert read(path, n_active="decimal_point(N)").column("n_active").tolist() == [1e5, 1e5, 9e5, 9e5]
    assert read(path, n_active="decimal_comma(N)*1e6").column("n_active").tolist() == [1e8, 1e8, 9e8, 9e8]


def test_a_column_that_nobody_needs_is_missing_with_the_remedy(written):
    table = read(written(GOOD.assign(seed=["1,000", "2,000", "3,000", "4,000"])))
    assert any("seed=decimal_comma(seed)" in note for note in table.notes)
    assert np.isnan(table.column("seed")).all()


def test_booleans_are_no_counts_but_say_whether_embeddings_are_tied(written):
    with pytest.raises(InputError, match="4 with n_active not a number"):
        read(written(GOOD.assign(n_active=True)))
    path = written(GOOD.assign(tied_embeddings=["true", "False", None, "TRUE"]))
    assert read_runs(path).column("tied_embeddings").tolist()[:2] == [1.0, 0.0]


def test_names_are_joined_with_what_stands_between_them(written):
    path = written(GOOD.assign(sweep=["a", "a", "b", "b"], model=["x", "y", "x", None], width=[1, 2, 1, 2]))
    joined = read(path, trunk_id="sweep + '-' + model").frame["trunk_id"]
    assert joined.tolist()[:3] == ["a-x", "a-y", "b-x"]
    assert joined.isna().tolist() == [False] * 3 + [True]
    assert read(path, trunk_id="sweep + '-' + width").frame["trunk_id"].tolist() == ["a-1", "a-2", "b-1", "b-2"]
    assert read(path, router="'switch'").frame["router"].tolist() == ["switch"] * 4
    for right, remedy in (("sweep + model", "sweep \\+ '-' \\+ model"), ("width + tokens", "width \\+ '-' \\+ tokens")):
        with pytest.raises(InputError, match=remedy):
            read(path, trunk_id=right)
    with pytest.raises(InputError, match="is text, and tokens is a number"):
        read(path, tokens="sweep + '-' + model")


def test_whole_numbers_never_overflow_in_a_condition(tmp_path, written):
    """6 N D beyond 2^63 wraps in 64-bit integers, and every row would pass."""
    sizes = np.array([1e8, 1e9, 1e10, 1e11]).astype(int)
    table = pd.DataFrame(
        {"n_active": np.repeat(sizes, 10), "tokens": np.tile(np.arange(1, 11) * 10**9, 4), "loss_val": 3.0}
    )
    expected = int((6.0 * table["n_active"] * table["tokens"] < 1.2e20).sum())
    path, where = written(table), "6*n_active*tokens < 1.2e20"
    assert len(read_runs(path, where=where)) == expected < 40
    assert len(import_runs(path, tmp_path / "study", where=where)[0]) == expected
    assert len(read_runs(path, {"cost": "6*n_active*tokens"}, "cost < 1.2e20")) == expected


def test_rows_that_a_condition_leaves_open_are_named(written):
    table = read_runs(written(GOOD.assign(E=[8, None, "x", 64])), where="E >= 8")
    assert table.column("loss_val").tolist() == [3.25, 2.5]
    (count,) = [count for reason, count in table.dropped if "E >= 8" in reason]
    assert count == 2
    assert any("rows 2, 3" in note for note in table.notes)
