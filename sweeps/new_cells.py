"""Extending a study: new candidate cells, and the chosen ones as a grid."""

from __future__ import annotations

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.config.run import RunConfig
from scaling.errors import InputError
from sweeps.grid import Grid, Refusal, axis_value, cell_at, parse, resolved, with_axes

VARIED = ("n_experts", "d_model", "tokens", "seed")  # axes of new cells; the others follow from the width
_LADDER, _LONGEST = 2.0, 4.0  # ratio of token budgets, and of the largest budget to the largest so far
_WIDER = (1.5, 2.0)  # ratio to the largest width so far
_SAME = 0.1  # relative difference below which budgets are the same


@dataclass(frozen=True)
class Studied:
    """The contents of a study: the other axes by width, and E, width, tokens and seed of every run."""

    by_width: Mapping[int, Mapping[str, Any]]
    runs: tuple[tuple[int, int, int, int], ...]

    @property
    def experts(self) -> tuple[int, ...]:
        return tuple(sorted({n_experts for n_experts, _, _, _ in self.runs}))

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(sorted({tokens for _, _, tokens, _ in self.runs}))

    def free_seed(self, n_experts: int, d_model: int) -> int:
        """The first seed above those used for a shape, so that a new run shares no noise with an old one."""
        return max((seed for e, width, _, seed in self.runs if (e, width) == (n_experts, d_model)), default=-1) + 1


def studied(grid: Grid, rows: Iterable[tuple[int, int, int, int]] = ()) -> Studied:
    """The contents of a grid and of `rows` (E, width, tokens, seed) that were run in addition, as in an older grid.

    Raises InputError if another axis takes several values at one width, because the choice is ambiguous.
    """
    by_width: dict[int, dict[str, Any]] = {}
    for cell in grid.models:
        other = _other_axes(grid, cell)
        first = by_width.setdefault(cell.model.d_model, other)
        differing = [name for name in other if first[name] != other[name]]
        if differing:
            raise InputError(
                f"{grid.path}: `{differing[0]}` takes several values at d_model={cell.model.d_model}, but new cells "
                f"vary only in {', '.join(VARIED)}; make a grid with one value of `{differing[0]}`"
            )
    runs = [(cell.model.n_experts, cell.model.d_model, cell.tokens, cell.seed) for cell in grid.models]
    runs += [row for row in rows if row[1] in by_width or _one_kind(by_width)]
    for _, width, _, _ in runs:
        by_width.setdefault(width, next(iter(by_width.values())))
    return Studied(dict(sorted(by_width.items())), tuple(runs))


def new_cells(grid: Grid, study: Studied, experts: Iterable[int]) -> list[RunConfig]:
    """Every valid cell of these expert counts over `widths` and `budgets`, with an unused seed."""
    cells = []
    for n_experts, (width, other), tokens in itertools.product(
        sorted({*experts}), widths(grid, study).items(), budgets(study)
    ):
        seed = study.free_seed(n_experts, width)
        point = {**other, "n_experts": n_experts, "d_model": width, "tokens": tokens, "seed": seed}
        with contextlib.suppress(Refusal):
            cells.append(cell_at(grid, point))
    return cells


def widths(grid: Grid, study: Studied) -> dict[int, Mapping[str, Any]]:
    """The studied widths with their other axes; if those agree, also widths between and beyond, in whole heads."""
    by_width = dict(study.by_width)
    if _one_kind(study.by_width):
        studied_widths, head = list(study.by_width), grid.models[0].model.d_head
        wanted = [(low * high) ** 0.5 for low, high in itertools.pairwise(studied_widths)]
        wanted += [factor * studied_widths[-1] for factor in _WIDER]
        for width in wanted:
            by_width.setdefault(head * round(width / head), study.by_width[studied_widths[0]])
    return dict(sorted(by_width.items()))


def budgets(study: Studied) -> tuple[int, ...]:
    """The studied token budgets, and doublings of the smallest up to four times the largest."""
    tokens, longest = list(study.tokens), _LONGEST * study.tokens[-1]
    step = float(study.tokens[0])
    while step <= longest * (1 + 1e-9):
        if all(abs(step / budget - 1) > _SAME for budget in tokens):
            tokens.append(round(step))
        step *= _LADDER
    return tuple(sorted(tokens))


def as_grid(grid: Grid, cells: Iterable[RunConfig], path: Path, heading: str) -> str:
    """A grid with exactly these cells, the sections of `grid` and all defaults; `heading` becomes its first comment.

    The text is read back. Raises InputError if that does not give the same cells.
    """
    chosen = list(cells)
    budgets_of: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for cell in chosen:
        other = tuple(_other_axes(grid, cell).items())
        budgets_of[cell.model.d_model, cell.seed, cell.model.n_experts, other].append(cell.tokens)
    blocks: dict[tuple[Any, ...], list[int]] = defaultdict(list)  # expert counts that have the same budgets
    for (width, seed, n_experts, other), tokens in budgets_of.items():
        blocks[width, seed, tuple(sorted(tokens)), other].append(n_experts)
    written = [
        {"n_experts": sorted(experts), "d_model": [width], "tokens": list(tokens), "seed": [seed]}
        | {name: [value] for name, value in other}
        for (width, seed, tokens, other), experts in blocks.items()
    ]
    text = "".join(f"# {line}\n" for line in heading.splitlines()) + resolved(with_axes(grid, written))
    if {cell.run_id("") for cell in parse(text, path).cells} != {cell.run_id("") for cell in chosen}:
        raise InputError(f"{grid.path}: new cells do not fit its sections; list every varying axis under `grid:`")
    return text


def _other_axes(grid: Grid, cell: RunConfig) -> dict[str, Any]:
    """The values of the grid's other axes in a cell."""
    names = sorted({*grid.axes} - {*VARIED})
    return {name: axis_value(cell, name) for name in names}


def _one_kind(by_width: Mapping[int, Mapping[str, Any]]) -> bool:
    """Whether all widths have the same values of the other axes."""
    first, *others = by_width.values()
    return all(other == first for other in others)
