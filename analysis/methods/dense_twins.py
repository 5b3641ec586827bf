"""The effect of experts at equal active size: routed runs against their dense counterparts, paired by document."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.methods.paired import paired_difference
from analysis.tables.config_column import configuration_parts
from scaling import parts
from scaling.errors import InputError

SIZE_TOLERANCE = 0.02
_CELL = ["tokens", "seed", "n_layers", "corpus_hash", "batch_tokens", "seq_len", "vocab_size", "lr"]
_SHOWN = ["run_id", "dense_run_id", "n_active", "tokens", "seed", "n_experts", "top_k"]
_ESTIMATED = ["difference", "se", "n_documents"]
_ORDER = ["n_active", "tokens", "n_experts", "seed", "run_id"]


@dataclass(frozen=True)
class PairedEffects:
    """Differences of routed runs to their dense twins, one row each, and the numbers of runs without.

    `rows` has the columns `run_id`, `dense_run_id`, `n_active`, `tokens`, `seed`, `n_experts`, `top_k`, `difference`,
    `se` (both nats per token), `n_documents`, ordered by size, tokens and E. `without_twin` counts routed runs without
    a dense run that differs in experts alone; `not_comparable` those whose twin was not evaluated on the same tokens.
    """

    rows: pd.DataFrame
    without_twin: int
    not_comparable: int


def paired_effects(study: Path, runs: pd.DataFrame) -> PairedEffects:
    """Loss of every routed run minus that of the dense run of its cell, nats per token, with its standard error.

    Two runs pair when all but the experts is equal: tokens, seed, depth, text, batch, sequence length, vocabulary, peak
    learning rate and, where the runs have a `config`, every other training setting; `n_active` may differ by 2 %. Of
    several dense runs the nearest in size with the same evaluation is taken. Differences are those of
    `analysis.methods.paired.paired_difference`, clustered by document; they exclude the spread between seeds.
    """
    n_routed = int((runs["n_experts"] > 1).sum())
    nothing = pd.DataFrame(columns=[*_SHOWN, *_ESTIMATED])
    columns = ["run_id", "n_active", "n_experts", "top_k", *_CELL]
    if not parts.files(study, "evals") or not set(columns) <= set(runs.columns):
        return PairedEffects(nothing, n_routed, 0)
    frame = runs[columns].assign(training=runs["config"].map(_training) if "config" in runs else "")
    dense, routed = frame[frame["n_experts"] == 1], frame[frame["n_experts"] > 1]
    dense = dense.rename(columns={"run_id": "dense_run_id"})
    twins = routed.merge(dense, on=[*_CELL, "training"], suffixes=("", "_dense"))
    twins = twins.assign(apart=(twins["n_active"] / twins["n_active_dense"] - 1).abs())
    twins = twins[twins["apart"] <= SIZE_TOLERANCE].sort_values(["apart", "dense_run_id"])
    pairs = [_nearest_pair(study, candidates) for _, candidates in twins.groupby("run_id", sort=False)]
    effects = [pair for pair in pairs if pair is not None]
    rows = pd.DataFrame(effects).sort_values(_ORDER).reset_index(drop=True) if effects else nothing
    return PairedEffects(rows, n_routed - len(pairs), len(pairs) - len(effects))


def _training(config: object) -> str:
    """The training settings of a run's `config`; empty where it has none."""
    return json.dumps(configuration_parts(config).get("train"), sort_keys=True)


def _nearest_pair(study: Path, candidates: pd.DataFrame) -> dict[str, Any] | None:
    """The first of these pairs with the same evaluation, and its difference; None without any."""
    for pair in candidates.to_dict("records"):
        with contextlib.suppress(InputError):  # other documents, other tokens of them, or no evaluation
            estimate = paired_difference(study, pair["run_id"], pair["dense_run_id"])
            values = (estimate.difference, estimate.standard_error, estimate.n_documents)
            return {str(name): pair[name] for name in _SHOWN} | dict(zip(_ESTIMATED, values, strict=True))
    return None
