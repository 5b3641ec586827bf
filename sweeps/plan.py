"""The plan of a grid: cost and order of its cells, and weaknesses of its design, before it starts."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from scaling.config.counts import parameters, train_flops
from scaling.config.model import following
from scaling.config.run import RunConfig, by_trunk
from scaling.config.training import LR_AT_64
from scaling.config.training_memory import training_memory_bytes
from sweeps.calls import plan_calls, tokens_own
from sweeps.grid import SECTIONS, Grid
from sweeps.labels import cell_labels
from sweeps.lint import lint, unread
from sweeps.store import StoredCell
from sweeps.worker import machine_cpus

# Assumed until the study has rows. Measured on two busy cores of a server: 5e9 counted FLOP/s per core at d_model = 32
# and 10e9 at 64 (float32, one thread per cell), plus 5 s (program in the cache) to 30 s in addition to training.
CPU_FLOPS_PER_CORE = 10e9
CELL_OVERHEAD_S = 15.0


@dataclass(frozen=True)
class Speed:
    """Counted FLOP/s of one cell, its seconds in addition to training, and the source of both."""

    flops_per_s: float
    overhead_s: float
    basis: str


@dataclass(frozen=True)
class CellPlan:
    """One cell with its cost.

    trunk: number of the trunk that it shares with other token budgets.
    tokens_own: tokens that it adds to its trunk; these sum to all trained tokens.
    memory_bytes: estimated peak of one device.
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
    """A priced grid: its cells in grid order, the wall time of missing ones on `workers`, and the lint messages.

    alone_seconds: wall time if every cell trained without sharing a trunk.
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
        """The plan as values for JSON."""
        missing = [cell for cell in self.cells if cell.status == "missing"]
        return {
            "study": self.study,
            "cells": [
                {name: value for name, value in vars(cell).items() if name != "config"}
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
            "speed": asdict(self.speed),
            "lint": list(self.lint),
            "defaults": self.defaults,
        }


def plan(grid: Grid, parts: dict[RunConfig, StoredCell] | None = None) -> Plan:
    """Price a grid. `parts`: its cells in the study's folder, which calibrate the time of the others."""
    parts = parts or {}
    cpus = grid.cells[0].resources.cpus
    speed = _speed(parts.values(), cpus)
    labels = cell_labels(grid)
    of_trunk = {cell: number for number, trunk in enumerate(by_trunk(grid.cells), start=1) for cell in trunk}
    own = tokens_own(grid.cells)
    missing = [cell for cell in grid.cells if cell not in parts]
    own |= tokens_own(tuple(missing))  # missing cells cannot share the steps of finished ones
    cells = tuple(_priced(cell, labels[cell], of_trunk[cell], own[cell], speed, parts.get(cell)) for cell in grid.cells)
    seconds = {cell.config: cell.seconds for cell in cells}
    alone = {cell: speed.overhead_s + train_flops(cell) / speed.flops_per_s for cell in missing}
    workers = max(1, machine_cpus() // cpus)
    calls = plan_calls(missing, workers)
    return Plan(
        study=grid.study,
        cells=cells,
        duplicates=grid.duplicates,
        workers=workers,
        seconds=makespan([sum(seconds[cell] for cell in call) for call in calls], workers),
        alone_seconds=makespan(sorted(alone.values(), reverse=True), workers),
        calls=len(calls),
        speed=speed,
        lint=(*unread(grid), *lint(grid.cells)),
        defaults=_defaults(grid),
    )


def _priced(cell: RunConfig, label: str, trunk: int, own: int, speed: Speed, part: StoredCell | None) -> CellPlan:
    sizes = parameters(cell.model, cell.data.vocab_size)
    tokens, flops = cell.steps * cell.train.batch_tokens, train_flops(cell)
    return CellPlan(
        config=cell,
        label=label,
        trunk=trunk,
        tokens=tokens,
        tokens_own=own,
        n_active=sizes.n_active,
        n_total=sizes.n_total,
        train_flops=flops,
        memory_bytes=training_memory_bytes(cell),
        seconds=speed.overhead_s + flops * own / tokens / speed.flops_per_s,
        status=part.status if part else "missing",
    )


def _speed(parts: Iterable[StoredCell], cpus: int) -> Speed:
    """From the study's rows, if any: total FLOPs over total training time, and the mean additional time."""
    timed = [part for part in parts if part.ok and part.train_s > 0]
    if not timed:
        basis = f"{CPU_FLOPS_PER_CORE:.0e} FLOP/s per core plus {CELL_OVERHEAD_S:.0f} s per cell"
        return Speed(CPU_FLOPS_PER_CORE * cpus, CELL_OVERHEAD_S, f"assumed: {basis}")
    flops_per_s = sum(part.train_flops for part in timed) / sum(part.train_s for part in timed)
    overhead_s = statistics.mean(max(0.0, part.wall_s - part.train_s * part.share) for part in timed)
    return Speed(flops_per_s, overhead_s, f"measured on {len(timed)} cells of this study: {flops_per_s:.1e} FLOP/s")


def makespan(seconds: list[float], workers: int) -> float:
    """Wall time if each of `workers` takes the next call when it becomes free."""
    free = [0.0] * workers
    for duration in seconds:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)


def _defaults(grid: Grid) -> dict[str, dict[str, Any]]:
    """Defaults that the grid does not set, by section; those that follow a rule, such as `lr`, show it."""
    axes = {name for block in grid.blocks for name in block}
    defaults = {
        section: {name: info.get_default() for name, info in kind.model_fields.items()}
        for section, kind in SECTIONS.items()
    }
    defaults["train"]["lr"] = f"{LR_AT_64:g} * (64 / d_model) * (2 / n_layers)^0.5"
    defaults["model"] |= dict.fromkeys(following(), "by router and experts")
    defaults["model"]["n_kv_heads"] = "d_model / d_head, one for each head"
    defaults["model"]["d_expert"] = "2 * d_model / active experts"
    left = {
        section: {
            name: value
            for name, value in values.items()
            if name not in grid.settings[section] and name not in axes and value != ()
        }
        for section, values in defaults.items()
    }
    return {section: values for section, values in left.items() if values}
