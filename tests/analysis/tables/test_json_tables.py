"""JSON tables: the shapes that programs write are one table, and what is none is named by line, item or key."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from analysis.tables.readers import read_table
from scaling.errors import InputError

RUNS = [{"params": 1, "loss": 3.5}, {"params": 2, "loss": 3.25}]
TABLE = pd.DataFrame(RUNS)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("x.json", RUNS),
        ("x.jsonl", RUNS),
        ("x.json", {"runs": RUNS, "made": "today"}),
        ("x.json", {"data": RUNS}),
        ("x.json", {"params": [1, 2], "loss": [3.5, 3.25]}),
        ("x.json", {"columns": ["params", "loss"], "index": [0, 1], "data": [[1, 3.5], [2, 3.25]]}),
        ("x.json", {"params": {"0": 1, "1": 2}, "loss": {"0": 3.5, "1": 3.25}}),
    ],
)
def test_one_table_in_many_shapes(written, name, document):
    pd.testing.assert_frame_equal(read_table(written(json.dumps(document, indent=1).encode(), name)), TABLE)


def test_lines_in_a_json_file_and_one_pretty_run_in_a_file_of_lines(written):
    lines = "\n".join(map(json.dumps, RUNS)).encode()
    pd.testing.assert_frame_equal(read_table(written(lines, "x.json")), TABLE)
    for name in ("one.json", "one.jsonl"):
        pd.testing.assert_frame_equal(read_table(written(json.dumps(RUNS[0], indent=2).encode(), name)), TABLE.iloc[:1])


@pytest.mark.parametrize("within", [lambda runs: runs, lambda runs: {"runs": runs}])
def test_runs_by_their_names(written, within):
    document = within({"first": RUNS[0], "second": RUNS[1]})
    found = read_table(written(json.dumps(document).encode(), "x.json"))
    assert found["run_id"].tolist() == ["first", "second"]
    pd.testing.assert_frame_equal(found[["params", "loss"]], TABLE)


def test_runs_by_their_names_keep_the_names_they_have(written):
    document = {"a": {"run_id": "x", "loss": 1}, "b": {"run_id": "y", "loss": 2}}
    found = read_table(written(json.dumps(document).encode(), "x.json"))
    assert found["run_id"].tolist() == ["x", "y"]
    assert found["key"].tolist() == ["a", "b"]


def test_numbers_that_json_has_not_are_missing_and_infinite(written):
    cells = read_table(written(b'[{"a": NaN}, {"a": Infinity}, {"a": null}]', "x.json"))["a"].tolist()
    assert [math.isnan(cells[0]), cells[1], math.isnan(cells[2])] == [True, math.inf, True]


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("x.json", '[{"a": 1, "loss": 2, "loss": 3}]', ["'loss' twice"]),
        ("x.jsonl", '{"a": 1}\n{"a": 1, "a": 2}', ["line 2", "'a' twice"]),
        ("x.jsonl", '{"a": 1}\n{"a"', ["line 2"]),
        ("x.json", '{"a": [1, 2], "b": [3]}', ["a 2", "b 1"]),
        ("x.json", '{"columns": ["a", "b"], "data": [[1, 2], [3]]}', ["row 2", "1 cells"]),
        ("x.json", '{"train": [{"a": 1}], "eval": [{"a": 1}]}', ["train, eval"]),
        ("x.json", '{"config": {"a": 1}, "metrics": {"b": 1}}', ["config, metrics"]),
        ("x.json", "[[1, 2]]", ["item 1"]),
        ("x.json", "3", ["found 3"]),
        ("x.json", "{}", ["found {}"]),
        ("x.json", '{"a": "\\ud800"}', ["x.json"]),
        ("x.json", '[{"a": ' + "[" * 5000 + "]" * 5000 + "}]", ["nested"]),
        ("x.json", '[{"loss": 1, "Loss": 2}]', ["'loss'", "'Loss'"]),
    ],
)
def test_what_is_no_table_is_named(written, name, text, named):
    with pytest.raises(InputError) as error:
        read_table(written(text.encode(), name))
    for part in named:
        assert part in str(error.value)


def test_half_of_a_character_is_refused(tmp_path):
    path = tmp_path / "runs.json"
    path.write_text('[{"n_active": 1e8, "tokens": 1e9, "loss_val": 3.0, "run_id": "\\ud800"}]')
    with pytest.raises(InputError, match=r"runs\.json.*half of a character"):
        read_table(path)
