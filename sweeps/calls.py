"""Grouping of cells into calls, and the order of the calls.

A trunk is trained once for all its budgets (scaling/training/trunk.py). Trunks of language models that differ only in
seed or learning rate can train side by side in one vmapped program where that is faster.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from scaling.config.cell import Cell
from scaling.config.run import AnyCell, RunConfig, by_trunk
from scaling.tasks import TASKS
from scaling.tasks.costs import budget_of, shared_budget, train_flops

Together = tuple[Cell, ...]
"""Cells of one call: the budgets of one trunk, or of several trunks that train side by side."""

# Largest number of trunks that train side by side, and the largest counted FLOPs of their step. On a CPU thread, four
# dense trunks side by side took 0.66, 0.71 and 0.97 of their sequential time at d_model 16, 32 and 64, and routed ones
# 0.95 to 1.08 (results/LOG.md), so only dense trunks are joined. The limits for a GPU are not measured: below them a
# step takes less time than its launch.
_CPU_TRUNKS, _CPU_STEP_FLOPS = 4, 2e8
_GPU_TRUNKS, _GPU_STEP_FLOPS = 8, 1e11


def budget_own(together: Iterable[AnyCell]) -> dict[AnyCell, int]:
    """What each cell learns from in addition to the earlier cells of its trunk: tokens of a language model, which sum
    to all trained tokens."""
    own = {}
    for trunk in by_trunk(together):
        shared = 0
        for cell in trunk:
            own[cell] = budget_of(cell) - shared
            shared = shared_budget(cell)
    return own


def flops_own(together: Together) -> dict[Cell, float]:
    """FLOPs that each cell adds to the earlier cells of its trunk."""
    own = budget_own(together)
    return {cell: train_flops(cell) * own[cell] / budget_of(cell) for cell in together}


def own_flops(together: Together) -> float:
    """FLOPs of a call, with the shared steps of a trunk counted once."""
    return sum(flops_own(together).values())


def plan_calls(cells: Iterable[Cell], workers: int) -> list[Together]:
    """The calls that train these cells, in the order in which `workers` start them.

    Long calls start first, and no two workers compile the same program at once: programs are sorted by their longest
    call and taken in batches of `workers`; of each batch, the longest call of every program starts first, then the
    second longest, and so on. Each worker compiles a different program, which later calls find in the cache. The
    shortest calls of the smallest programs come last, so that workers finish at about the same time.
    """
    programs: dict[str, list[Together]] = defaultdict(list)
    for call in _side_by_side(_split(cells, lambda cell: TASKS[cell.task].budgets_together), workers):
        programs[_program(call)].append(call)
    for calls in programs.values():
        calls.sort(key=own_flops, reverse=True)
    longest_first = sorted(programs.values(), key=lambda calls: -own_flops(calls[0]))
    batches = (longest_first[i : i + workers] for i in range(0, len(longest_first), workers))
    turns = (turn for batch in batches for turn in itertools.zip_longest(*batch))
    return [call for turn in turns for call in turn if call is not None]


def apart(cells: Iterable[Cell]) -> list[Together]:
    """Cells in parts that can train without each other: the trunks of language models, and single cells of others."""
    return _split(cells, lambda cell: isinstance(cell, RunConfig))


def _split(cells: Iterable[Cell], whole: Callable[[Cell], bool]) -> list[Together]:
    """The trunks, and of those that need not stay whole each cell."""
    return [part for trunk in by_trunk(cells) for part in ([trunk] if whole(trunk[0]) else [(one,) for one in trunk])]


def _side_by_side(trunks: Sequence[Together], workers: int) -> list[Together]:
    """Join trunks of one program and equal budgets where that is faster and still leaves every worker a call."""
    alike: dict[tuple[str, tuple[int, ...]], list[Together]] = defaultdict(list)
    for trunk in trunks:
        alike[_program(trunk), tuple(cell.steps for cell in trunk)].append(trunk)
    calls: list[Together] = []
    spare = len(trunks) - workers  # calls that joining may remove
    for group in alike.values():
        most = max(1, min(_most(group[0][0]), 1 + max(0, spare)))
        joined = [group[i : i + most] for i in range(0, len(group), most)]
        spare -= len(group) - len(joined)
        calls += [tuple(itertools.chain(*several)) for several in joined]
    return calls


def _most(cell: Cell) -> int:
    """The most trunks of a cell's program that train faster side by side than one after another."""
    if not isinstance(cell, RunConfig):
        return 1
    step_flops = train_flops(cell) / cell.steps
    if cell.resources.gpus:
        return _GPU_TRUNKS if step_flops <= _GPU_STEP_FLOPS else 1
    alone = cell.resources.cpus == 1 and cell.model.n_experts == 1
    return _CPU_TRUNKS if alone and step_flops <= _CPU_STEP_FLOPS else 1


def _program(call: Together) -> str:
    """Everything that the compiled training step depends on, and what the call is given to run."""
    cell = call[0]
    if not isinstance(cell, RunConfig):
        return json.dumps(cell.model_dump(mode="json") | {"study": "", "seed": 0, "budget": 0}, sort_keys=True)
    train = cell.train.model_dump(exclude={"lr", "warmup_tokens", "cooldown"})
    resources = cell.resources.model_dump()
    model, text = cell.model.model_dump(), cell.data.model_dump(mode="json")
    return json.dumps([model, train, text, resources, len(by_trunk(call))])
