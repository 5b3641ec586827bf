"""Units of other people's tables: whole columns, and single rows, in millions or billions."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from planted import hoffmann_runs
from theirs import GOOD, read

from analysis.tables import runs


def suggested(table):
    """The conversions that the doubts propose, as (column, expression)."""
    return [pair for doubt in table.doubts for pair in re.findall(r"`map` '(\w+)=(.*?)'", doubt.message)]


@pytest.mark.parametrize(
    ("change", "suggestion"),
    [
        ({"tokens": [2.0, 20.0, 30.0, 300.0]}, ("tokens", "tokens*1e9")),
        ({"tokens": [2e3, 3e3, 2e3, 9e3]}, ("tokens", "tokens*1e6")),
        ({"n_active": [100.0, 100.0, 900.0, 900.0]}, ("n_active", "n_active*1e6")),
        ({"n_active": [1.0, 1.0, 7.0, 7.0], "tokens": [2e10, 3e10, 1e11, 2e11]}, ("n_active", "n_active*1e9")),
    ],
)
def test_implausible_units_are_suggested_and_nothing_is_changed(written, change, suggestion):
    table = read(written(GOOD.assign(**change)))
    assert suggested(table) == [suggestion]
    assert [(doubt.code, doubt.columns) for doubt in table.doubts] == [("unit", (suggestion[0],))]
    for name, values in change.items():
        assert table.column(name).tolist() == values
    assert read(written(GOOD)).doubts == ()


def test_a_suggestion_that_is_followed_cures(written):
    """Both in other units: the first suggestion leads to the second, and then nothing is doubted."""
    path = written(pd.DataFrame({"N (M)": [100.0, 900.0], "D": [2.0, 18.0], "loss": [3.2, 3.0]}))
    first = suggested(read(path, n_active="N (M)", tokens="D", loss_val="loss"))
    assert first == [("n_active", "`N (M)`*1e6"), ("n_active", "`N (M)`*1e9"), ("tokens", "D*1e9")]
    cured = dict(first) | {"n_active": "`N (M)`*1e6", "loss_val": "loss"}
    assert read(path, **cured).doubts == ()
    assert suggested(read(path, **cured | {"tokens": "D*2"})) == [("tokens", "(D*2)*1e9")]


def test_compute_in_other_units_is_known_by_the_tokens_it_gives(written):
    frame = GOOD.drop(columns="tokens").assign(train_flops=6 * GOOD["n_active"] * GOOD["tokens"] / 1e18)
    assert suggested(read(written(frame))) == [("train_flops", "train_flops*1e18")]
    assert suggested(read(written(frame), train_flops="train_flops*1e18")) == []


@pytest.mark.parametrize(("column", "unit"), [("n_active", 1e6), ("n_active", 1e9), ("tokens", 1e6), ("tokens", 1e9)])
@pytest.mark.parametrize("changed", [[12], [0, 3, 17], [*range(1, 20)]])
def test_rows_in_another_unit_are_named(written, column, unit, changed):
    frame = hoffmann_runs()
    frame.loc[changed, column] /= unit
    table = read(written(frame))
    (doubt,) = table.doubts
    assert (doubt.code, doubt.columns) == ("mixed_units", (column,))
    assert doubt.rows == tuple(row + 1 for row in changed)
    assert table.column(column).tolist() == frame[column].tolist()


def test_models_of_very_different_sizes_are_no_mixture_of_units(written):
    """1M, 100M and 10G parameters: no factor brings the least among the others."""
    frame = GOOD.assign(n_active=[1e6, 1e8, 1e8, 1e10], tokens=[1e9, 1e9, 1e10, 1e11], loss_val=[5.0, 3.9, 3.0, 2.5])
    assert read(written(frame)).doubts == ()


def test_rows_keep_the_files_numbers_when_others_are_left_out(written):
    frame = hoffmann_runs()
    frame.loc[[0, 5], "loss_val"] = -1.0
    frame.loc[9, "n_active"] /= 1e6
    for table in (
        read(written(frame)),
        runs.read_runs(written(frame), where="loss_val > 0"),
        read(written(frame.assign(run_id="a" + frame.index.astype(str)))),
    ):
        (doubt,) = table.doubts
        assert doubt.rows == (10,)
        assert "row 10 " in doubt.message
