"""One value of a grid file, validated as it is read, or a formula. Errors name line, field and value."""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError, create_model

from scaling.config.data import absolute_data_paths
from scaling.errors import InputError
from scaling.numbers import parse_number
from scaling.yaml_text import YamlSource, YamlValue, did_you_mean, plain, shown
from sweeps.grid.formula import Formula
from sweeps.grid.names import Names

_SIGNS = set("+-*/%(<>=")


def checked(names: Names, name: str, value: YamlValue, source: YamlSource, field: str) -> Any:
    """The validated value of a field or shorthand, or its formula; None after an error, which `source` then has."""
    found, kind, own = plain(value), names.kind_of(name), names.in_cell(name)
    if isinstance(found, str) and _takes_formulas(kind, own) and _is_formula(found, names):
        return _formula(names, name, value, source, field)
    return valid(kind, own, value, source, field)


def valid(kind: type[BaseModel], name: str, value: YamlValue, source: YamlSource, field: str) -> Any:
    """A value as a field of `kind` takes it, on its own, so that the error has its line and column."""
    try:
        taken = field_value(kind, name, plain(value))
        return absolute_data_paths(name, taken, source.path.parent.resolve())
    except ValidationError as error:
        for detail in error.errors():
            source.fail(value, f"{field}: {explained(detail)}")
        return None


def _formula(names: Names, name: str, value: YamlValue, source: YamlSource, field: str) -> Formula | None:
    """An expression whose names can be read; None after an error."""
    text = plain(value)
    try:
        truth = _is_truth(names.kind_of(name), names.in_cell(name))
        return Formula.parsed(names.readable, name, text, field, (value.line, value.column), condition=truth)
    except InputError as error:
        cut = text.count("(") > text.count(")")
        remedy = "; in { } a comma ends a value that is not quoted: quote the expression" if cut else ""
        source.fail(value, f"{error}{remedy}")
        return None


def field_value(kind: type[BaseModel], name: str, value: Any) -> Any:
    """Validate one field alone. Raises ValidationError."""
    return _field_model(kind, name)(value=value).value  # type: ignore[attr-defined]


@cache
def _field_model(kind: type[BaseModel], name: str) -> type[BaseModel]:
    info = kind.model_fields[name]
    annotation: Any = info.annotation
    return create_model(name, value=(annotation, info))


@cache
def _types(kind: type[BaseModel], name: str) -> frozenset[Any]:
    """The plain types that a field takes."""
    return frozenset(_leaves(kind.model_fields[name].annotation))


def _leaves(annotation: Any) -> typing.Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _leaves(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _leaves(part)
    else:
        yield origin or annotation


def _is_truth(kind: type[BaseModel], name: str) -> bool:
    return bool in _types(kind, name)


def _takes_formulas(kind: type[BaseModel], name: str) -> bool:
    return bool(_types(kind, name) & {int, float, bool}) and str not in _types(kind, name)


def _is_formula(text: str, names: Names) -> bool:
    """Whether a text where a number or truth belongs is an expression: a name that can be read, or an operation."""
    try:
        parse_number(text)
    except ValueError:
        return text.strip() in names.readable or (bool(_SIGNS & set(text)) and any(map(str.isalpha, text)))
    return False


def explained(detail: Any) -> str:
    """A pydantic error as a message with the value and what is allowed."""
    value, context = detail["input"], detail.get("ctx", {})
    if detail["type"] == "value_error":
        return str(context["error"])
    if detail["type"] == "literal_error":
        allowed = [word.strip("' ") for word in context["expected"].replace(" or ", ", ").split(", ")]
        return f"found {shown(value)}{did_you_mean(str(value), allowed)}; allowed: {', '.join(allowed)}"
    if detail["type"] == "string_pattern_mismatch":
        return f"found {shown(value)}; allowed: letters, digits, `.`, `-`, `_`, starting with a letter or digit"
    if detail["type"] == "string_type":
        return f"expected text, found {shown(value)}; quote it"
    if detail["type"] == "tuple_type":
        return f"expected a list, found {shown(value)}; write [{value}]"
    return f"found {shown(value)}; {detail['msg'].replace('Input should', 'must')}"
