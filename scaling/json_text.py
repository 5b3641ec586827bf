"""JSON read with care: bounded in bytes, in values and in depth; a key stands once, a number is finite."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from scaling.errors import InputError


@dataclass(frozen=True)
class JsonLimits:
    """The most that is read: bytes of the file, lists and mappings, values in them, and how deep they are nested."""

    megabytes: int = 64
    containers: int = 1_000_000
    values: int = 5_000_000
    depth: int = 24


LIMITS = JsonLimits()
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # perhaps half a character: no text that can be written again
_DIGITS = 400  # of one number; more are no number that anything counts
_MOST_SHOWN = 40
_WHOLE = 2.0**53  # from here on not every whole number is a float


def read_json(path: str | Path, limits: JsonLimits = LIMITS) -> Any:
    """The document in a file. Raises InputError as `parse_json` does; OSError where the file cannot be read."""
    place = Path(path)
    if place.exists() and not place.is_file():
        kind = "folder" if place.is_dir() else "device or pipe"
        raise InputError(f"{path}: a {kind}, not a JSON file")
    most = limits.megabytes * 1_000_000
    with place.open("rb") as handle:
        content = handle.read(most + 1)
    if len(content) > most:
        raise InputError(f"{path}: more than {limits.megabytes} MB; a JSON file that is read here is smaller")
    return parse_json(content, str(path), limits)


def parse_json(content: bytes | str, origin: str, limits: JsonLimits = LIMITS) -> Any:
    """The document in a text; `origin` is named in messages.

    A whole number is an int, whether it was written 8 or 8.0. Raises InputError for what is not JSON or not UTF-8, for
    NaN, Infinity and numbers that no float holds, a key that stands twice, and what exceeds the limits.
    """
    if isinstance(content, bytes):
        try:
            content = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{origin}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    if content.count("[") + content.count("{") > limits.containers or content.count(",") > limits.values:
        raise InputError(
            f"{origin}: more than {limits.containers:,} lists and mappings, or {limits.values:,} values in them; "
            "what is read here has fewer"
        )
    try:
        document = json.loads(
            content,
            object_pairs_hook=_mapping,
            parse_constant=_constant,
            parse_float=_real,
            parse_int=_integer,
        )
    except _Refused as error:
        raise InputError(f"{origin}: {error}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{origin}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise InputError(f"{origin}: nested more than {limits.depth} deep") from error
    if half := half_a_character(content, document):
        raise InputError(f"{origin}: half of a character, {half!a}, in a text")
    if not _within(document, limits.depth):
        raise InputError(f"{origin}: nested more than {limits.depth} deep")
    return document


def repeated_key(pairs: list[tuple[str, Any]]) -> str | None:
    """The first key of a JSON object that stands in it twice; None without any."""
    names = [name for name, _ in pairs]
    return next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None


def half_a_character(content: str, document: Any) -> str:
    """Half of a character that an escape in a JSON text makes, as \\ud800 alone does; "" without any."""
    if _HALF.search(content):
        try:
            json.dumps(document, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            return str(error.object[error.start])
    return ""


class _Refused(Exception):
    """Something in the text that JSON or its readers allow and that is not accepted here."""


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = repeated_key(pairs)
    if twice is not None:
        raise _Refused(f"the key {_shown(twice)} stands twice in one mapping; remove one of them")
    return dict(pairs)


def _constant(word: str) -> NoReturn:
    raise _Refused(f"{word} is not JSON; an unknown number is null")


def _real(text: str) -> float | int:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"the number {_shown(text)} is too large")
    # JSON has one kind of number: 8.0 is 8. A negative zero keeps its sign.
    whole = value.is_integer() and abs(value) < _WHOLE and (value != 0 or text[0] != "-")
    return int(value) if whole else value


def _integer(text: str) -> int:
    if len(text) > _DIGITS or not math.isfinite(float(text)):
        raise _Refused(f"the number {_shown(text)} is too large")
    return int(text)


def _shown(text: str) -> str:
    return repr(text) if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]!r}..."


def _within(document: Any, depth: int) -> bool:
    """Whether lists and mappings are nested no deeper than this."""
    level = [document] if isinstance(document, (dict, list)) else []
    for _ in range(depth):
        inner = (value.values() if isinstance(value, dict) else value for value in level)
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]
        if not level:
            return True
    return False
