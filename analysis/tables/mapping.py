"""Mapping: our columns out of anybody's, by name or by arithmetic on them (`--map COLUMN=EXPRESSION`)."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.laws import LAWS
from analysis.tables.readers import listed, numbers
from scaling.arrays import Array
from scaling.config.fields import parse_number
from scaling.errors import InputError
from scaling.schema import RUNS

TIED = "tied_embeddings"  # 1 where embedding and head are one matrix; read by `analysis.tables.conventions` alone
KNOWN = frozenset({*RUNS, *(name for law in LAWS.values() for name in (*law.columns, law.target)), TIED})
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.UAdd: np.positive,
    ast.USub: np.negative,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"log": np.log, "exp": np.exp, "log2": np.log2, "log10": np.log10}
_GRAMMAR = (
    "write a column, a number, or arithmetic on them with + - * / ** log exp log2 log10; "
    "in arithmetic a name that is not one word stands in backticks"
)


class _Refused(Exception):
    """What is wrong with an expression."""


def mapped(
    frame: pd.DataFrame, mapping: Mapping[str, str], source: str, notes: list[str]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The frame with our columns in it, and the term that each of them was made of, as a further expression needs it.

    `mapping` is {ours: right side}. A right side that is a column of the table renames it; a number (`300B`) makes a
    constant column; anything else is arithmetic on the table's own columns, with a note. What was there under our name
    is replaced. Of a pair whose right side is a name of ours that the table lacks and whose left side is a column of
    it, the sides are swapped. Raises InputError for a column that is not there and for what is no arithmetic.
    """
    made: dict[str, pd.Series[Any]] = {}
    terms: dict[str, str] = {}
    renamed: set[str] = set()
    for left, right in mapping.items():
        swapped = right in KNOWN and right not in frame and left in frame and left not in KNOWN
        ours, given = (right, left) if swapped else (left, right)
        if ours in made or given in renamed:
            raise InputError(f"{source}: --map {left}={right}: one of the two is mapped twice")
        if given in frame:
            made[ours], terms[ours] = frame[given], given if given.isidentifier() else f"`{given}`"
            renamed.add(given)
        else:
            made[ours], terms[ours] = _computed(frame, given, f"{source}: --map {left}={right}", notes), f"({given})"
            notes.append(f"{ours} computed as {given}, as asked")
        if ours not in KNOWN:
            alike = difflib.get_close_matches(ours, sorted(KNOWN), n=1)
            hint = f" (did you mean {alike[0]}?)" if alike else ""
            notes.append(
                f"--map {left}={right}: no fit or import reads a column {ours!r}{hint}; it serves --where only"
            )
    replaced = [name for name in frame.columns if name in made or name in renamed]
    return frame.drop(columns=replaced).assign(**made), terms


def _computed(frame: pd.DataFrame, expression: str, place: str, notes: list[str]) -> pd.Series[Any]:
    """An expression's value by row; a row whose operand is no number keeps that operand's text, to be named later."""
    faults: dict[int, Any] = {}
    gaps = np.zeros(len(frame), dtype=bool)
    quoted: list[str] = []

    def column(name: str) -> Array:
        if name not in frame:
            raise _Refused(f"no column {name!r}; it has {listed(frame.columns)}")
        read = numbers(frame[name])
        gaps[read.missing] = True
        rows = np.flatnonzero(read.unreadable)
        faults.update(zip(rows.tolist(), frame[name].to_numpy(dtype=object)[rows], strict=True))
        notes.extend(f"{name}: {told}" for told in read.conventions)
        return read.floats

    def placeholder(match: re.Match[str]) -> str:
        quoted.append(match[1])
        return f"_quoted_{len(quoted) - 1}_"

    def value(node: ast.AST) -> Any:
        match node:
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
                return _OPERATORS[type(operator)](value(left), value(right))
            case ast.UnaryOp(op=operator, operand=operand) if type(operator) in _OPERATORS:
                return _OPERATORS[type(operator)](value(operand))
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](value(argument))
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return np.float64(number)
            case ast.Name(id=name):
                place = re.fullmatch(r"_quoted_(\d+)_", name)
                return column(quoted[int(place[1])] if place else name)
        raise _Refused(f"{ast.unparse(node)!r} is no arithmetic; {_GRAMMAR}")

    try:
        result = _constant(expression)
        if result is None:
            tree = ast.parse(re.sub("`([^`]*)`", placeholder, expression), mode="eval")
            with np.errstate(all="ignore"):  # what comes out undefined or infinite is counted by the reader
                result = value(tree.body)
    except _Refused as error:
        raise InputError(f"{place}: {error}") from error
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise InputError(f"{place}: no column {expression!r}, and no arithmetic; {_GRAMMAR}") from error
    values = pd.Series(np.broadcast_to(np.asarray(result, dtype=float), len(frame)).copy(), index=frame.index)
    undefined = np.flatnonzero(values.isna().to_numpy() & ~gaps)
    faults = dict.fromkeys(undefined.tolist(), f"undefined: {expression}") | faults
    if faults:
        values = values.astype(object)
        values.iloc[list(faults)] = list(faults.values())
    return values


def _constant(text: str) -> float | None:
    try:
        return parse_number(text)
    except ValueError:
        return None
