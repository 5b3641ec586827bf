"""Proposing the cells to train next as a grid for `scaling sweep run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.decision.question import Question
from analysis.decision.suggest import LARGEST_STEP, Candidates, Suggestion, suggest
from analysis.fitting.fit import Fit
from analysis.fitting.studied import plausible_ratios
from analysis.fitting.studied import studied as studied_ratios
from analysis.latency.speeds import Speeds
from analysis.tables.runs import RunTable, read_runs
from scaling.arrays import Array
from scaling.config.counts import train_flops
from scaling.config.run import RunConfig
from scaling.config.run_row import describe
from scaling.errors import InputError
from scaling.files import write_atomically
from scaling.progress import Progress, silent
from sweeps.calls import own_flops
from sweeps.grid import Grid, load_grid
from sweeps.new_cells import as_grid, new_cells, studied

_SHARE = 0.1  # default budget relative to the cost of the study


@dataclass(frozen=True)
class _Spent:
    """Training FLOPs of the smallest run, of the largest run, and of the study."""

    smallest: float
    largest: float
    study: float


def propose_cells(
    place: Path,
    fit: Fit,
    question: Question,
    out: Path,
    flops: float | None,
    seed: int,
    speeds: Speeds | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write the suggested grid to `out`; returns its cells, cost and expected effect as values for JSON.

    `place` is a study folder or a grid. Without `flops` the budget is that of the largest run or a tenth of the
    study's, whichever is larger: it can then repeat any run, and in a large study is more than one run. Raises
    InputError.
    """
    grid = load_grid(place / "grid.yaml" if place.is_dir() else place)
    table = read_runs(place) if place.is_dir() else None
    study, spent = studied(grid, _rows(table)), _spent(grid, table)
    budget, why = flops, "as requested"
    if budget is None:
        budget, why = max(
            (spent.largest, "the largest run so far"), (_SHARE * spent.study, f"{_SHARE:.0%} of the study's cost")
        )
    elif not budget > 0:
        raise InputError(f"`flops` must be above 0, found {budget:g}")
    experts = {*fit.experts, *question.n_experts, *study.experts}
    cells = new_cells(grid, study, {*experts, 2 * max(experts), max(1, min(experts) // 2)})
    if not fit.studied and table is not None:  # a fit of before that was recorded
        fit = replace(fit, studied=studied_ratios(table))
    candidates, cells = _candidates(cells, fit, question, spent)
    trunks = None if table is None else table.trunks
    suggestion = suggest(fit, question, candidates, budget, np.random.default_rng(seed), trunks, speeds, progress)
    chosen = [
        cells[pick.cell].model_copy(update={"seed": cells[pick.cell].seed + pick.trunk}) for pick in suggestion.picks
    ]
    document = _document(suggestion, chosen, candidates) | {
        "share_of_study": suggestion.train_flops / spent.study,
        "budget": budget,
        "budget_because": why,
        "n_candidates": len(candidates),
        "recommended_experts": suggestion.n_experts,
        "undecided_because": list(suggestion.undecided_because),
        "grid": str(out),
    }
    write_atomically(out, as_grid(grid, chosen, out, _heading(document, place)).encode())
    return document


def _rows(table: RunTable | None) -> list[tuple[int, int, int, int]]:
    """E, width, requested tokens and seed of the runs of a study."""
    names = ["n_experts", "d_model", "tokens_requested", "seed"]
    if table is None or any(name not in table.frame for name in names):
        return []
    return [(e, d, t, s) for e, d, t, s in table.frame[names].dropna().astype("int64").to_numpy().tolist()]


def _spent(grid: Grid, table: RunTable | None) -> _Spent:
    """The spent FLOPs; the shared steps of a trunk count once in the study's total if the runs have `tokens_own`."""
    if table is None or "train_flops" not in table.frame:
        of_cells = [train_flops(cell) for cell in grid.models]
        return _Spent(min(of_cells), max(of_cells), own_flops(grid.cells))
    of_runs = table.column("train_flops")
    own = of_runs.copy()
    if "tokens_own" in table.frame:
        share = table.column("tokens_own") / table.column("tokens")
        own *= np.where(np.isfinite(share), share, 1.0)
    return _Spent(float(np.nanmin(of_runs)), float(np.nanmax(of_runs)), float(np.nansum(own)))


def _candidates(
    cells: list[RunConfig], fit: Fit, question: Question, spent: _Spent
) -> tuple[Candidates, list[RunConfig]]:
    """The cells with at least the compute of the smallest run, at most three times that of the largest and a plausible
    number of tokens per parameter, with the columns that the analysis needs. Raises InputError where there are none."""
    rows = [(cell, describe(cell, "")) for cell in cells]
    least, most = 0.999 * spent.smallest, 1.001 * LARGEST_STEP * spent.largest
    few, many = plausible_ratios(fit)
    rows = [(cell, row) for cell, row in rows if least <= row["train_flops"] <= most]
    rows = [(cell, row) for cell, row in rows if few <= row["tokens"] / row["n_active"] <= many]
    if not rows:
        raise InputError(
            f"none of {len(cells)} new cells lies between the smallest run and {LARGEST_STEP:g} times the largest with "
            f"{few:.3g} to {many:.3g} tokens per parameter, as in the runs studied: widen the grid with other widths "
            "or tokens"
        )
    settings = {**fit.settings, **question.settings}

    def column(name: str) -> Array:
        if rows and name not in rows[0][1] and name not in settings:
            raise InputError(f"law {fit.law} needs `{name}`, which a cell lacks: set it, or fit the study again")
        return np.array([row.get(name, settings.get(name)) for _, row in rows], dtype=float)

    shapes: dict[tuple[int, int], int] = {}
    shape = [shapes.setdefault((cell.model.n_experts, cell.model.d_model), len(shapes)) for cell, _ in rows]
    tokens = column("tokens")
    candidates = Candidates(
        columns={name: column(name) for name in fit.definition.columns},
        shape=np.array(shape, dtype=int),
        n_experts=np.array([cell.model.n_experts for cell, _ in rows], dtype=int),
        n_active=column("n_active"),
        tokens=tokens,
        cooldown=np.array([float(cell.cooldown_steps * cell.train.batch_tokens) for cell, _ in rows]),
        flops_per_token=column("train_flops") / tokens,
    )
    return candidates, [cell for cell, _ in rows]


def _document(suggestion: Suggestion, chosen: list[RunConfig], candidates: Candidates) -> dict[str, Any]:
    """The chosen cells and their expected effect."""
    cells = [
        {
            "n_experts": cell.model.n_experts,
            "d_model": cell.model.d_model,
            "tokens": cell.tokens,
            "seed": cell.seed,
            "n_active": float(candidates.n_active[pick.cell]),
            "train_flops": pick.train_flops,
            "regret_before": pick.regret_before,
            "regret_after": pick.regret_after,
            "reason": pick.reason,
        }
        for pick, cell in zip(suggestion.picks, chosen, strict=True)
    ]
    effects = ("regret_before", "regret_after", "method", "unsettled", "train_flops")
    return {"cells": cells} | {name: getattr(suggestion, name) for name in effects}


def _heading(document: Mapping[str, Any], place: Path) -> str:
    """The comment at the beginning of the grid."""
    cells, flops, method = len(document["cells"]), document["train_flops"], document["method"]
    lines = [f"{cells} new cells, {flops:.3g} training FLOPs, by `scaling sweep suggest`"]
    if document["regret_before"] is not None:
        before, after = document["regret_before"], document["regret_after"]
        lines.append(f"expected regret {before:.2%} before, {after:.2%} after ({method})")
    if place.is_dir():
        lines.append(f"to add them to the study: `scaling sweep run {document['grid']} --out {place}`")
    return "\n".join(lines)
