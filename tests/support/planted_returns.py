"""A study of value-rl with planted returns, written as a sweep writes it, without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scaling.tasks.cell import TaskCell
from scaling.tasks.rl.arms import forward_flops, n_parameters
from scaling.tasks.rows import result
from scaling.tasks.value_rl import TASK, ValueRL
from sweeps.grid import parse, resolved
from sweeps.store import Store

GAMES = {"asterix": (1.0, 11.0), "breakout": (0.5, 4.5)}  # scores of random actions, and of level 1
LEVELS = {"dense 1": 1.0, "soft 4": 1.5, "soft-one-wide 4": 1.45, "top1 4": 0.5}
SPREAD = 0.1  # of the runs of an arm, from end to end on either side
FRAMES, ROUND = 20_480, 2048
GRID = """study: planted
task: value-rl
settings: {{d_expert: 64}}
grid:
  - game: [breakout, asterix]
    arm: [dense, soft, soft-one-wide, top1]
    n_experts: [4]
    frames: [{frames}]
    seed: {seeds}
"""


def write_value_rl(out: Path, levels: Mapping[str, float] = LEVELS, seeds: int = 10) -> Path:
    """Ten rounds of every arm, game and seed, with scores spread evenly about its level.

    Curves rise in a straight line, to the score of the run at the end.
    """
    grid = parse(GRID.format(frames=FRAMES, seeds=[*range(seeds)]), out / "grid.yaml")
    store = Store(out)
    for cell in grid.cells:
        assert isinstance(cell, TaskCell)
        made = result(
            cell, _metrics(cell, levels, seeds), columns={"platform": "cpu"}, curves=_curve(cell, levels, seeds)
        )
        took = {"executor": "inline", "started_at": "2026-01-01T00:00:00+00:00", "wall_s": 0.5}
        store.write_cell(made.run | took, made.evals, made.curves)
    store.write_grid(resolved(grid))
    return out


def score(game: str, arm: str, seed: int, levels: Mapping[str, float], seeds: int) -> float:
    """What a run scores: the level of its arm, and up to `SPREAD` more or less by its seed."""
    low, high = GAMES[game]
    return low + (high - low) * (levels[arm] + float(np.linspace(-SPREAD, SPREAD, seeds)[seed]))


def _of(cell: TaskCell, levels: Mapping[str, float], seeds: int) -> float:
    settings = cell.settings
    assert isinstance(settings, ValueRL)
    return score(settings.game, f"{settings.arm} {settings.n_experts}", cell.seed, levels, seeds)


def _metrics(cell: TaskCell, levels: Mapping[str, float], seeds: int) -> dict[str, float]:
    settings = cell.settings
    assert isinstance(settings, ValueRL)
    known = {
        "episode_return": _of(cell, levels, seeds),
        "random_return": GAMES[settings.game][0],
        "n_parameters": float(n_parameters(settings.layer, settings.facts, settings.d_conv)),
        "forward_flops": float(forward_flops(settings.layer, settings.facts, settings.d_conv)),
        "decision_s": 50e-6,
        "dormant_frac": 0.25,
        "effective_rank": 12.0,
    }
    return {metric.name: known.get(metric.name, 1.0) for metric in TASK.metrics}


def _curve(cell: TaskCell, levels: Mapping[str, float], seeds: int) -> list[dict[str, Any]]:
    """A value after every round but the first, in which no episode ended."""
    settings = cell.settings
    assert isinstance(settings, ValueRL)
    low, last = GAMES[settings.game][0], _of(cell, levels, seeds)
    return [
        {
            "step": done,
            "frames": done * ROUND,
            "train_return": None if done == 1 else low + (last - low) * done / 10,
            "td_loss": 1.0,
        }
        for done in range(1, 11)
    ]
