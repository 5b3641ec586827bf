"""Rows of a task's tables: what is known of a cell before it trains, and what came out."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import scaling
from scaling.config import run_row
from scaling.config.cell import Cell
from scaling.config.run import RunConfig
from scaling.schema import SCHEMA_VERSION
from scaling.tasks import LANGUAGE_MODEL, TASKS
from scaling.tasks.cell import TaskCell
from scaling.tasks.columns import error_of
from scaling.tasks.task import CellResult

_SHAPES_EVERY_TASK = ("cell.py", "rows.py")
_PACKAGES = ("jax", "jaxlib", "optax", "numpy", "scipy")


def describe(cell: Cell, corpus_hash: str) -> dict[str, Any]:
    """The columns of a cell's row in `runs` that are known before it trains."""
    if isinstance(cell, RunConfig):
        return run_row.describe(cell, corpus_hash)
    assert isinstance(cell, TaskCell)
    task = TASKS[cell.task]
    columns = task.columns("runs")
    settings = cell.settings.model_dump(mode="json")
    return {
        "run_id": cell.run_id(corpus_hash),
        "trunk_id": cell.trunk_id(corpus_hash),
        "configuration": cell.configuration(corpus_hash),
        "config": json.dumps(cell.identity(corpus_hash), sort_keys=True),
        "study": cell.study,
        "task": cell.task,
        "seed": cell.seed,
        "train_flops": float(task.flops(cell)),
        "corpus_hash": corpus_hash,
        "code_version": code_version(cell.task),
        "schema_version": SCHEMA_VERSION,
        **{name: _as_column(value, columns[name].type) for name, value in settings.items()},
        task.budget.name: cell.budget,
    }


def _as_column(value: Any, kind: Any) -> Any:
    """A setting as its column holds it: lists, and numbers in a column of texts, as JSON."""
    if value is None or isinstance(value, str) or str(kind) != "string":
        return value
    return json.dumps(value)


def result(
    cell: TaskCell,
    metrics: Mapping[str, ArrayLike],
    *,
    columns: Mapping[str, Any] | None = None,
    curves: Iterable[Mapping[str, Any]] = (),
    error: str = "",
) -> CellResult:
    """The result of a cell from its metrics.

    metrics: a number, of the run; or a list of R numbers, one a replicate, in order. Of a list, the table `evals` gets
    every value, and `runs` the mean over the finite ones with its standard error, sd / sqrt(count), as `<metric>_se`.
    columns: further columns of `runs`, such as `train_s`; the device is that of `machine` unless they name another.
    error: why the cell diverged, "" if it did not.
    A cell whose primary metric has no finite value has diverged. Raises ValueError for a metric that is not declared,
    for a primary metric that is missing, and for replicates whose number differs.
    """
    task = TASKS[cell.task]
    if unknown := sorted({*metrics} - {*task.metric}):
        raise ValueError(f"task {cell.task} declares no metric {', '.join(unknown)}: {', '.join(task.metric)}")
    if task.primary.name not in metrics:
        raise ValueError(f"task {cell.task}: the primary metric {task.primary.name} is missing")
    values = {name: np.asarray(value, dtype=float) for name, value in metrics.items()}
    lists = {name: value for name, value in values.items() if value.ndim}
    if any(value.ndim > 1 for value in values.values()) or len({len(value) for value in lists.values()}) > 1:
        shapes = ", ".join(f"{name} {value.shape}" for name, value in values.items())
        raise ValueError(f"task {cell.task}: a metric is a number or one value a replicate, found {shapes}")
    row = describe(cell, "") | {"versions": versions()} | machine() | dict(columns or {})
    for name, value in values.items():
        row |= _summary(name, value)
    if not error and row[task.primary.name] is None:
        error = f"{task.primary.name} has no finite value"
    status = "diverged" if error else "ok"
    if error:
        row |= {name: None for metric in task.metric for name in (metric, error_of(metric))}
    evals = [
        {"replicate": number, "metric": name, "value": float(one)}
        for name, value in lists.items()
        for number, one in enumerate(value)
    ]
    if "evals" in task.tables and not evals:
        raise ValueError(f"task {cell.task} writes evals, and no metric has a value for each replicate")
    return CellResult(row | {"status": status, "error": error}, [] if error else evals, [dict(one) for one in curves])


def _summary(name: str, value: np.ndarray[Any, Any]) -> dict[str, float | None]:
    """The columns of `runs` for one metric."""
    finite = value[np.isfinite(value)]
    mean = float(finite.mean()) if finite.size else None
    error = float(finite.std(ddof=1) / math.sqrt(finite.size)) if value.ndim and finite.size > 1 else None
    return {name: mean, error_of(name): error}


def machine() -> dict[str, str]:
    """What computes, for the row: the first device of JAX where the task has loaded it, else the CPU."""
    jax = sys.modules.get("jax")
    if jax is None:
        return {"platform": "cpu", "device_kind": "cpu"}
    device = jax.devices()[0]
    return {"platform": device.platform, "device_kind": device.device_kind}


def versions() -> str:
    """Versions of the software that computes, for the row."""
    parts = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            parts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return " ".join(f"{name}={version}" for name, version in parts.items())


@functools.cache
def code_version(task: str = LANGUAGE_MODEL) -> str:
    """Package version and a hash of the sources that shape a task's results, so that rows of different code can be
    separated: the module that trains, what the task names as `code`, and what makes rows of every task."""
    if task == LANGUAGE_MODEL:
        return run_row.code_version()
    declared = TASKS[task]
    modules = (declared.train.partition(":")[0], *declared.code)
    folder = Path(__file__).parent
    sources = {folder / name for name in _SHAPES_EVERY_TASK}.union(*map(_sources, modules))
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return f"{scaling.__version__}+{digest.hexdigest()[:8]}"


def _sources(module: str) -> Sequence[Path]:
    """The files of a module, or of a package with all that is in it; nothing of it is run."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError(f"there is no module {module}")
    origin = Path(spec.origin)
    return sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
