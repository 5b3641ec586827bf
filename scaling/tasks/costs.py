"""What a cell of any task costs: its budget, FLOPs and memory, and whether it has a latency."""

from __future__ import annotations

from scaling.config.cell import Cell
from scaling.config.run import RunConfig
from scaling.tasks import TASKS
from scaling.tasks.cell import TaskCell


def train_flops(cell: Cell) -> float:
    """Training FLOPs of a cell, counted or estimated as its task says."""
    return float(TASKS[cell.task].flops(cell))


def budget_of(cell: Cell) -> int:
    """How much a cell learns from, in the unit of its task's budget; of a language model in whole batches."""
    if isinstance(cell, RunConfig):
        return cell.steps * cell.train.batch_tokens
    assert isinstance(cell, TaskCell)
    return cell.budget


def shared_budget(cell: Cell) -> int:
    """How much of it the next cell of its trunk takes over: a language model's up to the cooldown, else nothing."""
    return (cell.steps - cell.cooldown_steps) * cell.train.batch_tokens if isinstance(cell, RunConfig) else 0


def per_step(cell: Cell) -> int:
    """The budget of one of its `steps`."""
    return cell.train.batch_tokens if isinstance(cell, RunConfig) else 1


def device_bytes(cell: Cell) -> float:
    """Peak bytes of a cell on one of its devices, beside those of the process; 0 where its task does not say."""
    estimate = TASKS[cell.task].memory_bytes
    return 0.0 if estimate is None else float(estimate(cell))


def devices(cell: Cell) -> int:
    """CPU threads or GPUs that a cell makes use of."""
    resources = cell.resources
    if isinstance(cell, RunConfig):
        return cell.train.devices(max(1, int(resources.gpus)) if resources.gpus else resources.cpus)
    return 1


def shape_of(cell: Cell) -> str:
    """Content hash of what determines a cell's latency, "" for a task without: cells of one shape are measured once."""
    if not TASKS[cell.task].measure:
        return ""
    assert isinstance(cell, RunConfig | TaskCell)
    return cell.shape_id()


def cell_of(document: dict[str, object]) -> Cell:
    """The cell that `model_dump` wrote."""
    task = TASKS[str(document["task"])]
    if task.settings is None:
        return RunConfig.model_validate(document)
    return TaskCell.model_validate({**document, "settings": task.settings.model_validate(document["settings"])})
