"""A formula of a grid: an expression of other fields (`scaling/expression.py`) that a cell evaluates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scaling.errors import InputError
from scaling.expression import FUNCTIONS, Column, Expression, Texts
from scaling.formatting import listed
from scaling.yaml_text import did_you_mean

UNKNOWN = object()
"""The value of a name that a combination cannot have, because validation refuses it."""


@dataclass(frozen=True, eq=False)
class Formula:
    """An expression, the field it fixes as the grid says it (`model.n_layers`), and its line and column.

    `condition`: whether it says true or false, as in `where`.
    """

    name: str
    text: str
    said: str
    place: tuple[int, int]
    condition: bool
    expression: Expression
    reads: tuple[str, ...]
    _results: dict[tuple[Any, ...], Any] = field(default_factory=dict, repr=False)

    @staticmethod
    def parsed(
        readable: Sequence[str], name: str, text: str, said: str, place: tuple[int, int], *, condition: bool
    ) -> Formula:
        """Raises InputError for what is not in the language, for a name that is not `readable`, and where none is."""
        expression = Expression(text, f"{said}:")
        reads = tuple(word for word in expression.names if word not in (*FUNCTIONS, "True", "False"))
        for word in reads:
            if word not in readable:
                hint = did_you_mean(word, readable) or f"; there are {', '.join(readable)}"
                raise InputError(f"{said}: {text!r}: no field `{word}`{hint}")
        if not reads:
            raise InputError(f"{said}: {text!r} reads no field; write the value itself")
        return Formula(name, text, said, place, condition, expression, reads)

    def of(self, values: Mapping[str, Any]) -> Any:
        """Its value where fields have these values: a float, or whether it holds; None where that is unknown.

        Raises InputError where it is no number.
        """
        key = tuple(values[name] for name in self.reads)
        if key not in self._results:
            self._results[key] = self._evaluated(values)
        return self._results[key]

    def _evaluated(self, values: Mapping[str, Any]) -> Any:
        def column(name: str, reading: str | None) -> Column:
            if reading is not None:
                raise InputError(f"{self.said}: {self.text!r}: {reading} reads columns of text, and `{name}` is none")
            if name not in self.reads:  # a function without what it is of
                raise InputError(f"{self.said}: {self.text!r}: no field `{name}`")
            return _column(values[name])

        if self.condition:
            truth = self.expression.condition(column)
            return bool(np.all(truth.holds)) if np.all(truth.known) else None
        result = self.expression.value(column)
        number = float("nan") if isinstance(result, Texts) else float(np.ravel(result)[0])
        if not np.isfinite(number):
            raise InputError(f"{self.said}: {self.text!r} is no number where {shown_values(self, values)}")
        return number


def shown_values(formula: Formula, values: Mapping[str, Any]) -> str:
    """What a formula read: `d_model=96 and top_k=4`."""
    return listed(f"{name}={shown_value(values[name])}" for name in formula.reads)


def shown_value(value: Any) -> str:
    """A value of a field, short: numbers as they were meant, no `512.0`."""
    if value is UNKNOWN:
        return "impossible"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e7:
        return str(int(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _column(value: Any) -> Column:
    """A value as a column of one row."""
    missing = value is None or value is UNKNOWN
    is_text = isinstance(value, str)
    floats = np.array([float("nan") if missing or is_text else float(value)])
    true = np.array([value]) if isinstance(value, bool) else None
    return Column(floats, np.array([missing]), np.array([is_text]), lambda: np.array([str(value)], dtype=object), true)
