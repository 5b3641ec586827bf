"""The cells to train next, as a grid that `scaling sweep run` takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.errors import InputError

if TYPE_CHECKING:
    from analysis.decision.question import Question
    from analysis.decision.suggest import Candidates, Suggestion
    from analysis.fitting.fit import Fit
    from analysis.tables.runs import RunTable
    from scaling.config.run import RunConfig
    from sweeps.grid import Grid


_SHARE = 0.1  # of what the study cost


def propose_cells(
    place: Path, fit: Fit, question: Question, out: Path, flops: float | None, seed: int
) -> dict[str, Any]:
    """Write the suggested grid to `out` and say what it holds, costs and is expected to do, as `--json` prints it.

    `place` is a study's folder or a grid; `flops` None takes the dearest run's or a tenth of the study's, the more:
    less than a run could repeat nothing that was done, and in a large study one run is little. Raises InputError.
    """
    import numpy as np

    from analysis.decision.suggest import suggest as best_cells
    from analysis.tables.runs import read_runs
    from scaling.files import write_atomically
    from sweeps import new_cells
    from sweeps.grid import load_grid

    grid = load_grid(place / "grid.yaml" if place.is_dir() else place)
    table = read_runs(place) if place.is_dir() else None
    known = new_cells.studied(grid, _rows(table))
    dearest, whole = _costs(grid, table)
    budget, why = flops, "as asked"
    if budget is None:
        budget, why = max((dearest, "the dearest run so far"), (_SHARE * whole, f"{_SHARE:.0%} of what the study cost"))
    elif not budget > 0:
        raise InputError(f"--flops must be above 0, found {budget:g}")
    experts = {*fit.experts, *question.n_experts, *known.experts}
    cells = new_cells.new_cells(grid, known, {*experts, 2 * max(experts), max(1, min(experts) // 2)})
    candidates, cells = _candidates(cells, fit, question, dearest, _least(grid, table))
    trunks = None if table is None else table.trunks
    found = best_cells(fit, question, candidates, budget, np.random.default_rng(seed), trunks)
    chosen = []
    for pick in found.picks:
        cell = cells[pick.cell]
        chosen.append(cell.model_copy(update={"seed": cell.seed + pick.trunk}))
    told = _document(found, chosen, candidates, budget, why, whole) | {"grid": str(out)}
    write_atomically(out, new_cells.as_grid(grid, chosen, out, _heading(told, place)).encode())
    return told


def _rows(table: RunTable | None) -> Iterable[tuple[int, int, int, int]]:
    """E, width, tokens asked for and seed of the runs of a study."""
    names = ("n_experts", "d_model", "tokens_requested", "seed")
    if table is None or any(name not in table.frame for name in names):
        return []
    rows = table.frame[list(names)].dropna().astype("int64")
    return [(int(e), int(d), int(t), int(s)) for e, d, t, s in rows.itertuples(index=False)]


def _costs(grid: Grid, table: RunTable | None) -> tuple[float, float]:
    """Training FLOPs of the dearest run, and of the study: what trunks share counts once where the runs say so."""
    import numpy as np

    from scaling.config import counts
    from sweeps.calls import own_flops

    if table is None or "train_flops" not in table.frame:
        return max(counts.train_flops(cell) for cell in grid.cells), own_flops(grid.cells)
    spent = table.column("train_flops")
    whole = spent.copy()
    if "tokens_own" in table.frame:
        share = table.column("tokens_own") / table.column("tokens")
        whole *= np.where(np.isfinite(share), share, 1.0)
    return float(np.nanmax(spent)), float(np.nansum(whole))


def _least(grid: Grid, table: RunTable | None) -> float:
    """Training FLOPs of the smallest run: below it nothing was fitted."""
    import numpy as np

    from scaling.config import counts

    if table is None or "train_flops" not in table.frame:
        return min(counts.train_flops(cell) for cell in grid.cells)
    return float(np.nanmin(table.column("train_flops")))


def _candidates(
    cells: list[RunConfig], fit: Fit, question: Question, dearest: float, least: float
) -> tuple[Candidates, list[RunConfig]]:
    """The cells of at least the smallest and at most three times the dearest run, as the analysis counts them."""
    import numpy as np

    from analysis.decision.suggest import LARGEST_STEP, Candidates
    from scaling.config.run_row import describe

    rows = [(cell, describe(cell, "")) for cell in cells]
    rows = [pair for pair in rows if 0.999 * least <= pair[1]["train_flops"] <= 1.001 * LARGEST_STEP * dearest]
    settings = {**fit.settings, **question.settings}

    def column(name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        if rows and name not in rows[0][1] and name not in settings:
            raise InputError(f"law {fit.law} needs {name}, which a cell does not tell: fit the study again, or give it")
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


def _document(
    found: Suggestion, chosen: list[RunConfig], candidates: Candidates, budget: float, why: str, whole: float
) -> dict[str, Any]:
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
        for pick, cell in zip(found.picks, chosen, strict=True)
    ]
    return {
        "cells": cells,
        "regret_before": found.regret_before,
        "regret_after": found.regret_after,
        "method": found.method,
        "train_flops": found.train_flops,
        "share_of_study": found.train_flops / whole,
        "budget": budget,
        "budget_because": why,
        "n_candidates": len(candidates),
        "recommended_experts": found.n_experts,
        "undecided_because": list(found.undecided_because),
    }


def _heading(told: Mapping[str, Any], place: Path) -> str:
    """The comment that the grid begins with."""
    lines = [f"{len(told['cells'])} new cells, {told['train_flops']:.3g} training FLOPs, by `scaling sweep suggest`"]
    if told["regret_before"] is not None:
        lines.append(
            f"expected regret {told['regret_before']:.2%} before, {told['regret_after']:.2%} after ({told['method']})"
        )
    if place.is_dir():
        lines.append(f"add them to the study: scaling sweep run {told['grid']} --out {place}")
    return "\n".join(lines)
