"""Other people's tables: every format reads alike or says why not, cells are read as people write them, a
mapping is arithmetic."""

from __future__ import annotations

import gzip
import time

import numpy as np
import pandas as pd
import pytest
from theirs import GOOD, content, read

from analysis.fitting.fit import fit
from analysis.laws import HOFFMANN, JOINT_MOE
from analysis.tables.numbers import numbers
from analysis.tables.readers import FORMATS, read_table
from scaling.errors import InputError

# Files


@pytest.mark.parametrize("ending", [ending for ending in FORMATS if ending != ".parquet"])
def test_every_text_format_reads_alike(written, ending):
    pd.testing.assert_frame_equal(read_table(written(GOOD, f"theirs{ending}")), GOOD, check_dtype=False)


def test_parquet_reads_alike_with_its_index_as_a_column(tmp_path):
    GOOD.to_parquet(tmp_path / "plain.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "plain.parquet"), GOOD)
    GOOD.set_index("who").to_parquet(tmp_path / "indexed.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "indexed.parquet")[list(GOOD)], GOOD)
    GOOD.iloc[2:].to_parquet(tmp_path / "part.parquet")  # labels 2 and 3 are no column
    pd.testing.assert_frame_equal(read_table(tmp_path / "part.parquet"), GOOD.iloc[2:].reset_index(drop=True))


def test_byte_order_marks_blanks_and_line_ends_make_no_difference(written):
    text = "n_active , tokens,loss_val\r\n1e8, 1e9 ,3.25\r\n\r\n1e9,1e10,2.5\r\n"
    table = read(written(b"\xef\xbb\xbf" + text.encode()))
    assert table.column("n_active").tolist() == [1e8, 1e9]
    assert table.column("tokens").tolist() == [1e9, 1e10]


def test_lines_may_differ_in_their_keys_and_hold_lists(written):
    lines = [
        '{"n_active": 1e8, "tokens": 1e9, "loss_val": 3.0, "tags": ["a"]}',
        "",
        '{"n_active": 1e8, "loss_val": NaN}',
    ]
    table = read(written("\n".join(lines).encode(), "theirs.jsonl"))
    assert len(table) == 1
    assert table.frame["tags"].tolist() == ['["a"]']


@pytest.mark.parametrize(
    ("name", "what", "message"),
    [
        ("x.csv", b"", "the file is empty"),
        ("x.jsonl", b"\n \n", "the file is empty"),
        ("x.csv.gz", gzip.compress(b"", mtime=0), "the file is empty"),
        ("x.csv", b"n_active,tokens,loss_val\n", "the table has no rows"),
        ("x.json", b"[]", "columns n_active, tokens, loss_val are missing"),
        ("x.csv", "a,µ\n1,2\n".encode("latin-1"), "byte 3 is not UTF-8 text; save it as UTF-8"),
        ("x.csv", "a,b\n1,2\n".encode("utf-16"), "it is UTF-16"),
        ("x.csv", gzip.compress(b"a,b\n1,2\n", mtime=0), "compressed: add .gz"),
        ("x.csv", b"PK\x03\x04\xff", "a zip archive or a spreadsheet"),
        ("x.csv", b"PAR1\xff", "name it .parquet"),
        ("x.csv", b"a,b\n\0\0,1\n", "zero bytes"),
        ("x.csv", b'a,b\n1,2,3,4\n"', "not readable as a table"),
        ("x.csv", b"n_active,tokens\n1,000,2\n", "row 1 has 3 cells, more than the header has names"),
        ("x.csv", b"loss,tokens,loss\n1,2,3\n", "two columns are called 'loss'"),
        ("x.csv.gz", b"not gzip", "not readable as a table"),
        ("x.csv.gz", gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:-12], "not readable as a table"),
        ("x.csv.gz", gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:12] + b"\xff" * 20, "not readable as a table"),
        ("x.parquet", b"PAR1 nothing", "not readable as a table"),
        ("x.parquet", b"", "not readable as a table"),
        ("x.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is not JSON"),
        ("x.jsonl", b'{"a": 1}\n[1, 2]\n', r"line 2 is not a JSON object: \[1, 2\]"),
        ("x.json", b'[{"a": 1}, 7]', "item 2 is not a JSON object: 7"),
        ("x.json", b"[" * 100_000, "not readable as a table"),
        ("x.txt", b"a", r"a file ending in .csv, .tsv"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_one_message(written, name, what, message):
    with pytest.raises(InputError, match=message):
        read(written(what, name))


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.json", "x.jsonl", "x.parquet", "x.csv.gz"])
def test_no_bytes_whatever_make_anything_but_a_table_or_a_message(written, name):
    rng = np.random.default_rng(0)
    whole = content(GOOD, name[1:]) if name != "x.parquet" else GOOD.to_parquet()
    for _ in range(60):
        broken = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            broken[place] = rng.integers(0, 256)
        cut = bytes(broken[: rng.integers(1, len(whole) + 1)])
        try:
            found = len(read(written(cut, name)))
        except InputError as error:
            found = str(error).count(name)
        assert found


# Cells


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1,000,000", "2,500", "7"], [1e6, 2500, 7]),
        (["7B", "1.4T", "70m", "3k", " 1e9 "], [7e9, 1.4e12, 7e7, 3e3, 1e9]),
        (["1_000", "", "  ", None], [1000, np.nan, np.nan, np.nan]),
        ([10**400, 1], [np.inf, 1]),
        (["inf", "-3"], [np.inf, -3]),
    ],
)
def test_numbers_as_people_write_them(cells, expected):
    found = numbers(pd.Series(cells, dtype=object))
    np.testing.assert_array_equal(found.floats, expected)
    assert not found.unreadable.any()


@pytest.mark.parametrize("cells", [["12%", "5"], ["many", "5"], ["1,00,000", "5"], ["$5", "1"], ["0x10", "1"]])
def test_what_is_no_number_is_not_made_one(cells):
    assert numbers(pd.Series(cells)).unreadable.tolist() == [True, False]


def test_dates_and_categories_in_a_number_column():
    assert numbers(pd.Series(pd.to_datetime(["2026-01-01", None]))).unreadable.tolist() == [True, False]
    assert numbers(pd.Series(["7B", "2"], dtype="category")).floats.tolist() == [7e9, 2.0]


def test_how_text_was_read_is_told_and_only_then(written):
    table = read(written(GOOD.assign(n_active=["100M", "100M", "1B", "1B"], tokens=["1,000,000,000"] * 4)))
    assert table.column("n_active").tolist() == GOOD["n_active"].tolist()
    assert table.column("tokens").tolist() == [1e9] * 4
    assert "n_active: K, M, B (or G) and T are powers of 1,000 in 4 cells" in table.notes
    assert "tokens: commas are separators of thousands in 4 cells" in table.notes
    assert not any("cells" in note for note in read(written(GOOD)).notes)


def test_text_in_a_column_is_named_with_row_value_and_count(written):
    frame = GOOD.astype({"tokens": object}).assign(tokens=["1e9", "lots", "1e9", "12%"])
    table = read(written(frame))
    assert table.dropped == (("tokens not a number", 2),)
    assert "left out: tokens not a number in rows 2 ('lots'), 4 ('12%')" in table.notes
    with pytest.raises(
        InputError, match=r"4 with tokens not a number\): .* rows 1 \('x'\), 2 \('x'\), 3 \('x'\) and 1 more"
    ):
        read(written(GOOD.assign(tokens="x")))


def test_text_in_a_column_that_is_not_fitted_is_missing_with_a_note(written):
    table = read(written(GOOD.assign(seed=[1, "x", 3, 4])))
    assert "seed: not a number in 1 row, treated as missing (in row 2 ('x'))" in table.notes
    assert np.isnan(table.column("seed")[1])
    assert not any("treated as missing" in note for note in read(written(GOOD.assign(seed=1))).notes)


def test_one_row_is_read_and_its_fit_says_that_it_cannot_be(written):
    fitted = fit(read(written(GOOD.iloc[:1])), HOFFMANN)
    assert fitted.status == "unidentified"
    assert any("1 runs cannot determine" in warning for warning in fitted.warnings)


# Mapping


THEIRS = pd.DataFrame({
    "size (M)": [100.0, 1000.0, 2000.0], "toks_b": [1.0, 10.0, 40.0], "ppl": [25.0, 20.0, 12.5], "bpb": [1.1, 1.0, 0.9],
    "E": [1, 1, 8],
})  # fmt: skip


@pytest.mark.parametrize(
    ("column", "expression", "expected"),
    [
        ("tokens", "toks_b*1e9", THEIRS["toks_b"] * 1e9),
        ("tokens", "1e9 * (toks_b + 0.5) / 2 - 1", 1e9 * (THEIRS["toks_b"] + 0.5) / 2 - 1),
        ("tokens", "300B", [3e11] * 3),
        ("tokens", "2**3**2", [512.0] * 3),
        ("tokens", "-toks_b**2 + +2000", 2000 - THEIRS["toks_b"] ** 2),
        ("n_active", "size (M)", THEIRS["size (M)"]),
        ("n_active", "`size (M)`*1e6", THEIRS["size (M)"] * 1e6),
        ("n_active", "`size (M)`*1e6/`E`", THEIRS["size (M)"] * 1e6 / THEIRS["E"]),
        ("loss_val", "log(ppl)", np.log(THEIRS["ppl"])),
        ("loss_val", "bpb*0.6931*4.2", THEIRS["bpb"] * 0.6931 * 4.2),
        ("loss_val", "log2(ppl)", np.log2(THEIRS["ppl"])),
        ("loss_val", "log10(ppl) + exp(bpb)", np.log10(THEIRS["ppl"]) + np.exp(THEIRS["bpb"])),
    ],
)
def test_arithmetic_on_columns_is_that_of_python(written, column, expression, expected):
    maps = {"n_active": "`size (M)`*1e6", "tokens": "toks_b*1e9", "loss_val": "log(ppl)"} | {column: expression}
    table = read(written(THEIRS), **maps)
    np.testing.assert_allclose(table.column(column), expected, rtol=1e-15)
    assert (f"{column} computed as {expression}, as asked" in table.notes) == (expression not in THEIRS)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')", "toks_b.max()", "toks_b if 1 else 2", "[x for x in toks_b]", "lambda: 1",
        "'text'", "toks_b > 1", "toks_b.sum() % 2", "open(toks_b)", "log(toks_b, 2)", "log", "1 +", "toks_b toks_b",
        "True", "size (M)*1e6", "absent*2", "`absent`*2", "_quoted_7", "_quoted_0_", "(" * 500, "-" * 100_000 + "1",
        "+".join(["toks_b"] * 20_000), "toks_b[0]", "1j", "``",
    ],
)  # fmt: skip
def test_nothing_but_arithmetic_on_columns_is_understood(written, expression):
    with pytest.raises(InputError, match="`map` tokens="):
        read(written(THEIRS), tokens=expression, n_active="size (M)", loss_val="ppl")


def test_a_tower_of_powers_ends_at_once_and_is_infinite(written):
    start = time.process_time()
    with pytest.raises(InputError, match="3 with tokens infinite"):
        read(written(THEIRS), tokens="9**9**9**9", n_active="`size (M)`*1e6", loss_val="log(ppl)")
    assert time.process_time() - start < 2.0  # of whole numbers it would never end


def test_gaps_text_and_undefined_values_pass_through_arithmetic(written):
    frame = pd.DataFrame({"N": [1e8] * 5, "D": ["1", None, "soon", "1", "2B"], "ppl": [20.0, 20.0, 20.0, -1.0, 20.0]})
    table = read(written(frame), n_active="N", tokens="D*1e9", loss_val="log(ppl)")
    assert dict(table.dropped) == {"tokens missing": 1, "tokens not a number": 1, "loss_val not a number": 1}
    (told,) = [note for note in table.notes if note.startswith("left out")]
    assert "tokens missing in row 2; tokens not a number in row 3 ('soon')" in told
    assert "loss_val not a number in row 4 ('undefined: log(ppl)')" in told
    assert table.column("tokens").tolist() == [1e9, 2e18]


def test_maps_work_on_the_tables_own_columns_and_may_exchange_them(written):
    swapped = GOOD.rename(columns={"n_active": "tokens", "tokens": "n_active"})
    table = read(written(swapped), n_active="tokens", tokens="n_active")
    assert table.column("n_active").tolist() == GOOD["n_active"].tolist()
    assert read(written(GOOD), tokens="tokens*2").column("tokens").tolist() == (GOOD["tokens"] * 2).tolist()
    with pytest.raises(InputError, match="no column 'D'"):  # made by another map, not the table's
        read(written(GOOD), D="tokens*2", tokens="D*1")


def test_a_constant_column_and_the_swap_of_sides(written):
    frame = GOOD.assign(n_experts=8)
    assert read(written(frame), JOINT_MOE, n_experts="1").column("n_experts").tolist() == [1.0] * 4
    assert (
        read(written(GOOD.rename(columns={"tokens": "D"})), D="tokens").column("tokens").tolist()
        == GOOD["tokens"].tolist()
    )


def test_a_misspelt_column_of_ours_is_pointed_out(written):
    notes = read(written(GOOD), seeds="who").notes
    assert any("no fit or import reads a column 'seeds' (did you mean seed?)" in note for note in notes)
    assert not any("no fit or import reads" in note for note in read(written(GOOD), task="who").notes)
