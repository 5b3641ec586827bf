"""Properties of a table that a fit records: seed noise, ranges, model family, corpus size, router skew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np

from analysis.laws import Law, studied_family
from analysis.laws.model_family import Family, Sizes
from analysis.tables.rows import ratio
from analysis.tables.runs import RunTable
from scaling.arrays import Array
from scaling.columns import EXPERTS, LOSS, TOKENS
from scaling.serving.expert_load import skew_of

_CONFIGURATION = (
    "task", "n_experts", "top_k", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_expert", "vocab_size",
    "router", "dispatch", "experts", "n_active", "n_total", "tokens", "batch_tokens", "seq_len", "lr", "corpus_hash",
)  # fmt: skip


def of_table(table: RunTable, law: Law) -> dict[str, Any]:
    """What every fit to a table says of it, by field of `Fit`, whatever it starts from."""
    return {
        "noise": seed_noise(table),
        "corpus_tokens": corpus_tokens(table),
        "router_skew": router_skew(table),
        "settings": settings(law, table),
        "source": table.source,
        "made_from": table.digest,
        "doubts": table.doubts,
        "dropped": table.dropped,
        "notes": table.notes,
    }


def seed_noise(table: RunTable) -> float | None:
    """Standard deviation of ln loss between runs that differ in seed only, pooled over configurations and budgets.

    Replicates agree in `configuration` and token budget, or without that column in every column that describes a
    configuration. None ("not estimated") without seeds or repeated configurations.
    """
    off, freedom = _of_replicates(table)
    return float(np.sqrt(np.nansum(off**2) / freedom.sum())) if freedom.any() else None


def seed_deviations(table: RunTable) -> tuple[Array, int]:
    """The deviation of ln loss of every run from the mean of its replicates, and the degrees of freedom of all.

    Each is enlarged by sqrt(m/(m - 1)) for m replicates, so that its mean square is the variance; NaN without any.
    """
    off, freedom = _of_replicates(table)
    with np.errstate(divide="ignore"):
        return off / np.sqrt(freedom), round(float(freedom.sum()))


def _of_replicates(table: RunTable) -> tuple[Array, Array]:
    """Of every run its deviation of ln loss from the mean of its replicates (NaN without any), and its share of a
    degree of freedom."""
    if "seed" not in table.frame:
        return np.full(len(table), np.nan), np.zeros(len(table))
    named = "configuration" in table.frame and bool(table.frame["configuration"].notna().all())
    same = [name for name in (("configuration", TOKENS) if named else _CONFIGURATION) if name in table.frame]
    log_loss = np.log(table.column(LOSS))
    groups = table.frame.assign(log_loss=log_loss).groupby(same, dropna=False)
    seeds, runs = (groups["seed"].transform(what).to_numpy(dtype=float) for what in ("nunique", "size"))
    repeated = (seeds == runs) & (runs > 1)
    off = np.where(repeated, log_loss - groups["log_loss"].transform("mean").to_numpy(dtype=float), np.nan)
    return off, np.where(repeated, 1.0 - 1.0 / runs, 0.0)


def corpus_tokens(table: RunTable) -> float | None:
    """Tokens of the training corpus, tokens/epochs; the largest where runs differ, None where unknown."""
    if "epochs" not in table.frame or TOKENS not in table.frame:
        return None
    epochs, tokens = table.column("epochs"), table.column(TOKENS)
    usable = np.isfinite(tokens) & np.isfinite(epochs) & (epochs > 0)
    return float((tokens[usable] / epochs[usable]).max()) if usable.any() else None


def family_of(table: RunTable) -> Family | None:
    """The family of the models of a table (`analysis.laws.studied_family`)."""
    return studied_family.from_rows(counts(table))


def counts(table: RunTable) -> dict[str, Array]:
    """The columns of a table that describe a model family (`model_family.Sizes`); the cache only where it is not that
    of multi-head attention."""
    found = table.columns(f.name for f in fields(Sizes) if f.name in table.frame)
    cache = grouped_cache(table)
    return found if cache is None else {**found, "kv_elements_per_token": cache}


def grouped_cache(table: RunTable) -> Array | None:
    """Elements of keys and values of a cached token over all layers, 2 n_layers n_kv_heads head_dim, where some of the
    heads share theirs or are together of another width than the model; None where none are. Heads are d_model / n_heads
    wide unless `head_dim` or `d_head` says otherwise, and a row without `n_kv_heads` is of multi-head attention."""
    if not {"n_kv_heads", "n_heads", "d_model", "n_layers"} <= {*table.frame.columns}:
        return None
    layers, width, heads = (table.column(name) for name in ("n_layers", "d_model", "n_heads"))
    plain, groups = 2.0 * layers * width, table.column("n_kv_heads")
    of_head = ratio(width, heads)
    for name in ("d_head", "head_dim"):
        told = table.column(name) if name in table.frame else np.full(len(width), np.nan)
        of_head = np.where(np.isnan(told), of_head, told)
    cache = np.where(np.isnan(groups), plain, 2.0 * layers * groups * of_head)
    return None if np.array_equal(cache, plain, equal_nan=True) else cache


def domain(table: RunTable, names: Iterable[str]) -> dict[str, tuple[float, float]]:
    """The smallest and largest value of every column with finite values."""
    columns = {name: finite(table, name) for name in names}
    return {name: (float(values.min()), float(values.max())) for name, values in columns.items() if values.size}


def finite(table: RunTable, name: str) -> Array:
    """The finite values of a column; empty where the table lacks it."""
    values = table.column(name) if name in table.frame else np.empty(0)
    return values[np.isfinite(values)]


def router_skew(table: RunTable) -> float | None:
    """The skew of trained routers: the median over routed runs of `scaling.serving.expert_load.skew_of` the experts
    activated by 8 and 64 tokens (columns `distinct_8`, `distinct_64`); None without these columns.
    """
    columns = ["distinct_8", "distinct_64", EXPERTS, "top_k"]
    if not set(columns) <= set(table.frame.columns):
        return None
    rows = table.frame[columns].astype(float).dropna()
    routed = rows[(rows[EXPERTS] > 1) & (rows["top_k"] < rows[EXPERTS])].drop_duplicates()
    skews = [skew_of(int(e), k, (8, 64), (few, many)) for few, many, e, k in routed.to_numpy().tolist()]
    return float(np.median(skews)) if skews else None


def experts(table: RunTable) -> tuple[int, ...]:
    """The expert counts that were run."""
    return tuple(int(e) for e in np.unique(finite(table, EXPERTS)))


def settings(law: Law, table: RunTable) -> dict[str, float]:
    """The columns of the law beside N, tokens and E that all runs agree in."""
    others = table.columns(name for name in law.columns if name not in (law.n_column, TOKENS, EXPERTS))
    return {name: float(values[0]) for name, values in others.items() if np.ptp(values) == 0}


def n_total(table: RunTable) -> Array | None:
    """Total sizes, where every run has one."""
    values = finite(table, "n_total")
    return values if len(values) == len(table) else None
