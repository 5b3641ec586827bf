"""Recalibration: what a few small runs make of a published law, against that law and against a fit from scratch.

    python -m benchmarks.recalibration [TRUTH ...] [--runs 5] [--studies 100] [--json]
    python -m benchmarks.recalibration public [--json]

Every study has a truth, a scale of the loss drawn between that of a vocabulary of 50k and that of bytes (a factor of
4.5), noise of .4 to 1 % a run, and runs of 3e7 to 3e8 parameters at 5 to 80 tokens per parameter, random but for their
corners. Truths are `perturbed`, the published law moved by the covariance of papers as it is found at 1e9 parameters
and 2e10 tokens, and other published fits, each left out of the spread that recalibration knows. Errors are of ln loss
at the truth's own optimum of 10 and of 100 times the largest compute, and of ln N_opt there. Dense runs; `moe` has runs
of E = 1 and 8 of a perturbed joint law, asked at E = 8.

Methods: `printed` is the published law as it is; `offset` has the median ratio of the runs to it; `few` is `fit` with
the exponents of few runs (`analysis.fitting.few_runs`), `scratch` the law without; `recalibrated` this one. `public`
takes five small runs of public tables, many times, and asks about the largest tenth of their compute.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: its threads wait for work by spinning

import numpy as np
import pandas as pd

from analysis.fitting.bootstrap import bootstrap
from analysis.fitting.fit import Fit, fit
from analysis.fitting.published import published
from analysis.fitting.published_spread import FITS, terms
from analysis.fitting.recalibration import recalibrated
from analysis.fitting.roll_out import selected_runs
from analysis.fitting.shrinkage import TERMS, Shrinkage
from analysis.laws import HOFFMANN, JOINT_MOE, Law
from analysis.mixture.roll_outs import compute_of
from analysis.tables.runs import RunTable
from benchmarks.extrapolation import public_tables
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS
from scaling.errors import InputError

START = "joint-moe-2025"
TIMES = (10.0, 100.0)
REFERENCE = 1e9, 2e10  # N and D at which papers are compared
_SCALE = np.log(4.5)
_DRAWS, _STARTS = 400, 16
TRUTHS = {
    "perturbed": (START, START),
    "moe": (START, START),
    "chinchilla-epoch": ("chinchilla-epoch", START),
    "sardana-2024-all": ("sardana-2024-all", START),
    "overtraining-2024": ("overtraining-2024", START),
    "fine-grained-2024": ("fine-grained-2024", START),
    "joint-moe-2025": (START, "chinchilla-epoch"),
}
"""Of each truth the fit that it is, or is moved from, and the fit that the runs recalibrate."""
SMALL = 5
Errors = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Study:
    """A truth as a fit, what its loss is multiplied by, its runs, and where it is asked about."""

    truth: Fit
    scale: float
    table: RunTable
    n_experts: int
    start: Fit
    papers: tuple[str, ...]

    def loss(self, columns: Mapping[str, Array]) -> Array:
        return self.scale * _loss(self.truth, columns)

    def optimum(self, fitted: Fit, train_flops: float) -> float:
        """N_opt of a fit."""
        return float(_optimum(fitted, train_flops, self.n_experts)[0])


def study(name: str, count: int, seed: int) -> Study:
    rng = np.random.default_rng([seed, count])
    of, start = TRUTHS[name]
    experts = (1, 8) if name == "moe" else (1,)
    truth, papers = published(of), tuple(each for each in FITS if each != of)
    if name in ("perturbed", "moe"):
        truth, papers = _perturbed(truth, rng), FITS
    size, tokens = _design(count, rng)
    columns = {"n_active": size, TOKENS: tokens, EXPERTS: np.resize(np.array(experts, dtype=float), count)}
    scale = float(np.exp(-rng.uniform(0.0, _SCALE)))
    noise = rng.uniform(0.004, 0.01) * rng.standard_normal(count)
    frame = pd.DataFrame({**columns, "loss_val": scale * _loss(truth, columns) * np.exp(noise)})
    return Study(truth, scale, RunTable(frame, "simulated"), max(experts), published(start), papers)


def _design(count: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Sizes and tokens: the corners of the range first, then points within; one run is in the middle."""
    corners = np.array([(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0)])
    drawn = np.concatenate([rng.permutation(corners), rng.uniform(size=(max(0, count - 4), 2))])[:count]
    drawn = np.full((1, 2), 0.5) if count == 1 else np.clip(drawn + rng.uniform(-0.1, 0.1, (count, 2)), 0.0, 1.0)
    size = 3e7 * 10.0 ** drawn[:, 0]
    return size, size * 5.0 * 16.0 ** drawn[:, 1]


def _perturbed(start: Fit, rng: np.random.Generator) -> Fit:
    """The law moved by what the published fits differ by at the reference, correlations as they are found."""
    centre = {"n_active": REFERENCE[0], TOKENS: REFERENCE[1], EXPERTS: 1.0}
    shrinkage = Shrinkage.around(start, {name: np.array([value]) for name, value in centre.items()})
    covariance = shrinkage.covariance.copy()
    found = np.array([terms(published(name), *REFERENCE) for name in FITS])
    covariance[TERMS, TERMS] = np.cov(found, rowvar=False)
    covariance[0, 0] = 0.0
    moved = rng.multivariate_normal(np.zeros(len(covariance)), covariance, check_valid="ignore")
    params = {name: float(value[0, 0]) for name, value in shrinkage.parameters(moved[None]).items()}
    return replace(start, params=params)


def _loss(fitted: Fit, columns: Mapping[str, Array]) -> Array:
    """The loss by any law here: fine-grained reads 43 times the active size, at granularity 8."""
    size = columns["n_active"]
    all_of = {**columns, "n_total_nonembed": 43.0 * size, "granularity": np.full(np.shape(size), 8.0)}
    return fitted.loss({name: all_of[name] for name in fitted.definition.columns})


def _optimum(fitted: Fit, train_flops: float, n_experts: int) -> tuple[float, float]:
    if fitted.definition.optimum is not None:
        size, tokens = fitted.definition.optimum(fitted.params, train_flops, n_experts)
        return float(size), float(tokens)
    sizes = np.geomspace(1e6, 1e13, 4001)
    columns = {"n_active": sizes, TOKENS: train_flops / (6.0 * sizes), EXPERTS: np.full(len(sizes), float(n_experts))}
    best = sizes[int(np.argmin(_loss(fitted, columns)))]
    return float(best), float(train_flops / (6.0 * best))


def fits(table: RunTable, start: Fit, papers: Sequence[str], law: Law, seed: int) -> dict[str, Fit]:
    """The fit of each method; some give none."""
    columns = table.columns(start.definition.columns)
    ratio = float(np.median(table.column("loss_val") / start.loss(columns)))
    found = {
        "printed": start,
        "offset": replace(start, params=_scaled(start, ratio), draws={}),
        "recalibrated": recalibrated(table, start, _DRAWS, name="start", seed=seed, papers=papers),
    }
    try:
        scratch = fit(table, law, n_starts=_STARTS, seed=seed)
    except InputError:
        return found
    if scratch.params:
        found["scratch"] = scratch
        few = bootstrap(scratch, table, _DRAWS, np.random.default_rng(seed)) if len(table) < 10 else scratch
        found |= {"few": few} if few.prior is not None else {}
    return found


def _scaled(start: Fit, ratio: float) -> dict[str, float]:
    law = start.definition
    return {n: v * ratio if law.parameter(n).linear == "loss" else v for n, v in start.params.items()}


def errors(study: Study, seed: int) -> Errors:
    """Of each method its errors in ln loss and ln N_opt, and whether its intervals hold."""
    law = JOINT_MOE if study.n_experts > 1 else HOFFMANN
    found: Errors = {}
    largest = float(compute_of(study.table).max())
    for name, fitted in fits(study.table, study.start, study.papers, law, seed).items():
        row = found[name] = {}
        for times in TIMES:
            size, tokens = _optimum(study.truth, times * largest, study.n_experts)
            columns = {"n_active": size, TOKENS: tokens, EXPERTS: float(study.n_experts)}
            at = {column: np.array([value]) for column, value in columns.items()}
            asked = {column: at[column] for column in fitted.definition.columns}
            true = float(study.loss(at)[0])
            row[f"loss x{times:.0f}"] = float(abs(np.log(fitted.loss(asked)[0] / true)))
            ends = fitted.loss_interval(asked) if name in ("few", "recalibrated") else None
            if ends is not None:
                row[f"held x{times:.0f}"] = float(ends[0][0] <= true <= ends[1][0])
                row[f"halfwidth x{times:.0f}"] = float(0.5 * np.log(ends[1][0] / ends[0][0]))
        row["N_opt"] = float(abs(np.log(study.optimum(fitted, TIMES[-1] * largest) / size)))
    return found


def measured(name: str, count: int, studies: int) -> dict[str, Any]:
    """What the methods reached over studies of one truth."""
    return summary([errors(study(name, count, seed), seed) for seed in range(studies)])


def summary(found: Sequence[Errors]) -> dict[str, Any]:
    """Of each method the mean of every figure; what recalibration gains over the fits from scratch, in the studies that
    both could do; and in how many studies it is within 10 % of the published law with an offset, or nearer."""
    table = _by_method(found)
    far, ours = "loss x100", table["recalibrated"]
    answer: dict[str, Any] = {name: {k: float(v) for k, v in each.mean().items()} for name, each in table.items()}
    for name in ("few", "scratch"):
        if name in table and far in table[name]:
            both = table[name][far].notna()
            answer[f"gain over {name}"] = float(table[name][far][both].mean() / ours[far][both].mean())
            answer[f"median gain over {name}"] = float(table[name][far][both].median() / ours[far][both].median())
    for name in ("printed", "offset"):
        answer[f"no worse than {name}"] = float(np.mean(ours[far] <= 1.1 * table[name][far]))
    return answer


def public(studies: int) -> dict[str, Any]:
    """Five small runs of public tables, asked about the largest tenth."""
    return {name: _public(table, studies) for name, table in public_tables().items() if not name.startswith("clark")}


def _public(table: RunTable, studies: int) -> dict[str, Any]:
    table = table.for_law(HOFFMANN)
    table = replace(table, frame=table.frame.assign(n_experts=1.0))
    compute, found = compute_of(table), []
    small = np.flatnonzero(compute <= np.quantile(compute, 0.5))
    largest = selected_runs(table, compute >= np.quantile(compute, 0.9))
    own = "epoch" in table.source
    for seed in range(studies):
        chosen = np.random.default_rng(seed).choice(small, SMALL, replace=False)
        few = selected_runs(table, np.isin(np.arange(len(table)), chosen))
        of: Errors = {}
        for start in (START,) if own else (START, "chinchilla-epoch"):
            for name, fitted in fits(few, published(start), FITS, HOFFMANN, seed).items():
                columns = largest.columns(fitted.definition.columns)
                off = np.log(fitted.loss(columns) / largest.column("loss_val"))
                named = name if name in ("few", "scratch") else f"{name} {start}"
                of[named] = {"rms error": float(np.sqrt(np.mean(off**2)))}
                ends = fitted.prediction_interval(columns) if name in ("few", "recalibrated") else None
                if ends is not None:
                    held = (ends[0] <= largest.column("loss_val")) & (largest.column("loss_val") <= ends[1])
                    of[named]["held"] = float(np.mean(held))
        found.append(of)
    beyond = float(np.median(compute[compute >= np.quantile(compute, 0.9)]) / np.quantile(compute, 0.5))
    answer: dict[str, Any] = {"times beyond": beyond}
    for name, each in _by_method(found).items():
        answer[name] = {"median rms error": float(each["rms error"].median())}
        answer[name] |= {"held": float(each["held"].mean())} if "held" in each else {}
    return answer


def _by_method(found: Sequence[Errors]) -> dict[str, pd.DataFrame]:
    """A row a study; an empty one where a method gave no fit."""
    methods = dict.fromkeys(name for each in found for name in each)
    return {name: pd.DataFrame([each.get(name, {}) for each in found]) for name in methods}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recalibration", description=__doc__.splitlines()[0])
    parser.add_argument("truths", nargs="*", metavar="TRUTH", help=f"of {', '.join(TRUTHS)}, or public; default all")
    parser.add_argument("--runs", type=int, default=5, help="runs a study")
    parser.add_argument("--studies", type=int, default=100, help="simulated studies a truth")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.truths if name not in (*TRUTHS, "public")]
    if unknown:
        parser.error(f"no truth is called {', '.join(unknown)}; there are {', '.join(TRUTHS)} and public")
    results = {}
    for name in asked.truths or (*TRUTHS, "public"):
        results[name] = public(asked.studies) if name == "public" else measured(name, asked.runs, asked.studies)
        if not asked.json:
            print(_text(name, results[name]), flush=True)
    if asked.json:
        print(json.dumps(results))
    return 0


def _text(name: str, result: Mapping[str, Any], indent: str = "") -> str:
    lines = [indent + name]
    for key, value in result.items():
        if not isinstance(value, Mapping):
            lines.append(f"{indent}  {key}: {value:.3g}")
        elif any(isinstance(each, Mapping) for each in value.values()):
            lines.append(_text(key, value, indent + "  "))
        else:
            lines.append(f"{indent}  {key}: " + ", ".join(f"{k} {v:.3g}" for k, v in value.items()))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
