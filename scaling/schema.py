"""The tables: every column with its type, unit and meaning. The contract between training and analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from scaling.errors import InputError

SCHEMA_VERSION = 1
Table = Literal["runs", "evals", "curves", "latency"]


@dataclass(frozen=True)
class Column:
    """One column of a table: Arrow type, unit ("" for a pure number or a name) and meaning."""

    type: pa.DataType
    unit: str
    meaning: str


_TEXT, _INT, _REAL, _FLAG = pa.string(), pa.int64(), pa.float64(), pa.bool_()


RUNS: dict[str, Column] = {
    "run_id": Column(_TEXT, "", "content hash of what shapes the training"),
    "trunk_id": Column(_TEXT, "", "the same without the token budget: rows of one trunk are correlated"),
    "configuration": Column(_TEXT, "", "the same without seed and token budget: within it runs are replicates"),
    "config": Column(_TEXT, "", "all that shaped the training, JSON: what run_id is the hash of"),
    "study": Column(_TEXT, "", "name of the study"),
    "task": Column(_TEXT, "", "lm"),
    "status": Column(_TEXT, "", "ok, diverged, oom, timeout or error; only ok rows carry a loss"),
    "error": Column(_TEXT, "", "text of the error, empty when ok"),
    "seed": Column(_INT, "", "of initial weights and data order"),
    "n_experts": Column(_INT, "", "E, experts per MoE layer"),
    "top_k": Column(_INT, "", "k, experts per token"),
    "d_model": Column(_INT, "", "width of the residual stream"),
    "n_layers": Column(_INT, "", "blocks of attention and MLP"),
    "n_heads": Column(_INT, "", "attention heads"),
    "d_expert": Column(_INT, "", "hidden units of one expert"),
    "vocab_size": Column(_INT, "", "symbols of the tokeniser, separator included"),
    "router": Column(_TEXT, "", "how tokens choose experts; dense at E = 1"),
    "dispatch": Column(_TEXT, "", "how tokens reach experts; dense at E = 1"),
    "experts": Column(_TEXT, "", "what an expert is: mlp, shared, cp, ring, lora; mlp at E = 1"),
    "granularity": Column(
        _REAL, "", "G, 2 d_model / d_expert: experts that make up the default dense MLP (arXiv 2402.07871, section 3)"
    ),
    "tokens": Column(_INT, "tokens", "D, trained on (achieved, whole batches)"),
    "tokens_requested": Column(_INT, "tokens", "as the grid asked"),
    "tokens_own": Column(
        _INT, "tokens", "of them trained for this cell alone; the rest are its trunk's (arXiv 2405.18392)"
    ),
    "epochs": Column(_REAL, "", "tokens over the tokens of the training split"),
    "batch_tokens": Column(_INT, "tokens", "per optimiser step"),
    "seq_len": Column(_INT, "tokens", "context of training and evaluation"),
    "steps": Column(_INT, "", "optimiser steps"),
    "lr": Column(_REAL, "", "peak learning rate"),
    "warmup_tokens": Column(_INT, "tokens", "over which the rate rises to its peak"),
    "weight_decay": Column(_REAL, "", "AdamW's, times the rate per step"),
    "n_active": Column(_INT, "parameters", "what one token multiplies with, embeddings and head in, router out"),
    "n_total": Column(_INT, "parameters", "everything held in memory, embeddings and head in, router out"),
    "n_active_nonembed": Column(_INT, "parameters", "n_active without embeddings and head"),
    "n_total_nonembed": Column(_INT, "parameters", "n_total without embeddings and head"),
    "n_dense_nonembed": Column(_INT, "parameters", "the dense backbone: same layers and width, one expert per layer"),
    "n_router": Column(_INT, "parameters", "routers alone"),
    "train_flops": Column(_REAL, "FLOP", "counted, forward and backward, causal attention and router in"),
    "train_flops_6nd": Column(_REAL, "FLOP", "6 n_active tokens, for comparison only"),
    "prefill_flops_per_token": Column(_REAL, "FLOP", "forward, mean over a context of seq_len tokens"),
    "decode_flops_per_token": Column(_REAL, "FLOP", "forward of one token with seq_len tokens cached"),
    "weight_bytes": Column(_INT, "bytes", "all parameters, routers in, in the dtype of the products"),
    "kv_bytes_per_token": Column(_INT, "bytes", "keys and values of one cached token, in that dtype"),
    "loss_val": Column(_REAL, "nats/token", "held-out loss after the cooldown"),
    "loss_val_se": Column(_REAL, "nats/token", "its standard error, clustered by document"),
    "leak": Column(
        _REAL,
        "nats/token",
        "held-out: what a router that is not causal gains from later tokens at inference: loss with these replaced, "
        "less the loss without; null for causal ones, which gain nothing",
    ),
    "loss_floor": Column(
        _REAL,
        "nats/token",
        "exact Bayes-optimal loss on the same held-out windows where the source is known; null elsewhere",
    ),
    "entropy_rate": Column(_REAL, "nats/token", "exact, of the source where it is known; null elsewhere"),
    "bits_per_byte": Column(_REAL, "bits/byte", "held-out loss per byte of text"),
    "loss_train": Column(_REAL, "nats/token", "training loss, mean over the last tenth of the steps"),
    "heldout_docs": Column(_INT, "", "documents that were evaluated"),
    "heldout_tokens": Column(_INT, "tokens", "that were evaluated"),
    "balance_loss": Column(_REAL, "", "last tenth of the steps; 1 when even (E/k at collapse)"),
    "load_cv": Column(
        _REAL, "", "held-out: deviation of expert loads over their mean; mean over batches of batch_tokens and layers"
    ),
    "max_load": Column(
        _REAL,
        "",
        "held-out: largest load over the mean load; mean over batches of batch_tokens and layers; 1 when even",
    ),
    "max_vio": Column(_REAL, "", "held-out: MaxVio (arXiv 2408.15664), max_load - 1; 0 when even"),
    "router_entropy": Column(_REAL, "", "held-out: mean entropy of the gates over ln E; 1 when uniform"),
    "dropped_frac": Column(_REAL, "", "held-out: assignments that reached no expert; 0 for dropless dispatch"),
    "utilisation": Column(_REAL, "", "held-out: Jain's index of the loads, 1 / (1 + load_cv^2), between 1/E and 1"),
    "experts_per_token": Column(_REAL, "", "held-out: experts that a token chose, mean; top_k for most routers"),
    "gate_sum": Column(_REAL, "", "held-out: sum of a token's weights, mean"),
    "distinct_1": Column(_REAL, "", "held-out: experts of a layer that one token activates"),
    "distinct_8": Column(_REAL, "", "held-out: that 8 tokens of different places touch, as a decode step of 8 would"),
    "distinct_64": Column(_REAL, "", "held-out: that 64 do"),
    "saturation_5": Column(
        _REAL, "", "share of the final experts chosen already after 5 % of the training; null before the first probe"
    ),
    "saturation_50": Column(_REAL, "", "the same after half of it"),
    "change_rate": Column(
        _REAL,
        "",
        "share of the experts chosen at the last probe that were not at the one before, a seventh to a quarter of "
        "the steps earlier",
    ),
    "specialisation": Column(
        _REAL,
        "",
        "share of the class of a token (letter, digit, ...) that its expert reveals: I(class; expert) / H(class)",
    ),
    "capacity_factor": Column(
        _REAL, "", "rows of an expert over the mean load, achieved in a training step; null for dropless dispatch"
    ),
    "corpus": Column(_TEXT, "", "name of the text"),
    "corpus_hash": Column(_TEXT, "", "content hash of text, tokeniser and split"),
    "code_version": Column(_TEXT, "", "of this package: version and source hash"),
    "versions": Column(_TEXT, "", "Python, JAX, Flax, Optax, NumPy"),
    "schema_version": Column(_INT, "", "of these tables"),
    "platform": Column(_TEXT, "", "cpu, gpu or tpu"),
    "device_kind": Column(_TEXT, "", "as JAX names it"),
    "dtype": Column(_TEXT, "", "of weights and matrix products"),
    "threads": Column(_INT, "", "CPU threads of the run; null on a GPU"),
    "devices": Column(_INT, "", "over which sequences and experts were spread; a CPU thread is one"),
    "kernel": Column(
        _TEXT, "", "how grouped dispatch computed the experts: loop, batched, ragged, tokamax; null for others"
    ),
    "trunks_together": Column(_INT, "", "trunks that this process trained as one program"),
    "peak_memory_bytes": Column(
        _INT, "bytes", "of one device in a training step: as laid out by XLA (CPU) or measured (GPU)"
    ),
    "executor": Column(_TEXT, "", "ray or inline"),
    "started_at": Column(_TEXT, "UTC", "ISO 8601"),
    "wall_s": Column(
        _REAL, "s", "what the cell added: its own steps, evaluation, and compilation where it was the first"
    ),
    "compile_s": Column(_REAL, "s", "tracing and compilation; 0 where another cell of the trunk has paid it"),
    "train_s": Column(_REAL, "s", "all training steps of the cell, those shared with its trunk in, compilation out"),
    "tokens_per_s": Column(_REAL, "tokens/s", "tokens over train_s"),
}

_LOADS = ("load_cv", "max_load", "max_vio", "router_entropy", "utilisation", "dropped_frac")
_PROBED = ("distinct_1", "distinct_8", "distinct_64", "saturation", "change_rate", "specialisation")
CHANCES: dict[str, Column] = {
    f"{name}_chance": Column(_REAL, "", f"{name} of independent uniform choices of as many experts")
    for name in (*_LOADS, *_PROBED)
}
"""Beside each router metric what routing by chance gives, at the same experts per token and tokens of a batch."""
RUNS |= CHANCES

EVALS: dict[str, Column] = {
    "document": Column(_TEXT, "", "held-out document"),
    "n_tokens": Column(_INT, "tokens", "of it that were evaluated"),
    "n_bytes": Column(_INT, "bytes", "of text in those tokens"),
    "loss": Column(_REAL, "nats/token", "mean over those tokens"),
}

CURVES: dict[str, Column] = {
    "step": Column(_INT, "", "last of the steps averaged over"),
    "tokens": Column(_INT, "tokens", "seen so far"),
    "lr": Column(_REAL, "", "at that step"),
    "loss": Column(_REAL, "nats/token", "training loss, mean since the row before"),
    "balance_loss": Column(_REAL, "", "mean since the row before, over layers"),
    "z_loss": Column(_REAL, "", "mean since the row before, over layers"),
    "grad_norm": Column(_REAL, "", "before clipping, mean since the row before"),
    "max_load": Column(_REAL, "", "largest expert load over the mean load, mean since the row before"),
    "router_entropy": Column(_REAL, "", "mean entropy of the gates over ln E, mean since the row before"),
    "dropped_frac": Column(_REAL, "", "assignments that reached no expert, mean since the row before"),
    "load_cv": Column(_REAL, "", "deviation of expert loads over their mean, mean since the row before"),
    "max_vio": Column(_REAL, "", "MaxVio, max_load - 1, mean since the row before"),
    "utilisation": Column(_REAL, "", "Jain's index of the loads, mean since the row before"),
    "experts_per_token": Column(_REAL, "", "experts that a token chose, mean since the row before"),
    "gate_sum": Column(_REAL, "", "sum of a token's weights, mean since the row before"),
    **{
        name: Column(_REAL, "", f"{RUNS[name].meaning}; at the newest probe since the row before, null without one")
        for name in _PROBED
        if name != "saturation"
    },
    "saturation": Column(
        _REAL,
        "",
        "share of the final experts chosen already, at the newest probe since the row before, null without one",
    ),
    **CHANCES,
}

_SIZES = ("n_experts", "top_k", "d_model", "n_layers", "n_heads", "d_expert", "n_active", "n_total", "n_router")
LATENCY: dict[str, Column] = {
    "run_id": Column(_TEXT, "", "the cell the row belongs to"),
    "shape_id": Column(_TEXT, "", "cells of one shape share one measurement"),
    **{name: RUNS[name] for name in (*_SIZES, "dispatch", "kernel")},
    "reads_all": Column(_FLAG, "", "whether the kernel reads every expert, activated or not"),
    "phase": Column(_TEXT, "", "prefill or decode"),
    "batch": Column(_INT, "", "sequences at once"),
    "context": Column(_INT, "tokens", "prefill: prompt length; decode: tokens in the cache"),
    "time_ms": Column(_REAL, "ms", "median of the repeats: the whole prefill, or one decode step"),
    "time_q25_ms": Column(_REAL, "ms", "first quartile"),
    "time_q75_ms": Column(_REAL, "ms", "third quartile"),
    "repeats": Column(_INT, "", "timed calls, after the warm-up calls"),
    "warmup": Column(_INT, "", "calls before them in each round of repeats, compilation not among them"),
    "compile_s": Column(
        _REAL, "s", "tracing and compilation, in no time above; by an earlier process where programs were kept"
    ),
    "tokens_per_s": Column(_REAL, "tokens/s", "batch x context over a prefill, batch over a decode step"),
    "flops": Column(_REAL, "FLOP", "of one call, counted"),
    "bytes": Column(_REAL, "bytes", "weights of the activated experts (as observed) and cache, read in one call"),
    "roofline_ms": Column(
        _REAL,
        "ms",
        "floor: FLOPs over peak FLOP/s, bytes over bytes/s of the level of memory that holds them; null where unknown",
    ),
    "distinct_experts": Column(_REAL, "", "observed in one call, mean over layers"),
    "weights": Column(_TEXT, "", "initial: routing is that of untrained weights"),
    "platform": Column(_TEXT, "", "cpu, gpu or tpu"),
    "device_kind": Column(_TEXT, "", "as JAX names it"),
    "dtype": Column(_TEXT, "", "of weights and cache"),
    "threads": Column(_INT, "", "CPU threads"),
    "device": Column(_TEXT, "", "that the floor is of, JSON: peak FLOP/s, bytes/s and caches; null where unknown"),
    "busy_cores": Column(
        _REAL, "", "cores that others kept busy, the most seen after a round of the shape; null where unknown"
    ),
    "versions": Column(_TEXT, "", "Python, JAX, Flax, Optax, NumPy"),
}

TABLES: dict[Table, dict[str, Column]] = {"runs": RUNS, "evals": EVALS, "curves": CURVES, "latency": LATENCY}


def arrow_schema(table: Table) -> pa.Schema:
    """The Arrow schema of a table, units in the metadata of its fields."""
    fields = [
        pa.field(name, c.type, metadata={"unit": c.unit, "meaning": c.meaning}) for name, c in TABLES[table].items()
    ]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION), "table": table})


def to_arrow(table: Table, rows: list[dict[str, object]]) -> pa.Table:
    """Rows as an Arrow table of the schema; a column without a value is null.

    Raises InputError naming columns that the schema does not have, or a value of the wrong type.
    """
    columns = TABLES[table]
    if unknown := sorted({name for row in rows for name in row} - set(columns)):
        raise InputError(f"{table}: unknown column {', '.join(unknown)}; the schema has {', '.join(columns)}")
    try:
        return pa.Table.from_pylist(rows, schema=arrow_schema(table))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"{table}: {error}") from error
