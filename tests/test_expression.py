"""The language of conditions and maps: Python's own values of what it shares with it, and nothing else."""

from __future__ import annotations

import contextlib
import math
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.tables.numbers import column_of
from scaling.errors import InputError
from scaling.expression import Expression, Texts

TABLE = pd.DataFrame(
    {
        "E": [1, 8, 64, None],
        "tokens": [1e9, 2e9, 5e9, 3e8],
        "router": ["switch", "topk", None, "a__b"],
        "outlier": [True, False, False, True],
        "flag": ["true", "False", None, "TRUE"],
        "mixed": ["8", "dense", "64", None],
        "num": ["8", "16", "1e3", "2B"],
        "big": [2**53, 2**53 + 1, 2**62, 5],
        "N": [10**10] * 4,
        "class": [1, 2, 3, 4],
        "log": [1, 2, 3, 4],
        "size (M)": [1.0, 2.0, 3.0, 4.0],
        "µ": [1, 2, 3, 4],
        "x": [0.0, 1.0, -1.0, 2.0],
    }
)


def column(name: str, reading: str | None):
    if name not in TABLE:
        raise InputError(f"no column {name!r}")
    return column_of(TABLE[name], reading)[0]


def rows(condition: str) -> tuple[list[int], list[int]]:
    """The rows in which a condition holds, and those in which it is open, from 1."""
    truth = Expression(condition, "`where`").condition(column)
    holds, known = (np.broadcast_to(mask, len(TABLE)) for mask in (truth.holds & truth.known, ~truth.known))
    return (np.flatnonzero(holds) + 1).tolist(), (np.flatnonzero(known) + 1).tolist()


@pytest.mark.parametrize(
    ("condition", "holds", "unknown"),
    [
        ("E == 8 and tokens > 1e9", [2], []),
        ("E == 8 & tokens > 1e9", [2], []),  # & and | have the precedence of `and` and `or`, as in pandas
        ("(E == 8) | (E == 1)", [1, 2], [4]),
        ("E == 8 or tokens < 1e9", [2, 4], []),
        ("1e9 <= tokens < 5B", [1, 2], []),
        ("router in ['switch', 'topk']", [1, 2], [3]),
        ("router not in ['switch']", [2, 4], [3]),
        ("router != 'topk'", [1, 4], [3]),
        ("router == 'a__b'", [4], [3]),
        ("router is None", [3], []),
        ("E is not None and not E > 5", [1], []),
        ("not E > 5", [1], [4]),
        ("outlier", [1, 4], []),
        ("~outlier & E == 8", [2], []),
        ("outlier == 0", [2, 3], []),
        ("flag == 'true'", [1, 4], [3]),
        ("flag == True", [1, 4], [3]),
        ("mixed == 8", [1], [4]),
        ("mixed != 8", [2, 3], [4]),
        ("mixed == 'dense'", [2], [4]),
        ("mixed > 4", [1, 3], [2, 4]),
        ("num == '8.0'", [1], []),
        ("num in [8, 2e9]", [1, 4], []),
        ("big == 9007199254740993", [2], []),
        ("big == '9007199254740993'", [2], []),
        ("6*N*tokens < 1.2e20", [1, 4], []),
        ("N*N*N > 9e29", [1, 2, 3, 4], []),
        ("class == 2 and `class` == 2", [2], []),
        ("log == 2 and log(log) < 1", [2], []),
        ("`size (M)` > 2 and µ > 3", [4], []),
        ("log(x) > -5", [2, 4], [3]),
        ("1/x > 0", [1, 2, 4], []),
        ("0/x == 0", [2, 3, 4], [1]),
        ("E % 8 == 0 and tokens // 1e9 == 2", [2], []),
        ("min(E, 10, tokens) == 8", [2], [4]),
        ("router + '-' + E == 'topk-8'", [2], [3, 4]),
        ("9**9**9**9 > tokens", [1, 2, 3, 4], []),
        ("E == 'dense'", [], [4]),
        ("E in []", [], []),
    ],
)
def test_conditions_hold_where_they_say_and_are_open_where_a_cell_is_missing(condition, holds, unknown):
    assert rows(condition) == (holds, unknown)


@pytest.mark.parametrize(
    ("expression", "remedy"),
    [
        ("router.str.contains('x')", "name in"),
        ("@x == 1", "no variables"),
        ("E = 8", "write =="),
        ("E <> 8", "write !="),
        ("E == 8 AND tokens > 1", "write and"),
        ("E == None", "E is None"),
        ("router < 'x'", "router is text"),
        ("router == 8", "quotes"),
        ("router + router == 'x'", "router + '-' + router"),
        ("E in 8", "in router in"),
        ("E in router", "a list"),
        ("min(E) == 1", "two or more"),
        ("log(E, 2) > 1", "one value"),
        ("open('x')", "log10"),
        ("nope > 1", "no column 'nope'"),
        ("`nope` > 1", "no column 'nope'"),
        ("0x10 == E", "0x10"),
        ("E == 1,5", "not in"),
        ("outlier + 1 > 0", "is a condition"),
        ("(E > 3) + 1 == 2", "is a condition"),
        ("E", "no condition"),
        ("router is 8", "is None"),
        ("'abc", "never closed"),
        ("`E == 8", "never closed"),
        ("E == ٣", "not in the"),
        ("E == 1j", "1j"),
        ("E[0] == 1", "not in the"),
        ("E == " + "9" * 5000, "characters"),
        ("(" * 150 + "E" + ")" * 150, "E"),
        ("-" * 300 + "E > 0", "within each other"),
        ("not " * 800 + "outlier", "within"),
    ],
)
def test_what_is_refused_names_itself_and_the_remedy(expression, remedy):
    with pytest.raises(InputError) as error:
        rows(expression)
    assert remedy in str(error.value)
    assert str(error.value).startswith("`where`") or "no column" in remedy


HOSTILE = (
    "__import__('os').system('touch {0}')",
    "open('{0}', 'w')",
    "params.to_pickle('{0}')",
    "E.to_csv('{0}')",
    "exec('1')",
    "().__class__.__base__.__subclasses__()",
    "@pd.io.common.os.system('touch {0}')",
    "[x for x in ().__class__.__mro__]",
    "(lambda: open('{0}', 'w'))()",
    'f\'{{open("{0}", "w")}}\'',
    "(y := open('{0}', 'w'))",
    "E if open('{0}', 'w') else 1",
    "{{open('{0}', 'w')}}",
    "E[open('{0}', 'w')]",
    "log(open('{0}', 'w'))",
    "_0",
    "_1(_0)",
    "`_0`",
    "E; open('{0}', 'w')",
    "eval(\"open('{0}', 'w')\")",
    "globals()['x']",
    "print(E)",
    "*open('{0}', 'w')",
    "yield E",
    "await E",
    "b'x'",
    "...",
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from([*HOSTILE, "E", "1", " + ", " == ", "(", ")", ",", "'", "`", " and ", "**", ".", "[", "]"]),
        min_size=1,
        max_size=6,
    ),
)
def test_nothing_else_is_ever_evaluated(tmp_path_factory, parts):
    target = Path(tmp_path_factory.getbasetemp()) / "written"
    text = "".join(parts).replace("{0}", str(target)).replace("{{", "{").replace("}}", "}")
    for use in (Expression.condition, Expression.value):
        with contextlib.suppress(InputError):
            use(Expression(text, "x"), column)
    assert not target.exists()


@pytest.mark.parametrize("text", ["9**9**9**9**9", "2**" * 50 + "2", "max(" * 40 + "1" + ",2)" * 40])
def test_towers_end_at_once(text):
    start = time.process_time()
    Expression(text, "x").value(column)
    assert time.process_time() - start < 0.5


numbers = st.one_of(st.integers(0, 2**40).map(str), st.floats(0, 1e12).map(repr), st.sampled_from(["a", "b", "c"]))
arithmetic = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**"]), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("-{}".format),
        inner.map("log({})".format),
        inner.map("sqrt({})".format),
        st.tuples(inner, inner).map(lambda two: "min({}, {})".format(*two)),
    ),
    max_leaves=8,
)
compared = st.lists(arithmetic, min_size=2, max_size=3).flatmap(
    lambda sides: st.sampled_from(["<", "<=", ">", ">=", "==", "!="]).map(lambda sign: f" {sign} ".join(sides))
)
conditions = st.recursive(
    compared.map("({})".format),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map("".join), inner.map("not {}".format)
    ),
    max_leaves=4,
)
NAMES = {"a": np.float64(0.75), "b": np.float64(-3.0), "c": np.float64(6e10)}
SAFE = {"__builtins__": {}, "log": np.log, "sqrt": np.sqrt, "min": np.minimum} | NAMES


def in_float64(text: str):
    """Python's value; whole numbers are made floats by their names, so that nothing is computed in exact integers."""
    tokens = [f"F({token})" if token[:1].isdigit() else token for token in _spaced(text)]
    with np.errstate(all="ignore"):
        return eval(" ".join(tokens), {**SAFE, "F": np.float64})


def _spaced(text: str) -> list[str]:
    return re.findall(r"[0-9][0-9.]*(?:e[+-]?[0-9]+)?|[a-z]+|\*\*|//|[<>=!]=|[-+*/%<>(),]", text)


def one_row(name: str, reading: str | None):
    return column_of(pd.Series([NAMES[name]]), reading)[0]


@settings(max_examples=100, deadline=None)
@given(arithmetic)
def test_arithmetic_is_that_of_python_in_float64(text):
    expected = float(in_float64(text))
    found = float(np.ravel(Expression(text, "x").value(one_row))[0])
    assert found == expected or (math.isnan(found) and math.isnan(expected))


@settings(max_examples=60, deadline=None)
@given(conditions)
def test_conditions_are_those_of_python_where_all_is_known(text):
    truth = Expression(text, "x").condition(one_row)
    if bool(np.all(truth.known)):
        assert bool(np.ravel(truth.holds)[0]) == bool(in_float64(text))


def test_a_text_result_is_joined_and_missing_where_a_part_is():
    found = Expression("router + '/' + `size (M)`", "x").value(column)
    assert isinstance(found, Texts)
    assert list(found.values) == ["switch/1", "topk/2", None, "a__b/4"]
