"""Numbers, lists and sentences formatted for readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def si(value: float | None, digits: int = 3) -> str:
    """A number with a suffix: 1234567 -> `1.23M`, 2e9 -> `2B`, .00012 -> `0.00012`; powers of ten beyond that."""
    if value is None or not np.isfinite(value):
        return "–"
    rounded = float(f"{value:.{digits}g}")
    if abs(rounded) >= 1e15 or 0 < abs(rounded) < 1e-4:
        return powers(value, digits)
    for unit, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(rounded) >= unit:
            return f"{rounded / unit:g}{suffix}"
    return f"{rounded:g}"


def powers(value: float, digits: int = 3) -> str:
    """A number in powers of ten, as compute budgets are quoted: 5.684e12 -> `5.68×10¹²`."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{float(mantissa):g}×10{raised}"


def loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def flops(value: float | None) -> str:
    """FLOPs in powers of ten, a dash for None."""
    return "–" if value is None else "0" if value == 0 else powers(value)


def number(value: float | None, form: str = ".4g") -> str:
    """A number with a true minus sign; very large and very small ones in powers of ten, a dash for None."""
    if value is None or not np.isfinite(value):
        return "–"
    plain = format(value, form) if value == 0 or 1e-4 <= abs(value) < 1e5 else powers(value)
    return plain.replace("-", "−")


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(values: Iterable[object], *, most: int | None = None, empty: str = "none") -> str:
    """Values separated by commas, whole numbers without a decimal point; beyond `most`, `and N more`."""
    texts = [_short(value) for value in values]
    more = f" and {len(texts) - most} more" if most is not None and len(texts) > most else ""
    return ", ".join(texts[:most]) + more or empty


def _short(value: object) -> str:
    if isinstance(value, (float, np.floating)):
        return str(int(value)) if float(value).is_integer() else f"{value:g}"
    return str(value)


def first_line(message: object) -> str:
    """The first line of a message or an exception; the type of an exception without a message."""
    lines = str(message).strip().splitlines()
    return lines[0] if lines else type(message).__name__ if isinstance(message, Exception) else ""


def between(interval: Sequence[float] | None, write: Any = si) -> str:
    """`low – high`, or a dash for None."""
    return "–" if interval is None else f"{write(interval[0])} – {write(interval[1])}"


def spread(interval: Sequence[float] | None) -> str:
    """` (low – high)` to append to a number; empty for None."""
    return "" if interval is None else f" ({between(interval)})"


def percent(share: float | None) -> str:
    """A share in percent; never `100%` or `0%` for a share that is only close to it."""
    if share is None:
        return "–"
    if 0 < share < 0.005:
        return "< 1%"
    return "> 99%" if 0.995 <= share < 1 else f"{100 * share:.0f}%"


def experts(count: int) -> str:
    """An expert count in a sentence."""
    return "the dense model" if count == 1 else f"E = {count}"


def experts_cell(count: float | None) -> str:
    """An expert count in a table."""
    return "–" if count is None else "dense" if count == 1 else str(int(count))


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    text = text.strip()
    return (text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")) if text else ""


def cost(value: float | None, unit: str) -> str:
    """A cost without its unit: FLOPs in powers of ten, USD with a suffix."""
    return flops(value) if unit == "FLOP" else si(value)


def usd(value: float | None) -> str:
    """Dollars: 19.27 -> `$19.3`, 1.2e6 -> `$1.2M`."""
    return "–" if value is None else f"${si(value)}"


def money(value: float | None, unit: str) -> str:
    """A cost with its unit: `$19.3`, `5.68×10¹² FLOP`."""
    return usd(value) if unit == "USD" else f"{cost(value, unit)} {unit}"
