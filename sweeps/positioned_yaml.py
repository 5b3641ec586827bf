"""YAML values with line and column, so that errors can name them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from scaling.errors import InputError

MAX_ERRORS = 10


@dataclass(frozen=True)
class YamlValue:
    """A value and its position in the file (lines and columns count from 1)."""

    data: Any
    line: int
    column: int


@dataclass(frozen=True)
class YamlSource:
    """The file being read and its errors, collected so that all are reported at once."""

    path: Path
    errors: list[tuple[int, int, str]]  # line, column, message

    def fail(self, place: YamlValue, message: str) -> None:
        self.errors.append((place.line, place.column, message))

    def stop_if_wrong(self) -> None:
        if self.errors:
            errors = [f"{self.path}:{line}:{column}: {text}" for line, column, text in sorted(set(self.errors))]
            more = [f"... and {len(errors) - MAX_ERRORS} more"] if len(errors) > MAX_ERRORS else []
            raise InputError("\n".join(errors[:MAX_ERRORS] + more))


def parse_tree(text: str, source: YamlSource) -> YamlValue:
    """The document as nested `YamlValue`s. Raises InputError with the line of a syntax error."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise InputError(f"{source.path}:1:1: the file is empty; a grid needs at least `study:` and `grid:`")
        return _convert(node, loader, source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        remedy = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise InputError(f"{source.path}:{place}: not YAML: {problem}{remedy}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{source.path}: not YAML: {error}") from error
    except RecursionError as error:
        raise InputError(f"{source.path}: nested too deeply, or an alias refers to itself") from error


def _convert(node: yaml.Node, loader: yaml.SafeLoader, source: YamlSource) -> YamlValue:
    line, column = node.start_mark.line + 1, node.start_mark.column + 1
    if isinstance(node, yaml.SequenceNode):
        return YamlValue([_convert(item, loader, source) for item in node.value], line, column)
    if isinstance(node, yaml.MappingNode):
        entries: dict[str, YamlValue] = {}
        for key_node, value_node in node.value:
            place = YamlValue(None, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                source.fail(place, "a key must be a name, found a list or a mapping")
                continue
            key, value = str(key_node.value), _convert(value_node, loader, source)
            if key in entries:
                source.fail(place, f"{key}: given twice, first in line {entries[key].line}; remove one")
                continue
            # Errors about a field point to its key.
            entries[key] = YamlValue(value, place.line, place.column)
        return YamlValue(entries, line, column)
    try:
        return YamlValue(loader.construct_object(node, deep=True), line, column)
    except ValueError as error:  # e.g. a date with a 13th month
        raise InputError(f"{source.path}:{line}:{column}: cannot read {node.value!r}: {error}") from error


def plain(value: Any) -> Any:
    if isinstance(value, YamlValue):
        return plain(value.data)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def inner_value(entry: YamlValue) -> YamlValue:
    """The value of a mapping's entry with its own position."""
    assert isinstance(entry.data, YamlValue)
    return entry.data


def mapping(value: YamlValue, source: YamlSource, what: str) -> dict[str, YamlValue]:
    if value.data is None:
        return {}
    if not isinstance(value.data, dict):
        source.fail(value, f"{what} must be a mapping of `name: value`, found {shown(plain(value))}")
        source.stop_if_wrong()
    return dict(value.data)


def shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def did_you_mean(word: str, allowed: Any) -> str:
    close = difflib.get_close_matches(word.lower(), [*allowed], n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`" if close else ""
