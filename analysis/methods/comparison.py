"""Methods compared: (router, experts, settings) at equal data, tokens and width, with intervals that carry seeds and
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
from analysis.methods.labels import configuration_parts, method_labels
from analysis.tables.runs import read_runs
from analysis.tables.study import evaluation, table_rows
from scaling.arrays import Array
from scaling.config.registry import ROUTERS
from scaling.errors import InputError
from scaling.formatting import listed

MEMORY_TOLERANCE = 0.1
FLOPS_TOLERANCE = 0.03
COSTS = ("train_flops", "decode_flops_per_token")
# Cells are comparable where these agree, and the settings of the data: all that is neither method nor seed.
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

    `rows`, one a method that may be ranked: `method` (its label), `configuration`, `router`, `experts`, `n_experts`,
    `top_k`, `n_active`, `seeds` (how many), `loss` (mean over them), `difference` to `reference` adjusted for seeds,
    its standard error `se` with `df` degrees of freedom, `low` and `high` (95 %, this difference alone), `low_all` and
    `high_all` (95 %, the differences of all methods together), `own_sd` (between its own seeds), `rank_low`,
    `rank_high` (95 %, all together), `best` (share of draws in which its loss is least), `group` (letters;
    methods that share one do not differ significantly), and FLOPs over the reference's, `train_flops_ratio` and
    `decode_flops_per_token_ratio`. All errors are NaN where no seed was repeated: then nothing is ranked.

    `apart`: methods that are not comparable, with `reason`, `loss` and `leak`. `failed`: `method`, `status`, `error`,
    `cells`. `seed_sd`: run-to-run, pooled with `seed_df` degrees of freedom. `n_documents` is 0 where document sampling
    is in no interval. `optimism`: by how much choosing the best of them flatters its loss. `runs`: the rows behind it
    all.
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
        """Whether run-to-run noise is known, without which no order is more than the order of these runs."""
        return self.seed_df > 0

    @property
    def leaders(self) -> tuple[str, ...]:
        """The methods that may have the least loss: rank 1 is in their interval. All where nothing is ranked."""
        return tuple(self.rows.loc[self.rows["rank_low"].eq(1) | (not self.ranked), "method"])

    @property
    def unequal(self) -> pd.DataFrame:
        """Methods whose FLOPs of training or decoding differ from the reference's by more than 3 %."""
        ratios = self.rows[[f"{cost}_ratio" for cost in COSTS]]
        return self.rows[((ratios - 1).abs() > FLOPS_TOLERANCE).any(axis=1)]


def compare_methods(study: str | Path, rng: np.random.Generator) -> tuple[MethodComparison, ...]:
    """The comparisons of a study folder, one a class of comparable cells with at least two methods, the largest first.

    Differences: `analysis.methods.contrasts`. Raises InputError where the folder has no usable runs, a column is
    missing, or no two methods are comparable.
    """
    path = Path(study)
    finished, cells = read_runs(path).frame, table_rows(path, "runs")
    missing = [name for name in _NEEDED if name not in finished or finished[name].isna().all()]
    if missing:
        raise InputError(f"{study}: to compare methods the runs need {', '.join(missing)}")
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
        raise InputError(f"{study}: needs two causal methods of one size, trained on the same tokens, to compare")
    return tuple(sorted(comparisons, key=lambda c: (c.cell["tokens"], c.cell["d_model"], len(c.rows)), reverse=True))


def _compared(study: Path, cells: pd.DataFrame, rng: np.random.Generator) -> MethodComparison | None:
    """The methods of one class of cells; None where fewer than two may be ranked."""
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
    """The methods that are not comparable, with the reason of each cell in `reason`."""
    cells = cells if "leak" in cells else cells.assign(leak=np.nan)
    columns = {"reason": "first", "seed": "nunique", "loss_val": "mean", "leak": "mean"}
    return cells.groupby("method").agg(columns).reset_index().rename(columns={"seed": "seeds", "loss_val": "loss"})


def _failures(cells: pd.DataFrame) -> pd.DataFrame:
    """The methods of failed cells: every status there is, the first error, how many cells."""
    columns: dict[str, Any] = {"status": lambda values: listed(sorted(set(values))), "error": "first", "run_id": "size"}
    return cells.groupby("method").agg(columns).reset_index().rename(columns={"run_id": "cells"})


def _ranking(
    means: pd.DataFrame, effects: Effects, reference: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, float]:
    """Differences to the reference, intervals, and the ranks and groups that all pairs leave open; `optimism`."""
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
    # A reference that was chosen for its loss was compared with all others in the choosing.
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
    """The dense model; of several, the nearest to the routed ones in FLOPs of a token; without any, the best method."""
    dense = means["n_experts"] == 1
    if not dense.any():
        return int(effects.mean.argmin())
    cost = means["decode_flops_per_token"]
    typical = cost[~dense].median() if (~dense).any() else cost.median()
    return int(np.nanargmin((cost - typical).abs().where(dense)))


def _not_comparable(row: pd.Series) -> str:
    """Why a run's loss is not that of a language model that can be served token by token; empty where it is."""
    router = ROUTERS.get(str(row["router"]))
    if row["n_experts"] == 1:
        return ""
    if router is None:
        return "a router that is not in the registry, so whether it is causal is not known"
    leaking = pd.notna(row.get("leak")) or configuration_parts(row["config"]).get("model", {}).get("leak_study")
    if router.causal and not leaking:
        return ""
    when = "in training " if row.get("leak") == 0 else ""  # BASE assigns in training alone
    return f"{when}an output depends on later tokens (arXiv {router.source})"


def _documents(study: Path, runs: pd.DataFrame) -> tuple[Array, Array, list[str]]:
    """Losses by run and document, and the documents' tokens; a single column where the evaluations do not pair."""
    single = runs[["loss_val"]].to_numpy(dtype=float, copy=True), np.ones(1)
    parts = []
    for run in runs["run_id"]:
        try:
            parts.append(evaluation(study, run).set_index("document").sort_index())
        except InputError:
            return *single, [f"run {run} has no evaluation by document, so document sampling is in no interval"]
    sizes = parts[0]["n_tokens"]
    if len(sizes) < 2 or not all(part["n_tokens"].equals(sizes) for part in parts):
        return *single, ["runs were evaluated on different documents, so document sampling is in no interval"]
    losses = np.stack([part["loss"].to_numpy(dtype=float, copy=True) for part in parts])
    return losses, sizes.to_numpy(dtype=float, copy=True), []


def _warnings(comparison: MethodComparison, effects: Effects, names: Sequence[str]) -> list[str]:
    """What a reader must know before the table is believed."""
    rows, runs, reference = comparison.rows, comparison.runs, comparison.reference
    texts = _noise_warnings(comparison, effects, names)
    texts += [
        f"not at equal FLOPs: {row['method']} takes {row['train_flops_ratio']:.2f} times those of {reference} to "
        f"train, and {row['decode_flops_per_token_ratio']:.2f} times to decode a token"
        for row in comparison.unequal.to_dict("records")
    ]
    if memory := _memory(runs):
        texts.append(f"not of equal memory, compared with most routed methods here: {listed(memory)}")
    if survived := [name for name in comparison.failed["method"] if name in set(rows["method"])]:
        texts.append(f"some cells of {listed(survived)} failed: the mean of those that did not flatters it")
    if not (rows["n_experts"] == 1).any():
        texts.append(
            f"there is no dense model of this class: differences are to {reference}, chosen for its low loss, which "
            "flatters it; only the intervals of all methods together hold"
        )
    if "code_version" in runs and len(runs["code_version"].unique()) > 1:
        texts.append("the runs were made by different versions of the code")
    return texts


def _noise_warnings(comparison: MethodComparison, effects: Effects, names: Sequence[str]) -> list[str]:
    """What limits the estimate of the noise between seeds."""
    if not comparison.ranked:
        return ["no method has a second seed: run-to-run noise is not known, so nothing is ranked or has an interval"]
    texts = []
    single = comparison.rows.loc[comparison.rows["seeds"] == 1, "method"]
    if len(single):
        texts.append(f"one seed alone: {listed(single)}; the interval rests on the noise of the other methods")
    if not comparison.paired:
        texts.append("methods share too few seeds to be paired by seed; they are compared as independent runs")
    if noisy := [names[index] for index in contrasts.noisier(effects)]:
        texts.append(
            f"noisier than the others between its seeds: {listed(noisy)}; noise is pooled, so that interval is too "
            "narrow and those of the others are too wide"
        )
    return texts


def _memory(runs: pd.DataFrame) -> list[str]:
    """Routed methods that hold more or fewer parameters than the median of them, and how many times as many."""
    if "n_total" not in runs or runs["n_total"].isna().all():
        return []
    routed = runs[runs["n_experts"] > 1].groupby("method")["n_total"].mean()
    ratio = routed / routed.median()
    unlike = ratio[(ratio - 1).abs() > MEMORY_TOLERANCE].sort_values()
    return [f"{name} has {times:.2f} times as many parameters" for name, times in unlike.items()]
