"""Parameter counts and tokens of an imported table: what each is taken for, and those that follow from the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.tables.mapping import TIED
from analysis.tables.reading_log import ReadingLog
from analysis.tables.rows import floats, ratio
from scaling.arrays import Array, Booleans
from scaling.columns import COMPUTE, EXPERTS, LOSS, TOKENS
from scaling.formatting import plural
from scaling.schema import RUNS

COUNTS = tuple(name for name, column in RUNS.items() if column.unit == "parameters" and name != "n_router")
TRAINED = ("n_active", "n_active_nonembed", "n_dense_nonembed")  # each token is multiplied by these: the N of 6 N D
PAIRS = (("n_active", "n_total"), ("n_active_nonembed", "n_total_nonembed"))


def with_counts(frame: pd.DataFrame, log: ReadingLog) -> pd.DataFrame:
    """The frame with the parameter counts that follow from the given ones, each with a note; given cells are kept.

    n_*_nonembed = n_* - V d where embedding and head are tied, - 2 V d where they are not (`TIED` must say which), and
    the reverse. Dense models (E = 1) have one count: n_active = n_total = n_dense_nonembed, the embeddings apart. With
    E > k experts of one size e per token, n_total - n_active = (E - k) e and n_dense_nonembed = n_active_nonembed - (k
    - 1) e. The counts are those of `scaling.config.counts.Parameters`. Only positive values are filled in.
    """
    if {"vocab_size", "d_model", TIED} <= set(frame.columns):
        matrix = floats(frame, "vocab_size") * floats(frame, "d_model")
        tied = floats(frame, TIED)
        for formula, copies in (("V d (tied)", 1.0), ("2 V d (untied)", 2.0)):
            embeddings = np.where((tied != 0) == (copies == 1.0), copies * matrix, np.nan)
            embeddings[np.isnan(tied)] = np.nan
            for name in ("n_active", "n_total"):
                bare = f"{name}_nonembed"
                frame = _filled(frame, bare, floats(frame, name) - embeddings, f"{name} - {formula}", log)
                frame = _filled(frame, name, floats(frame, bare) + embeddings, f"{bare} + {formula}", log)
    if EXPERTS not in frame:
        return frame
    experts = floats(frame, EXPERTS)
    for name, other in (*PAIRS, *(pair[::-1] for pair in PAIRS), ("n_dense_nonembed", "n_active_nonembed")):
        values = np.where(experts == 1, floats(frame, other), np.nan)
        frame = _filled(frame, name, values, f"{other}, as n_experts = 1", log)
    top_k = floats(frame, "top_k")
    expert = ratio(floats(frame, "n_total") - floats(frame, "n_active"), experts - top_k)
    expert[~((experts > top_k) & (top_k >= 1) & (expert > 0))] = np.nan
    backbone = floats(frame, "n_active_nonembed") - (top_k - 1) * expert
    formula = "n_active_nonembed - (k - 1) (n_total - n_active) / (E - k), for routed experts of one size"
    return _filled(frame, "n_dense_nonembed", backbone, formula, log)


def with_tokens(frame: pd.DataFrame, log: ReadingLog) -> pd.DataFrame:
    """The frame with D from C, or C from D, where one is missing, with a note: C = 6 N D (arXiv 2203.15556).

    N is the first of n_active, n_active_nonembed and n_dense_nonembed that the table has, never a total count: a token
    of a routed model does not use all parameters.
    """
    size = next((name for name in TRAINED if name in frame), None)
    if size is None or (TOKENS in frame) == (COMPUTE in frame):
        return frame
    with np.errstate(over="ignore", invalid="ignore"):  # rows that are beyond every bound may be left out later
        per_token = 6.0 * floats(frame, size)
        if TOKENS in frame:
            name, formula, values = COMPUTE, f"6 {size} {TOKENS}", per_token * floats(frame, TOKENS)
        else:
            name, formula, values = TOKENS, f"{COMPUTE}/(6 {size})", ratio(floats(frame, COMPUTE), per_token)
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


def _filled(frame: pd.DataFrame, name: str, values: Array, formula: str, log: ReadingLog) -> pd.DataFrame:
    given = floats(frame, name)
    filled = np.isnan(given) & np.isfinite(values) & (values > 0)
    if not filled.any():
        return frame
    log.notes.append(f"{name} derived as {formula}" + ("" if filled.all() else f" in {_rows(filled)}"))
    return frame.assign(**{name: np.where(filled, values, given)})


def _rows(mask: Booleans) -> str:
    return plural(int(mask.sum()), "row")
