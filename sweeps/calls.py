"""Which cells train in one call, and in which order the calls start.

A trunk is trained once for all its token budgets (scaling/training/trunk.py). Trunks of one program that differ in seed
or rate alone can train side by side in one vmapped program, where that is faster.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence

from scaling.config.counts import train_flops
from scaling.config.run import RunConfig, by_trunk

Together = tuple[RunConfig, ...]
"""Cells of one call: the budgets of one trunk, or of several trunks that train side by side."""

# Side by side, up to so many trunks whose step costs at most so many counted FLOPs, by what they run on. On a CPU
# thread four dense trunks of d_model 16 and 32 took 0.66 and 0.71 of the time of one after another, of 64 0.97, and
# routed ones 0.95 to 1.08 (results/LOG.md), so only dense ones join. The figures for a GPU are not measured: below them
# a step is shorter than it takes to launch.
_CPU_TRUNKS, _CPU_STEP_FLOPS = 4, 2e8
_GPU_TRUNKS, _GPU_STEP_FLOPS = 8, 1e11


def tokens_own(together: Together) -> dict[RunConfig, int]:
    """Tokens that each cell trains beyond what the cells before it in its trunk have: they sum to what is trained."""
    own = {}
    for trunk in by_trunk(together):
        left_at = 0
        for cell in trunk:
            own[cell] = (cell.steps - left_at) * cell.train.batch_tokens
            left_at = cell.steps - cell.cooldown_steps
    return own


def own_flops(together: Together) -> float:
    """Counted FLOPs that a call really trains."""
    own = tokens_own(together)
    return sum(train_flops(cell) * own[cell] / (cell.steps * cell.train.batch_tokens) for cell in together)


def plan_calls(cells: Iterable[RunConfig], workers: int) -> list[Together]:
    """The calls that train these cells, in the order in which they start on `workers` at a time.

    Long ones first, and no program compiled twice at once: programs come by their longest call, so many together as
    there are workers; first the longest call of each, then the second, and so on. Each worker then compiles a program
    of its own, and the calls that follow find it in the cache. The last calls are the shortest of the smallest
    programs, so that workers end together.
    """
    programs: dict[str, list[Together]] = defaultdict(list)
    for call in _side_by_side(by_trunk(cells), workers):
        programs[_program(call)].append(call)
    for calls in programs.values():
        calls.sort(key=own_flops, reverse=True)
    longest_first = sorted(programs.values(), key=lambda calls: -own_flops(calls[0]))
    batches = (longest_first[i : i + workers] for i in range(0, len(longest_first), workers))
    turns = (turn for batch in batches for turn in itertools.zip_longest(*batch))
    return [call for turn in turns for call in turn if call is not None]


def _side_by_side(trunks: Sequence[Together], workers: int) -> list[Together]:
    """Join trunks of one program and equal budgets where that is faster and leaves every worker a call."""
    alike: dict[tuple[str, tuple[int, ...]], list[Together]] = defaultdict(list)
    for trunk in trunks:
        alike[_program(trunk), tuple(cell.steps for cell in trunk)].append(trunk)
    calls: list[Together] = []
    spare = len(trunks) - workers  # so many calls may be lost to joining
    for group in alike.values():
        most = max(1, min(_most(group[0][0]), 1 + max(0, spare)))
        joined = [group[i : i + most] for i in range(0, len(group), most)]
        spare -= len(group) - len(joined)
        calls += [tuple(itertools.chain(*several)) for several in joined]
    return calls


def _most(cell: RunConfig) -> int:
    """How many trunks of a cell's program train faster side by side than one after another."""
    step_flops = train_flops(cell) / cell.steps
    if cell.resources.gpus:
        return _GPU_TRUNKS if step_flops <= _GPU_STEP_FLOPS else 1
    alone = cell.resources.cpus == 1 and cell.model.n_experts == 1
    return _CPU_TRUNKS if alone and step_flops <= _CPU_STEP_FLOPS else 1


def _program(call: Together) -> str:
    """What a training step is compiled for: everything but what cells of one program may differ in."""
    cell = call[0]
    train = cell.train.model_dump(exclude={"lr", "warmup_tokens", "cooldown"})
    return json.dumps([cell.model.model_dump(), train, cell.data.model_dump(mode="json"), len(by_trunk(call))])
