"""The effect of experts at equal active size: routed runs against the dense run of the same cell, by document."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.runs import paired_difference

SIZE_TOLERANCE = 0.02
_CELL = ["tokens", "seed", "n_layers", "corpus_hash"]


def paired_effects(study: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Loss of every routed run minus that of the dense run of its cell, nats per token, with its standard error.

    Two runs pair when tokens, seed, depth and text are equal and `n_active` agrees within 2 %; both must have been
    evaluated on the same documents (`analysis.runs.paired_difference`, clustered by document; it does not contain the
    spread between seeds). Columns `run_id`, `dense_run_id`, `n_active`, `tokens`, `seed`, `n_experts`, `top_k`,
    `difference`, `se`, `n_documents`, ordered by size, tokens and E; empty where nothing pairs or no evaluations exist.
    """
    columns = ["run_id", "n_active", "n_experts", "top_k", *_CELL]
    if not (study / "evals").is_dir() or not set(columns) <= set(runs.columns):
        return pd.DataFrame(columns=["run_id", "n_active", "tokens", "n_experts", "difference", "se"])
    dense, routed = (runs.loc[chosen, columns] for chosen in (runs["n_experts"] == 1, runs["n_experts"] > 1))
    pairs = routed.merge(dense, on=_CELL, suffixes=("", "_dense"))
    pairs = pairs[(pairs["n_active"] / pairs["n_active_dense"] - 1).abs() <= SIZE_TOLERANCE]
    found = [paired_difference(study, a, b) for a, b in zip(pairs["run_id"], pairs["run_id_dense"], strict=True)]
    pairs = pairs.assign(
        difference=[pair.difference for pair in found],
        se=[pair.standard_error for pair in found],
        n_documents=[pair.n_documents for pair in found],
    )
    pairs = pairs.rename(columns={"run_id_dense": "dense_run_id"})
    kept = ["run_id", "dense_run_id", "n_active", *_CELL[:2], "n_experts", "top_k", "difference", "se", "n_documents"]
    return pairs[kept].sort_values(["n_active", "tokens", "n_experts"]).reset_index(drop=True)
