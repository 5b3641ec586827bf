"""Measured times as the report shows them: which slice of them, and which are not to be relied on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.latency.law import LatencyLaw
from scaling.columns import EXPERTS
from scaling.serving.device import BUSY

BUSY_MACHINE, UNLIKE_LAW = "other processes used the machine", "the latency law contradicts it"
_KEY = ["run_id", "phase", "batch", "context"]
_SAME_SIZE = 0.02
_SCATTER = (0.025, 0.975)


def with_doubts(latency: pd.DataFrame, modelled: pd.DataFrame, law: LatencyLaw | None) -> pd.DataFrame:
    """The rows with `doubt`, empty where there is none, and `modelled_ms` (NaN where the law predicts nothing).

    A time is in doubt where other processes used more than `BUSY` cores meanwhile, or where measured over modelled lies
    outside 95 % of the scatter that the law has on shapes it was not fitted to (`LatencyLaw.ratios`).
    """
    if latency.empty:
        return latency
    times = pd.Series(np.nan, index=latency.index)
    if law is not None and len(modelled):
        keyed = modelled.drop_duplicates(_KEY).set_index(_KEY)["modelled_ms"]
        times = pd.Series(keyed.reindex(pd.MultiIndex.from_frame(latency[_KEY])).to_numpy(float), index=latency.index)
    doubt = pd.Series("", index=latency.index)
    if law is not None:
        low, high = np.quantile(law.ratios, _SCATTER)
        ratio = latency["time_ms"] / times
        doubt[(ratio < low) | (ratio > high)] = UNLIKE_LAW
    if "busy_cores" in latency:
        doubt[latency["busy_cores"].astype(float) > BUSY] = BUSY_MACHINE
    return latency.assign(modelled_ms=times, doubt=doubt)


def doubts_in_words(rows: pd.DataFrame) -> str:
    """How many of these times are in doubt, and why; empty where none is."""
    counts = rows["doubt"].value_counts()
    reasons = [f"{count} because {why}" for why, count in counts.items() if why]
    if not reasons:
        return ""
    return f"{len(rows) - int(counts.get('', 0))} of these {len(rows)} times may be off: {', '.join(reasons)}"


def with_sizes(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with `size`: active parameters, where values that agree within 2 % are made equal, so that models of one
    size share a slice."""
    values = np.sort(frame["n_active"].unique())
    starts = np.concatenate([[True], np.diff(np.log(values)) > _SAME_SIZE])
    first = dict(zip(values, values[starts][np.cumsum(starts) - 1], strict=True))
    return frame.assign(size=frame["n_active"].map(first))


def with_most(frame: pd.DataFrame, by: str, column: str) -> pd.DataFrame:
    """The rows at the value of `by` that has most distinct values of `column`, the largest of several such."""
    counts = frame.groupby(by)[column].nunique()
    return frame[frame[by] == counts[counts == counts.max()].index.max()] if len(counts) else frame


def shown_latency(latency: pd.DataFrame) -> pd.DataFrame:
    """Rows of the largest size that has most E, at its longest context, one row per E, phase and batch."""
    rows = with_most(with_sizes(latency), "size", EXPERTS)
    rows = rows[rows["context"] == latency["context"].max()]
    return rows.drop_duplicates([EXPERTS, "phase", "batch"]).sort_values([EXPERTS, "phase", "batch"])


def measured_decode(latency: pd.DataFrame) -> pd.DataFrame:
    """The decode rows of `shown_latency` at the largest batch that most E were measured at; empty without any."""
    if latency.empty:
        return latency
    rows = shown_latency(latency)
    return with_most(rows[rows["phase"] == "decode"], "batch", EXPERTS)
