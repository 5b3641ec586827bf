"""Field types of configurations: numbers with suffixes, read exactly or rejected."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_SUFFIX = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
_NUMBER = re.compile(r"([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([KkMmBbGgTt]?)")


def parse_number(value: Any) -> float:
    """A number such as `2M`, `0.25M`, `1e9`, `1_000_000` or `1.5B` (K, M, B = G, T are powers of 1,000).

    YAML readers return `1e9` as text. Raises ValueError with the value found.
    """
    if isinstance(value, bool):
        raise ValueError(f"expected a number, found {value}")
    if isinstance(value, (int, float)):
        return float(value)
    match = _NUMBER.fullmatch(str(value).strip())
    if not match:
        raise ValueError(f"expected a number such as 250000, 0.25M or 1e9, found {value!r}")
    return float(match[1].replace("_", "")) * _SUFFIX[match[2].upper()]


def whole(value: Any) -> Any:
    """Text and floats as a whole number, other values unchanged. Raises ValueError."""
    if isinstance(value, (str, float, bool)):  # YAML reads `yes` as true
        number = parse_number(value)
        if not math.isfinite(number) or abs(number - round(number)) > 1e-6 * max(1.0, abs(number)):
            raise ValueError(f"expected a whole number, found {value!r}")
        return round(number)
    return value


def _real(value: Any) -> Any:
    return parse_number(value) if isinstance(value, (str, bool)) else value


Count = Annotated[int, BeforeValidator(whole), Field(ge=1)]
Whole = Annotated[int, BeforeValidator(whole), Field(ge=0)]
Real = Annotated[float, BeforeValidator(_real), Field(allow_inf_nan=False)]


class Frozen(BaseModel):
    """A configuration: validated on construction, immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, strict=False)
