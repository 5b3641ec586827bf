"""The executors: the grid minus the finished cells, trained in this process or by Ray Tune, then latency alone.

Ray is imported here and nowhere else, and only when there is something to train.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from scaling import data
from scaling.config import Resources, RunConfig
from scaling.errors import InputError, WorkError
from sweeps import worker
from sweeps.grid import Grid, resolved
from sweeps.plan import labels
from sweeps.progress import Progress
from sweeps.store import Store
from sweeps.study import Summary, owed, record, summarise
from sweeps.together import Together, own_flops, plan_calls, trunks
from sweeps.worker import WORK, Outcome, Shape, Work

Executor = Literal["ray", "inline"]
_OBJECT_STORE_BYTES = 100 * 2**20  # nothing of ours goes through it


@dataclass(frozen=True)
class Options:
    """How a sweep runs. Nothing here changes what a cell is."""

    executor: Executor = "ray"
    address: str | None = None
    max_concurrent: int | None = None
    max_hours: float | None = None
    retry_failed: bool = False
    fail_fast: bool = False

    @property
    def cluster(self) -> str | None:
        """The Ray cluster to use: as told, or as `ray job submit` tells it; None is an instance of our own."""
        return self.address or os.environ.get("RAY_ADDRESS")

    def __post_init__(self) -> None:
        if self.executor == "inline" and (self.address or (self.max_concurrent or 1) > 1):
            raise InputError("--address and --max-concurrent need --executor ray: inline is one cell after another")
        if self.max_concurrent is not None and self.max_concurrent < 1:
            raise InputError(f"--max-concurrent {self.max_concurrent}: at least 1")
        if self.max_hours is not None and not self.max_hours > 0:
            raise InputError(f"--max-hours {self.max_hours:g}: more than 0")


@dataclass(frozen=True)
class _Job:
    """What an executor needs: the calls in their order and where their cells go."""

    calls: list[tuple[Together, str]]  # with the hash of the corpus each trains on
    store: Store
    work: Work
    options: Options
    deadline: float
    resources: Resources
    labels: dict[RunConfig, str]

    def out_of_time(self) -> bool:
        return time.time() > self.deadline


def run(grid: Grid, out: Path, options: Options, progress: Progress, work: Work = WORK) -> Summary:
    """Train what is missing, then measure the latency that is owed. Safe to call again at any time.

    Raises InputError (a second driver, a corpus that cannot be read, resources this machine lacks) and WorkError (the
    disk is full, --fail-fast met a failure, no cell is ok, or a latency could not be measured). A failed cell is a row.
    """
    deadline = time.time() + options.max_hours * 3600 if options.max_hours else float("inf")
    store = Store(out.resolve())
    _check_resources(grid, options)
    with store.lock():
        corpora = {config: data.prepare(config).hash for config in grid.corpora}
        hashes = {cell: corpora[cell.data] for cell in grid.cells}
        run_ids = {cell.run_id(hashes[cell]): cell for cell in grid.cells}
        before = store.survey()
        for said in store.tidy(before):
            progress.note(f"warning: {said}")
        store.write_grid(resolved(grid, record(grid, list(corpora.values()))))

        missing = [run_ids[run_id] for run_id in before.missing(run_ids, retry_failed=options.retry_failed)]
        queue = [(call, hashes[call[0]]) for call in plan_calls(missing, _workers(grid, options))]
        job = _Job(queue, store, work, options, deadline, grid.cells[0].resources, labels(grid))
        trained = _train(job, progress) if missing else 0
        _measure(job, run_ids, progress)
        summary = summarise(store, grid, run_ids, trained_now=trained)
    if summary.ok == 0 and not summary.left:
        raise WorkError(f"{store.out}: no cell is ok; the first failure: {_first_line(summary.failures[0]['error'])}")
    return summary


def _workers(grid: Grid, options: Options) -> int:
    """Cells at a time, as far as it is known before Ray is up: on a cluster as many as there are."""
    if options.executor == "inline":
        return 1
    most = len(grid.cells) if options.cluster else max(1, worker.machine_cpus() // grid.cells[0].resources.cpus)
    return min(most, options.max_concurrent or most)


def _check_resources(grid: Grid, options: Options) -> None:
    need, have = grid.cells[0].resources.cpus, worker.machine_cpus()
    if not (options.executor == "ray" and options.cluster) and need > have:
        raise InputError(f"{grid.path}: resources.cpus={need}, but this machine has {have}; lower it or give --address")


# ------------------------------------------------------------------------------------------------------- training


def _train(job: _Job, progress: Progress) -> int:
    """Run the job's calls, each cell noted as it ends; how many. Raises WorkError at the first failure with --fail-fast."""
    cells = {cell.run_id(corpus_hash): cell for call, corpus_hash in job.calls for cell in call}
    flops = sum(own_flops(call) for call, _ in job.calls)
    what = f"training {len(cells)} cells in {len(job.calls)} calls, {flops:.2e} FLOP, executor {job.options.executor}"
    progress.begin(what, len(cells), flops)

    def ended(outcome: Outcome) -> None:
        name = job.labels[cells[outcome.run_id]]
        progress.cell_ended(
            name, outcome.status, tokens=outcome.tokens, flops=outcome.train_flops, wall_s=outcome.wall_s
        )
        if outcome.status == "ok":
            return
        progress.note(f"  {outcome.run_id}: {_first_line(outcome.error) or outcome.status}")
        if job.options.fail_fast:
            raise WorkError(f"--fail-fast: {name} ended as {outcome.status}; finished cells are safe")

    if job.options.executor == "ray":
        _train_with_ray(job, ended, progress)
    else:
        _train_inline(job, ended, progress)
    left = len(cells) - progress.done
    if left and not job.out_of_time():
        raise WorkError(f"Ray ended with {left} cells left; finished cells are safe, run again to go on")
    if left:
        progress.note(f"--max-hours: {left} cells were not started; run again to go on")
    return progress.done


def _train_inline(job: _Job, ended: Callable[[Outcome], None], progress: Progress) -> None:
    worker.pin(job.resources.cpus, job.resources.gpus)
    for call, corpus_hash in job.calls:
        if job.out_of_time():
            return
        progress.cell_started()
        for outcome in worker.train_cells(call, corpus_hash, job.store, "inline", job.work):
            ended(outcome)
            if job.out_of_time():
                return


def _train_with_ray(job: _Job, ended: Callable[[Outcome], None], progress: Progress) -> None:
    """Ray Tune as a pool: class Trainable, reused actors; a trial is a call, with one result per cell, whose row the
    worker has written by then.

    What Tune keeps is thrown away. An exception in a callback would pass for a failure of the trial, so the reason to
    stop is kept and raised at the end.
    """
    stop: list[Exception] = []
    noted: set[str] = set()
    calls = list(job.calls)
    with _ray(job.options, job.store) as (ray, scratch):
        from ray import tune

        need, have = job.resources.gpus, ray.cluster_resources().get("GPU", 0.0)
        if need > have:
            raise InputError(f"resources.gpus={need:g}, but Ray sees {have:g} GPUs; lower it or give --address")

        class Call(tune.Trainable):
            def setup(self, config: dict[str, Any]) -> None:
                call, corpus_hash = calls[config["call"]]
                left = [
                    cell for cell in call if not _ended_well(cell, corpus_hash, job.store)
                ]  # after a worker's death
                self.left = len(left)
                self.outcomes = worker.train_cells(left, corpus_hash, job.store, "ray", job.work)

            def reset_config(self, new_config: dict[str, Any]) -> bool:
                self.setup(new_config)
                return True

            def step(self) -> dict[str, Any]:
                if job.out_of_time() or not self.left:
                    return {"done": True, "outcome": None}
                worker.pin(job.resources.cpus, job.resources.gpus)
                try:
                    outcome = next(self.outcomes)
                except WorkError as error:
                    return {"done": True, "outcome": None, "fatal": str(error)}
                self.left -= 1
                return {"done": not self.left, "outcome": asdict(outcome)}

        class Watch(tune.Callback):
            def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                progress.cell_started()

            def on_trial_result(
                self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
            ) -> None:
                if "fatal" in result:
                    stop.append(WorkError(result["fatal"]))
                elif result["outcome"]:
                    note(Outcome(**result["outcome"]))

            def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                progress.cell_lost(job.labels[calls[trial.config["call"]][0][0]])

            def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
                call, corpus_hash = calls[trial.config["call"]]
                said = Path(trial.error_file).read_text(encoding="utf-8")
                left = [cell for cell in call if cell.run_id(corpus_hash) not in noted]
                if len(apart := trunks(left)) > 1:  # one of them may have done it: each gets a call of its own
                    calls.extend((trunk, corpus_hash) for trunk in apart)
                    return
                try:
                    for cell in left:
                        note(_lost(cell, corpus_hash, job.store, said))
                except WorkError as error:
                    stop.append(error)

        class Halt(tune.Stopper):
            def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
                return False

            def stop_all(self) -> bool:
                return bool(stop)

        def note(outcome: Outcome) -> None:
            noted.add(outcome.run_id)
            try:
                ended(outcome)
            except WorkError as error:
                stop.append(error)

        def run_calls(numbers: list[int]) -> None:
            tune.run(
                Call,
                config={"call": tune.grid_search(numbers)},
                resources_per_trial={"cpu": job.resources.cpus, "gpu": job.resources.gpus},
                max_concurrent_trials=job.options.max_concurrent,
                stop=Halt(),
                reuse_actors=True,
                callbacks=[Watch()],
                storage_path=str(scratch),
                name="tune",
                raise_on_failed_trial=False,
                max_failures=1,  # only the death of a worker gets here: the call it held is tried once more
                verbose=0,
            )

        try:
            run_calls(list(range(len(job.calls))))
            if len(calls) > len(job.calls) and not stop:
                run_calls(list(range(len(job.calls), len(calls))))
        except (tune.TuneError, ray.exceptions.RayError) as error:
            raise WorkError(
                f"Ray Tune ended ({_first_line(str(error))}); finished cells are safe, run again"
            ) from error
    if stop:
        raise stop[0]


def _ended_well(cell: RunConfig, corpus_hash: str, store: Store) -> bool:
    part = store.part(cell.run_id(corpus_hash))
    return part is not None and part.ok


def _lost(cell: RunConfig, corpus_hash: str, store: Store, said: str) -> Outcome:
    """Write the row of a cell whose worker ended before it could, with what Ray said of it."""
    part = store.part(cell.run_id(corpus_hash))
    if part and part.status in ("ok", "diverged"):  # it ended between its last write and its answer
        return worker.outcome(asdict(part))
    status = "oom" if worker.is_out_of_memory(said) else "error"
    text = f"the worker ended before its row was written: {said.partition(chr(10))[2]}"  # after a line with the time
    row = worker.failed_row(cell, corpus_hash, status, text, "ray", None, None)
    store.write_cell(row, [], [])
    return worker.outcome(row)


@contextmanager
def _ray(options: Options, store: Store) -> Iterator[tuple[Any, Path]]:
    """Ray connected: to the cluster at the address, else to an instance of our own that ends with us.

    With it a scratch folder that all its nodes see: on a cluster in the study's folder, else a local one.
    Standard output belongs to the command, so what Ray prints there meanwhile is dropped: rows say how workers ended.
    """
    # Before the import: no usage statistics, no result files of its own, Ctrl-C is ours.
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_WARN_THRESHOLD_S": "3600",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    }
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed: pip install 'scaling[sweep]', or use --executor inline") from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if options.cluster:
        folder = scratch = store.out / ".ray"
        try:
            host, _, port = options.cluster.rpartition(":")
            if port.isdigit():  # Ray itself asks for minutes before it gives up
                socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=5).close()
            ray.init(address=options.cluster, **quiet)
        except OSError as error:
            raise InputError(
                f"--address {options.cluster}: no Ray cluster answers there: {_first_line(str(error))} "
                "(one that asks for a token needs RAY_AUTH_MODE=token in the environment)"
            ) from error
    else:
        # Short, because sockets below it must stay under 107 bytes, and not another user's.
        _sweep_away_folders_of_the_dead()
        folder = Path(tempfile.mkdtemp(prefix=f"ray-{_host()}-{os.getpid()}-", dir="/tmp"))
        scratch = folder / "scratch"
        local: dict[str, Any] = {
            "num_cpus": worker.machine_cpus(),
            "include_dashboard": False,
            "_temp_dir": str(folder),
        }
        try:
            ray.init(address="local", object_store_memory=_OBJECT_STORE_BYTES, **local, **quiet)
        except Exception as error:  # ports, memory, limits of processes: Ray has no type for it
            shutil.rmtree(folder, ignore_errors=True)
            raise WorkError(f"Ray did not start ({error}); --executor inline does without it") from error
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield ray, scratch
            ray.shutdown()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _host() -> str:
    """Names this machine or container, whose processes alone we can see; short, for a socket's path has 107 bytes."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def _sweep_away_folders_of_the_dead() -> None:
    """A driver that was killed left Ray's logs behind; another user's stay, for we may not remove them."""
    for folder in Path("/tmp").glob(f"ray-{_host()}-*-*"):
        pid = folder.name.removeprefix(f"ray-{_host()}-").split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)


# -------------------------------------------------------------------------------------------------------- latency


def _measure(job: _Job, run_ids: dict[str, RunConfig], progress: Progress) -> None:
    """Measure what is owed, once per shape, with nothing beside it: training has ended and its workers are gone.

    Raises WorkError at the end when a shape could not be measured.
    """
    store = job.store
    known = {shape_id: run_id for run_id, shape_id in store.latency_shapes().items()}
    shapes = []
    for shape in owed(store, store.survey(), run_ids):
        if twin := known.get(shape.config.shape_id()):
            for run_id in shape.run_ids:
                store.write_latency(run_id, store.read("latency", twin))
        else:
            shapes.append(shape)
    if not shapes:
        return
    progress.begin(f"measuring latency of {len(shapes)} shapes, one at a time", len(shapes), 0.0)
    failures = []
    for shape, error in _measured(job, shapes):
        model = shape.config.model
        how = f" {model.router} {model.experts}" if model.n_experts > 1 else ""
        name = f"latency E={model.n_experts} d={model.d_model}{how}"
        progress.cell_ended(name, "error" if error else "ok")
        if error:
            failures.append(f"{name}: {_first_line(error)}")
        if job.out_of_time():
            break
    if failures:
        raise WorkError(
            f"{store.out}: latency of {len(failures)} of {len(shapes)} shapes could not be measured; training is safe, "
            f"run again to retry. First: {failures[0]}"
        )
    if progress.done < len(shapes):
        progress.note(f"--max-hours: latency of {len(shapes) - progress.done} shapes is owed; run again to go on")


def _measured(job: _Job, shapes: list[Shape]) -> Iterator[tuple[Shape, str]]:
    """Here, in a process of its own; on a cluster in a task that reserves a node's CPUs, and a GPU if cells use any."""
    gpus = 1.0 if job.resources.gpus else 0.0
    if not (job.options.executor == "ray" and job.options.cluster):
        yield from worker.measure_shapes(shapes, job.store, job.work, worker.machine_cpus(), gpus)
        return
    with _ray(job.options, job.store) as (ray, _):
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0.0) >= gpus]
        node = max(nodes, key=lambda node: node["Resources"].get("CPU", 0.0))
        cpus = int(node["Resources"]["CPU"])

        def measure(batch: list[Shape]) -> list[tuple[Shape, str]]:
            return list(worker.measure_shapes(batch, job.store, job.work, cpus, gpus))

        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(measure).options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=place)
        yield from ray.get(task.remote(shapes))


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""
