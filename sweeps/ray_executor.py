"""The Ray executor: Ray Tune as a pool of reused actors. Only this module imports Ray."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scaling.config.run import RunConfig, by_trunk
from scaling.distribution import require_installed
from scaling.errors import InputError, WorkError
from scaling.formatting import first_line
from scaling.training.jax_start import cause_of_death
from sweeps import worker
from sweeps.calls import Together
from sweeps.job import Job, Options
from sweeps.progress import Progress
from sweeps.ray_address import RayAddress
from sweeps.store import Store
from sweeps.worker import LatencyShape, Outcome


def measured_apart(job: Job, shapes: list[LatencyShape]) -> Iterator[tuple[LatencyShape, str]]:
    """Measure shapes in a separate process; on a cluster, in a task that reserves a node's CPUs and a GPU if needed."""
    gpus = 1.0 if job.resources.gpus else 0.0
    if job.options.cluster is None:
        yield from worker.measure_shapes(shapes, job.store, job.functions, worker.machine_cpus(), gpus)
        return
    with ray_connected(job.options, job.store) as (ray, _):
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0.0) >= gpus]
        node = max(nodes, key=lambda node: node["Resources"].get("CPU", 0.0))
        cpus = int(node["Resources"]["CPU"])

        def measure(batch: list[LatencyShape]) -> list[tuple[LatencyShape, str]]:
            return list(worker.measure_shapes(batch, job.store, job.functions, cpus, gpus))

        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(measure).options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=place)
        yield from ray.get(task.remote(shapes))


def train_with_ray(job: Job, ended: Callable[[Outcome], None], progress: Progress) -> None:
    """Train with Ray Tune: a trial is a call, with one result per cell after its row has been written.

    Tune's own files are discarded. Raises InputError if Ray has fewer GPUs than a cell needs, and WorkError if Ray ends
    early, a row cannot be written or `ended` raises it.
    """
    with ray_connected(job.options, job.store) as (ray, scratch):
        from ray import tune

        pool = _Pool(job, ended, progress, list(job.calls), scratch.parent / _SESSIONS / "session_latest" / "logs")
        need, available = job.resources.gpus, ray.cluster_resources().get("GPU", 0.0)
        if need > available:
            raise InputError(f"resources.gpus={need:g}, but Ray sees {available:g} GPUs; lower it or set `address`")
        try:
            _run_calls(pool, range(len(job.calls)), scratch)
            if len(pool.calls) > len(job.calls) and not pool.stopped_by:
                _run_calls(pool, range(len(job.calls), len(pool.calls)), scratch)
        except (tune.TuneError, ray.exceptions.RayError) as error:
            raise WorkError(f"Ray Tune ended ({first_line(error)}); finished cells are safe, run again") from error
    if pool.stopped_by:
        raise pool.stopped_by


@dataclass
class _Pool:
    """The driver's side: the calls, and the reports of their workers.

    `calls`: those of the job, followed by trunks that failed together and are retried separately. An exception in a
    callback would look like a failed trial, so a reason to stop is kept in `stopped_by` and raised at the end.
    """

    job: Job
    ended: Callable[[Outcome], None]
    progress: Progress
    calls: list[tuple[Together, str]]
    logs: Path  # of Ray; empty on a cluster, whose logs lie on its nodes
    noted: set[str] = field(default_factory=set)
    stopped_by: WorkError | None = None

    def note(self, outcome: Outcome) -> None:
        self.noted.add(outcome.run_id)
        try:
            self.ended(outcome)
        except WorkError as error:
            self.stop(error)

    def stop(self, error: WorkError) -> None:
        self.stopped_by = self.stopped_by or error

    def result(self, result: dict[str, Any]) -> None:
        """Handle the result of one step of a call (`_CellByCell`)."""
        if "fatal" in result:
            self.stop(WorkError(result["fatal"]))
        elif result["outcome"]:
            self.note(Outcome(**result["outcome"]))

    def lost(self, number: int) -> None:
        """The worker of a call was killed; Tune retries the call once."""
        self.progress.cell_lost(self.job.labels[self.calls[number][0][0]])

    def failed(self, number: int, report: str) -> None:
        """A call was lost twice. If it had several trunks, one may be the cause, so each gets its own call."""
        call, corpus_hash = self.calls[number]
        left = [cell for cell in call if cell.run_id(corpus_hash) not in self.noted]
        if len(trunks := by_trunk(left)) > 1:
            self.calls.extend((trunk, corpus_hash) for trunk in trunks)
            return
        try:
            for cell in left:
                self.note(lost_cell(cell, corpus_hash, self.job.store, report))
        except WorkError as error:
            self.stop(error)


class _CellByCell:
    """The worker's side: one call, one cell per step, without cells that an earlier worker finished."""

    def __init__(self, job: Job, call: Together, corpus_hash: str) -> None:
        left = [cell for cell in call if not _ended_well(cell, corpus_hash, job.store)]
        self._job, self._left = job, len(left)
        self._outcomes = worker.train_cells(left, corpus_hash, job.store, "ray", job.functions)

    def step(self) -> dict[str, Any]:
        """Train the next cell; returns a result for Tune."""
        if self._job.out_of_time() or not self._left:
            return {"done": True, "outcome": None}
        worker.pin(self._job.resources.cpus, self._job.resources.gpus)
        try:
            outcome = next(self._outcomes)
        except WorkError as error:
            return {"done": True, "outcome": None, "fatal": str(error)}
        self._left -= 1
        return {"done": not self._left, "outcome": asdict(outcome)}


def _run_calls(pool: _Pool, numbers: Iterable[int], scratch: Path) -> None:
    """Run the calls with these numbers."""
    from ray import tune

    tune.run(
        _trainable(pool.job, pool.calls),
        config={"call": tune.grid_search(list(numbers))},
        resources_per_trial={"cpu": pool.job.resources.cpus, "gpu": pool.job.resources.gpus},
        max_concurrent_trials=pool.job.options.max_concurrent,
        stop=_stopper(pool),
        reuse_actors=True,
        callbacks=[_callback(pool)],
        storage_path=str(scratch),
        name="tune",
        raise_on_failed_trial=False,
        max_failures=1,  # only a killed worker counts: its call is retried once
        verbose=0,
    )


def _trainable(job: Job, calls: list[tuple[Together, str]]) -> type:
    from ray import tune

    class Call(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.cells = _CellByCell(job, *calls[config["call"]])

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            return self.cells.step()

    return Call


def _callback(pool: _Pool) -> Any:
    from ray import tune

    class Reports(tune.Callback):
        def on_trial_start(self, *_: Any, **info: Any) -> None:
            pool.progress.cell_started()

        def on_trial_result(self, *_: Any, **info: Any) -> None:
            pool.result(info["result"])

        def on_trial_recover(self, *_: Any, **info: Any) -> None:
            pool.lost(info["trial"].config["call"])

        def on_trial_error(self, *_: Any, **info: Any) -> None:
            trial = info["trial"]
            report = Path(trial.error_file).read_text(encoding="utf-8")
            pool.failed(trial.config["call"], with_last_words(report, pool.logs))

    return Reports()


def _stopper(pool: _Pool) -> Any:
    from ray import tune

    class Stop(tune.Stopper):
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return pool.stopped_by is not None

    return Stop()


def _ended_well(cell: RunConfig, corpus_hash: str, store: Store) -> bool:
    part = store.part(cell.run_id(corpus_hash))
    return part is not None and part.ok


def with_last_words(report: str, logs: Path) -> str:
    """Ray's report of a worker that died, and below its first line the cause, where that wrote one before its end."""
    pid = re.search(r"\bpid[:=] ?(\d+)", report)
    files = logs.glob(f"worker-*-{pid[1]}.err") if pid else ()
    written = "\n".join(path.read_text(encoding="utf-8", errors="replace")[-_LOG_CHARACTERS:] for path in files)
    words = cause_of_death(written)
    when, _, rest = report.partition("\n")
    return f"{when}\n{words}\n{rest}" if words else report


def lost_cell(cell: RunConfig, corpus_hash: str, store: Store, report: str) -> Outcome:
    """The outcome of a cell whose worker died; writes its row with Ray's report unless the worker had written one."""
    part = store.part(cell.run_id(corpus_hash))
    if part and part.status in ("ok", "diverged"):  # the worker died between writing and reporting
        return worker.outcome(asdict(part))
    status = "oom" if worker.is_out_of_memory(report) else "error"
    text = f"the worker ended before its row was written: {report.partition(chr(10))[2]}"  # the first line is the time
    row = worker.failed_row(cell, corpus_hash, status, text, "ray")
    store.write_cell(row, [], [])
    return worker.outcome(row)


# ------------------------------------------------------------------------------------------------------- connection

_LOG_CHARACTERS = 20_000
_SESSIONS = "s"  # below our folder, which is closed to others, because Ray opens its own to everybody
_OBJECT_STORE_BYTES = 100 * 2**20  # small, because we do not use it
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
# Set before the import: no usage statistics, no result files, and Ctrl-C handled by us.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "3600",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
}
# Of an instance of our own, also set before the import: it listens to this machine alone (Ray's switch for systems
# where a firewall would ask; the address of a node cannot be given as a local one) and to those who know a token,
# which is kept in the environment because Ray's own file can be read by every user.
_LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


@contextmanager
def ray_connected(options: Options, store: Store) -> Iterator[tuple[Any, Path]]:
    """Connect Ray to the cluster at the address, or to a local instance that ends with this process.

    Also yields a scratch folder visible to all nodes: in the study's folder on a cluster, else a local one. Ray's
    standard output is dropped, because that of the command must stay clean; rows record how workers ended. Raises
    InputError if Ray is not installed or no cluster answers, WorkError if a local instance does not start.
    """
    os.environ |= _ENVIRONMENT | ({} if options.cluster else _LOCAL)
    require_installed("`executor` ray (inline does not)", "ray")
    if options.cluster:
        options.cluster.require_answer()  # Ray itself takes seconds to import and minutes to give up
    import ray

    if options.cluster:
        folder = scratch = store.out / ".ray"
        _join(ray, options.cluster)
    else:
        folder = _start(ray)
        scratch = folder / "scratch"
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield ray, scratch
            ray.shutdown()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _join(ray: Any, address: RayAddress) -> None:
    try:
        # Of a client, ray://, the server has the paths.
        paths = {} if address.text.startswith("ray://") else {"job_config": _job_config()}
        ray.init(address=address.text, **paths, **_QUIET)
    except Exception as error:  # Ray has no common type for what is wrong with a cluster
        raise address.unanswered(first_line(error).partition(". ")[0] or type(error).__name__) from error


def _start(ray: Any) -> Path:
    """Start a local instance; returns its folder, whose path is short because paths of sockets are below 107 bytes."""
    _remove_folders_of_dead_drivers()
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"ray-{_host()}-{os.getpid()}-", dir="/tmp"))
    except OSError as error:
        raise WorkError(f"Ray needs a folder in /tmp ({error.strerror}); `executor` inline works without it") from error
    local: dict[str, Any] = {
        "num_cpus": worker.machine_cpus(),
        "include_dashboard": False,
        "_temp_dir": str(folder / _SESSIONS),
    }
    try:
        settings = {"object_store_memory": _OBJECT_STORE_BYTES, **local, **_QUIET}
        ray.init(address="local", job_config=_job_config(), **settings)
    except Exception as error:  # Ray has no common type for errors of ports, memory or process limits
        shutil.rmtree(folder, ignore_errors=True)
        busy = "; it waits for 30 s: try again when this machine is less busy" if "timed out" in str(error) else ""
        raise WorkError(f"Ray did not start ({error}{busy}); `executor` inline works without it") from error
    return folder


def _job_config() -> Any:
    """Ray's settings of a driver, without the current folder among the paths from which workers import."""
    from ray.job_config import JobConfig

    config = JobConfig()
    config._py_driver_sys_path = _OwnPaths()  # Ray extends it when it connects
    return config


class _OwnPaths(list[str]):
    """Paths of the driver. Ray would add the current folder before them: a `glob.py` in a study that somebody sent
    would run in every worker."""

    def extend(self, paths: Iterable[str]) -> None:
        super().extend(path for path in paths if path in sys.path)


def _host() -> str:
    """A short name of this machine or container, since only its processes are visible to us."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def _remove_folders_of_dead_drivers() -> None:
    """Remove Ray's logs of drivers that were killed, except those of other users."""
    for folder in Path("/tmp").glob(f"ray-{_host()}-*-*"):
        pid = folder.name.removeprefix(f"ray-{_host()}-").split("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
