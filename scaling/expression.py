"""Expressions: arithmetic and comparisons on columns, and nothing else, in float64.

Python's parser gives the precedence of operators and no more: every name, number and text is replaced by a placeholder
before it sees them, so there is no attribute, index, call of anything but `FUNCTIONS`, or statement in the language.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from scaling.arrays import Array, Booleans
from scaling.errors import InputError
from scaling.numbers import parse_number

LANGUAGE = (
    "write columns, numbers and texts in quotes with + - * / // % **, == != < <= > >=, `in [...]`, `is None`, and, or, "
    "not, and log log2 log10 exp sqrt abs min max; put a column's name that is not one word in backticks"
)
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "log": np.log, "log2": np.log2, "log10": np.log10, "exp": np.exp, "sqrt": np.sqrt, "abs": np.abs,
    "min": np.minimum, "max": np.maximum,
}  # fmt: skip
READINGS = ("decimal_comma", "decimal_point")
"""What a comma is in the text of a column, where that cannot be told: `decimal_comma(tokens)` makes 2,145 2.145."""
_LONGEST, _DEEPEST = 4000, 60  # characters, and operations within each other
_EXACT = 2**53  # whole numbers beyond it differ by more than one in float64
_TOKENS = re.compile(
    r"""(?P<space>\s+)
    | (?P<text>'[^']*'|"[^"]*")
    | `(?P<quoted>[^`]*)`
    | (?P<number>(?:[0-9]|\.[0-9])[\w.]*(?:(?<=[eE])[+-][0-9]+)?)
    | (?P<name>[^\W\d]\w*)
    | (?P<operator>\*\*|//|<=|>=|==|!=|[-+*/%<>(),~&|]|\[|\])
    """,
    re.VERBOSE,
)
_WORDS = {"and": "and", "or": "or", "not": "not", "in": "in", "is": "is", "None": "None", "&": "and", "|": "or"}
_REMEDIES = {
    "=": "write == for `is equal to`",
    ".": "there are no methods: write name == 'x' or name in ['x', 'y']; put a name with a point in backticks",
    "@": "there are no variables; write the value itself",
    "!": "write `not`",
    "^": "write ** for powers",
    "<>": "write !=",
    ":": "there is no slice or lambda",
    "{": "write a list in [ ]",
}
_ARITHMETIC: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.Div: np.divide, ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod, ast.Pow: np.power, ast.UAdd: np.positive, ast.USub: np.negative,
}  # fmt: skip
_ORDER: Mapping[type[ast.AST], Callable[..., Any]] = {
    ast.Lt: np.less, ast.LtE: np.less_equal, ast.Gt: np.greater, ast.GtE: np.greater_equal
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column as an expression reads it. `floats` is NaN where a cell is `missing` or `unreadable` (no number).

    `read_texts` gives the cells as an array of texts, whatever where one is missing; `true` says which cells are true
    where all are true or false.
    """

    floats: Array
    missing: Booleans
    unreadable: Booleans
    read_texts: Callable[[], Any]
    true: Booleans | None = None

    @property
    def is_text(self) -> bool:
        """Whether it holds text and not one number."""
        return self.true is None and bool(self.unreadable.any() and (self.missing | self.unreadable).all())

    @property
    def truth(self) -> Truth | None:
        return None if self.true is None else Truth(self.true, ~self.missing)


@dataclass(frozen=True)
class Truth:
    """Whether a condition holds in each row; not `known` where a cell that it compares is missing or no number."""

    holds: Booleans
    known: Booleans


@dataclass(frozen=True)
class Texts:
    """A text in each row; None where one is missing."""

    values: Any


@dataclass(frozen=True)
class _Number:
    """A number that stands in the expression; `whole` where it is written without point and exponent."""

    value: float
    whole: int | None


_Operand: TypeAlias = Array | np.float64 | Truth | Texts | Column | _Number | str | bool


class Expression:
    """One expression, parsed. Raises InputError, which begins with `place`, for what is not in the language."""

    def __init__(self, text: str, place: str) -> None:
        self.text, self.place = text, place
        self._tokens: list[tuple[str, str]] = []  # kind and content by the number of the placeholder
        self._starts: list[tuple[int, int]] = []  # of the tokens, in what Python parses and in the text
        if len(text) > _LONGEST:
            raise self._error(f"it has {len(text)} characters, and {_LONGEST} are allowed")
        source = self._with_placeholders()
        try:
            self._tree = ast.parse(source, mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            words = [word for word in self.names if word.lower() in ("and", "or", "not")]
            raise self._error(f"write {words[0].lower()}" if words else f"not an expression; {LANGUAGE}") from error
        layer: list[ast.AST] = [self._tree]
        depth = 0
        while layer := [child for node in layer for child in ast.iter_child_nodes(node)]:
            depth += 1
            if depth > 2 * _DEEPEST:
                raise self._error(f"more than {_DEEPEST} operations within each other")

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that may be read, in the order in which they stand."""
        return tuple(dict.fromkeys(text for kind, text in self._tokens if kind in ("name", "quoted")))

    def place_of(self, offset: int) -> int:
        """The character of the text that stands at this offset of what Python parses."""
        starts = [place for start, place in self._starts if start <= offset]
        return starts[-1] if starts else 0

    def condition(self, column: Callable[[str, str | None], Column]) -> Truth:
        """Where the expression holds. Raises InputError where it is no condition."""
        return self._truth(self._evaluated(column), self._tree)

    def value(self, column: Callable[[str, str | None], Column]) -> Array | np.float64 | Texts:
        """Numbers or texts, one a row or one for all. Raises InputError where it is a condition."""
        found = self._evaluated(column)
        if isinstance(found, str):
            return Texts(np.array(found, dtype=object))
        if isinstance(found, Column) and found.is_text:
            return _texts_of(found)
        return found if isinstance(found, Texts) else self._number(found, self._tree)

    def _evaluated(self, column: Callable[[str, str | None], Column]) -> _Operand:
        self._column = column
        with np.errstate(all="ignore"):  # NaN and infinity are told by the caller
            return self._of(self._tree)

    def _of(self, node: ast.AST) -> _Operand:
        match node:
            case ast.Name():
                return self._token(node)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return self._arithmetic(node, op, self._of(left), self._of(right))
            case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
                truth = self._truth(self._of(operand), operand)
                return Truth(truth.known & ~truth.holds, truth.known)
            case ast.UnaryOp(op=op, operand=operand) if type(op) in _ARITHMETIC:
                return _ARITHMETIC[type(op)](self._number(self._of(operand), operand))
            case ast.BoolOp(op=op, values=parts):
                return _joined([self._truth(self._of(part), part) for part in parts], every=isinstance(op, ast.And))
            case ast.Compare(left=left, ops=ops, comparators=rights):
                pairs = zip((left, *rights), ops, rights, strict=False)
                return _joined([self._compared(node, one, op, other) for one, op, other in pairs], every=True)
            case ast.Call(func=ast.Name() as function, args=arguments, keywords=[]):
                return self._called(node, self._tokens[int(function.id[1:])], arguments)
        raise self._error(f"{self._shown(node)} is not in the language; {LANGUAGE}")

    def _called(self, node: ast.AST, function: tuple[str, str], arguments: list[ast.expr]) -> _Operand:
        kind, name = function
        least, most = (2, 20) if name in ("min", "max") else (1, 1)
        if kind != "name" or name not in (*FUNCTIONS, *READINGS):
            raise self._error(f"{self._shown(node)}: no function {name!r}; there are {', '.join(FUNCTIONS)}")
        if not least <= len(arguments) <= most:
            raise self._error(f"{self._shown(node)}: {name} takes {'two or more values' if least > 1 else 'one value'}")
        if name in READINGS:
            of = arguments[0]
            kind, inner = self._tokens[int(of.id[1:])] if isinstance(of, ast.Name) else ("", "")
            if kind not in ("name", "quoted"):
                raise self._error(f"{self._shown(node)}: {name} takes the name of a column")
            return self._column(inner, name)
        values = [self._number(self._of(argument), argument) for argument in arguments]
        result = FUNCTIONS[name](*values[:least])
        for value in values[least:]:
            result = FUNCTIONS[name](result, value)
        return result

    def _token(self, node: ast.Name) -> _Operand:
        kind, text = self._tokens[int(node.id[1:])]
        if kind == "text":
            return text
        if kind == "number":
            return _Number(parse_number(text), int(text) if text.isdecimal() else None)
        if kind == "name" and text in ("True", "False"):
            return text == "True"
        return self._column(text, None)

    def _arithmetic(self, node: ast.BinOp, op: ast.AST, left: _Operand, right: _Operand) -> _Operand:
        if isinstance(op, ast.Add) and (_texts_alone(left) or _texts_alone(right)):
            if not any(isinstance(side, (str, Texts)) for side in (left, right)):
                one, other = self._shown(node.left), self._shown(node.right)
                raise self._error(f"{one} + {other} joins texts: say what stands between them, {one} + '-' + {other}")
            return self._text_sum(_joinable(left), _joinable(right), node)
        return _ARITHMETIC[type(op)](self._number(left, node.left), self._number(right, node.right))

    def _text_sum(self, left: Texts | None, right: Texts | None, node: ast.BinOp) -> Texts:
        if left is None or right is None:
            raise self._error(f"{self._shown(node)}: a text can only be joined to a column or another text")
        ones, others = np.broadcast_arrays(left.values, right.values)
        joined = [None if a is None or b is None else a + b for a, b in zip(ones.flat, others.flat, strict=True)]
        values = np.empty(len(joined), dtype=object)
        values[:] = joined
        return Texts(values.reshape(ones.shape))

    def _number(self, value: _Operand, node: ast.AST) -> Array | np.float64:
        if isinstance(value, _Number):
            return np.float64(value.value)
        if isinstance(value, Column) and value.true is None and not value.is_text:
            return value.floats
        if isinstance(value, (np.ndarray, np.float64)):
            return value
        what = "text" if _texts_alone(value) else "a condition"
        raise self._error(f"{self._shown(node)} is {what}, where a number belongs")

    def _truth(self, value: _Operand, node: ast.AST) -> Truth:
        if isinstance(value, Truth):
            return value
        if isinstance(value, bool):
            return Truth(np.array(value), np.array(True))
        if isinstance(value, Column) and (truth := value.truth) is not None:
            return truth
        raise self._error(f"{self._shown(node)} is no condition; compare it, as in `loss_val < 4`")

    def _compared(self, node: ast.AST, left: ast.expr, op: ast.AST, right: ast.expr) -> Truth:
        if isinstance(op, (ast.In, ast.NotIn)):
            if not isinstance(right, (ast.List, ast.Tuple)):
                raise self._error(f"{self._shown(node)}: write a list after `in`, as in router in ['topk', 'switch']")
            one = self._of(left)
            among = [self._equal(node, left, one, item, self._of(item)) for item in right.elts]
            among.append(Truth(np.array(False), np.array(True)))
            return _unless(_joined(among, every=False), isinstance(op, ast.NotIn))
        if isinstance(op, (ast.Is, ast.IsNot)):
            one = self._of(left)
            if not (isinstance(right, ast.Constant) and right.value is None and isinstance(one, Column)):
                raise self._error(f"{self._shown(node)}: `is` asks whether a cell is missing: write `COLUMN is None`")
            return _unless(Truth(one.missing, np.ones_like(one.missing)), isinstance(op, ast.IsNot))
        if isinstance(right, ast.Constant):
            raise self._error(f"{self._shown(node)}: write `{self._shown(left)} is None` for a missing cell")
        one, other = self._of(left), self._of(right)
        if isinstance(op, (ast.Eq, ast.NotEq)):
            return _unless(self._equal(node, left, one, right, other), isinstance(op, ast.NotEq))
        sides = [self._number(_as_number(a, b), at) for a, b, at in ((one, other, left), (other, one, right))]
        return Truth(_ORDER[type(op)](*sides), ~(np.isnan(sides[0]) | np.isnan(sides[1])))

    def _equal(self, node: ast.AST, left: ast.AST, one: _Operand, right: ast.AST, other: _Operand) -> Truth:
        """Where two values are equal: as truths, as texts or as numbers, whichever both of them can be."""
        if isinstance(one, (str, bool, _Number)) and not isinstance(other, (str, bool, _Number)):
            return self._equal(node, right, other, left, one)
        truth = one if isinstance(one, Truth) else one.truth if isinstance(one, Column) else None
        word = _truth_word(other)
        if truth is not None and word is not None:
            return Truth(truth.known & (truth.holds == word), truth.known)
        if isinstance(one, Column) and isinstance(other, str):
            return _equal_to_text(one, other)
        if (
            isinstance(other, _Number)
            and other.whole is not None
            and abs(other.whole) > _EXACT
            and isinstance(one, Column)
        ):
            return _equal_to_text(one, str(other.whole))
        if (
            isinstance(one, (str, Texts))
            or isinstance(other, (str, Texts))
            or (_texts_alone(one) and _texts_alone(other))
        ):
            ones, others = _joinable(one), _joinable(other)
            if ones is None or others is None:
                raise self._error(f"{self._shown(node)} compares text with a number; put the value in quotes")
            return Truth(ones.values == others.values, ~(_is_none(ones.values) | _is_none(others.values)))
        for side, at in ((one, left), (other, right)):
            if _texts_alone(side):
                raise self._error(f"{self._shown(at)} holds text: compare it with a value in quotes, as in 'x'")
        a, b = self._number(one, left), self._number(other, right)
        known = ~(np.isnan(a) | np.isnan(b))
        for side in (one, other):
            known = known | side.unreadable if isinstance(side, Column) else known  # a text is not that number
        return Truth(known & (a == b), known)

    def _with_placeholders(self) -> str:
        """The text with every name, number and quoted text as `_N`, and & and | as the words that they stand for."""
        source, place, length = [], 0, 0
        while place < len(self.text):
            token = None if self.text.startswith("<>", place) else _TOKENS.match(self.text, place)
            if token is None:
                raise self._error(self._unknown(place))
            kind, text = str(token.lastgroup), token[token.lastgroup or 0]
            self._starts.append((length, place))
            if kind == "number":
                try:
                    parse_number(text)
                except ValueError as error:
                    raise self._error(str(error)) from error
            if text in _WORDS and kind in ("name", "operator"):
                source.append(f" {_WORDS[text]} ")
            elif kind in ("space", "operator"):
                source.append(text if kind == "operator" else " ")
            else:
                source.append(f" _{len(self._tokens)} ")
                self._tokens.append((kind, text[1:-1] if kind == "text" else text))
            place = token.end()
            length += len(source[-1])
        joined = "".join(source)
        before = len(joined) - len(joined.lstrip())
        self._starts = [(start - before, place) for start, place in self._starts]
        return joined.strip()

    def _unknown(self, place: int) -> str:
        sign = "<>" if self.text.startswith("<>", place) else self.text[place]
        if sign in "'\"`":
            return f"the {sign} at character {place + 1} is never closed"
        return f"{sign!r} at character {place + 1} is not in the language; {_REMEDIES.get(sign, LANGUAGE)}"

    def _shown(self, node: ast.AST) -> str:
        """A part of the expression as it was written, its spaces apart."""
        signs = {"text": "'{}'", "quoted": "`{}`"}
        text = ast.unparse(node)
        shown = re.sub(r"\b_(\d+)\b", lambda at: self._as_written(*self._tokens[int(at[1])], signs), text)
        return shown if len(shown) <= 80 else f"{shown[:80]}..."

    @staticmethod
    def _as_written(kind: str, text: str, signs: Mapping[str, str]) -> str:
        return signs.get(kind, "{}").format(text)

    def _error(self, why: str) -> InputError:
        shown = self.text if len(self.text) <= 80 else f"{self.text[:80]}..."
        return InputError(f"{self.place} {shown!r}: {why}")


def _joined(truths: list[Truth], *, every: bool) -> Truth:
    """Whether all hold, or one of them: known as soon as the known ones decide it."""
    result = truths[0]
    for truth in truths[1:]:
        decided = [side.known & (~side.holds if every else side.holds) for side in (result, truth)]
        known = (result.known & truth.known) | decided[0] | decided[1]
        holds = ~(decided[0] | decided[1]) & known if every else decided[0] | decided[1]
        result = Truth(holds, known)
    return result


def _unless(truth: Truth, negated: bool) -> Truth:
    return Truth(truth.known & ~truth.holds, truth.known) if negated else truth


def _texts_alone(value: _Operand) -> bool:
    return isinstance(value, (str, Texts)) or (isinstance(value, Column) and value.is_text)


def _joinable(value: _Operand) -> Texts | None:
    """A text, or a column as one; None for a number or a condition."""
    if isinstance(value, str):
        return Texts(np.array(value, dtype=object))
    if isinstance(value, Column):
        return _texts_of(value)
    return value if isinstance(value, Texts) else None


def _texts_of(column: Column) -> Texts:
    texts = np.array(column.read_texts(), dtype=object)
    texts[column.missing] = None
    return Texts(texts)


def _is_none(values: Any) -> Any:
    return np.asarray(np.frompyfunc(lambda cell: cell is None, 1, 1)(values), dtype=bool)


def _truth_word(value: _Operand) -> bool | None:
    """True or false, as a word or as 1 and 0; None for anything else."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    if isinstance(value, _Number):
        return {0.0: False, 1.0: True}.get(value.value)
    return value if isinstance(value, bool) else None


def _as_number(value: _Operand, other: _Operand) -> _Operand:
    """A number in quotes as a number, where it is compared with numbers."""
    if isinstance(value, str) and not _texts_alone(other):
        with contextlib.suppress(ValueError):
            return _Number(parse_number(value), None)
    return value


def _equal_to_text(column: Column, text: str) -> Truth:
    """Where a cell is this text or, in a column of numbers alone, this number."""
    number = _as_number(text, np.float64(0))
    if isinstance(number, _Number) and abs(number.value) < _EXACT and not column.unreadable.any():
        return Truth(column.floats == number.value, ~column.missing)
    return Truth(np.asarray(column.read_texts() == text, dtype=bool) & ~column.missing, ~column.missing)
