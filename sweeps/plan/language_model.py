"""The plan of a grid: cost and order of its cells, and weaknesses of its design, before it starts."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from analysis.training_speed.cells import cell_times
from scaling.config.cell import Cell
from scaling.config.counts import parameters, train_flops
from scaling.config.model import following
from scaling.config.run import RunConfig, by_trunk
from scaling.config.training import LR_AT_64
from scaling.config.training_memory import training_memory_bytes
from scaling.errors import InputError
from scaling.serving.device import Device
from scaling.serving.devices import device as device_named
from sweeps.calls import Together, budget_own, plan_calls
from sweeps.grid import SECTIONS, Grid, LeftOut
from sweeps.labels import cell_labels
from sweeps.lint import of_design, of_text, of_training, unread
from sweeps.plan.capacity import most_at_once, this_machine
from sweeps.store import StoredCell

# Beside training, assumed until the study has rows: 5 s on a CPU with the program in the cache to 30 s without.
CPU_OVERHEAD_S, GPU_OVERHEAD_S = 15.0, 60.0
GPU = "h100"
"""The device that a cell with GPUs is priced on where none is named."""


@dataclass(frozen=True)
class Speed:
    """What says how long a cell trains, its seconds in addition to that, and the device (None: CPU threads)."""

    basis: str
    overhead_s: float
    device: str | None = None


@dataclass(frozen=True)
class CellPlan:
    """One cell with its cost.

    trunk: number of the trunk that it shares with other token budgets.
    tokens_own: tokens that it adds to its trunk; these sum to all trained tokens.
    memory_bytes: estimated peak of one device.   seconds: predicted, with what is beside training.
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
class Prices:
    """The cells of a grid with their costs, in grid order, and the calls of missing ones as they start.

    training_s: seconds of each cell's steps, had it no trunk.   on: the device; None for CPU threads.
    """

    cells: tuple[CellPlan, ...]
    calls: tuple[Together, ...]
    speed: Speed
    training_s: dict[RunConfig, float]
    on: Device | None

    @property
    def seconds(self) -> dict[Cell, float]:
        """Predicted seconds of each cell, with what is beside training."""
        return {cell.config: cell.seconds for cell in self.cells}


@dataclass(frozen=True)
class Plan:
    """A priced grid: its cells in grid order, the wall time of missing ones on this machine, and the lint messages.

    alone_seconds: wall time if every cell trained without sharing a trunk.   workers: cells at a time, at most.
    left_out: combinations of axes that are no cells.   notes: what cannot be told before the start.
    """

    study: str
    cells: tuple[CellPlan, ...]
    duplicates: int
    left_out: tuple[LeftOut, ...]
    workers: int
    seconds: float
    alone_seconds: float
    calls: int
    speed: Speed
    lint: tuple[str, ...]
    notes: tuple[str, ...]
    defaults: dict[str, dict[str, Any]]
    fields: tuple[str, ...]

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
            "left_out": [asdict(one) for one in self.left_out],
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
                "left_out": sum(one.count for one in self.left_out),
            },
            "workers": self.workers,
            "speed": asdict(self.speed),
            "lint": list(self.lint),
            "notes": list(self.notes),
            "defaults": self.defaults,
        }


def plan(grid: Grid, parts: Mapping[Cell, StoredCell] | None = None, device: str | None = None) -> Plan:
    """Price a grid of language models and say what is weak in it. `parts`: its cells in the study's folder, which
    calibrate the time.

    `device` is what its GPUs are, by name; None: an H100, which is said. Raises InputError for a grid on CPUs with one.
    """
    machine, prices = this_machine(), priced(grid, parts, device)
    seconds, labels = prices.seconds, cell_labels(grid)
    alone = [
        (prices.speed.overhead_s + prices.training_s[cell.config], cell.config.resources)
        for cell in prices.cells
        if cell.status == "missing"
    ]
    text = of_text(grid.models, labels)
    return Plan(
        study=grid.study,
        cells=prices.cells,
        duplicates=grid.duplicates,
        left_out=grid.left_out,
        workers=most_at_once(grid.cells, machine),
        seconds=machine.makespan((sum(seconds[cell] for cell in call), call[0].resources) for call in prices.calls),
        alone_seconds=machine.makespan(sorted(alone, key=lambda entry: -entry[0])),
        calls=len(prices.calls),
        speed=prices.speed,
        lint=(
            *of_training(grid.models, labels, machine, prices.on), *text.lint, *unread(grid), *of_design(grid.models)
        ),
        notes=text.notes,
        defaults=_defaults(grid),
        fields=grid.resolved_fields,
    )  # fmt: skip


def priced(grid: Grid, parts: Mapping[Cell, StoredCell] | None = None, device: str | None = None) -> Prices:
    """The cost of each cell, and the calls that train those not among `parts`; arguments and errors as of `plan`."""
    parts, on = parts or {}, _device(grid, device)
    models = grid.models
    training, speed = _times(models, parts, on)
    labels = cell_labels(grid)
    of_trunk = {cell: number for number, trunk in enumerate(by_trunk(models), start=1) for cell in trunk}
    own = budget_own(models)
    missing = [cell for cell in models if cell not in parts]
    if len(missing) < len(models):
        own |= budget_own(missing)  # missing cells cannot share the steps of finished ones
    cells = tuple(
        _priced(cell, labels[cell], of_trunk[cell], own[cell], training[cell], speed.overhead_s, parts.get(cell))
        for cell in models
    )
    calls = plan_calls(missing, most_at_once(grid.cells, this_machine()))
    return Prices(cells, tuple(calls), speed, training, on)


def _device(grid: Grid, name: str | None) -> Device | None:
    """What the cells train on; None for CPU threads."""
    on_gpus = [cell for cell in grid.models if cell.resources.gpus]
    if on_gpus:
        return device_named(name or GPU)
    if name is not None:
        raise InputError(f"{grid.path}: `device` {name}, but the cells train on CPUs: set resources.gpus")
    return None


def _priced(
    cell: RunConfig, label: str, trunk: int, own: int, training_s: float, overhead_s: float, part: StoredCell | None
) -> CellPlan:
    sizes = parameters(cell.model, cell.data.vocab_size)
    tokens = cell.steps * cell.train.batch_tokens
    return CellPlan(
        config=cell,
        label=label,
        trunk=trunk,
        tokens=tokens,
        tokens_own=own,
        n_active=sizes.n_active,
        n_total=sizes.n_total,
        train_flops=train_flops(cell),
        memory_bytes=training_memory_bytes(cell),
        seconds=overhead_s + training_s * own / tokens,
        status=part.status if part else "missing",
    )


def _times(
    cells: tuple[RunConfig, ...], parts: Mapping[Cell, StoredCell], on: Device | None
) -> tuple[dict[RunConfig, float], Speed]:
    """Seconds of each cell's training steps, and what they rest on: the assumed speed, or the study's rows.

    Cells of other resources are other machines: each kind is timed by its own rows.
    """
    timed = {cell: parts[cell] for cell in cells if cell in parts and parts[cell].ok and parts[cell].train_s > 0}
    kinds: dict[tuple[int, float], list[RunConfig]] = defaultdict(list)
    for cell in cells:
        kinds[cell.resources.cpus, cell.resources.gpus].append(cell)
    seconds: dict[RunConfig, float] = {}
    bases: dict[str, None] = {}
    for (_, gpus), kind in kinds.items():
        measured = {cell: timed[cell].train_s for cell in kind if cell in timed}
        times = cell_times(kind, measured, on if gpus else None)
        seconds |= times.seconds
        bases[times.basis] = None
    overhead_s = CPU_OVERHEAD_S if on is None else GPU_OVERHEAD_S
    basis = f"{'; '.join(bases)}; {overhead_s:.0f} s beside it"
    if timed:
        overhead_s = statistics.mean(max(0.0, part.wall_s - part.train_s * part.share) for part in timed.values())
        basis = f"{'; '.join(bases)}; {overhead_s:.0f} s beside it, as in those"
    return seconds, Speed(basis, overhead_s, None if on is None else on.name)


def _defaults(grid: Grid) -> dict[str, dict[str, Any]]:
    """Defaults that the grid does not set, by section; those that follow a rule, such as `lr`, show it."""
    given = {*grid.given}
    defaults = {
        section: {name: info.get_default() for name, info in kind.model_fields.items()}
        for section, kind in SECTIONS.items()
    }
    defaults["train"]["lr"] = f"{LR_AT_64:g} * (64 / d_model) * (2 / n_layers)^0.5"
    defaults["model"] |= dict.fromkeys(following(), "by router and experts")
    defaults["model"] |= {"d_head": "16, or d_model / n_heads", "n_heads": "d_model / d_head"}
    defaults["model"]["n_kv_heads"] = "n_heads, one for each head"
    defaults["model"]["d_expert"] = "2 * d_model / active experts"
    left = {
        section: {name: value for name, value in values.items() if name not in given and value != ()}
        for section, values in defaults.items()
    }
    return {section: values for section, values in left.items() if values}
