"""`scaling sweep suggest`: the cells to train next, as a grid that `sweep run` takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import Json, optional, print_json, whole_list
from scaling.errors import InputError

if TYPE_CHECKING:
    from analysis.fit import Fit
    from analysis.question import Question
    from analysis.runs import RunTable
    from analysis.suggest import Candidates, Suggestion
    from scaling.config import RunConfig
    from sweeps.grid import Grid

_SHARE = 0.1  # of what the study cost


def suggest(
    study: Annotated[
        str, typer.Argument(metavar="DIR", help="A study's folder, or a grid all of whose cells were run (with --fit).")
    ],
    out: Annotated[Path, typer.Option("--out", help="The grid.yaml to write.")],
    fit: Annotated[
        str | None, typer.Option(metavar="FIT", help="A fit with draws. Default: the one under DIR/fits.")
    ] = None,
    question: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A file that `recommend --out` wrote, whose question is asked. Default: the one under DIR/recommendations; "
            "the options below ask another.",
        ),
    ] = None,
    train_flops: Annotated[str | None, typer.Option(metavar="C", help="Asked: training budget in FLOPs.")] = None,
    target_loss: Annotated[str | None, typer.Option(metavar="L", help="Asked: loss to reach, nats per token.")] = None,
    serve_tokens: Annotated[
        str | None, typer.Option(metavar="T", help="Asked: tokens served over the model's life.")
    ] = None,
    n_experts: Annotated[str | None, typer.Option(metavar="LIST", help="Asked: expert counts to compare.")] = None,
    memory_gb: Annotated[str | None, typer.Option(metavar="M", help="Asked: memory, GB = 1e9 bytes.")] = None,
    flops: Annotated[
        str | None,
        typer.Option(
            metavar="C",
            help="FLOPs that the new cells may take. Default: of the dearest run and a tenth of the study the more.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is simulated.")] = 0,
    as_json: Json = False,
) -> None:
    """Propose the cells that most reduce the expected regret of the recommendation per FLOP.

    Candidates are the widths studied, those between and one step beyond, token budgets up to four times the longest, and
    the E compared, with seeds of their own. `scaling sweep run` takes the grid that is written and adds to the study.
    """
    from analysis import fit as fits
    from analysis.question import Question

    place = Path(study)
    known = fits.load(
        fit or str(_only(place, "fits", "--fit FILE", "`scaling fit DIR --bootstrap 1000 --out` makes one"))
    )
    if train_flops is None and target_loss is None:
        if any(value is not None for value in (serve_tokens, n_experts, memory_gb)):
            raise InputError("--serve-tokens, --n-experts and --memory-gb need --train-flops or --target-loss")
        told = "`scaling recommend FIT ... --out` makes one; or ask with --train-flops or --target-loss"
        asked = _read_question(question or _only(place, "recommendations", "--question FILE", told))
    elif question is not None:
        raise InputError("--question FILE asks one question, --train-flops or --target-loss another: give one")
    else:
        asked = Question(
            train_flops=optional(train_flops, "--train-flops"),
            target_loss=optional(target_loss, "--target-loss"),
            serve_tokens=optional(serve_tokens, "--serve-tokens") or 0.0,
            n_experts=whole_list(n_experts, "--n-experts"),
            memory_gb=optional(memory_gb, "--memory-gb"),
        )
    made = propose(place, known, asked, out, optional(flops, "--flops"), seed)
    if as_json:
        print_json(made)
    else:
        _show(made)


def propose(place: Path, fit: Fit, question: Question, out: Path, flops: float | None, seed: int) -> dict[str, Any]:
    """Write the suggested grid to `out` and say what it holds, costs and is expected to do, as `--json` prints it.

    `place` is a study's folder or a grid; `flops` None takes the dearest run's or a tenth of the study's, the more: less
    than a run could repeat nothing that was done, and in a large study one run is little. Raises InputError.
    """
    import numpy as np

    from analysis.runs import read
    from analysis.suggest import suggest as best_cells
    from scaling.files import write_atomically
    from sweeps import extend
    from sweeps.grid import load

    grid = load(place / "grid.yaml" if place.is_dir() else place)
    table = read(place) if place.is_dir() else None
    known = extend.studied(grid, _rows(table))
    dearest, whole = _costs(grid, table)
    budget, why = flops, "as asked"
    if budget is None:
        budget, why = max((dearest, "the dearest run so far"), (_SHARE * whole, f"{_SHARE:.0%} of what the study cost"))
    elif not budget > 0:
        raise InputError(f"--flops must be above 0, found {budget:g}")
    experts = {*fit.experts, *question.n_experts, *known.experts}
    cells = extend.new_cells(grid, known, {*experts, 2 * max(experts), max(1, min(experts) // 2)})
    candidates, cells = _candidates(cells, fit, question, dearest, _least(grid, table))
    trunks = None if table is None else table.trunks
    found = best_cells(fit, question, candidates, budget, np.random.default_rng(seed), trunks)
    chosen = []
    for pick in found.picks:
        cell = cells[pick.cell]
        chosen.append(cell.model_copy(update={"seed": cell.seed + pick.trunk}))
    told = _document(found, chosen, candidates, budget, why, whole) | {"grid": str(out)}
    write_atomically(out, extend.as_grid(grid, chosen, out, _heading(told, place)).encode())
    return told


def _only(place: Path, kind: str, option: str, remedy: str) -> Path:
    """The one JSON file of a kind in a study's folder. Raises InputError where there is none, or several."""
    found = sorted((place / kind).glob("*.json")) if place.is_dir() else []
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{place / kind} has {', '.join(path.name for path in found)}: name one with {option}")
    raise InputError(f"{place} has no {kind}/*.json: give {option}; {remedy}")


def _read_question(path: Path) -> Question:
    """The question of a recommendation on disk. Raises InputError where the file is none."""
    import json

    from analysis.question import Question

    try:
        return Question.from_json(json.loads(path.read_text(encoding="utf-8"))["question"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no recommendation ({type(error).__name__}: {error}); `recommend --out` writes one"
        ) from error


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

    from scaling import cost
    from sweeps.together import own_flops

    if table is None or "train_flops" not in table.frame:
        return max(cost.train_flops(cell) for cell in grid.cells), own_flops(grid.cells)
    spent = table.column("train_flops")
    whole = spent.copy()
    if "tokens_own" in table.frame:
        share = table.column("tokens_own") / table.column("tokens")
        whole *= np.where(np.isfinite(share), share, 1.0)
    return float(np.nanmax(spent)), float(np.nansum(whole))


def _least(grid: Grid, table: RunTable | None) -> float:
    """Training FLOPs of the smallest run: below it nothing was fitted."""
    import numpy as np

    from scaling import cost

    if table is None or "train_flops" not in table.frame:
        return min(cost.train_flops(cell) for cell in grid.cells)
    return float(np.nanmin(table.column("train_flops")))


def _candidates(
    cells: list[RunConfig], fit: Fit, question: Question, dearest: float, least: float
) -> tuple[Candidates, list[RunConfig]]:
    """The cells of at least the smallest and at most three times the dearest run, as the analysis counts them."""
    import numpy as np

    from analysis.suggest import LARGEST_STEP, Candidates
    from scaling.rows import describe

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


def _show(told: Mapping[str, Any]) -> None:
    """The suggestion for a person at a terminal."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, markup=False)
    for reason in told["undecided_because"]:
        console.print(f"Undecided: {reason}.")
    if told["regret_before"] is not None:
        console.print(
            f"Expected regret {told['regret_before']:.2%} now, {told['regret_after']:.2%} after the {len(told['cells'])} cells "
            f"below ({told['method']}).",
            style="bold",
        )
    console.print(
        f"They take {told['train_flops']:.3g} FLOPs, {told['share_of_study']:.1%} of what the study cost, of at most "
        f"{told['budget']:.3g} ({told['budget_because']}); chosen of {told['n_candidates']} candidates."
    )
    for cell in told["cells"]:
        console.print(
            f"E = {cell['n_experts']}, d_model {cell['d_model']}, {cell['tokens']:,} tokens, seed {cell['seed']}: {cell['reason']}"
        )
    console.print(f"Written to {told['grid']}; `scaling sweep run` takes it.")
