"""Mapping: our columns from those of any table, by name or by arithmetic (`map` COLUMN=EXPRESSION)."""

from __future__ import annotations

import ast
import contextlib
import difflib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.laws import LAWS
from analysis.tables.readers import numbers
from analysis.tables.reading_log import ReadingLog
from scaling.arrays import Array
from scaling.numbers import parse_number
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.schema import RUNS

TIED = "tied_embeddings"  # 1 where embedding and head share one matrix; only `analysis.tables.counts` reads it
OUR_COLUMNS = frozenset({*RUNS, *(name for law in LAWS.own.values() for name in (*law.columns, law.target)), TIED})
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
    "in arithmetic, put a name that is not one word in backticks"
)


def mapped(
    frame: pd.DataFrame, mapping: Mapping[str, str], source: str, log: ReadingLog, of_law: Collection[str] = ()
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The frame with our columns, and the term behind each of them as an expression would contain it.

    `mapping` is {our name: right side}; `of_law` are columns of a law beyond `OUR_COLUMNS`. A column of the table on
    the right is renamed; a number (`300B`) makes a constant column; anything else is arithmetic on the table's own
    columns, with a note. An existing column of our name is replaced. The sides are swapped where the right one is a
    name of ours that the table lacks and the left one a column of it. Raises InputError for a column that the table
    lacks and for what is not arithmetic.
    """
    known = OUR_COLUMNS | {*of_law}
    columns: dict[str, pd.Series[Any]] = {}
    terms: dict[str, str] = {}
    renamed: set[str] = set()
    for left, right in mapping.items():
        swapped = right in known and right not in frame and left in frame and left not in known
        ours, theirs = (right, left) if swapped else (left, right)
        if ours in columns or theirs in renamed:
            raise InputError(f"{source}: `map` {left}={right}: a column is mapped twice")
        if theirs in frame:
            columns[ours], terms[ours] = frame[theirs], theirs if theirs.isidentifier() else f"`{theirs}`"
            renamed.add(theirs)
        else:
            columns[ours], terms[ours] = _computed(frame, theirs, f"{source}: `map` {left}={right}", log), f"({theirs})"
            log.notes.append(f"{ours} computed as {theirs}, as asked")
        if ours not in known:
            alike = difflib.get_close_matches(ours, sorted(known), n=1)
            hint = f" (did you mean {alike[0]}?)" if alike else ""
            unused = f"no fit or import reads a column {ours!r}{hint}; only `where` can use it"
            log.notes.append(f"`map` {left}={right}: {unused}")
    replaced = [name for name in frame.columns if name in columns or name in renamed]
    return frame.drop(columns=replaced).assign(**columns), terms


def _computed(frame: pd.DataFrame, expression: str, place: str, log: ReadingLog) -> pd.Series[Any]:
    """An expression's value by row; a row with an unreadable operand keeps that text, to be reported by the reader."""
    evaluation = _Evaluation(frame, place)
    try:
        result = evaluation.of(expression)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise InputError(f"{place}: {expression!r} is neither a column nor arithmetic; {_GRAMMAR}") from error
    log.notes += evaluation.conventions
    values = pd.Series(np.broadcast_to(np.asarray(result, dtype=float), len(frame)).copy(), index=frame.index)
    undefined = np.flatnonzero(values.isna().to_numpy() & ~evaluation.missing)
    faults = dict.fromkeys(undefined.tolist(), f"undefined: {expression}") | evaluation.unreadable
    if faults:
        values = values.astype(object)
        values.iloc[list(faults)] = list(faults.values())
    return values


class _Evaluation:
    """Arithmetic on the columns of a frame.

    `missing`: rows where an operand is missing; `unreadable`: operands that are not numbers, by row.
    """

    def __init__(self, frame: pd.DataFrame, place: str) -> None:
        self.frame, self.place = frame, place
        self.missing = np.zeros(len(frame), dtype=bool)
        self.unreadable: dict[int, Any] = {}
        self.conventions: list[str] = []
        self._quoted: dict[str, str] = {}  # names in backticks, by their placeholders while Python parses

    def of(self, expression: str) -> Any:
        """The value. Raises InputError for what is not arithmetic, and Python's own errors for what does not parse."""
        with contextlib.suppress(ValueError):
            return parse_number(expression)
        self._quoted = {f"_quoted_{i}_": name for i, name in enumerate(re.findall("`([^`]*)`", expression))}
        placeholders = iter(self._quoted)
        tree = ast.parse(re.sub("`[^`]*`", lambda _: next(placeholders), expression), mode="eval")
        with np.errstate(all="ignore"):  # the reader counts undefined and infinite results
            return self._value(tree.body)

    def _value(self, node: ast.AST) -> Any:
        match node:
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
                return _OPERATORS[type(operator)](self._value(left), self._value(right))
            case ast.UnaryOp(op=operator, operand=operand) if type(operator) in _OPERATORS:
                return _OPERATORS[type(operator)](self._value(operand))
            case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
                return _FUNCTIONS[name](self._value(argument))
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return np.float64(number)
            case ast.Name(id=name):
                return self._column(self._quoted.get(name, name))
        raise InputError(f"{self.place}: {ast.unparse(node)!r} is not arithmetic; {_GRAMMAR}")

    def _column(self, name: str) -> Array:
        if name not in self.frame:
            raise InputError(f"{self.place}: no column {name!r}; it has {listed(self.frame.columns, most=40)}")
        cells = numbers(self.frame[name])
        self.missing |= cells.missing
        rows = np.flatnonzero(cells.unreadable)
        self.unreadable |= zip(rows.tolist(), self.frame[name].to_numpy(dtype=object)[rows], strict=True)
        self.conventions += [f"{name}: {convention}" for convention in cells.conventions]
        return cells.floats
