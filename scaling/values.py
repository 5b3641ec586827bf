"""Values on disk: frozen dataclasses as JSON and back, and the kinds of files that hold them.

A file of a kind has its `schema_version` beside the fields of the value. Reading checks kind, version and every field.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from scaling.errors import InputError
from scaling.formatting import listed
from scaling.json_text import read_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

T = TypeVar("T")
_VERSION = "schema_version"
_MOST_ERRORS = 3  # fields named in one message
_MOST_SHOWN = 40  # letters of a value that is wrong
_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(of: type[T]) -> TypeAdapter[T]:
    """What reads and writes a type, made once."""
    from pydantic import TypeAdapter  # takes .2 s, which only files need

    if of not in _ADAPTERS:
        _ADAPTERS[of] = TypeAdapter(of)
    return _ADAPTERS[of]


def plain(value: Any) -> dict[str, Any]:
    """A dataclass as what JSON can hold: arrays as lists, keys as text, NaN and infinity as None."""
    document: dict[str, Any] = json.loads(_adapter(type(value)).dump_json(value))
    return document


def typed(of: type[T], document: Any, origin: str, lifted: str = "") -> T:
    """The value that `plain` wrote; a text is no number, and neither is true. The fields of the field `lifted` stand
    at the top of the file, and are named so.

    Raises InputError naming `origin` and the fields that are wrong, as in `draws.alpha[3]`.
    """
    from pydantic import ValidationError

    try:
        text = json.dumps(document, allow_nan=False)
    except ValueError as error:
        raise InputError(f"{origin}: NaN or Infinity in it; an unknown number is null") from error
    try:
        return _adapter(of).validate_json(text, strict=True)
    except ValidationError as error:
        wrong = [_wrong(detail, lifted) for detail in error.errors()]
        raise InputError(f"{origin}: {listed(wrong, most=_MOST_ERRORS)}") from error
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error


def read_value(of: type[T], path: str | Path) -> T:
    """The value in a JSON file of ours that is of no kind below, such as what lies in a cache.

    Raises InputError naming file and field; OSError where it cannot be read.
    """
    return typed(of, read_json(path), str(path))


def _wrong(detail: ErrorDetails, lifted: str) -> str:
    """The place of an error, what is wrong and what was found."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in detail["loc"])
    place = "".join(steps).removeprefix(f".{lifted}.").removeprefix(".") or "the document"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should", "must")
    shown = repr(detail["input"])
    found = "" if "found" in message or len(shown) > _MOST_SHOWN else f", found {shown}"
    return f"{place}: {message[:1].lower()}{message[1:]}{found}"


def digest(*values: Any) -> str:
    """A short SHA-256 of dataclasses, by the fields that differ from their defaults."""
    content = hashlib.sha256()
    for value in values:
        content.update(_adapter(type(value)).dump_json(value, exclude_defaults=True) + b"\0")
    return content.hexdigest()[:12]


@dataclass(frozen=True)
class FileKind:
    """A kind of JSON file: its name, version, the keys that none lacks, and the command that writes it.

    `version` is the number that is written; files without one were written before there were versions and are version
    0. All versions from 0 on can be read: a field that an older file lacks must have a default.
    """

    name: str
    version: int
    keys: tuple[str, ...]
    command: str

    @property
    def remedy(self) -> str:
        return f"write it anew with `{self.command}`"

    def document(self, value: Any) -> dict[str, Any]:
        """The value as the content of a file of this kind."""
        return {_VERSION: self.version, **plain(value)}

    def read(self, path: str | Path) -> dict[str, Any]:
        """The content of a file, after `check`. Raises InputError where it is missing or damaged, too."""
        try:
            document = read_json(path)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read as a {self.name}: {error.strerror}; `{self.command}` writes one"
            ) from error
        except InputError as error:
            raise InputError(f"{error}; this is not a {self.name}: {self.remedy}") from error
        self.check(document, str(path))
        return dict(document)

    def check(self, document: Any, origin: str) -> None:
        """Raises InputError for a file of another kind, or one that a newer version of this package wrote."""
        if not self.is_kind_of(document):
            lacking = listed(
                f'"{key}"' for key in self.keys if not isinstance(document, Mapping) or key not in document
            )
            found = next(
                (f"but a {kind.name}" for kind in KINDS if kind.is_kind_of(document)), f"for it has no {lacking}"
            )
            raise InputError(f"{origin}: not a {self.name}, {found}; `{self.command}` writes a {self.name}")
        version = document.get(_VERSION, 0)
        if type(version) is not int or not 0 <= version <= self.version:
            raise InputError(
                f'{origin}: "{_VERSION}" is {version!r}, and this version of the package reads a {self.name} up to '
                f"{self.version}: update the package, or {self.remedy}"
            )

    def is_kind_of(self, document: Any) -> bool:
        """Whether the content of a file has the keys of this kind."""
        return isinstance(document, Mapping) and all(key in document for key in self.keys)

    def value(self, of: type[T], document: Mapping[str, Any], origin: str, lifted: str = "") -> T:
        """The value in the content of a file. Raises InputError naming file, version, fields and the remedy."""
        self.check(document, origin)
        version = document.get(_VERSION, 0)
        try:
            return typed(of, document, f"{origin} ({self.name}, {_VERSION} {version})", lifted)
        except InputError as error:
            raise InputError(f"{error}; {self.remedy}") from error


FIT = FileKind("fit", 1, ("law", "params"), "scaling fit")
LATENCY_LAW = FileKind("latency law", 1, ("efficiency", "ratios"), "scaling latency")
ENGINE_SPEED = FileKind("speed of an engine", 1, ("coefficients", "without"), "scaling latency")
TRAINING_LAW = FileKind("training-speed law", 1, ("coefficients", "drawn", "batch_tokens"), "scaling training-speed")
ANSWER = FileKind("recommendation", 1, ("question", "recommendation"), "scaling recommend")
RATES = FileKind("file of rates", 1, ("question", "rates"), "scaling rates")
RETURNS = FileKind("file of returns", 1, ("question", "arms", "games"), "scaling returns")
KINDS = (FIT, LATENCY_LAW, ENGINE_SPEED, TRAINING_LAW, ANSWER, RATES, RETURNS)
