"""The status of a study: progress, failures and pending measurements from its folder."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import compress
from operator import not_
from pathlib import Path
from typing import Any

from scaling.config.cell import Cell
from scaling.config.data import DataConfig
from scaling.config.run import RunConfig
from scaling.errors import InputError
from scaling.schema import TABLES
from scaling.tasks.costs import shape_of
from scaling.tasks.rows import code_version
from sweeps.grid import Grid, load_grid
from sweeps.labels import cell_labels
from sweeps.running import RunningCell, running_cells
from sweeps.store import GRID, Store, StoredCell, Survey
from sweeps.worker import LatencyShape, machine_cpus


@dataclass(frozen=True)
class StudyStatus:
    """Numbers of cells that are ok, failed (by status) and left, with the failures and cells of older grids.

    running: cells that train now.   interrupted: cells that trained when their worker died or was stopped, and that no
    driver has taken up again.   unusable: parts of runs that do not count, each with the reason.   notes: what else was
    left out.
    """

    study: str
    out: str
    cells: int
    ok: int
    failed: dict[str, int]
    left: int
    trained_now: int
    latency_owed: int
    of_older_grids: list[str]
    code_versions: dict[str, int]
    failures: list[dict[str, str]]
    driver: str = ""
    running: list[RunningCell] = field(default_factory=list)
    interrupted: list[RunningCell] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def study_status(
    store: Store,
    grid: Grid,
    run_ids: dict[str, Cell],
    *,
    trained_now: int = 0,
    driver: str = "",
    survey: Survey | None = None,
) -> StudyStatus:
    """The status of a grid's cells in a study's folder, by a survey that was just made or a new one."""
    survey = survey or store.survey()
    parts = [survey.cells[run_id] for run_id in run_ids if run_id in survey.cells]
    failures = [part for part in parts if not part.ok]
    labels = cell_labels(grid)
    running, interrupted = _running_and_interrupted(store, labels, run_ids, survey, driver)
    return StudyStatus(
        study=grid.study,
        out=str(store.out),
        cells=len(run_ids),
        ok=sum(part.ok for part in parts),
        failed=dict(Counter(part.status for part in failures)),
        left=len(run_ids) - len(parts),
        trained_now=trained_now,
        latency_owed=sum(len(shape.run_ids) for shape in pending_shapes(store, survey, run_ids)),
        of_older_grids=survey.of_older_grids(run_ids),
        code_versions=survey.code_versions(),
        failures=[
            {"run_id": part.run_id, "cell": labels[run_ids[part.run_id]], "status": part.status, "error": part.error}
            for part in failures
        ],
        driver=driver,
        running=running,
        interrupted=interrupted,
        unusable=[f"{path}: {reason}" for path, reason in survey.unusable.items()],
        notes=list(survey.notes),
    )


def _running_and_interrupted(
    store: Store, labels: dict[Cell, str], run_ids: dict[str, Cell], survey: Survey, driver: str
) -> tuple[list[RunningCell], list[RunningCell]]:
    """The cells with a live file: those that train, and without a driver those that trained last."""
    names = {run_id: labels[cell] for run_id, cell in run_ids.items()}
    live = running_cells(store.out, names, survey.cells.__contains__)
    runs = [bool(driver) and cell.phase != "stopped" for cell in live]
    return [*compress(live, runs)], [*compress(live, map(not_, runs))]


class StudyWatch:
    """The status of a study's folder, looked at again and again: cells are counted anew only where files of the study
    changed, and for at most a fifth of the time. Raises InputError for a folder that is none."""

    def __init__(self, folder: Path) -> None:
        self._store, self._cost_s = Store(folder), 0.0
        self._seen: tuple[int | None, ...] = ()
        self._read()

    def look(self) -> StudyStatus:
        """The status now."""
        driver = self._store.driver()
        if self._stamps() != self._seen and time.monotonic() - self._read_at >= 4 * self._cost_s:
            self._read()
        running, interrupted = _running_and_interrupted(self._store, self._labels, self._run_ids, self._survey, driver)
        return replace(self._counted, driver=driver, running=running, interrupted=interrupted)

    def _read(self) -> None:
        started, self._seen = time.monotonic(), self._stamps()
        grid, self._run_ids = opened(self._store.out)
        self._labels, self._survey = cell_labels(grid), self._store.survey()
        self._counted = study_status(self._store, grid, self._run_ids, survey=self._survey)
        self._read_at = time.monotonic()
        self._cost_s = self._read_at - started

    def _stamps(self) -> tuple[int | None, ...]:
        """When the grid, and the list of files of each table, last changed."""
        names = [GRID, *TABLES, *(f"{table}.parquet" for table in TABLES)]
        return tuple(_changed(self._store.out / name) for name in names)


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def pending_shapes(store: Store, survey: Survey, run_ids: dict[str, Cell]) -> list[LatencyShape]:
    """Shapes whose latency is not measured for some ok cell, with those cells."""
    measured = store.latency_shapes()
    pending: dict[str, list[str]] = {}
    for run_id, cell in run_ids.items():
        part = survey.cells.get(run_id)
        shape = shape_of(cell) if part and part.ok else ""
        if shape and measured.get(run_id) != shape:
            pending.setdefault(shape, []).append(run_id)
    return [LatencyShape(run_ids[ids[0]], tuple(ids)) for ids in pending.values()]


def record(grid: Grid, hashes: list[str]) -> dict[str, Any]:
    """Versions, machine and corpus hashes, to be saved with the resolved grid."""
    versions = {}
    for package in ("moe-scaling", "jax", "flax", "optax", "numpy", "ray"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "code_version": code_version(grid.task),
        "python": platform.python_version(),
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}, {machine_cpus()} CPUs",
        "corpora": [
            {"corpus": config.corpus, "tokenizer": config.tokenizer, "hash": corpus_hash}
            for config, corpus_hash in zip(grid.corpora, hashes, strict=True)
        ],
    }


def corpus_hashes(recorded: Grid) -> dict[DataConfig, str]:
    """The corpus hashes that `sweep run` saved in a study's grid.yaml.

    Raises InputError if `sweep run` did not write the file.
    """
    entries = recorded.record.get("corpora", [])
    if len(entries) != len(recorded.corpora):
        raise InputError(f"{recorded.path}: has no corpus hash; use a grid.yaml written by `scaling sweep run`")
    return {config: str(entry["hash"]) for config, entry in zip(recorded.corpora, entries, strict=True)}


def opened(folder: Path) -> tuple[Grid, dict[str, Cell]]:
    """The grid of a study's folder and its cells by run_id, without reading the corpus. Raises InputError."""
    if not (folder / GRID).is_file():
        raise InputError(f"{folder}: not a study folder: it has no {GRID}; `scaling sweep run` creates one")
    grid = load_grid(folder / GRID)
    hashes = grid.hashes(corpus_hashes(grid))
    return grid, {cell.run_id(hashes[cell]): cell for cell in grid.cells}


def known_parts(folder: Path, cells: Iterable[Cell]) -> dict[Cell, StoredCell]:
    """The cells that a study's folder contains, for corpora that it has used; empty without a folder."""
    if not (folder / GRID).is_file():
        return {}
    hashes, done = corpus_hashes(load_grid(folder / GRID)), Store(folder).survey().cells
    run_ids = {}
    for cell in cells:
        text = hashes.get(cell.data) if isinstance(cell, RunConfig) else ""
        if text is not None:
            run_ids[cell] = cell.run_id(text)
    return {cell: done[run_id] for cell, run_id in run_ids.items() if run_id in done}
