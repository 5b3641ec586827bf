"""Running a sweep: unfinished cells are trained in this process or by Ray Tune, then latency is measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from scaling import data
from scaling.config.cell import Cell
from scaling.config.run import RunConfig
from scaling.data.cache import programs_doubt
from scaling.errors import InputError, WorkError
from scaling.formatting import first_line
from scaling.tasks import LANGUAGE_MODEL
from scaling.tasks.costs import shape_of
from scaling.training.jax_start import require_jax
from sweeps import worker
from sweeps.calls import own_flops, plan_calls
from sweeps.following import Following
from sweeps.grid import Grid, resolved
from sweeps.job import Job, Options
from sweeps.labels import cell_labels
from sweeps.live import remove_told
from sweeps.plan.capacity import ANY_CLUSTER, Machine, most_at_once, this_machine
from sweeps.plan.task_time import task_seconds
from sweeps.progress import Progress
from sweeps.ray_executor.connection import import_beside
from sweeps.ray_executor.training import measured_apart, train_with_ray
from sweeps.status import StudyStatus, pending_shapes, record, study_status
from sweeps.stopping.deadline import Deadline
from sweeps.stopping.interruption import Interrupted, Interruption
from sweeps.stopping.orders import Orders
from sweeps.stopping.signals import Signals
from sweeps.store import Store, StoredCell
from sweeps.worker import CELL_FUNCTIONS, CellFunctions, Outcome

_MERGE_S = 600  # seconds between mergings of parts


def run_sweep(
    grid: Grid, out: Path, options: Options, progress: Progress, functions: CellFunctions = CELL_FUNCTIONS
) -> StudyStatus:
    """Train the missing cells, then measure pending latencies. Safe to call again at any time.

    A failed cell becomes a row with its status. Raises InputError for a second driver, a corpus that cannot be read or
    resources that this machine lacks, and WorkError if the disk is full, a cell fails under `fail_fast`, no cell is ok
    or a latency could not be measured. After SIGTERM or SIGHUP, running cells write a checkpoint and Stopped is raised;
    after Ctrl-C, KeyboardInterrupt.
    """
    with Signals(options.grace_s) as signals:
        return _run_sweep(grid, out, options, progress, functions, signals)


def _run_sweep(
    grid: Grid, out: Path, options: Options, progress: Progress, functions: CellFunctions, signals: Signals
) -> StudyStatus:
    deadline = Deadline.after(options.max_hours)
    store = Store(out.resolve())
    _check_resources(grid, options)
    for one in grid.left_out:
        progress.note(f"left out of the grid: {one}")
    store.require_writable(())
    with store.lock():
        store.require_packed()
        before = store.survey()
        if options.executor == "ray" and len(before.cells) < len(grid.cells):  # then some are missing
            import_beside(options)
        corpora = {config: data.prepare(config).hash for config in grid.corpora}
        hashes = grid.hashes(corpora)
        run_ids = {cell.run_id(hashes[cell]): cell for cell in grid.cells}
        for message in store.tidy(before):
            progress.note(f"warning: {message}")
        lacking = before.missing(run_ids, retry_failed=options.retry_failed)
        kept = None if lacking else store.made_with()  # cells that are there were made with what is recorded there
        store.write_grid(resolved(grid, kept or record(grid, list(corpora.values()))))
        store.require_writable(lacking)
        for message in store.make_way(lacking):
            progress.note(f"warning: {message}")
        remove_told(store, lambda run_id: False)  # left by workers of drivers that are gone
        missing = [run_ids[run_id] for run_id in lacking]
        queue = [(call, hashes[call[0]]) for call in plan_calls(missing, _workers(grid, options))]
        job = Job(queue, store, functions, options, deadline, cell_labels(grid), Orders(store.out))
        if options.cluster is not None:
            progress.note(f"{store.out} has to be a folder that all nodes of the cluster share, under this path")
        planned = {}
        if missing:
            _check_start(job, progress)
            left = {*missing}
            done = {cell: before.cells[run_id] for run_id, cell in run_ids.items() if cell not in left}
            planned = _planned_seconds(grid, done, store.out.parent)
        labels = {run_id: job.labels[cell] for run_id, cell in run_ids.items()}
        texts = {run_id: hashes[cell] for run_id, cell in run_ids.items()}
        with Following(store, run_ids, labels, texts, progress, options.log):
            trained = _train(job, planned, _workers(grid, options), progress, signals) if missing else 0
        _measure(job, run_ids, progress, signals)
        remove_told(store, lambda run_id: store.part(run_id) is None)
        store.merge()
        summary = study_status(store, grid, run_ids, trained_now=trained)
    if summary.ok == 0 and not summary.left:
        raise WorkError(f"{store.out}: every cell failed; first failure: {first_line(summary.failures[0]['error'])}")
    return summary


def _workers(grid: Grid, options: Options) -> int:
    """The expected number of concurrent cells before Ray is connected; on a cluster, all of them."""
    if options.executor == "inline":
        return 1
    most = min(len(grid.cells), most_at_once(grid.cells, _machine(options)))
    return min(most, options.max_concurrent or most)


def _machine(options: Options) -> Machine:
    return this_machine() if options.cluster is None else ANY_CLUSTER


def _check_resources(grid: Grid, options: Options) -> None:
    need, have = max(cell.resources.cpus for cell in grid.cells), worker.machine_cpus()
    if options.cluster is None and need > have:
        raise InputError(f"{grid.path}: resources.cpus={need}, but this machine has {have}; lower it or set `address`")


def _check_start(job: Job, progress: Progress) -> None:
    """Find once what every worker on this machine would fail or be slow at: settings of JAX, the cache of programs."""
    if job.options.cluster is None and job.functions == CELL_FUNCTIONS:
        cpus, spread = max(call[0].resources.cpus for call, _ in job.calls), worker.spreads(job.calls[0][0][0])
        require_jax(worker.environment(cpus, 0.0, spread=spread))
        if doubt := programs_doubt():
            progress.note(f"warning: {doubt}")


def _planned_seconds(grid: Grid, done: dict[Cell, StoredCell], beside: Path) -> dict[Cell, float]:
    """The seconds that each cell adds, by the plan, which the cells that are done calibrate."""
    if grid.task != LANGUAGE_MODEL:
        return task_seconds(grid.cells, done, beside)[0]
    # It loads pandas and scipy, which a sweep without missing cells does without.
    from sweeps.plan.language_model import priced

    return priced(grid, done).seconds


def _train(job: Job, planned: dict[Cell, float], workers: int, progress: Progress, signals: Signals) -> int:
    """Run the calls of the job; returns the number of ended cells. Raises WorkError for a failure under `fail_fast`."""
    cells = {cell.run_id(corpus_hash): cell for call, corpus_hash in job.calls for cell in call}
    flops = sum(own_flops(call) for call, _ in job.calls)
    what = f"training {len(cells)} cells in {len(job.calls)} calls, {flops:.2e} FLOP, executor {job.options.executor}"
    timed = ((sum(planned[cell] for cell in call), call[0].resources) for call, _ in job.calls)
    expected_s = _machine(job.options).makespan(timed, workers)
    progress.begin(what, len(cells), sum(planned[cell] for cell in cells.values()), expected_s)

    merged_at = time.monotonic()

    def ended(outcome: Outcome) -> None:
        nonlocal merged_at
        cell = cells[outcome.run_id]
        name, ok = job.labels[cell], outcome.status == "ok"
        for note in outcome.notes:
            progress.note(f"warning: {name}: {note}")
        progress.cell_ended(name, outcome.status, outcome.tokens, planned[cell], outcome.wall_s)
        if time.monotonic() - merged_at > _MERGE_S:
            job.store.merge()
            merged_at = time.monotonic()
        if ok:
            return
        progress.note(f"  {outcome.run_id}: {first_line(outcome.error) or outcome.status}")
        if job.options.fail_fast:
            raise WorkError(f"`fail_fast`: {name} ended with status {outcome.status}; finished cells are safe")

    job.orders.give()
    try:
        with signals.deferred():
            if job.options.executor == "ray":
                train_with_ray(job, ended, progress, signals)
            else:
                _train_inline(job, ended, progress, signals)
    finally:
        job.orders.withdraw()
    signals.require_none()
    left = len(cells) - progress.done
    if left and not job.out_of_time():
        raise WorkError(f"Ray ended with {left} cells left; finished cells are safe, run again to continue")
    if left:
        progress.note(f"`max_hours` reached: {left} cells were not started; run again to continue")
    return progress.done


def _train_inline(job: Job, ended: Callable[[Outcome], None], progress: Progress, signals: Signals) -> None:
    """One call after another in this process, with the most threads that one of them asks for: JAX starts once."""
    asked = [call[0].resources for call, _ in job.calls]
    cpus, gpus = max(resources.cpus for resources in asked), max(resources.gpus for resources in asked)
    worker.pin(cpus, gpus, spread=worker.spreads(job.calls[0][0][0]))

    def running(interruption: Interruption) -> None:
        signals.idle = lambda: interruption.idle

    def stop() -> str:
        return signals.name

    for call, corpus_hash in job.calls:
        if job.out_of_time() or signals.asked:
            return
        progress.cell_started()
        try:
            training = worker.train_cells(call, corpus_hash, job.store, "inline", job.functions, stop, running)
            with closing(training) as outcomes:  # an error of `ended` would leave its threads
                for outcome in outcomes:
                    ended(outcome)
                    if job.out_of_time() or signals.asked:
                        return
        except Interrupted:
            return


def _measure(job: Job, run_ids: dict[str, Cell], progress: Progress, signals: Signals) -> None:
    """Measure pending latencies, once per shape, after training has ended so that nothing else runs.

    Raises WorkError at the end if a shape could not be measured.
    """
    store = job.store
    measured = {shape_id: run_id for run_id, shape_id in store.latency_shapes().items()}
    shapes = []
    for shape in pending_shapes(store, store.survey(), run_ids):
        if twin := measured.get(shape_of(shape.config)):
            for run_id in shape.run_ids:
                store.write_latency(run_id, store.read("latency", twin))
        else:
            shapes.append(shape)
    if not shapes:
        return
    progress.begin(f"measuring latency of {len(shapes)} shapes, one at a time", len(shapes), 0.0)
    failures = []
    for shape, error in measured_apart(job, shapes, signals):
        name = f"latency {_shape_named(job, shape.config)}"
        progress.cell_ended(name, "error" if error else "ok")
        if error:
            failures.append(f"{name}: {first_line(error)}")
        if job.out_of_time():
            break
    if failures:
        raise WorkError(
            f"{store.out}: latency of {len(failures)} of {len(shapes)} shapes could not be measured; trained cells are "
            f"safe, run again to retry. First failure: {failures[0]}"
        )
    if left := len(shapes) - progress.done:
        progress.note(f"`max_hours` reached: latency of {left} shapes was not measured; run again to continue")


def _shape_named(job: Job, cell: Cell) -> str:
    """A shape in a few words."""
    if not isinstance(cell, RunConfig):
        return job.labels.get(cell, cell.task)
    model = cell.model
    how = f" {model.router} {model.experts}" if model.n_experts > 1 else ""
    return f"E={model.n_experts} d={model.d_model}{how}"
