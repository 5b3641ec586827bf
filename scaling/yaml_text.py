"""YAML read with care, the one way for every file: values with line and column, so that errors can name them.

A plain word is nothing (`null`, `~`), `true` or `false`, a decimal number, or text. So `010` is ten, and `0o10`,
`0x1F`, `1:30`, `no`, `.inf` and `2026-10-01` are the text that stands there: where a number belongs it is refused. Tags
and merge keys are refused, a key stands once, and what anchors expand to is bounded.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from scaling.errors import InputError

MAX_ERRORS = 10
_MOST_BYTES, _MOST_VALUES, _MOST_DEPTH = 400_000, 100_000, 12
_MOST_DIGITS = 300  # of one number
_NOTHING = ("", "~", "null", "Null", "NULL")
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[-+]?\d(_?\d)*")
# As YAML 1.1 writes them: with a point, and a sign in the exponent. `1e9` is text, which readers of numbers take.
_REAL = re.compile(r"[-+]?(\d(_?\d)*\.(\d(_?\d)*)?|\.\d(_?\d)*)([eE][-+]\d+)?")


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
    errors: list[tuple[int, int, str]] = field(default_factory=list)  # line, column, message

    def fail(self, place: YamlValue, message: str) -> None:
        self.errors.append((place.line, place.column, message))

    def stop_if_wrong(self) -> None:
        """Raises InputError with the errors so far, by line."""
        if self.errors:
            errors = [f"{self.path}:{line}:{column}: {text}" for line, column, text in sorted(set(self.errors))]
            more = [f"... and {len(errors) - MAX_ERRORS} more"] if len(errors) > MAX_ERRORS else []
            raise InputError("\n".join(errors[:MAX_ERRORS] + more))


def yaml_text(path: Path, remedy: str = "") -> str:
    """The text of a file. Raises InputError where it cannot be read, is no UTF-8 or larger than anybody writes."""
    remedy = f". {remedy}" if remedy else ""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: cannot be read as YAML: a {'folder' if path.is_dir() else 'device or pipe'}{remedy}")
    try:
        with path.open("rb") as handle:
            content = handle.read(_MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read as YAML: {error.strerror}{remedy}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8{remedy}") from error
    _require_size(content, path)
    return text


def _require_size(content: bytes, path: Path) -> None:
    if len(content) > _MOST_BYTES:
        raise InputError(f"{path}: more than {_MOST_BYTES:,} bytes; YAML that is read here is smaller")


def parse_tree(text: str, source: YamlSource, empty: str) -> YamlValue:
    """The document as nested `YamlValue`s; `empty` says what a file without any lacks.

    Raises InputError with line and column for what is not YAML, or not accepted.
    """
    _require_size(text.encode("utf-8", "replace"), source.path)
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise InputError(f"{source.path}:1:1: the file is empty; {empty}")
        return _Tree(source).value(node, 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        remedy = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        raise InputError(f"{source.path}:{place}: not YAML: {problem}{remedy}") from error
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        raise InputError(
            f"{source.path}:{line}:{column}: not YAML: the character {chr(error.character)!a} is not allowed"
        ) from error
    except RecursionError as error:
        raise InputError(f"{source.path}:1:1: nested more than {_MOST_DEPTH} deep") from error
    except (ValueError, OverflowError) as error:  # a `%YAML` line, or an escape, that makes no number or character
        line = loader.line + 1 if loader is not None else 1
        raise InputError(f"{source.path}:{line}:1: not YAML: {error}") from error


class _Loader(yaml.SafeLoader):
    """Nodes whose tag is "" unless the file gives one: nothing is resolved but by `_Tree`."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        return ""


@dataclass
class _Tree:
    """Turns nodes into values, and counts them: an alias is every value that it stands for."""

    source: YamlSource
    count: int = 0

    def value(self, node: yaml.Node, depth: int) -> YamlValue:
        line, column = node.start_mark.line + 1, node.start_mark.column + 1
        self.count += 1
        if self.count > _MOST_VALUES:
            self._refuse(node, f"more than {_MOST_VALUES:,} values, those that aliases stand for among them")
        if depth > _MOST_DEPTH:
            self._refuse(node, f"nested more than {_MOST_DEPTH} deep, or an alias that stands for itself")
        if node.tag:
            self._refuse(node, f"the tag {shown(node.tag)} is not accepted; remove it, and quote what is text")
        if isinstance(node, yaml.SequenceNode):
            return YamlValue([self.value(item, depth + 1) for item in node.value], line, column)
        if isinstance(node, yaml.MappingNode):
            return YamlValue(self._entries(node, depth), line, column)
        assert isinstance(node, yaml.ScalarNode)
        if not _encodes(node.value):
            self._refuse(node, "half of a character, as \\ud800 is; write the whole one")
        return YamlValue(node.value if node.style else _plain_scalar(node.value), line, column)

    def _entries(self, node: yaml.MappingNode, depth: int) -> dict[str, YamlValue]:
        entries: dict[str, YamlValue] = {}
        for key_node, value_node in node.value:
            place = YamlValue(None, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag or not _encodes(key_node.value):
                self.source.fail(place, "a key must be a name, found a list, a mapping or a tag")
                continue
            key, value = str(key_node.value), self.value(value_node, depth + 1)
            if key == "<<" and not key_node.style:
                self.source.fail(place, "<<: merge keys are not accepted; write the fields out")
            elif key in entries:
                self.source.fail(place, f"{shown_key(key)}: given twice, first in line {entries[key].line}; remove one")
            else:  # errors about a field point to its key
                entries[key] = YamlValue(value, place.line, place.column)
        return entries

    def _refuse(self, node: yaml.Node, message: str) -> NoReturn:
        mark = node.start_mark
        raise InputError(f"{self.source.path}:{mark.line + 1}:{mark.column + 1}: {message}")


def _encodes(text: str) -> bool:
    """Whether a text can be written again: escapes may make half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain_scalar(text: str) -> Any:
    """What a plain word is."""
    if text in _NOTHING:
        return None
    if text in _TRUTH:
        return _TRUTH[text]
    if len(text) > _MOST_DIGITS:
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _REAL.fullmatch(text) else text


def plain(value: Any) -> Any:
    """A value without positions."""
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
    """The entries of a mapping, none of nothing. Raises InputError, with the errors so far, for anything else."""
    if value.data is None:
        return {}
    if not isinstance(value.data, dict):
        source.fail(value, f"{what} must be a mapping of `name: value`, found {shown(plain(value))}")
        source.stop_if_wrong()
    return dict(value.data)


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = repr(value) if isinstance(value, str) else "nothing" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def shown_key(key: str) -> str:
    """A key in a message: as it stands where that can be read in one line."""
    return key if key.isprintable() and 0 < len(key) <= 60 else shown(key)


def did_you_mean(word: str, allowed: Any) -> str:
    """The closest of the words allowed, as the end of a message; "" where none is close."""
    close = difflib.get_close_matches(word.lower(), [*allowed], n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`" if close else ""
