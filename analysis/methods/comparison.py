"""Methods compared: (router, experts, settings) at equal data, tokens and width, with intervals that carry seeds and
documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.methods import contrasts
from analysis.methods.contrasts import Effects
from analysis.methods.labels import configuration_parts, method_labels
from analysis.tables import runs
from analysis.tables import study as study_module
from scaling.arrays import Array
from scaling.config.registry import ROUTERS
from scaling.errors import InputError

MEMORY_TOLERANCE = 0.1
FLOPS_TOLERANCE = 0.03
COSTS = ("train_flops", "decode_flops_per_token")
# Cells are comparable where these agree, and the settings of the data: all that is neither method nor seed.
_CLASS = [
    "task", "corpus", "corpus_hash", "tokens", "d_model", "n_layers", "n_heads", "vocab_size", "batch_tokens", "seq_len",
]  # fmt: skip
_NEEDED = ("run_id", "configuration", "config", "seed", "router", "experts", "n_experts", "top_k", *_CLASS, *COSTS)


@dataclass(frozen=True)
class MethodComparison:
    """The methods of one class of comparable cells, ordered by loss.

    `rows`, one a method that may be ranked: `method` (its label), `configuration`, `router`, `experts`, `n_experts`,
    `top_k`, `n_active`, `seeds` (how many), `loss` (mean over them), `difference` to `reference` adjusted for seeds,
    its standard error `se` with `df` degrees of freedom, `low` and `high` (95 %, this difference alone), `low_all` and
    `high_all` (95 %, the differences of all methods together), `own_sd` (between its own seeds), `rank_low`,
    `rank_high` (95 %, all together), `best` (share of draws in which its loss is least), `group` (letters; who shares
    one cannot be told apart), and FLOPs over the reference's, `train_flops_ratio` and `decode_flops_per_token_ratio`.
    All errors are NaN where no seed was repeated: then nothing is ranked.

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
        """The methods that may have the least loss: rank 1 is in their interval. All of them where nothing is
        ranked."""
        shown = self.rows[self.rows["rank_low"] == 1] if self.ranked else self.rows
        return tuple(shown["method"])

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
    frame, everything = runs.read_runs(path).frame, study_module.rows(path, "runs")
    missing = [name for name in _NEEDED if name not in frame or frame[name].isna().all()]
    if missing:
        raise InputError(f"{study}: to compare methods the runs need {', '.join(missing)}")
    failed = everything[everything["status"] != "ok"] if "status" in everything else everything.iloc[:0]
    both = pd.concat([frame.assign(status="ok"), failed], ignore_index=True)
    both = both.assign(
        data=both["config"].map(lambda text: json.dumps(configuration_parts(text).get("data"), sort_keys=True))
    )
    found = []
    for _, cells in both.groupby([*_CLASS, "data"], dropna=False, sort=True):
        if len(cells["configuration"].unique()) > 1 and cells["status"].eq("ok").any():
            made = _compared(path, cells.reset_index(drop=True), rng)
            found += [made] if made is not None else []
    if not found:
        raise InputError(
            f"{study}: no two causal methods of one size, trained on the same tokens, are there to compare"
        )
    return tuple(sorted(found, key=lambda one: (one.cell["tokens"], one.cell["d_model"], len(one.rows)), reverse=True))


def _compared(study: Path, cells: pd.DataFrame, rng: np.random.Generator) -> MethodComparison | None:
    cells = cells.assign(method=cells["configuration"].map(method_labels(cells)))
    fine, failed = cells[cells["status"] == "ok"], cells[cells["status"] != "ok"]
    reasons = fine.apply(_not_comparable, axis=1)
    kept = fine[reasons == ""].sort_values(["configuration", "seed"]).reset_index(drop=True)
    if kept["configuration"].nunique() < 2:
        return None
    losses, sizes, warnings = _documents(study, kept)
    method, names = pd.factorize(kept["method"])
    seed = pd.factorize(kept["seed"])[0]
    effects = contrasts.estimate(losses, sizes, method, seed)
    means = kept.groupby("method").agg(
        configuration=("configuration", "first"), router=("router", "first"), experts=("experts", "first"),
        n_experts=("n_experts", "first"), top_k=("top_k", "first"), n_active=("n_active", "mean"),
        seeds=("seed", "nunique"), loss=("loss_val", "mean"), **{cost: (cost, "mean") for cost in COSTS},
    ).loc[list(names)].reset_index()  # fmt: skip
    reference = _reference(means, effects)
    rows, optimism = _estimated(means, effects, reference, rng)
    told = failed.groupby("method").agg(
        status=("status", lambda each: ", ".join(sorted(set(each)))), error=("error", "first"), cells=("run_id", "size")
    )
    leaking = fine[reasons != ""].assign(reason=reasons[reasons != ""])
    made = MethodComparison(
        cell={name: _plain(kept[name].iloc[0]) for name in _CLASS},
        reference=str(means["method"].iloc[reference]),
        rows=rows,
        apart=leaking.groupby("method").agg(
            reason=("reason", "first"), seeds=("seed", "nunique"), loss=("loss_val", "mean"),
            leak=("leak", "mean") if "leak" in leaking else ("loss_val", lambda each: float("nan")),
        ).reset_index(),
        failed=told.reset_index(),
        seed_sd=float(np.sqrt(effects.variance)),
        seed_df=effects.df,
        paired=effects.paired,
        n_documents=effects.n_documents,
        optimism=optimism,
        warnings=(),
        runs=kept,
    )  # fmt: skip
    return replace(made, warnings=(*warnings, *_warnings(made, effects, list(names))))


def _estimated(
    means: pd.DataFrame, effects: Effects, reference: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, float]:
    """Differences to the reference, intervals, and the ranks and groups that all pairs together leave open;
    `optimism`."""
    count, order = len(means), np.argsort(effects.mean, kind="stable")
    rows = means.assign(
        difference=effects.differences[:, reference],
        se=effects.errors[:, reference],
        own_sd=np.sqrt(effects.own) if effects.df else np.nan,
        **{f"{cost}_ratio": means[cost] / means[cost].iloc[reference] for cost in COSTS},
    ).drop(columns=list(COSTS))
    if not effects.df:
        unknown = dict.fromkeys(("df", "low", "high", "low_all", "high_all", "best", "rank_low", "rank_high"), np.nan)
        return rows.assign(**unknown, group="").iloc[order].reset_index(drop=True), float("nan")
    others = np.setdiff1d(np.arange(count), [reference])
    # A reference that was chosen for its loss was compared with all others in the choosing.
    chosen = means["n_experts"].iloc[reference] != 1
    pairs = np.triu_indices(count, 1) if chosen else (others, np.full(count - 1, reference))
    half = effects.critical(pairs, rng) * rows["se"]
    low, high = (ends[:, reference] for ends in effects.intervals())
    apart, (best, optimism) = effects.apart(rng), effects.winners(rng)
    worse = apart & (effects.differences > 0)
    rows = rows.assign(
        df=np.where(np.arange(count) == reference, np.nan, effects.degrees[:, reference]), low=low, high=high,
        low_all=rows["difference"] - half, high_all=rows["difference"] + half, best=best,
        rank_low=1 + worse.sum(axis=1), rank_high=count - worse.sum(axis=0),
    ).iloc[order].reset_index(drop=True)  # fmt: skip
    return rows.assign(group=contrasts.groups(apart[np.ix_(order, order)])), optimism


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
    if (
        not router.causal
        or pd.notna(row.get("leak"))
        or configuration_parts(row["config"]).get("model", {}).get("leak_study")
    ):
        when = "in training " if row.get("leak") == 0 else ""  # BASE assigns in training alone
        return f"{when}an output depends on later tokens (arXiv {router.source})"
    return ""


def _documents(study: Path, kept: pd.DataFrame) -> tuple[Array, Array, list[str]]:
    """Losses by run and document, and the documents' tokens; a single column where the evaluations do not pair."""
    alone = kept[["loss_val"]].to_numpy(dtype=float, copy=True), np.ones(1)
    parts = []
    for run in kept["run_id"]:
        try:
            parts.append(study_module.evaluation(study, run).set_index("document").sort_index())
        except InputError:
            return *alone, [f"run {run} has no evaluation by document, so document sampling is in no interval"]
    first = parts[0]
    if len(first) < 2 or any(
        not one.index.equals(first.index) or not one["n_tokens"].equals(first["n_tokens"]) for one in parts
    ):
        return *alone, ["runs were evaluated on different documents, so document sampling is in no interval"]
    losses = np.stack([one["loss"].to_numpy(dtype=float, copy=True) for one in parts])
    return losses, first["n_tokens"].to_numpy(dtype=float, copy=True), []


def _warnings(made: MethodComparison, effects: Effects, names: list[str]) -> list[str]:
    """What a reader must know before the table is believed."""
    rows, told = made.rows, []
    if not made.ranked:
        told.append(
            "no method has a second seed: run-to-run noise is not known, so nothing is ranked and nothing has an "
            "interval"
        )
    single = rows.loc[rows["seeds"] == 1, "method"]
    if made.ranked and len(single):
        told.append(f"one seed alone: {_named(single)}; the interval rests on the noise of the other methods")
    if made.ranked and not made.paired:
        told.append("methods share too few seeds to be paired by seed; they are compared as independent runs")
    noisy = [names[index] for index in contrasts.noisier(effects)] if made.ranked else []
    if noisy:
        told.append(
            f"noisier than the others between its seeds: {_named(noisy)}; noise is pooled, so that interval is too "
            "narrow and those of the others are too wide"
        )
    for _, row in made.unequal.iterrows():
        train, decode = (row[f"{cost}_ratio"] for cost in COSTS)
        told.append(
            f"not at equal FLOPs: {row['method']} takes {train:.2f} times those of {made.reference} to train, and "
            f"{decode:.2f} times to decode a token"
        )
    if len(held := _memory(made)):
        told.append(f"not of equal memory, next to most routed methods here: {', '.join(held)}")
    survived = [name for name in made.failed["method"] if name in set(rows["method"])]
    if survived:
        told.append(
            f"some cells of {_named(survived)} failed: the mean is that of those that did not, which flatters it"
        )
    if not (rows["n_experts"] == 1).any():
        told.append(
            f"there is no dense model of this class: differences are to {made.reference}, chosen for its low loss, "
            "which flatters it; only the intervals of all methods together hold"
        )
    if "code_version" in made.runs and len(made.runs["code_version"].unique()) > 1:
        told.append("the runs were made by different versions of the code")
    return told


def _memory(made: MethodComparison) -> list[str]:
    """Routed methods that hold more or fewer parameters than the median of them, and how many times as many."""
    if "n_total" not in made.runs or made.runs["n_total"].isna().all():
        return []
    routed = made.runs[made.runs["n_experts"] > 1].groupby("method")["n_total"].mean()
    ratio = routed / routed.median()
    unlike = ratio[(ratio - 1).abs() > MEMORY_TOLERANCE].sort_values()
    return [f"{name} has {times:.2f} times as many parameters" for name, times in unlike.items()]


def _named(names: Any) -> str:
    return ", ".join(str(name) for name in names)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
