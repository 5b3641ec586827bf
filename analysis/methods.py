"""Methods compared: (router, experts, settings) at equal data, tokens and width, with intervals that carry seeds and documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import contrasts, runs
from analysis.contrasts import Effects
from scaling.config import ModelConfig
from scaling.errors import InputError
from scaling.methods import ROUTERS
from scaling.schema import CHANCES

MEMORY_TOLERANCE = 0.1
FLOPS_TOLERANCE = 0.03
COSTS = ("train_flops", "decode_flops_per_token")
METRICS = (
    "load_cv", "max_load", "utilisation", "router_entropy", "experts_per_token", "gate_sum", "dropped_frac", "distinct_1",
    "distinct_8", "distinct_64", "saturation_5", "saturation_50", "change_rate", "specialisation",
)  # fmt: skip
# Cells are comparable where these agree, and the settings of the data: all that is neither method nor seed.
_CLASS = [
    "task", "corpus", "corpus_hash", "tokens", "d_model", "n_layers", "n_heads", "vocab_size", "batch_tokens", "seq_len",
]  # fmt: skip
_NEEDED = ("run_id", "configuration", "config", "seed", "router", "experts", "n_experts", "top_k", *_CLASS, *COSTS)


@dataclass(frozen=True)
class Comparison:
    """The methods of one class of comparable cells, ordered by loss.

    `rows`, one a method that may be ranked: `method` (its label), `configuration`, `router`, `experts`, `n_experts`,
    `top_k`, `n_active`, `seeds` (how many), `loss` (mean over them), `difference` to `reference` adjusted for seeds, its
    standard error `se` with `df` degrees of freedom, `low` and `high` (95 %, this difference alone), `low_all` and
    `high_all` (95 %, the differences of all methods together), `own_sd` (between its own seeds), `rank_low`, `rank_high`
    (95 %, all together), `best` (share of draws in which its loss is least), `group` (letters; who shares one cannot be
    told apart), and FLOPs over the reference's, `train_flops_ratio` and `decode_flops_per_token_ratio`.
    All errors are NaN where no seed was repeated: then nothing is ranked.

    `apart`: methods that are not comparable, with `reason`, `loss` and `leak`. `failed`: `method`, `status`, `error`,
    `cells`. `seed_sd`: run-to-run, pooled with `seed_df` degrees of freedom. `n_documents` is 0 where document sampling is
    in no interval. `optimism`: by how much choosing the best of them flatters its loss. `runs`: the rows behind it all.
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
        """The methods that may have the least loss: rank 1 is in their interval. All of them where nothing is ranked."""
        shown = self.rows[self.rows["rank_low"] == 1] if self.ranked else self.rows
        return tuple(shown["method"])

    @property
    def unequal(self) -> pd.DataFrame:
        """Methods whose FLOPs of training or decoding differ from the reference's by more than 3 %."""
        ratios = self.rows[[f"{cost}_ratio" for cost in COSTS]]
        return self.rows[((ratios - 1).abs() > FLOPS_TOLERANCE).any(axis=1)]


def compare(study: str | Path, rng: np.random.Generator) -> tuple[Comparison, ...]:
    """The comparisons of a study folder, one a class of comparable cells with at least two methods, the largest first.

    Differences: `analysis.contrasts`. Raises InputError where the folder has no usable runs, a column is missing, or no
    two methods are comparable.
    """
    path = Path(study)
    frame, everything = runs.read(path).frame, runs.rows(path, "runs")
    missing = [name for name in _NEEDED if name not in frame or frame[name].isna().all()]
    if missing:
        raise InputError(f"{study}: to compare methods the runs need {', '.join(missing)}")
    failed = everything[everything["status"] != "ok"] if "status" in everything else everything.iloc[:0]
    both = pd.concat([frame.assign(status="ok"), failed], ignore_index=True)
    both = both.assign(data=both["config"].map(lambda text: json.dumps(_parts(text).get("data"), sort_keys=True)))
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


def _compared(study: Path, cells: pd.DataFrame, rng: np.random.Generator) -> Comparison | None:
    cells = cells.assign(method=cells["configuration"].map(labels(cells)))
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
    made = Comparison(
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
    """Differences to the reference, intervals, and the ranks and groups that all pairs together leave open; `optimism`."""
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
    if not router.causal or pd.notna(row.get("leak")) or _parts(row["config"]).get("model", {}).get("leak_study"):
        when = "in training " if row.get("leak") == 0 else ""  # BASE assigns in training alone
        return f"{when}an output depends on later tokens (arXiv {router.source})"
    return ""


def _documents(study: Path, kept: pd.DataFrame) -> tuple[contrasts.Array, contrasts.Array, list[str]]:
    """Losses by run and document, and the documents' tokens; a single column where the evaluations do not pair."""
    alone = kept[["loss_val"]].to_numpy(dtype=float, copy=True), np.ones(1)
    parts = []
    for run in kept["run_id"]:
        try:
            parts.append(runs.evaluation(study, run).set_index("document").sort_index())
        except InputError:
            return *alone, [f"run {run} has no evaluation by document, so document sampling is in no interval"]
    first = parts[0]
    if len(first) < 2 or any(
        not one.index.equals(first.index) or not one["n_tokens"].equals(first["n_tokens"]) for one in parts
    ):
        return *alone, ["runs were evaluated on different documents, so document sampling is in no interval"]
    losses = np.stack([one["loss"].to_numpy(dtype=float, copy=True) for one in parts])
    return losses, first["n_tokens"].to_numpy(dtype=float, copy=True), []


def _warnings(made: Comparison, effects: Effects, names: list[str]) -> list[str]:
    """What a reader must know before the table is believed."""
    rows, told = made.rows, []
    if not made.ranked:
        told.append(
            "no method has a second seed: run-to-run noise is not known, so nothing is ranked and nothing has an interval"
        )
    single = rows.loc[rows["seeds"] == 1, "method"]
    if made.ranked and len(single):
        told.append(f"one seed alone: {_named(single)}; the interval rests on the noise of the other methods")
    if made.ranked and not made.paired:
        told.append("methods share too few seeds to be paired by seed; they are compared as independent runs")
    noisy = [names[index] for index in contrasts.noisier(effects)] if made.ranked else []
    if noisy:
        told.append(
            f"noisier than the others between its seeds: {_named(noisy)}; noise is pooled, so that interval is too narrow "
            "and those of the others are too wide"
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
            f"there is no dense model of this class: differences are to {made.reference}, chosen for its low loss, which "
            "flatters it; only the intervals of all methods together hold"
        )
    if "code_version" in made.runs and len(made.runs["code_version"].unique()) > 1:
        told.append("the runs were made by different versions of the code")
    return told


def _memory(made: Comparison) -> list[str]:
    """Routed methods that hold more or fewer parameters than the median of them, and how many times as many."""
    if "n_total" not in made.runs or made.runs["n_total"].isna().all():
        return []
    routed = made.runs[made.runs["n_experts"] > 1].groupby("method")["n_total"].mean()
    ratio = routed / routed.median()
    unlike = ratio[(ratio - 1).abs() > MEMORY_TOLERANCE].sort_values()
    return [f"{name} has {times:.2f} times as many parameters" for name, times in unlike.items()]


def labels(cells: pd.DataFrame) -> dict[str, str]:
    """A short name for each configuration: `router`, `+ experts` where they are not plain MLPs, and in brackets the
    settings in which methods of one pair differ, where they are not the default."""
    firsts = cells.drop_duplicates("configuration")
    dense = firsts["n_experts"] == 1
    names = firsts["router"] + firsts["experts"].map(lambda name: "" if name == "mlp" else f" + {name}")
    firsts = firsts.assign(name=names.where(~dense, "dense"))
    found: dict[str, str] = {}
    for name, pair in firsts.groupby("name", sort=False):
        settings = {row["configuration"]: _flat(row["config"]) for _, row in pair.iterrows()}
        told = {key: _shown(settings[key], fields) for fields in [_telling(settings)] for key in settings}
        for key, shown in told.items():
            # Two that differ in nothing that can be shown are told apart by their hash.
            extra = [key] if list(told.values()).count(shown) > 1 else []
            inside = ", ".join([*shown, *extra])
            found[key] = f"{name} ({inside})" if inside else str(name)
    return found


def _telling(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """As few fields as tell these configurations apart, the first in the order of the configuration."""
    names = list(dict.fromkeys(name for each in settings.values() for name in each))
    chosen: list[str] = []
    parted = 1
    for name in names:
        split = len({tuple(str(each.get(field)) for field in (*chosen, name)) for each in settings.values()})
        if split > parted:
            chosen, parted = [*chosen, name], split
    return chosen


def _shown(settings: Mapping[str, Any], fields: list[str]) -> list[str]:
    """Field and value where it is not what a grid that says nothing gets."""
    router = ROUTERS.get(str(settings.get("router")))
    usual = {name: field.default for name, field in ModelConfig.model_fields.items()}
    usual |= dict(router.defaults) if router else {}
    size = ("n_experts", "top_k", "d_expert", "d_mlp")  # always shown: it has no usual value
    given = ((name, settings[name]) for name in fields if name in settings)
    return [f"{name} {_text(value)}" for name, value in given if name in size or value != usual.get(name)]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flat(config: object) -> dict[str, Any]:
    """Settings of model and training; what names the method or tells sizes apart comes first."""
    parts = _parts(config)
    settings = {**parts.get("model", {}), **parts.get("train", {})}
    first = [name for name in ("n_experts", "top_k", "bias_rate", "balance_coef", "renormalise") if name in settings]
    return {name: settings[name] for name in [*first, *sorted(set(settings) - set(first))]}


def _parts(config: object) -> dict[str, Any]:
    return dict(json.loads(config)) if isinstance(config, str) and config else {}


def _named(names: Any) -> str:
    return ", ".join(str(name) for name in names)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def router_metrics(made: Comparison) -> pd.DataFrame:
    """What the routers did, beside chance: `method`, `metric`, `value` (mean over seeds), `least`, `most`, `chance`.

    `chance` is the same metric of independent uniform choices of as many experts, NaN where it is not defined.
    """
    found = []
    for metric in (name for name in METRICS if name in made.runs):
        by_chance = f"{metric.removesuffix('_50').removesuffix('_5')}_chance"
        known = by_chance in CHANCES and by_chance in made.runs
        for method, mine in made.runs.dropna(subset=[metric]).groupby("method"):
            each, chance = mine[metric], float(mine[by_chance].mean()) if known else float("nan")
            found.append((method, metric, float(each.mean()), float(each.min()), float(each.max()), chance))
    return pd.DataFrame(found, columns=["method", "metric", "value", "least", "most", "chance"])


def decode_times(study: str | Path, made: Comparison) -> pd.DataFrame:
    """Measured decode steps: `method`, `batch`, `context`, `time_ms`, `time_q25_ms`, `time_q75_ms`, and `times`, over the
    reference's at the same batch. At the longest context; medians over the seeds' measurements; empty without any."""
    rows = runs.rows(Path(study), "latency")
    columns = ["method", "batch", "context", "time_ms", "time_q25_ms", "time_q75_ms"]
    if rows.empty:
        return pd.DataFrame(columns=[*columns, "times"])
    rows = rows[rows["phase"] == "decode"].merge(made.runs[["run_id", "method"]], on="run_id")
    rows = rows[rows["context"] == rows["context"].max()]
    found = rows.groupby(["method", "batch", "context"], as_index=False)[columns[3:]].median()
    base = found[found["method"] == made.reference].set_index("batch")["time_ms"]
    return found.assign(times=found["time_ms"] / found["batch"].map(base))


def saturation(study: str | Path, made: Comparison) -> pd.DataFrame:
    """Share of the final experts that tokens had chosen already: `method`, `tokens`, `saturation`, `chance`; means over seeds.

    The last probe is the final routing itself, so every curve ends at 1.
    """
    columns = ["method", "tokens", "saturation", "chance"]
    curves = []
    for _, run in made.runs.iterrows():
        curve = runs.curve(Path(study), str(run["run_id"]))
        if {"saturation", "saturation_chance"} <= set(curve.columns):
            curves.append(curve.dropna(subset=["saturation"]).assign(method=run["method"]))
    if not curves:
        return pd.DataFrame(columns=columns)
    both = pd.concat(curves).rename(columns={"saturation_chance": "chance"})
    return both.groupby(["method", "tokens"], as_index=False)[["saturation", "chance"]].mean()[columns]


def document(study: str | Path, made: Comparison) -> dict[str, Any]:
    """The comparison as plain values for JSON, with router metrics and decode times; what is not known is null."""
    tables = {
        "methods": made.rows, "not_comparable": made.apart, "failed": made.failed, "router_metrics": router_metrics(made),
        "decode_times": decode_times(study, made),
    }  # fmt: skip
    numbers = {"seed_sd": made.seed_sd, "optimism": made.optimism}
    return {
        "cell": dict(made.cell),
        "reference": made.reference,
        "leaders": list(made.leaders),
        "ranked": made.ranked,
        "seed_df": made.seed_df,
        "paired": made.paired,
        "n_documents": made.n_documents,
        "warnings": list(made.warnings),
        **{name: None if np.isnan(value) else value for name, value in numbers.items()},
        # pandas writes NaN as null and NumPy's numbers as numbers
        **{name: json.loads(table.to_json(orient="records", double_precision=12)) for name, table in tables.items()},
    }
