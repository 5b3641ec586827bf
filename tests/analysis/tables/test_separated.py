"""Text tables: what stands before the header is understood, and a row that is none is named by its number."""

from __future__ import annotations

import datetime
import gzip
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.tables import separated
from analysis.tables.numbers import numbers
from analysis.tables.readers import read_table
from analysis.tables.runs import read_runs
from scaling.errors import InputError

ROWS = pd.DataFrame({"params": [1, 4], "tokens": [2, 5], "loss": [3, 6]})
HEADER, BODY = "params,tokens,loss\n", "1,2,3\n4,5,6\n"


@pytest.mark.parametrize(
    "text",
    [
        HEADER + BODY,
        "\n \n" + HEADER + BODY,
        "sep=,\n" + HEADER + BODY,
        '"SEP=;"\n' + (HEADER + BODY).replace(",", ";"),
        "# of the first sweep\n#\n" + HEADER + BODY,
        "# params,tokens,loss\n" + BODY,
        "\n#params, tokens, loss\n" + BODY,
        (HEADER + BODY).replace(",", ";"),
        (HEADER + BODY).replace(",", "\t"),
        (HEADER + BODY).replace(",", " | "),
        (HEADER + BODY).replace("\n", "\r"),
        (HEADER + BODY).replace("\n", "\r\n"),
        "\ufeff" + HEADER + BODY,
        HEADER + "1,2,3,\n4,5,6,\n",
        HEADER + "1,2,3\n\n   \n4,5,6",
        HEADER + '1, "2",3\n"4",5,6',
    ],
)
def test_one_table_in_many_spellings(written, text):
    pd.testing.assert_frame_equal(read_table(written(text.encode())), ROWS)


@pytest.mark.parametrize("name", ["x.CSV", "x.Csv.GZ", "a [b] #c d'\"é.csv", "x.tsv"])
def test_the_ending_in_any_case_and_any_name(written, name):
    content = (HEADER + BODY).encode()
    content = gzip.compress(content) if name.lower().endswith(".gz") else content
    pd.testing.assert_frame_equal(read_table(written(content, name)), ROWS)
    broken = written(gzip.compress(b"a,a\n1,2") if name.lower().endswith(".gz") else b"a,a\n1,2", name)
    with pytest.raises(InputError) as error:
        read_table(broken)
    assert str(error.value).startswith(f"{broken}: ")


def test_parquet_and_json_lines_in_upper_case_and_below_a_folder_that_looks_like_a_partition(tmp_path):
    (tmp_path / "seed=3").mkdir()
    ROWS.to_parquet(tmp_path / "seed=3" / "x.Parquet")
    ROWS.to_json(tmp_path / "x.JSONL", orient="records", lines=True)
    for path in (tmp_path / "seed=3" / "x.Parquet", tmp_path / "x.JSONL"):
        pd.testing.assert_frame_equal(read_table(path), ROWS)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (HEADER + "1,2\n4,5,6\n", ["row 1", "2 cells", "3 names"]),
        (HEADER + "1,2,3\n\n4,5,6,7\n", ["row 2", "4 cells"]),
        (HEADER + BODY + "7,8", ["row 3", "2 cells"]),  # cut off
        (HEADER + BODY + "# end\n", ["row 3", "1 cell,"]),
        (HEADER + BODY + HEADER + BODY, ["row 3", "repeats the header"]),
        (HEADER + BODY + HEADER.strip(), ["row 3", "repeats the header"]),
        ("1,2,3\n4,5,6\n", ["numbers", "1, 2, 3"]),
        (HEADER + "params,(B),nats\n" + BODY, ["row 1", "'(B)'", "units"]),
        ("run,tokens,loss\na,2,3\nb,1,2\nTotal:,3,5\n", ["row 3", "'Total:'"]),
        ("run,tokens,loss\na,2,3\nb,1,2\nmean,3,5\nstd,1,1\n", ["row 3", "'mean'"]),
        ("\nparams,loss,loss\n1,2,3\n", ["'loss'"]),
        ("# x\nparams,loss,loss\n1,2,3\n", ["'loss'"]),
        ("sep=,\nparams,loss, loss\n1,2,3\n", ["'loss'"]),
        ("params,loss,Loss\n1,2,3\n", ["'loss'", "'Loss'"]),
        ("params,val loss,val  loss\n1,2,3\n", ["'val loss'", "'val  loss'"]),
        ("a;b|c\n1;2|3\n", ["semicolons", "bars"]),
        ("runs of 2026\n" + HEADER + BODY, ["row 1", "3 cells"]),
        ('p,note,l\n1,x,2\n1,"x,2\n3,y,4\n', ["row 2", "quote"]),
        ('p,note,l\n1,x,2\n1,"x,2\n3,y",4\n', ["row 2", "quote", "swallows"]),
        ('p,note,l\n1,x,2\n1,"x,2\n3,y,4\n5,"z",6\n', ["row 2", "quote"]),
        ('p,note,l\n1,x,2\n1,"5" disk,2\n', ["row 2", "quote"]),
        ('p,note,l\n1,x,2\n1,"a\n3,y,4\n5",6\n', ["row 2", "quote", "swallows"]),
        ("a;b\n2.345;0,7\n1.234;0,5\n", ["row 1", "a = '2.345'", "b: commas are decimal commas"]),
        ("a;b\n2;1.000.000\n1.234;1.500.000\n", ["row 2", "a = '1.234'", "b: dots are separators of thousands"]),
        (HEADER + BODY + "loss,tokens,params\n" + BODY, ["row 3", "'loss'", "header"]),
        (HEADER + BODY + '"params","tokens","loss"\n' + BODY, ["row 3", "header"]),
        (HEADER + BODY + "N,D,L\n" + BODY, ["row 3", "'N'", "header"]),
        ("params;loss\n1,5;0,7\nn;l\n2,25;0,5\n", ["row 2", "'n'", "header"]),
        ("params tokens loss\n1 2 3\n4 5 6\n", ["spaces", "commas"]),
        ("params & tokens & loss \\\\\n1 & 2 & 3 \\\\\n", ["&", "commas"]),
    ],
)
def test_what_is_no_row_or_no_header_is_named(written, text, named):
    with pytest.raises(InputError) as error:
        read_table(written(text.encode()))
    for part in named:
        assert part in str(error.value)


def test_quotes_commas_and_lines_within_cells_are_cells(written):
    text = 'run,config,loss\na,"{\n ""x"": 1,\n ""y"": 2\n}",2\nb,5" disk,3\nc, "1, 2",4\n'
    cells = read_table(written(text.encode()))["config"].tolist()
    long = "x, " * 100_000
    assert read_table(written(f'run,config\na,"{long}"\n'.encode()))["config"].tolist() == [long]
    assert cells == ['{\n "x": 1,\n "y": 2\n}', '5" disk', "1, 2"]


def test_words_for_missing_values_are_texts_among_texts_and_missing_among_numbers(written):
    text = (
        "run,loss_val,n_active,tokens\nNone,1,1e8,1e9\nnan,NaN,1e8,1e9\nnull,NA,1e8,1e9\nN/A,#N/A,1e8,1e9\n,2,1e8,1e9\n"
    )
    path = written(text.encode())
    assert read_table(path)["run"].tolist()[:4] == ["None", "nan", "null", "N/A"]
    assert read_table(path)["run"].isna().tolist() == [False] * 4 + [True]
    assert dict(read_runs(path).dropped) == {"loss_val missing": 3}
    assert len(read_runs(path, where="run == 'None'")) == 1


def test_a_table_of_european_numbers_alone_has_no_row_of_units(written):
    table = read_runs(written(b"n_active;tokens;loss_val\n50.000.000;0,3B;4,4077\n120.000.000;7,2E+08;3,7776\n"))
    assert table.frame["n_active"].tolist() == [5e7, 1.2e8]
    assert table.frame["tokens"].tolist() == [3e8, 7.2e8]
    assert table.frame["loss_val"].tolist() == [4.4077, 3.7776]


def test_one_run_without_numbers_among_others_is_a_run(written):
    """One column of numbers is not enough to tell a header."""
    frame = read_table(written(b"run,loss\na,1.5\nb,diverged\nc,2.5\n"))
    assert frame["loss"].tolist() == ["1.5", "diverged", "2.5"]


def test_words_for_nothing_are_no_trunk(written):
    text = "trunk_id,loss_val,n_active,tokens\nNaN,3,1e8,1e9\nNaN,2,1e8,2e9\nNULL,3,1e8,1e9\na,2,1e8,2e9\na,2,1e8,4e9\n"
    trunks = read_runs(written(text.encode())).trunks.tolist()
    assert [len(set(trunks)), trunks[3] == trunks[4]] == [4, True]


def test_large_whole_numbers_keep_every_digit(written):
    assert read_table(written(b"id,n\n9007199254740993,1\n99999999999999999999999,2\n"))["id"].astype(str).tolist() == [
        "9007199254740993", "99999999999999999999999"
    ]  # fmt: skip


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(written):
    with pytest.raises(InputError, match="times its size"):
        read_table(written(gzip.compress(bytes(2**26)), "bomb.csv.gz"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"%PDF-1.4\n1 0 obj", "a PDF"), (b"<!DOCTYPE html><html>", "web page"),
        ("a,b\n".encode("utf-16-be"), "zero bytes"),
        ("a,b\nµ,1\n".encode("latin-1"), "byte 5 is not UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs"),
        (b"\x89PNG\r\n\x1a\n", "a picture"),
    ],
)  # fmt: skip
def test_what_is_no_text_is_called_what_it_is(written, content, said):
    with pytest.raises(InputError, match=said):
        read_table(written(content))


@pytest.mark.parametrize(
    ("row", "named"), [("1,2,3\n", ""), ("1,2\n", "row 40001 has 2 cells"), ('1,"2,3\n', "row 40001")]
)
def test_rows_are_counted_through_all_pieces_of_a_file(written, monkeypatch, row, named):
    monkeypatch.setattr(separated, "_PIECE", 1000)
    path = written((HEADER + "\n" + "1,2,3\n" * 40000 + row + "4,5,6").encode())
    if named:
        with pytest.raises(InputError, match=named):
            read_table(path)
    else:
        assert read_table(path).to_numpy().sum() == 40001 * 6 + 15


def test_what_parquet_can_hold(tmp_path):
    table = pa.table({
        "decimal": pa.array([Decimal("1.5"), None], pa.decimal128(10, 2)),
        "words": pa.array(["8", "x"]).dictionary_encode(),
        "day": pa.array([datetime.date(2026, 1, 1), None]),
        "time": pa.array([datetime.datetime(2026, 1, 1), None], pa.timestamp("us")),
        "list": pa.array([[1, 2], None]),
        "nested": pa.array([{"a": {"b": [1.5]}}, {"a": None}]),
        "flag": pa.array([True, None]),
        "bytes": pa.array([b"ab", None]),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "x.parquet")
    frame = read_table(tmp_path / "x.parquet")
    assert numbers(frame["decimal"]).floats[0] == 1.5
    assert numbers(frame["words"]).floats[0] == 8.0
    for name in ("day", "time", "list", "nested", "flag", "bytes"):
        assert numbers(frame[name]).unreadable.tolist()[0], name
    assert frame["list"][0] == "[1, 2]"
    assert frame["nested"].tolist()[0] == '{"a": {"b": [1.5]}}'
    twice = pa.table([[1], [2]], names=["loss", "loss"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(InputError, match="two columns are called 'loss'"):
        read_table(tmp_path / "twice.parquet")


def test_a_folder_and_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="a folder"):
        read_table(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "x.csv")
