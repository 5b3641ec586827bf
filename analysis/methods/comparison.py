"""Comparison of methods: (router, experts, settings) at equal data, tokens and width, with intervals over seeds and
documents."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.methods import contrasts
from analysis.methods.contrasts import Effects
from analysis.methods.labels import method_labels
from analysis.tables.config_column import configuration_parts
from analysis.tables.runs import read_runs
from analysis.tables.study import evaluation, table_rows
from scaling.arrays import Array
from scaling.config.registry import ROUTERS
from scaling.errors import InputError
from scaling.formatting import listed

MEMORY_TOLERANCE = 0.1
FLOPS_TOLERANCE = 0.03
COSTS = ("train_flops", "decode_flops_per_token")
# Comparable cells agree in these and in the settings of the data: in all but method and seed.
_CLASS = ["task", "corpus", "corpus_hash", "tokens", "d_model", "n_layers", "n_heads"]
_CLASS += ["vocab_size", "batch_tokens", "seq_len"]
_NEEDED = ("run_id", "configuration", "config", "seed", "router", "experts", "n_experts", "top_k", *_CLASS, *COSTS)
_BY_METHOD = (
    dict.fromkeys(("configuration", "router", "experts", "n_experts", "top_k"), "first")
    | {"n_active": "mean", "seed": "nunique", "loss_val": "mean"}
    | dict.fromkeys(COSTS, "mean")
)
_INTERVALS = ("df", "low", "high", "low_all", "high_all", "best", "rank_low", "rank_high")


@dataclass(frozen=True)
class MethodComparison:
    """The methods of one class of comparable cells, ordered by loss.

    `rows` has one row per comparable method: `method` (its label), `configuration`, `router`, `experts`, `n_experts`,
    `top_k`, `n_active`, `seeds` (their number), `loss` (mean over seeds), `difference` to `reference` adjusted for
    seeds, its standard error `se` with `df` degrees of freedom, `low` and `high` (95 %, this difference alone),
    `low_all` and `high_all` (95 %, all differences together), `own_sd` (between its own seeds), `rank_low` and
    `rank_high` (95 %, all together), `best` (share of draws in which its loss is lowest), `group` (letters; methods
    that share one do not differ significantly), and FLOPs relative to the reference, `train_flops_ratio` and
    `decode_flops_per_token_ratio`. Errors are NaN without repeated seeds; then nothing is ranked.

    `apart`: methods that are not comparable, with `reason`, `loss` and `leak`. `failed`: `method`, `status`, `error`,
    `cells`. `seed_sd`: run-to-run deviation, pooled with `seed_df` degrees of freedom. `n_documents` is 0 where
    intervals exclude document sampling. `optimism`: the selection bias of the lowest loss. `runs`: the runs compared.
    """

    cell: Mapping[str, Any]
    reference: str
    rows: pd.DataFrame
    apart: pd.DataFrame
    failed: pd.DataFrame
    seed_sd: float
    seed_df: int
    paired: bool
    n_documents: int
    optimism: float
    warnings: tuple[str, ...]
    runs: pd.DataFrame

    @property
    def ranked(self) -> bool:
        """Whether run-to-run noise is known; without it the order holds for these runs alone."""
        return self.seed_df > 0

    @property
    def leaders(self) -> tuple[str, ...]:
        """The methods that may have the lowest loss (rank 1 in their interval); all where nothing is ranked."""
        return tuple(self.rows.loc[self.rows["rank_low"].eq(1) | (not self.ranked), "method"])

    @property
    def unequal(self) -> pd.DataFrame:
        """Methods whose training or decoding FLOPs differ from those of the reference by more than 3 %."""
        ratios = self.rows[[f"{cost}_ratio" for cost in COSTS]]
        return self.rows[((ratios - 1).abs() > FLOPS_TOLERANCE).any(axis=1)]


def compare_methods(study: str | Path, rng: np.random.Generator) -> tuple[MethodComparison, ...]:
    """The comparisons of a study folder (`analysis.methods.contrasts`), one per class of cells, the largest first.

    Raises InputError where the folder has no usable runs, a column is missing, or no two methods are comparable.
    """
    path = Path(study)
    finished, cells = read_runs(path).frame, table_rows(path, "runs")
    missing = [name for name in _NEEDED if name not in finished or finished[name].isna().all()]
    if missing:
        raise InputError(f"{study}: a comparison of methods needs the columns {', '.join(missing)}")
    failed = cells[cells["status"] != "ok"] if "status" in cells else cells.iloc[:0]
    cells = pd.concat([finished.assign(status="ok"), failed], ignore_index=True)
    cells["data"] = [json.dumps(configuration_parts(text).get("data"), sort_keys=True) for text in cells["config"]]
    comparisons = [
        comparison
        for _, alike in cells.groupby([*_CLASS, "data"], dropna=False, sort=True)
        if len(alike["configuration"].unique()) > 1 and alike["status"].eq("ok").any()
        if (comparison := _compared(path, alike.reset_index(drop=True), rng)) is not None
    ]
    if not comparisons:
        raise InputError(f"{study}: no two comparable methods: causal, of one size and trained on the same tokens")
    return tuple(sorted(comparisons, key=lambda c: (c.cell["tokens"], c.cell["d_model"], len(c.rows)), reverse=True))


def _compared(study: Path, cells: pd.DataFrame, rng: np.random.Generator) -> MethodComparison | None:
    """The methods of one class of cells; None where fewer than two are comparable."""
    cells = cells.assign(method=cells["configuration"].map(method_labels(cells)))
    finished, failed = cells[cells["status"] == "ok"], cells[cells["status"] != "ok"]
    reasons = finished.apply(_not_comparable, axis=1)
    runs = finished[reasons == ""].sort_values(["configuration", "seed"]).reset_index(drop=True)
    if runs["configuration"].nunique() < 2:
        return None
    losses, sizes, warnings = _documents(study, runs)
    method, names = pd.factorize(runs["method"])
    effects = contrasts.estimate(losses, sizes, method, pd.factorize(runs["seed"])[0])
    means = runs.groupby("method").agg(_BY_METHOD).rename(columns={"seed": "seeds", "loss_val": "loss"})
    means = means.loc[list(names)].reset_index()
    reference = _reference(means, effects)
    ranking, optimism = _ranking(means, effects, reference, rng)
    comparison = MethodComparison(
        cell={name: runs[name].tolist()[0] for name in _CLASS},
        reference=str(means["method"].iloc[reference]),
        rows=ranking,
        apart=_apart(finished.assign(reason=reasons)[reasons != ""]),
        failed=_failures(failed),
        seed_sd=float(np.sqrt(effects.variance)),
        seed_df=effects.df,
        paired=effects.paired,
        n_documents=effects.n_documents,
        optimism=optimism,
        warnings=(),
        runs=runs,
    )
    return replace(comparison, warnings=(*warnings, *_warnings(comparison, effects, list(names))))


def _apart(cells: pd.DataFrame) -> pd.DataFrame:
    """The methods that are not comparable, from cells with a `reason`."""
    cells = cells if "leak" in cells else cells.assign(leak=np.nan)
    columns = {"reason": "first", "seed": "nunique", "loss_val": "mean", "leak": "mean"}
    return cells.groupby("method").agg(columns).reset_index().rename(columns={"seed": "seeds", "loss_val": "loss"})


def _failures(cells: pd.DataFrame) -> pd.DataFrame:
    """The methods of failed cells: their statuses, the first error, the number of cells."""
    columns: dict[str, Any] = {"status": lambda values: listed(sorted(set(values))), "error": "first", "run_id": "size"}
    return cells.groupby("method").agg(columns).reset_index().rename(columns={"run_id": "cells"})


def _ranking(
    means: pd.DataFrame, effects: Effects, reference: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, float]:
    """Differences to the reference with intervals, and ranks and groups from all pairs; `optimism`."""
    count, order = len(means), np.argsort(effects.mean, kind="stable")
    rows = means.assign(
        difference=effects.differences[:, reference],
        se=effects.errors[:, reference],
        own_sd=np.sqrt(effects.own) if effects.df else np.nan,
        **{f"{cost}_ratio": means[cost] / means[cost].iloc[reference] for cost in COSTS},
    ).drop(columns=list(COSTS))
    if not effects.df:
        rows = rows.assign(**dict.fromkeys(_INTERVALS, np.nan), group="")
        return rows.iloc[order].reset_index(drop=True), float("nan")
    others = np.setdiff1d(np.arange(count), [reference])
    # Choosing the reference by its loss compares all pairs.
    chosen = means["n_experts"].iloc[reference] != 1
    pairs = np.triu_indices(count, 1) if chosen else (others, np.full(count - 1, reference))
    half = effects.critical(pairs, rng) * rows["se"]
    low, high = (ends[:, reference] for ends in effects.intervals())
    significant, (best, optimism) = effects.significant(rng), effects.winners(rng)
    worse = significant & (effects.differences > 0)
    rows = rows.assign(
        df=effects.degrees[:, reference],
        low=low,
        high=high,
        low_all=rows["difference"] - half,
        high_all=rows["difference"] + half,
        best=best,
        rank_low=1 + worse.sum(axis=1),
        rank_high=count - worse.sum(axis=0),
    )
    rows = rows.iloc[order].reset_index(drop=True)
    return rows.assign(group=contrasts.groups(significant[np.ix_(order, order)])), optimism


def _reference(means: pd.DataFrame, effects: Effects) -> int:
    """The dense model, of several the nearest to the routed ones in FLOPs per token; without any, the best method."""
    dense = means["n_experts"] == 1
    if not dense.any():
        return int(effects.mean.argmin())
    cost = means["decode_flops_per_token"]
    typical = cost[~dense].median() if (~dense).any() else cost.median()
    return int(np.flatnonzero(dense)[(cost[dense] - typical).abs().fillna(np.inf).argmin()])


def _not_comparable(row: pd.Series) -> str:
    """Why a run is not a language model that can decode token by token; empty where it is one."""
    router = ROUTERS.get(str(row["router"]))
    if row["n_experts"] == 1:
        return ""
    if router is None:
        return "its router is not in the registry, so it may not be causal"
    leaking = pd.notna(row.get("leak")) or configuration_parts(row["config"]).get("model", {}).get("leak_study")
    if router.causal and not leaking:
        return ""
    when = "in training " if row.get("leak") == 0 else ""  # BASE balances assignments in training only
    return f"{when}an output depends on later tokens (arXiv {router.source})"


def _documents(study: Path, runs: pd.DataFrame) -> tuple[Array, Array, list[str]]:
    """Losses by run and document, and tokens by document; a single column where the evaluations do not pair."""
    single = runs[["loss_val"]].to_numpy(dtype=float, copy=True), np.ones(1)
    parts = []
    for run in runs["run_id"]:
        try:
            parts.append(evaluation(study, run).set_index("document").sort_index())
        except InputError as error:
            return *single, [f"{error}; so intervals exclude document sampling"]
    sizes = parts[0]["n_tokens"]
    if len(sizes) < 2 or not all(part["n_tokens"].equals(sizes) for part in parts):
        return *single, ["runs were evaluated on different documents, so intervals exclude document sampling"]
    losses = np.stack([part["loss"].to_numpy(dtype=float, copy=True) for part in parts])
    return losses, sizes.to_numpy(dtype=float, copy=True), []


def _warnings(comparison: MethodComparison, effects: Effects, names: Sequence[str]) -> list[str]:
    """Limitations of the comparison."""
    rows, runs, reference = comparison.rows, comparison.runs, comparison.reference
    texts = _noise_warnings(comparison, effects, names)
    texts += [
        f"not at equal FLOPs: {row['method']} takes {row['train_flops_ratio']:.2f} times the training FLOPs and "
        f"{row['decode_flops_per_token_ratio']:.2f} times the decoding FLOPs of {reference}"
        for row in comparison.unequal.to_dict("records")
    ]
    if memory := _memory(runs):
        texts.append(f"not at equal memory, relative to the median routed method: {listed(memory)}")
    if survived := [name for name in comparison.failed["method"] if name in set(rows["method"])]:
        texts.append(f"some cells of {listed(survived)} failed: its mean over the others is optimistic")
    if not (rows["n_experts"] == 1).any():
        texts.append(
            f"no dense model is comparable: differences are to {reference}, chosen for its lowest loss, which is "
            "optimistic; only the simultaneous intervals are valid"
        )
    if "code_version" in runs and len(runs["code_version"].unique()) > 1:
        texts.append("the runs were made with different versions of the code")
    return texts


def _noise_warnings(comparison: MethodComparison, effects: Effects, names: Sequence[str]) -> list[str]:
    """Limitations of the estimate of noise between seeds."""
    if not comparison.ranked:
        return ["no method has a second seed: without run-to-run noise there are no intervals and no ranks"]
    texts = []
    single = comparison.rows.loc[comparison.rows["seeds"] == 1, "method"]
    if len(single):
        texts.append(f"only one seed: {listed(single)}; the interval uses the noise of the other methods")
    if not comparison.paired:
        texts.append("too few seeds in common to pair methods by seed; runs are compared as independent")
    if noisy := [names[index] for index in contrasts.noisier(effects)]:
        texts.append(
            f"noisier between seeds than the others: {listed(noisy)}; with pooled noise its interval is too narrow and "
            "the others are too wide"
        )
    return texts


def _memory(runs: pd.DataFrame) -> list[str]:
    """Routed methods with more or fewer parameters than their median, and the ratio."""
    if "n_total" not in runs or runs["n_total"].isna().all():
        return []
    routed = runs[runs["n_experts"] > 1].groupby("method")["n_total"].mean()
    ratio = routed / routed.median()
    unlike = ratio[(ratio - 1).abs() > MEMORY_TOLERANCE].sort_values()
    return [f"{name} has {times:.2f} times as many parameters" for name, times in unlike.items()]
