"""Field types of configurations: numbers with suffixes, read exactly or rejected."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from scaling.numbers import parse_number


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


MOST_COUNT, MOST_REAL = 10**15, 1e15
Count = Annotated[int, BeforeValidator(whole), Field(ge=1, le=MOST_COUNT)]
Whole = Annotated[int, BeforeValidator(whole), Field(ge=0, le=MOST_COUNT)]
Real = Annotated[float, BeforeValidator(_real), Field(ge=-MOST_REAL, le=MOST_REAL, allow_inf_nan=False)]


class Frozen(BaseModel):
    """A configuration: validated on construction, immutable, without unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, strict=False)
