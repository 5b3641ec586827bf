"""The effect of experts at equal active size: routed runs against the dense run of the same cell, by document."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.methods.paired import PairedDifference, paired_difference
from analysis.tables.study import has
from scaling.errors import InputError

SIZE_TOLERANCE = 0.02
_CELL = ["tokens", "seed", "n_layers", "corpus_hash", "batch_tokens", "seq_len", "vocab_size", "lr"]
_SHOWN = ["run_id", "dense_run_id", "n_active", "tokens", "seed", "n_experts", "top_k"]
_ESTIMATED = ["difference", "se", "n_documents"]


@dataclass(frozen=True)
class PairedEffects:
    """Differences of the routed runs that pair, one row each, and how many do not.

    `rows` has the columns `run_id`, `dense_run_id`, `n_active`, `tokens`, `seed`, `n_experts`, `top_k`, `difference`,
    `se` (both nats per token), `n_documents`, ordered by size, tokens and E. `without_twin` counts routed runs that no
    dense run equals but for its experts; `not_comparable` those that have one, evaluated on other tokens or not at all.
    """

    rows: pd.DataFrame
    without_twin: int
    not_comparable: int


def paired_effects(study: Path, runs: pd.DataFrame) -> PairedEffects:
    """Loss of every routed run minus that of the dense run of its cell, nats per token, with its standard error.

    Two runs pair when everything but the experts is equal: tokens, seed, depth, text, batch, sequence length,
    vocabulary, peak learning rate and, where the runs tell (`config`), every other setting of the training; `n_active`
    may differ by 2 %. Of several such dense runs the nearest in size is taken that was evaluated on the same tokens of
    the same documents (`analysis.methods.paired.paired_difference`, clustered by document; it does not contain the
    spread between seeds).
    """
    routed_runs = int((runs["n_experts"] > 1).sum())
    nothing = PairedEffects(pd.DataFrame(columns=[*_SHOWN, *_ESTIMATED]), routed_runs, 0)
    columns = ["run_id", "n_active", "n_experts", "top_k", *_CELL]
    if not has(study, "evals") or not set(columns) <= set(runs.columns):
        return nothing
    frame = runs[columns].assign(training=runs["config"].map(_training) if "config" in runs else "")
    dense, routed = (frame[chosen] for chosen in (frame["n_experts"] == 1, frame["n_experts"] > 1))
    twins = routed.merge(dense, on=[*_CELL, "training"], suffixes=("", "_dense"))
    twins = twins.assign(apart=(twins["n_active"] / twins["n_active_dense"] - 1).abs())
    twins = twins[twins["apart"] <= SIZE_TOLERANCE].sort_values(["apart", "run_id_dense"])
    found = []
    for _, candidates in twins.groupby("run_id", sort=False):
        for _, pair in candidates.iterrows():
            estimate = _difference(study, pair["run_id"], pair["run_id_dense"])
            if estimate is not None:
                told = (estimate.difference, estimate.standard_error, estimate.n_documents)
                found.append(
                    pair.rename({"run_id_dense": "dense_run_id"})[_SHOWN].to_dict()
                    | dict(zip(_ESTIMATED, told, strict=True))
                )
                break
    with_twin = twins["run_id"].nunique()
    without, unlike = routed_runs - with_twin, with_twin - len(found)
    if not found:
        return PairedEffects(nothing.rows, without, unlike)
    rows = pd.DataFrame(found).sort_values(["n_active", "tokens", "n_experts", "seed", "run_id"]).reset_index(drop=True)
    return PairedEffects(rows, without, unlike)


def _training(config: object) -> str:
    """The training settings of a run's `config`; empty where it has none."""
    return json.dumps(json.loads(config).get("train"), sort_keys=True) if isinstance(config, str) and config else ""


def _difference(study: Path, routed: str, dense: str) -> PairedDifference | None:
    try:
        return paired_difference(study, routed, dense)
    except InputError:  # other documents, other tokens of them, or no evaluation
        return None
