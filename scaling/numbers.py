"""Numbers as people write them: one reader of text for tables, options, grids and expressions."""

from __future__ import annotations

import math
import re
from typing import Any

SUFFIXES = {
    "": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12,
    "KI": 2.0**10, "MI": 2.0**20, "GI": 2.0**30, "TI": 2.0**40,
}  # fmt: skip
SPACES = " \u00a0\u2007\u2009\u202f"  # plain, no-break, figure, thin, narrow no-break
_LONGEST = 500  # characters: the largest float, written out, has 309
_GROUPED = rf"[1-9][0-9]{{0,2}}(?:(?P<mark>['’{SPACES}])[0-9]{{3}}(?:(?P=mark)[0-9]{{3}})*)"
_NUMBER = re.compile(
    rf"(?P<digits>[+-]?(?:(?:{_GROUPED}|[1-9][0-9]*(?:_[0-9]+)+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+))"
    rf"(?:(?P<power>[eE][+-]?[0-9]+)|[{SPACES}]*(?P<suffix>[KMGTkmgt]i?|[Bb]))?"
)
_MARKS = str.maketrans("", "", f"'’_{SPACES}")


def parse_number(value: Any) -> float:
    """A number such as `2M`, `0.25M`, `1e9`, `1_000_000`, `1 000 000` or `1.5B`: K, M, B = G and T are powers of 1,000,
    Ki, Mi, Gi and Ti of 1,024.

    Groups of three digits may have a space or an apostrophe between them, and any digits an underscore. A comma is
    refused: between one group and the next it may be a decimal one. So are booleans, other digits than 0 to 9, and what
    is too large.
    A float is returned as it is. Raises ValueError with the value found.
    """
    if isinstance(value, bool):
        raise ValueError(f"expected a number, found {value}")
    if isinstance(value, float):
        return value
    text = str(value).strip().replace("\u2212", "-")
    match = _NUMBER.fullmatch(text) if len(text) <= _LONGEST else None
    if not match:
        comma = (
            " (write a decimal point, and thousands without commas)"
            if re.fullmatch(r"[-+0-9.,eE]*,[-+0-9.,eE]*\w?", text)
            else ""
        )
        raise ValueError(f"expected a number such as 250000, 0.25M or 1e9, found {_short(value)}{comma}")
    number = (
        float(match["digits"].translate(_MARKS) + (match["power"] or "")) * SUFFIXES[(match["suffix"] or "").upper()]
    )
    if not math.isfinite(number):
        raise ValueError(f"expected a number below 1.8e308, found {_short(value)}")
    return number


def parse_quantity(value: Any, units: tuple[str, ...]) -> float:
    """A number in a unit that is already said, which may be repeated: `80` or `80 GB`. A suffix would multiply it.

    Raises ValueError with the value found and the first of `units`.
    """
    text = str(value).strip()
    unit = next((unit for unit in units if text.lower().endswith(unit.lower())), "")
    bare = text[: len(text) - len(unit)].strip()
    try:
        if bare[-1:].isalpha():
            raise ValueError(bare)
        return parse_number(bare)
    except ValueError as error:
        raise ValueError(f"expected a plain number ({units[0]}), found {_short(value)}") from error


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."
