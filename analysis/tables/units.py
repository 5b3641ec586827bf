"""Units: sizes, tokens and compute in thousands, millions or billions, in a whole column or in some of its rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from analysis.tables.counts import COUNTS, TRAINED
from analysis.tables.doubts import Doubt
from analysis.tables.rows import Rows, positive, span
from scaling.arrays import Array
from scaling.columns import COMPUTE, TOKENS

_USUAL_RATIO = 20.0  # tokens per parameter, arXiv 2203.15556; only used to choose among units a factor 1,000 apart
_FEW_TOKENS, _FEW_PARAMETERS, _LARGE_MODEL = 1e4, 1e3, 1e6
_UNITS = {1e3: "thousands", 1e6: "millions", 1e9: "billions", 1e12: "trillions"}
_FLOP_UNITS = {1e9: "GFLOP", 1e12: "TFLOP", 1e15: "PFLOP", 1e18: "EFLOP", 1e21: "ZFLOP"}
_APART = 100.0  # rows in another unit stand this far below the others, and lie this much closer once converted
_LARGEST_COUNT, _LARGEST_TOKENS = 1e12, 1e14  # what no run has reached: a count in millions is at most 1e6


def unit_doubts(rows: Rows, terms: Mapping[str, str], given: Collection[str]) -> list[Doubt]:
    """Columns whose size another unit would explain, and rows whose size it would; `terms` is the expression behind
    each of our columns, and those outside `given` were derived."""
    mixed = [doubt for name in (*COUNTS, TOKENS) if name in given for doubt in _in_some_rows(rows, name)]
    seen = {name for doubt in mixed for name in doubt.columns}
    return [*mixed, *(doubt for doubt in _in_all_rows(rows, terms, given) if not seen & {*doubt.columns})]


def _in_some_rows(rows: Rows, name: str) -> list[Doubt]:
    """Rows far below all others that a factor 1e6 or 1e9 brings among them."""
    values = rows.floats(name)
    usable = np.isfinite(values) & (values > 0)
    distinct = np.unique(values[usable])
    if len(distinct) < 3:
        return []
    steps = distinct[1:] / distinct[:-1]
    edge = int(steps.argmax())
    low, high = distinct[: edge + 1], distinct[edge + 1 :]
    if steps[edge] < _APART:
        return []
    units = np.array([1e6, 1e9, 1e12] if name == TOKENS else [1e6, 1e9])
    middle = np.median(np.log(high))
    nearest = units[np.abs(np.log(low[:, None] * units) - middle).argmin(axis=1)]
    converted = np.concatenate([low * nearest, high])
    largest = _LARGEST_TOKENS if name == TOKENS else _LARGEST_COUNT
    closer = (distinct[-1] / distinct[0]) / (converted.max() / converted.min())
    if closer < _APART or (low * nearest > largest).any():
        return []
    mask = usable & (values <= low[-1])
    in_units = " or ".join(_UNITS[unit] for unit in np.unique(nearest).tolist())
    message = (
        f"{name} is {_one_or_span(low)} {rows.named(mask)} and {_one_or_span(high)} in the others: in {in_units} "
        "there? Write all rows in one unit"
    )
    return [rows.doubt("mixed_units", [name], mask, message)]


def _in_all_rows(rows: Rows, terms: Mapping[str, str], given: Collection[str]) -> list[Doubt]:
    doubts = []
    tokens = positive(rows.floats(TOKENS))
    middle_tokens = float(np.median(tokens)) if tokens.size else np.nan
    for name in (name for name in COUNTS if name in given):
        counts = positive(rows.floats(name))
        if counts.size and np.median(counts) < _FEW_PARAMETERS:
            units = {unit: _UNITS[unit] for unit in (1e6, 1e9)}
            if middle_tokens >= _FEW_TOKENS and TOKENS in given:
                units = _likely(units, middle_tokens / float(np.median(counts)), inverse=True)
            doubts.append(_suggestion(name, counts, units, terms))
    sizes = next((values for values in (positive(rows.floats(name)) for name in TRAINED) if values.size), np.empty(0))
    if not sizes.size or not middle_tokens < _FEW_TOKENS:
        return doubts
    size = float(np.median(sizes))
    if TOKENS in given and size > _LARGE_MODEL:
        doubts.append(_suggestion(TOKENS, tokens, _likely(_UNITS, middle_tokens / size), terms))
    elif TOKENS in given and size < _FEW_PARAMETERS:
        doubts.append(_suggestion(TOKENS, tokens, {1e9: _UNITS[1e9]}, terms))
    elif COMPUTE in given and size > _LARGE_MODEL:
        units = _likely(_FLOP_UNITS, middle_tokens / size)
        doubts.append(_suggestion(COMPUTE, positive(rows.floats(COMPUTE)), units, terms))
    return doubts


def _likely(units: Mapping[float, str], tokens_per_parameter: float, *, inverse: bool = False) -> dict[float, str]:
    """The unit that brings tokens per parameter closest to 20; `inverse` where it multiplies the parameters."""

    def distance(unit: float) -> float:
        found = tokens_per_parameter / unit if inverse else tokens_per_parameter * unit
        return abs(float(np.log(found / _USUAL_RATIO)))

    best = min(units, key=distance)
    return {best: units[best]}


def _suggestion(name: str, values: Array, units: Mapping[float, str], terms: Mapping[str, str]) -> Doubt:
    """ "tokens is 2 to 300: in billions? `map` 'tokens=D*1e9'"."""
    term = terms.get(name, name)
    maps = " or ".join(f"`map` '{name}={term}*1e{round(np.log10(unit))}'" for unit in units)
    return Doubt("unit", (name,), (), f"{name} is {span(values)}: in {' or '.join(units.values())}? {maps}")


def _one_or_span(values: Sequence[float] | Array) -> str:
    array = np.asarray(values)
    return f"{array[0]:.3g}" if len(array) == 1 else span(array)
