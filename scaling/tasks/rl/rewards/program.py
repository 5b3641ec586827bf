"""Reward programs: a dense reward as text, in the expression language of grids and tables over features of a game.

    # nearer to where the ball lands is better
    closer = landing_distance - next_landing_distance
    0.1 * closer - 0.5 * (bricks == 30 and terminated)

Lines may name values; the last one is the reward of a step that is added to the environment's own. A condition counts 1
where it holds and 0 where it does not. The parser is `scaling.expression`'s, so nothing but arithmetic can be written.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from scaling.errors import InputError
from scaling.expression import Expression
from scaling.numbers import parse_number
from scaling.yaml_text import did_you_mean

LANGUAGE = (
    "names, numbers, + - * / // % **, == != < <= > >=, and, or, not, and the functions log log2 log10 exp sqrt abs min "
    "max; a condition counts 1 where it holds, else 0"
)
MOST_LINES, MOST_CHARACTERS = 40, 4000
_NAMED = re.compile(r"\s*([^\W\d]\w*)\s*=(?!=)")
_COMMENT = re.compile(r"#[^\n]*")
_TWO = {
    ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "true_divide", ast.FloorDiv: "floor_divide",
    ast.Mod: "mod", ast.Pow: "power",
}  # fmt: skip
_ORDER = {
    ast.Lt: "less", ast.LtE: "less_equal", ast.Gt: "greater", ast.GtE: "greater_equal", ast.Eq: "equal",
    ast.NotEq: "not_equal",
}  # fmt: skip
_CALLS = {
    **{name: name for name in ("log", "log2", "log10", "exp", "sqrt", "abs")}, "min": "minimum", "max": "maximum",
}  # fmt: skip
_SEVERAL = ("min", "max")


@dataclass(frozen=True)
class Place:
    """Where a statement begins in a text: the message of an error names line and column."""

    name: str
    text: str
    start: int

    def of(self, offset: int) -> str:
        """The place of a character of the statement."""
        before = self.text[: self.start + offset]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return f"{self.name}, line {line}, column {column}"


class Statement(Expression):
    """One expression of a program, evaluated by any array library with NumPy's names. Raises InputError."""

    def __init__(self, text: str, place: Place) -> None:
        self.where, self._at = place, 0
        try:
            super().__init__(text, place.name)
        except InputError as error:
            cause = error.__cause__
            if isinstance(cause, SyntaxError) and cause.offset:
                at = place.of(self.place_of(cause.offset - 1))
                raise InputError(f"{at}: not an expression; write {LANGUAGE}") from error
            raise

    def over(self, values: Mapping[str, Any], arrays: Any) -> Any:
        """Its value where names have these values; `arrays` is numpy or jax.numpy.

        Raises InputError with line and column for a name that has no value, and for what is not in the language.
        """
        return self._as_number(self._value(self._tree, values, arrays), arrays)

    def _value(self, node: ast.AST, values: Mapping[str, Any], arrays: Any) -> Any:
        def inner(part: ast.AST) -> Any:
            return self._value(part, values, arrays)

        def number(part: ast.AST) -> Any:
            return self._as_number(inner(part), arrays)

        match node:
            case ast.Name():
                return self._named(node, values)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _TWO:
                return getattr(arrays, _TWO[type(op)])(number(left), number(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return arrays.negative(number(operand))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return number(operand)
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
                return arrays.logical_not(self._condition(operand, inner(operand), arrays))
            case ast.BoolOp(op=op, values=parts):
                join = arrays.logical_and if isinstance(op, ast.And) else arrays.logical_or
                return functools.reduce(join, [self._condition(part, inner(part), arrays) for part in parts])
            case ast.Compare(left=left, ops=ops, comparators=rights) if all(type(op) in _ORDER for op in ops):
                sides = [number(side) for side in (left, *rights)]
                pairs = zip(sides, ops, sides[1:], strict=False)
                found = [getattr(arrays, _ORDER[type(op)])(one, other) for one, op, other in pairs]
                return functools.reduce(arrays.logical_and, found)
            case ast.Call(func=ast.Name() as function, args=arguments, keywords=[]):
                return self._called_with(function, [number(argument) for argument in arguments], arrays)
        return self._refuse(node, f"{self._shown(node)} is not in the language; write {LANGUAGE}")

    def _named(self, node: ast.Name, values: Mapping[str, Any]) -> Any:
        kind, text = self._token_of(node)
        if kind == "number":
            return parse_number(text)
        if kind != "name" or text not in values:
            hint = did_you_mean(text, values) or f"; there are {', '.join(values)}"
            self._refuse(node, f"there is no `{text}`{hint}")
        return values[text]

    def _called_with(self, function: ast.Name, values: list[Any], arrays: Any) -> Any:
        name = self._token_of(function)[1]
        if name not in _CALLS:
            self._refuse(function, f"there is no function {name!r}; there are {', '.join(_CALLS)}")
        if (len(values) < 2) if name in _SEVERAL else (len(values) != 1):
            wanted = "two or more values" if name in _SEVERAL else "one value"
            self._refuse(function, f"{name} takes {wanted}, found {len(values)}")
        call = getattr(arrays, _CALLS[name])
        return functools.reduce(call, values) if name in _SEVERAL else call(*values)

    def _condition(self, node: ast.AST, value: Any, arrays: Any) -> Any:
        """A value that is a condition; the numbers 0 and 1 of ends of episodes are too."""
        if not _is_condition(value):
            self._refuse(node, f"{self._shown(node)} is no condition; compare it, as in `{self._shown(node)} > 0`")
        return value

    @staticmethod
    def _as_number(value: Any, arrays: Any) -> Any:
        return arrays.where(value, 1.0, 0.0) if _is_condition(value) else value

    def _token_of(self, node: ast.Name) -> tuple[str, str]:
        return self._tokens[int(node.id[1:])]

    def _refuse(self, node: ast.AST, why: str) -> NoReturn:
        raise InputError(f"{self.where.of(self.place_of(getattr(node, 'col_offset', 0)))}: {why}")

    def _unknown(self, place: int) -> str:
        self._at = place
        return f"{self.text[place]!r} is not in the language; write {LANGUAGE}"

    def _error(self, why: str) -> InputError:
        return InputError(f"{self.where.of(self._at)}: {why}")


def _is_condition(value: Any) -> bool:
    return str(getattr(value, "dtype", "")) == "bool"


@dataclass(frozen=True)
class Program:
    """A parsed program: named values in order, and the reward. text: without comments and blank lines."""

    text: str
    named: tuple[tuple[str, Statement], ...]
    reward: Statement

    def over(self, values: Mapping[str, Any], arrays: Any) -> Any:
        """The reward of each step where names have these values. Raises InputError for a name without one."""
        known = dict(values)
        for name, statement in self.named:
            if name in known:
                raise InputError(f"{statement.where.of(0)}: `{name}` has a meaning already; take another name")
            known[name] = statement.over(known, arrays)
        return self.reward.over(known, arrays)

    @property
    def reads(self) -> frozenset[str]:
        """The names that it reads."""
        return frozenset(name for one in (*(made for _, made in self.named), self.reward) for name in one.names)


@functools.lru_cache(maxsize=256)
def parsed(text: str, name: str = "reward program") -> Program:
    """A program from its text. Raises InputError with line and column for what is not in the language."""
    if len(text) > MOST_CHARACTERS:
        raise InputError(f"{name}: it has {len(text)} characters, and {MOST_CHARACTERS} are allowed")
    bare = _COMMENT.sub("", text)
    statements = list(_statements(bare))
    if not statements:
        raise InputError(f"{name}: it is empty; its last line must be the reward of a step")
    if len(statements) > MOST_LINES:
        raise InputError(f"{name}: it has {len(statements)} lines, and {MOST_LINES} are allowed")
    made: list[tuple[str, Statement]] = []
    for number, (start, statement) in enumerate(statements, start=1):
        match = _NAMED.match(statement)
        last = number == len(statements)
        if last and match:
            raise InputError(f"{Place(name, bare, start).of(0)}: the last line is the reward of a step and has no name")
        if not last and not match:
            raise InputError(f"{Place(name, bare, start).of(0)}: only the last line stands without `name = `")
        offset = match.end() if match else 0
        made.append((match[1] if match else "", Statement(statement[offset:], Place(name, bare, start + offset))))
    lines = [line.strip() for line in bare.splitlines() if line.strip()]
    return Program("\n".join(lines), tuple(made[:-1]), made[-1][1])


def _statements(text: str) -> list[tuple[int, str]]:
    """The statements of a text with where they begin: lines, joined while a bracket is open."""
    found, start, place, depth = [], 0, 0, 0
    for line in text.splitlines(keepends=True):
        depth += line.count("(") - line.count(")")
        place += len(line)
        if depth <= 0 or place == len(text):
            if text[start:place].strip():
                lead = len(text[start:place]) - len(text[start:place].lstrip())
                found.append((start + lead, text[start + lead : place].rstrip()))
            start, depth = place, 0
    return found
