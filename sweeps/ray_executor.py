"""The Ray executor: Ray Tune as a pool of reused actors. Ray is imported here and nowhere else."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scaling.config.run import RunConfig
from scaling.errors import InputError, WorkError
from sweeps import worker
from sweeps.calls import trunks
from sweeps.job import Job, Options, first_line
from sweeps.progress import Progress
from sweeps.store import Store
from sweeps.worker import LatencyShape, Outcome


def measured_apart(job: Job, shapes: list[LatencyShape]) -> Iterator[tuple[LatencyShape, str]]:
    """Here, in a process of its own; on a cluster in a task that reserves a node's CPUs, and a GPU if cells use any."""
    gpus = 1.0 if job.resources.gpus else 0.0
    if not (job.options.executor == "ray" and job.options.cluster):
        yield from worker.measure_shapes(shapes, job.store, job.work, worker.machine_cpus(), gpus)
        return
    with ray_connected(job.options, job.store) as (ray, _):
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0.0) >= gpus]
        node = max(nodes, key=lambda node: node["Resources"].get("CPU", 0.0))
        cpus = int(node["Resources"]["CPU"])

        def measure(batch: list[LatencyShape]) -> list[tuple[LatencyShape, str]]:
            return list(worker.measure_shapes(batch, job.store, job.work, cpus, gpus))

        place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(measure).options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=place)
        yield from ray.get(task.remote(shapes))


_OBJECT_STORE_BYTES = 100 * 2**20  # nothing of ours goes through it


def train_with_ray(job: Job, ended: Callable[[Outcome], None], progress: Progress) -> None:
    """Ray Tune as a pool: class Trainable, reused actors; a trial is a call, with one result per cell, whose row the
    worker has written by then.

    What Tune keeps is thrown away. An exception in a callback would pass for a failure of the trial, so the reason to
    stop is kept and raised at the end.
    """
    stop: list[Exception] = []
    noted: set[str] = set()
    calls = list(job.calls)
    with ray_connected(job.options, job.store) as (ray, scratch):
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
            raise WorkError(f"Ray Tune ended ({first_line(str(error))}); finished cells are safe, run again") from error
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
def ray_connected(options: Options, store: Store) -> Iterator[tuple[Any, Path]]:
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
                f"--address {options.cluster}: no Ray cluster answers there: {first_line(str(error))} "
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
