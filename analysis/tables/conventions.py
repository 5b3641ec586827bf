"""Conventions of an imported table: the assumed meaning of each count, derived counts, and implausible values."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.tables.mapping import TIED
from analysis.tables.reading_log import ReadingLog
from scaling.arrays import Array, Booleans, Values
from scaling.columns import COMPUTE, EXPERTS, LOSS, TOKENS
from scaling.formatting import plural
from scaling.schema import RUNS

COUNTS = tuple(name for name, column in RUNS.items() if column.unit == "parameters" and name != "n_router")
_TRAINED = ("n_active", "n_active_nonembed", "n_dense_nonembed")  # each token is multiplied by these: the N of 6 N D
_PAIRS = (("n_active", "n_total"), ("n_active_nonembed", "n_total_nonembed"))
_ROUNDED = 1.01  # counts in tables are rounded: a difference of 1 % is no conflict
_FLOPS_APART = 2.0  # attention, recomputation and the meaning of N explain less than a factor 2 of 6 N D
_USUAL_RATIO = 20.0  # tokens per parameter, arXiv 2203.15556; only used to choose among units a factor 1,000 apart
_FEW_TOKENS, _FEW_PARAMETERS, _LARGE_MODEL, _HIGH_LOSS = 1e4, 1e3, 1e6, 12.0
_UNITS = {1e3: "thousands", 1e6: "millions", 1e9: "billions", 1e12: "trillions"}
_FLOP_UNITS = {1e9: "GFLOP", 1e12: "TFLOP", 1e15: "PFLOP", 1e18: "EFLOP", 1e21: "ZFLOP"}


def with_counts(frame: pd.DataFrame, log: ReadingLog) -> pd.DataFrame:
    """The frame with the parameter counts that follow from the given ones, each with a note; given cells are kept.

    n_*_nonembed = n_* - V d where embedding and head are tied, - 2 V d where they are not (`TIED` must say which), and
    the reverse. Dense models (E = 1) have one count: n_active = n_total = n_dense_nonembed, the embeddings apart. With
    E > k experts of one size e per token, n_total - n_active = (E - k) e and n_dense_nonembed = n_active_nonembed - (k
    - 1) e. The counts are those of `scaling.config.counts.Parameters`. Only positive values are filled in.
    """
    if {"vocab_size", "d_model", TIED} <= set(frame.columns):
        matrix = _floats(frame, "vocab_size") * _floats(frame, "d_model")
        tied = _floats(frame, TIED)
        for formula, copies in (("V d (tied)", 1.0), ("2 V d (untied)", 2.0)):
            embeddings = np.where((tied != 0) == (copies == 1.0), copies * matrix, np.nan)
            embeddings[np.isnan(tied)] = np.nan
            for name in ("n_active", "n_total"):
                bare = f"{name}_nonembed"
                frame = _filled(frame, bare, _floats(frame, name) - embeddings, f"{name} - {formula}", log)
                frame = _filled(frame, name, _floats(frame, bare) + embeddings, f"{bare} + {formula}", log)
    if EXPERTS not in frame:
        return frame
    experts = _floats(frame, EXPERTS)
    for name, other in (*_PAIRS, *(pair[::-1] for pair in _PAIRS), ("n_dense_nonembed", "n_active_nonembed")):
        values = np.where(experts == 1, _floats(frame, other), np.nan)
        frame = _filled(frame, name, values, f"{other}, as n_experts = 1", log)
    top_k = _floats(frame, "top_k")
    expert = _ratio(_floats(frame, "n_total") - _floats(frame, "n_active"), experts - top_k)
    expert[~((experts > top_k) & (top_k >= 1) & (expert > 0))] = np.nan
    backbone = _floats(frame, "n_active_nonembed") - (top_k - 1) * expert
    formula = "n_active_nonembed - (k - 1) (n_total - n_active) / (E - k), for routed experts of one size"
    return _filled(frame, "n_dense_nonembed", backbone, formula, log)


def with_tokens(frame: pd.DataFrame, log: ReadingLog) -> pd.DataFrame:
    """The frame with D from C, or C from D, where one is missing, with a note: C = 6 N D (arXiv 2203.15556).

    N is the first of n_active, n_active_nonembed and n_dense_nonembed that the table has, never a total count: a token
    of a routed model does not use all parameters.
    """
    size = next((name for name in _TRAINED if name in frame), None)
    if size is None or (TOKENS in frame) == (COMPUTE in frame):
        return frame
    per_token = 6.0 * _floats(frame, size)
    if TOKENS in frame:
        name, formula, values = COMPUTE, f"6 {size} {TOKENS}", per_token * _floats(frame, TOKENS)
    else:
        name, formula, values = TOKENS, f"{COMPUTE}/(6 {size})", _ratio(_floats(frame, COMPUTE), per_token)
    log.notes.append(f"{name} computed as {formula}; 6 N D leaves attention out")
    return frame.assign(**{name: values})


def columns_as_given(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """A note on the assumed meaning of the parameter counts and the loss among `names`; empty without any."""
    meanings = [f"{name} is {RUNS[name].meaning}" for name in names if name in frame and name in COUNTS]
    meanings += [f"{LOSS} is in nats per token"] if LOSS in names else []
    return [f"assumed: {'; '.join(meanings)}; convert other conventions with `map`"] if meanings else []


def how_to_derive(frame: pd.DataFrame, missing: Sequence[str]) -> str:
    """How a missing count could be derived, as the end of a remedy; empty where it cannot."""
    counts = {name.removesuffix("_nonembed") for name in frame.columns if name in COUNTS}
    derivable = any(name.removesuffix("_nonembed") in counts for name in missing if name in COUNTS)
    if derivable and {"vocab_size", "d_model"} <= set(frame.columns) and TIED not in frame:
        return f", or derive it with `map` {TIED}=1 (embedding and head share one matrix) or {TIED}=0 (two matrices)"
    return ""


def doubts(frame: pd.DataFrame, terms: Mapping[str, str], given: Collection[str]) -> list[str]:
    """A note on every column of implausible size, with the unit that would explain it, and on columns that contradict
    each other, with the number of rows and the largest ratio.

    `terms` is the expression behind each of our columns (`analysis.tables.mapping.mapped`); columns outside `given`
    were derived.
    """
    return [*_unit_doubts(frame, terms, given), *_loss_doubts(frame, terms), *_conflicts(frame, given)]


def _unit_doubts(frame: pd.DataFrame, terms: Mapping[str, str], given: Collection[str]) -> list[str]:
    notes = []
    tokens = _positive(frame, TOKENS)
    middle_tokens = float(np.median(tokens)) if tokens.size else np.nan
    for name in (name for name in COUNTS if name in given):
        counts = _positive(frame, name)
        if counts.size and np.median(counts) < _FEW_PARAMETERS:
            units = {unit: _UNITS[unit] for unit in (1e6, 1e9)}
            if middle_tokens >= _FEW_TOKENS and TOKENS in given:
                units = _likely(units, middle_tokens / float(np.median(counts)), inverse=True)
            notes.append(_suggestion(name, counts, units, terms))
    sizes = next((values for values in (_positive(frame, name) for name in _TRAINED) if values.size), np.empty(0))
    if not sizes.size or not middle_tokens < _FEW_TOKENS:
        return notes
    size = float(np.median(sizes))
    if TOKENS in given and size > _LARGE_MODEL:
        notes.append(_suggestion(TOKENS, tokens, _likely(_UNITS, middle_tokens / size), terms))
    elif TOKENS in given and size < _FEW_PARAMETERS:
        notes.append(_suggestion(TOKENS, tokens, {1e9: _UNITS[1e9]}, terms))
    elif COMPUTE in given and size > _LARGE_MODEL:
        units = _likely(_FLOP_UNITS, middle_tokens / size)
        notes.append(_suggestion(COMPUTE, _positive(frame, COMPUTE), units, terms))
    return notes


def _loss_doubts(frame: pd.DataFrame, terms: Mapping[str, str]) -> list[str]:
    loss, term = _positive(frame, LOSS), terms.get(LOSS, LOSS)
    plain = not term.startswith("(")  # arithmetic on the column is the conversion
    if plain and re.search(r"bpb|bpc|\bbits|_bits", term, re.IGNORECASE):
        return [
            f"{LOSS} is the column {term}: in bits? nats per token = bits per byte x ln 2 x bytes per token: "
            f"`map` '{LOSS}={term}*0.6931*BYTES_PER_TOKEN' (without the last factor for bits per token)"
        ]
    high = loss.size > 0 and float(np.median(loss)) > _HIGH_LOSS
    if high or (plain and re.search(r"ppl|perplexity", term, re.IGNORECASE)):
        bare = term.removeprefix("(").removesuffix(")")
        return [f"{LOSS} is {_span(loss)}: perplexity? `map` '{LOSS}=log({bare})'"]
    return []


def _conflicts(frame: pd.DataFrame, given: Collection[str]) -> list[str]:
    notes = []
    dense = _floats(frame, EXPERTS) == 1
    for active_name, total_name in _PAIRS:
        ratio = _ratio(_floats(frame, active_name), _floats(frame, total_name))
        above, below = ratio > _ROUNDED, dense & (ratio < 1 / _ROUNDED)
        if above.any():
            notes.append(
                f"warning: {active_name} exceeds {total_name} in {_rows(above)} (up to {ratio[above].max():.3g} "
                "times): are the columns swapped?"
            )
        if below.any():
            notes.append(
                f"warning: {total_name} exceeds {active_name} in {_rows(below)} with {EXPERTS} = 1 (up to "
                f"{1 / ratio[below].min():.3g} times): a dense model has a single count"
            )
    if TOKENS in given and COMPUTE in given:
        ratio = _ratio(_floats(frame, COMPUTE), 6.0 * _floats(frame, "n_active") * _floats(frame, TOKENS))
        factor = np.maximum(ratio, _ratio(1.0, ratio))
        off = factor > _FLOPS_APART
        if off.any():
            worst = int(np.nanargmax(np.where(off, factor, np.nan)))
            notes.append(
                f"warning: {COMPUTE} differs from 6 n_active {TOKENS} by more than a factor {_FLOPS_APART:g} in "
                f"{_rows(off)} (at worst {ratio[worst]:.3g} times): check the units, which N is meant, and whether the "
                "compute includes more than 6 N D"
            )
    return notes


def _likely(units: Mapping[float, str], ratio: float, *, inverse: bool = False) -> dict[float, str]:
    """The unit that brings tokens per parameter closest to 20; `inverse` where it multiplies the parameters."""
    best = min(units, key=lambda unit: abs(np.log((ratio / unit if inverse else ratio * unit) / _USUAL_RATIO)))
    return {best: units[best]}


def _suggestion(name: str, values: Array, units: Mapping[float, str], terms: Mapping[str, str]) -> str:
    """ "tokens is 2 to 300: in billions? `map` 'tokens=D*1e9'"."""
    term = terms.get(name, name)
    maps = " or ".join(f"`map` '{name}={term}*1e{round(np.log10(unit))}'" for unit in units)
    return f"{name} is {_span(values)}: in {' or '.join(units.values())}? {maps}"


def _filled(frame: pd.DataFrame, name: str, values: Array, formula: str, log: ReadingLog) -> pd.DataFrame:
    given = _floats(frame, name)
    filled = np.isnan(given) & np.isfinite(values) & (values > 0)
    if not filled.any():
        return frame
    log.notes.append(f"{name} derived as {formula}" + ("" if filled.all() else f" in {_rows(filled)}"))
    return frame.assign(**{name: np.where(filled, values, given)})


def _floats(frame: pd.DataFrame, name: str) -> Array:
    """A column as floats; all NaN where the table lacks it."""
    if name not in frame:
        return np.full(len(frame), np.nan)
    return frame[name].to_numpy(dtype=float, na_value=np.nan, copy=True)


def _positive(frame: pd.DataFrame, name: str) -> Array:
    values = _floats(frame, name)
    return values[np.isfinite(values) & (values > 0)]


def _ratio(above: Values, below: Array) -> Array:
    """above / below; infinite or NaN where `below` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above / below)


def _rows(mask: Booleans) -> str:
    return plural(int(mask.sum()), "row")


def _span(values: Array) -> str:
    return f"{values.min():.3g} to {values.max():.3g}"
