"""The part of a run's row that is known before training: identity, architecture and counted cost."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import scaling
from scaling.config.counts import (
    capacity_factor,
    decode_flops_per_token,
    kv_bytes_per_token,
    parameters,
    prefill_flops_per_token,
    train_flops,
    weight_bytes,
)
from scaling.config.run import RunConfig
from scaling.schema import SCHEMA_VERSION


def describe(config: RunConfig, corpus_hash: str) -> dict[str, Any]:
    """Identity, architecture, parameter and FLOP columns of a cell in the `runs` table."""
    model, train = config.model, config.train
    dense = model.n_experts == 1
    sizes = ("n_experts", "top_k", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_head", "d_expert")
    settings = ("batch_tokens", "seq_len", "warmup_tokens", "weight_decay")
    return {
        "run_id": config.run_id(corpus_hash),
        "trunk_id": config.trunk_id(corpus_hash),
        "configuration": config.configuration(corpus_hash),
        "config": json.dumps(config.identity(corpus_hash), sort_keys=True),
        "study": config.study,
        "task": config.task,
        "seed": config.seed,
        **{name: getattr(model, name) for name in sizes},
        "vocab_size": config.data.vocab_size,
        "router": "dense" if dense else model.router,
        "dispatch": "dense" if dense else model.dispatch,
        "experts": "mlp" if dense else model.experts,
        "granularity": 2 * model.d_model / (model.dense_width if dense else model.d_expert),
        "tokens": config.steps * train.batch_tokens,
        "tokens_requested": config.tokens,
        "steps": config.steps,
        "lr": config.learning_rate,
        "optimiser": train.optimiser,
        "parametrisation": model.parametrisation,
        "tie_embeddings": model.tie_embeddings,
        **{name: getattr(train, name) for name in settings},
        "capacity_factor": capacity_factor(config),
        "corpus": config.data.corpus,
        "corpus_hash": corpus_hash,
        "code_version": code_version(),
        "schema_version": SCHEMA_VERSION,
    } | cost_columns(config)


def cost_columns(
    config: RunConfig, experts_per_token: float | None = None, in_training: float | None = None
) -> dict[str, Any]:
    """Parameter, FLOP and byte columns of the `runs` table.

    `experts_per_token` at inference and the mean `in_training`: measured, where the router decides; None: as expected.
    """
    model, vocab, seq_len = config.model, config.data.vocab_size, config.train.seq_len
    if model.n_experts > 1 and model.dispatch == "soft":
        experts_per_token = model.n_experts * model.slots / seq_len
    sizes = parameters(model, vocab, experts_per_token)
    conventions = ("n_active", "n_total", "n_active_nonembed", "n_total_nonembed", "n_dense_nonembed")
    return {
        **{name: getattr(sizes, name) for name in conventions},
        "n_router": sizes.router,
        "train_flops": train_flops(config, in_training),
        "train_flops_6nd": 6.0 * sizes.n_active * config.steps * config.train.batch_tokens,
        "prefill_flops_per_token": prefill_flops_per_token(model, vocab, seq_len, experts_per_token),
        "decode_flops_per_token": decode_flops_per_token(model, vocab, seq_len, experts_per_token),
        "weight_bytes": weight_bytes(model, vocab),
        "kv_bytes_per_token": kv_bytes_per_token(model),
    }


# What shapes a training: configuration, text, model, steps, and the number of rows that a layer computes.
_SHAPES_A_TRAINING = ("expert_rows.py", "config/*.py", "data/*.py", "model/**/*.py", "training/*.py")
_ONLY_MEASURES = ("inference_bench.py", "executable_cache.py")


def training_sources() -> list[Path]:
    """The source files that shape a training, sorted."""
    package = Path(scaling.__file__).parent
    sources = {path for pattern in _SHAPES_A_TRAINING for path in package.glob(pattern)}
    return sorted(path for path in sources if path.name not in _ONLY_MEASURES)


@functools.cache
def code_version() -> str:
    """Package version and a hash of the sources that shape a training, so that rows of different code
    can be separated. Code that serves, measures, schedules or analyses is excluded: editing it invalidates no
    checkpoint."""
    digest = hashlib.sha256()
    for path in training_sources():
        digest.update(path.read_bytes())
    return f"{scaling.__version__}+{digest.hexdigest()[:8]}"
