"""What a grid will cost before it starts, in which order its cells run, and what its design cannot tell."""

from __future__ import annotations

import heapq
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scaling import cost
from scaling.architecture import FOLLOWING
from scaling.config import LR_AT_64, RunConfig
from scaling.methods import EXPERTS, ROUTERS
from sweeps.grid import AXES, SECTIONS, Grid
from sweeps.store import Part
from sweeps.together import plan_calls, tokens_own, trunks
from sweeps.worker import machine_cpus

# Assumed until the study has rows of its own. On two busy cores of a server: 5e9 counted FLOP/s per core at d_model = 32
# and 10e9 at 64 (float32, one thread per cell), and 5 s (program in the cache) to 30 s beside training.
CPU_FLOPS_PER_CORE = 10e9
CELL_OVERHEAD_S = 15.0
_SHORT = {"n_experts": "E", "d_model": "d", "tokens": "D"}
SAME_SIZE = 0.02  # models of "one size": n_active within 2 %, as the design has it


@dataclass(frozen=True)
class Speed:
    """Counted FLOP/s of one cell, seconds it takes beside training, and where the two come from."""

    flops_per_s: float
    overhead_s: float
    basis: str


@dataclass(frozen=True)
class CellPlan:
    """One cell with what it costs.

    trunk: number of the run that it shares with the other budgets.   tokens_own: tokens that it adds to its trunk; sums
    over `tokens_own` are what is really trained.   memory_bytes: estimated peak of one device.
    """

    config: RunConfig
    label: str
    trunk: int
    tokens: int
    tokens_own: int
    n_active: int
    n_total: int
    train_flops: float
    memory_bytes: float
    seconds: float
    status: str


@dataclass(frozen=True)
class Plan:
    """A grid, priced: its cells in grid order, wall time of what is missing on `workers` at a time, and the lint.

    alone_seconds: wall time if each cell trained alone.
    """

    study: str
    cells: tuple[CellPlan, ...]
    duplicates: int
    workers: int
    seconds: float
    alone_seconds: float
    calls: int
    speed: Speed
    lint: tuple[str, ...]
    defaults: dict[str, dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values for `--json`."""
        missing = [cell for cell in self.cells if cell.status == "missing"]
        return {
            "study": self.study,
            "cells": [
                {name: getattr(cell, name) for name in CellPlan.__dataclass_fields__ if name != "config"}
                | {"config": cell.config.model_dump(mode="json")}
                for cell in self.cells
            ],
            "totals": {
                "cells": len(self.cells),
                "missing": len(missing),
                "tokens": sum(cell.tokens for cell in self.cells),
                "tokens_trained": sum(cell.tokens_own for cell in self.cells),
                "trunks": len({cell.trunk for cell in self.cells}),
                "calls": self.calls,
                "train_flops": sum(cell.train_flops for cell in self.cells),
                "seconds": self.seconds,
                "alone_seconds": self.alone_seconds,
                "largest_memory_bytes": max(cell.memory_bytes for cell in self.cells),
                "duplicates": self.duplicates,
            },
            "workers": self.workers,
            "speed": {
                "flops_per_s": self.speed.flops_per_s,
                "overhead_s": self.speed.overhead_s,
                "basis": self.speed.basis,
            },
            "lint": list(self.lint),
            "defaults": self.defaults,
        }


def plan(grid: Grid, parts: dict[RunConfig, Part] | None = None) -> Plan:
    """Price a grid. `parts`: what the study's folder has of its cells; they calibrate the time of the others."""
    parts = parts or {}
    cpus = grid.cells[0].resources.cpus
    speed = _speed(parts.values(), cpus)
    named = labels(grid)
    of_trunk = {cell: number for number, trunk in enumerate(trunks(grid.cells), start=1) for cell in trunk}
    own = tokens_own(grid.cells)
    missing = [cell for cell in grid.cells if cell not in parts]
    own |= tokens_own(tuple(missing))  # what is done is not trained again for those after it
    cells = tuple(_priced(cell, named[cell], of_trunk[cell], own[cell], speed, parts.get(cell)) for cell in grid.cells)
    seconds = {cell.config: cell.seconds for cell in cells}
    alone = {cell: speed.overhead_s + cost.train_flops(cell) / speed.flops_per_s for cell in missing}
    workers = max(1, machine_cpus() // cpus)
    calls = plan_calls(missing, workers)
    return Plan(
        study=grid.study,
        cells=cells,
        duplicates=grid.duplicates,
        workers=workers,
        seconds=_makespan([sum(seconds[cell] for cell in call) for call in calls], workers),
        alone_seconds=_makespan(sorted(alone.values(), reverse=True), workers),
        calls=len(calls),
        speed=speed,
        lint=(*_unread(grid), *lint(grid.cells)),
        defaults=_defaults(grid),
    )


def labels(grid: Grid) -> dict[RunConfig, str]:
    """Each cell in a few words, by what varies in the grid: `E=8 d=64 D=4M seed=1`; of the model only what it reads."""
    named = {name for block in grid.blocks for name in block}
    values = {cell: {name: _field(cell, name) for name in named | {*_SHORT}} for cell in grid.cells}
    shown = [*_SHORT, *(name for name in AXES if name in named and name not in _SHORT)]
    shown = [name for name in shown if name in _SHORT or len({cell[name] for cell in values.values()}) > 1]
    words = {}
    for cell, fields in values.items():
        read = cell.model.identity()
        own = [name for name in shown if name in _SHORT or AXES[name] != "model" or name in read]
        words[cell] = " ".join(f"{_SHORT.get(name, name)}={_short(fields[name])}" for name in own)
    return words


def _field(cell: RunConfig, name: str) -> Any:
    section = AXES[name]
    return getattr(getattr(cell, section) if section else cell, name)


def _short(value: Any) -> str:
    return si(value) if isinstance(value, int | float) and value >= 10_000 else str(value)


def si(number: float) -> str:
    """A number with its suffix: 250K, 4M, 1.5B."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(number) >= size:
            return f"{number / size:.3g}{suffix}"
    return f"{number:.3g}"


def _priced(cell: RunConfig, label: str, trunk: int, own: int, speed: Speed, part: Part | None) -> CellPlan:
    counts = cost.parameters(cell.model, cell.data.vocab_size)
    flops = cost.train_flops(cell)
    return CellPlan(
        config=cell,
        label=label,
        trunk=trunk,
        tokens=cell.steps * cell.train.batch_tokens,
        tokens_own=own,
        n_active=counts.n_active,
        n_total=counts.n_total,
        train_flops=flops,
        memory_bytes=cost.training_memory_bytes(cell),
        seconds=speed.overhead_s + flops * own / (cell.steps * cell.train.batch_tokens) / speed.flops_per_s,
        status=part.status if part else "missing",
    )


def _speed(parts: Iterable[Part], cpus: int) -> Speed:
    """From the study's own rows where there are any: all FLOPs over all training time, the mean time beside it."""
    known = [part for part in parts if part.ok and part.train_s > 0]
    if not known:
        basis = (
            f"assumed: {CPU_FLOPS_PER_CORE:.0e} FLOP/s per core and {CELL_OVERHEAD_S:.0f} s per cell beside training"
        )
        return Speed(CPU_FLOPS_PER_CORE * cpus, CELL_OVERHEAD_S, basis)
    flops_per_s = sum(part.train_flops for part in known) / sum(part.train_s for part in known)
    overhead_s = statistics.mean(max(0.0, part.wall_s - part.train_s * part.share) for part in known)
    return Speed(flops_per_s, overhead_s, f"measured on {len(known)} cells of this study: {flops_per_s:.1e} FLOP/s")


def _makespan(seconds: list[float], workers: int) -> float:
    """Wall time when each of `workers` takes the next cell as it becomes free."""
    free = [0.0] * workers
    for duration in seconds:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def _defaults(grid: Grid) -> dict[str, dict[str, Any]]:
    """What the grid leaves to its defaults, by section; `lr` and `d_expert` are rules and say so."""
    used = {name for block in grid.blocks for name in block}
    left: dict[str, dict[str, Any]] = {}
    for section, kind in SECTIONS.items():
        values = {name: info.get_default() for name, info in kind.model_fields.items()}
        values |= {"lr": f"{LR_AT_64:g} * (64 / d_model) * (2 / n_layers)^0.5"} if "lr" in values else {}
        if section == "model":
            values |= dict.fromkeys(FOLLOWING, "by router and experts") | {"d_expert": "2 * d_model / active experts"}
        left[section] = {
            k: v for k, v in values.items() if k not in grid.settings[section] and k not in used and v != ()
        }
    return {section: values for section, values in left.items() if values}


# ---------------------------------------------------------------------------------------------------------- lint


def lint(cells: Iterable[RunConfig]) -> list[str]:
    """What the design of a grid keeps its analysis from telling, each with a remedy. Nothing here stops a sweep."""
    cells = list(cells)
    sizes = {cell: cost.parameters(cell.model, cell.data.vocab_size).n_active for cell in cells}
    said = []
    budgets = {cell.tokens for cell in cells}
    ratios = [cell.tokens / sizes[cell] for cell in cells]
    if len(budgets) == 1:
        said.append(f"one token budget ({si(min(budgets))}): the exponent of D cannot be told; sweep `tokens`")
    if len({cell.model.d_model for cell in cells}) == 1 and len({cell.model.n_layers for cell in cells}) == 1:
        said.append("one width and depth: the exponent of N cannot be told; sweep `d_model`")
    if len(cells) > 2 and len(budgets) > 1 and max(ratios) <= min(ratios) * 1.1:
        said.append(
            f"tokens per parameter is constant ({statistics.mean(ratios):.3g}): the exponents of N and D cannot "
            "be told apart; cross `d_model` with `tokens`"
        )
    experts = {cell.model.n_experts for cell in cells}
    if len(experts) == 1:
        said.append(f"one expert count (E = {min(experts)}): nothing can be said about E; sweep `n_experts`")
    else:
        said += _confounded(cells, sizes)
        if 1 not in experts:
            said.append("no dense model (E = 1): the effect of experts has no reference; add 1 to `n_experts`")
    replicates: dict[str, set[int]] = defaultdict(set)
    for cell in cells:
        replicates[cell.model_copy(update={"seed": 0}).run_id("")].add(cell.seed)
    if max(map(len, replicates.values())) == 1:
        said.append("one seed per configuration: run-to-run noise is not estimated; give a few cells two or more seeds")
    return said


def _unread(grid: Grid) -> list[str]:
    """Fields of the model that the grid sets and no cell depends on: a typo of intent, which nothing else would tell."""
    given = {*grid.settings["model"], *(name for block in grid.blocks for name in block if AXES[name] == "model")}
    read = set().union(*(cell.model.read for cell in grid.cells))
    options = {name: one.options for name, one in ROUTERS.items()} | {
        name: one.options for name, one in EXPERTS.items()
    }
    said = []
    for name in sorted(given - read):
        users = [method for method, reads in options.items() if name in reads]
        who = f"; {', '.join(users)} would" if users else ""
        said.append(f"`{name}` is set and no cell reads it{who}")
    return said


def _confounded(cells: list[RunConfig], sizes: dict[RunConfig, int]) -> list[str]:
    """E must vary while N_active is held: each E needs a cell of one size, within 2 %, with a cell of another E."""
    by_experts: dict[int, set[int]] = defaultdict(set)
    for cell in cells:
        by_experts[cell.model.n_experts].add(sizes[cell])

    def matched(n_experts: int) -> bool:
        others = [size for other, group in by_experts.items() if other != n_experts for size in group]
        return any(abs(size - other) <= SAME_SIZE * other for size in by_experts[n_experts] for other in others)

    alone = sorted(n_experts for n_experts in by_experts if not matched(n_experts))
    if not alone:
        return []
    return [
        f"E is confounded with size: no other E has a cell whose n_active is within {SAME_SIZE:.0%} of one of "
        f"E = {', '.join(map(str, alone))}; keep d_model, depth and `top_k * d_expert` the same across `n_experts`"
    ]
