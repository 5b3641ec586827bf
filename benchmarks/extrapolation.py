"""Extrapolation: how many runs above a tenth of the largest compute lie inside the 95 % intervals of a fit below it.

    python -m benchmarks.extrapolation [--json] [--data DIR] [--table NAME=FILE ...] [--share .1]

Each table is fitted below the cut by what `scaling fit` does by default, and by a single law: hoffmann, or joint-moe
with several E. The public tables are those found in DIR (by default as for the tests); `--table` adds others: files
with `n_active`, `tokens`, `loss_val` and, where there are, `n_experts` and `trunk_id`. Errors are of the loss, as a
fraction; `halfwidth_ratio` is the median half-width of the intervals over the single law's.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: its threads wait for work by spinning

import numpy as np

from analysis.fitting.bootstrap import bootstrap, usual_count
from analysis.fitting.fit import Fit, fit
from analysis.fitting.roll_out import selected_runs
from analysis.mixture.candidates import candidates, family_of_laws
from analysis.mixture.roll_outs import compute_of
from analysis.tables.runs import RunTable, read_runs
from benchmarks.public import CLARK_GOALS, Absent, clark_table, epoch_table, public_data
from scaling import public
from scaling.arrays import Array
from scaling.errors import InputError

SHARE = 0.1
GEMSTONES, COMMA = "gemstones_cooldown.csv", "isoflop_comma.csv"
GEMSTONES_MAP = {"n_active": "params_active_precise", "loss_val": "final_loss", "trunk_id": "run_name"}
COMMA_MAP = {"n_active": "params", "loss_val": "loss"}
CLARK_TOKENS = 1.3e11  # of every run of arXiv 2202.01169


@dataclass(frozen=True)
class Extrapolation:
    """What became of the runs above the cut of one table."""

    runs: int
    inside: int
    inside_single_law: int
    halfwidth_ratio: float
    median_error: float
    median_error_hoffmann: float


def extrapolation(table: RunTable, share: float = SHARE, seed: int = 0) -> Extrapolation:
    """Fit the runs at or below a share of the largest compute, predict those above. Raises InputError."""
    table = table.for_law(family_of_laws(table))
    compute = compute_of(table)
    below = compute <= share * compute.max()
    if not below.any():
        raise InputError(f"{table.source}: no run lies at or below {share:g} of the largest compute")
    fitted, larger = selected_runs(table, below), selected_runs(table, ~below)
    default, single = public.fit(fitted, seed=seed), _single_law(fitted, seed)
    observed = larger.column("loss_val")
    ends, of_single = (_interval(each, larger) for each in (default, single))
    return Extrapolation(
        runs=len(larger),
        inside=_inside(observed, ends),
        inside_single_law=_inside(observed, of_single),
        halfwidth_ratio=float(np.median(ends[1] - ends[0]) / np.median(of_single[1] - of_single[0])),
        median_error=_median_error(default, larger),
        median_error_hoffmann=_median_error(single, larger),
    )


def _single_law(table: RunTable, seed: int) -> Fit:
    """The simplest law, as `scaling fit --law` fits it; with one token budget its term in D is held at nothing."""
    simplest = candidates(table)[0]
    held = {name: pin.value for name, pin in simplest.held.items()}
    fitted = fit(table, simplest.law, pin=held, seed=seed)
    return bootstrap(fitted, table, usual_count(table), np.random.default_rng(seed))


def _interval(fitted: Fit, table: RunTable) -> tuple[Array, Array]:
    """The 95 % interval of each run; nothing lies inside where the fit has none."""
    fitted.require_params()
    nothing = np.full(len(table), np.nan)
    return fitted.prediction_interval(table.columns(fitted.definition.columns)) or (nothing, nothing)


def _inside(observed: Array, ends: tuple[Array, Array]) -> int:
    return int(np.sum((ends[0] <= observed) & (observed <= ends[1])))


def _median_error(fitted: Fit, table: RunTable) -> float:
    predicted = fitted.loss(table.columns(fitted.definition.columns))
    return float(np.median(np.abs(predicted / table.column("loss_val") - 1.0)))


def _clark(router: str) -> RunTable:
    table = clark_table(router)
    frame = table.frame.assign(n_active=table.frame["n_dense_nonembed"].astype(float), tokens=CLARK_TOKENS)
    return replace(table, frame=frame)


def public_tables() -> dict[str, RunTable]:
    """The public tables that are found, by name."""
    readers: dict[str, Callable[[], RunTable]] = {
        "epoch": epoch_table,
        "gemstones": lambda: read_runs(public_data(GEMSTONES), GEMSTONES_MAP),
        "comma": lambda: read_runs(public_data(COMMA), COMMA_MAP),
        **{f"clark-{router.lower()}": partial(_clark, router) for router in CLARK_GOALS},
    }
    found = {}
    for name, read in readers.items():
        try:
            found[name] = read()
        except Absent as absent:
            print(f"{name}: {absent}", file=sys.stderr)
    return found


def totals(results: dict[str, Extrapolation]) -> dict[str, float]:
    """The shares of all runs inside the intervals of the default and of the single law."""
    runs = max(1, sum(each.runs for each in results.values()))
    return {
        "coverage": sum(each.inside for each in results.values()) / runs,
        "coverage_single_law": sum(each.inside_single_law for each in results.values()) / runs,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.extrapolation", description="How many larger runs lie inside 95 % intervals."
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the folder of the public tables")
    parser.add_argument("--table", action="append", default=[], metavar="NAME=FILE", help="another table of runs")
    parser.add_argument("--share", type=float, default=SHARE, metavar="X", help="of the largest compute: the cut")
    options = parser.parse_args(arguments)
    if options.data is not None:
        os.environ["SCALING_DATA"] = str(options.data)
    results, failed = {}, False
    try:
        tables = public_tables() | {name: read_runs(file) for name, file in map(_named, options.table)}
    except InputError as error:
        parser.error(str(error))
    for name, table in tables.items():
        try:
            results[name] = extrapolation(table, options.share)
        except InputError as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
    if options.json:
        print(json.dumps({"tables": {name: asdict(each) for name, each in results.items()}, **totals(results)}))
    else:
        print(_text(results))
    return int(failed)


def _named(text: str) -> tuple[str, str]:
    name, _, file = text.partition("=")
    if not (name and file):
        raise InputError(f"--table {text}: write NAME=FILE")
    return name, file


def _text(results: dict[str, Extrapolation]) -> str:
    head = f"{'table':14} {'runs':>5} {'inside':>7} {'single':>7} {'width x':>8} {'error':>7} {'single':>7}"
    rows = [
        f"{name:14} {r.runs:5} {r.inside / r.runs:7.1%} {r.inside_single_law / r.runs:7.1%} {r.halfwidth_ratio:8.2f} "
        f"{r.median_error:7.2%} {r.median_error_hoffmann:7.2%}"
        for name, r in results.items()
    ]
    shares = totals(results)
    return "\n".join([head, *rows, f"together: {shares['coverage']:.1%}, single {shares['coverage_single_law']:.1%}"])


if __name__ == "__main__":
    sys.exit(main())
