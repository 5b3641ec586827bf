"""Training and measuring on Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from scaling.errors import WorkError
from scaling.formatting import first_line
from sweeps import worker
from sweeps.job import Job
from sweeps.progress import Progress
from sweeps.ray_executor import nodes
from sweeps.ray_executor.connection import SESSIONS, ray_connected
from sweeps.ray_executor.pool import Pool, last_failure
from sweeps.ray_executor.trainable import trainable
from sweeps.stopping.signals import Signals
from sweeps.worker import LatencyShape, Outcome

_LOOK_S = 1.0  # between two looks at the workers


def measured_apart(job: Job, shapes: list[LatencyShape], signals: Signals) -> Iterator[tuple[LatencyShape, str]]:
    """Measure shapes in a separate process; on a cluster, in a task that reserves a node's CPUs and a GPU if needed."""
    gpus = 1.0 if any(shape.config.resources.gpus for shape in shapes) else 0.0
    if job.options.cluster is None:
        cpus, silent_s = worker.machine_cpus(), job.options.patience.silent_s
        yield from worker.measure_shapes(shapes, job.store, job.functions, cpus, gpus, silent_s)
        return
    with ray_connected(job.options, job.store, signals) as (ray, _):

        def measure(batch: list[LatencyShape], cpus: int) -> list[tuple[LatencyShape, str]]:
            silent_s = job.options.patience.silent_s
            return list(worker.measure_shapes(batch, job.store, job.functions, cpus, gpus, silent_s))

        task, problem = ray.remote(measure), ""
        for node in nodes.largest_first(ray, gpus):
            cpus, place = int(node["Resources"]["CPU"]), nodes.on(node)
            there = task.options(num_cpus=cpus, num_gpus=gpus, scheduling_strategy=place, max_retries=0)
            try:
                yield from ray.get(there.remote(shapes, cpus))
                return
            except ray.exceptions.RayError as error:  # a node that was just lost is listed for a while
                problem = first_line(error)
        raise WorkError(f"latency could not be measured on any node ({problem or 'none has a GPU'}); run again")


def train_with_ray(job: Job, ended: Callable[[Outcome], None], progress: Progress, signals: Signals) -> None:
    """Train with Ray Tune: a trial is a call, with one result per cell after its row has been written.

    Tune's own files are discarded. After a signal, calls are left once their workers have written checkpoints. Raises
    InputError if no node has room for a cell, and WorkError if a node does not see the study's folder, Ray ends early,
    a row cannot be written or `ended` raises it.
    """
    with ray_connected(job.options, job.store, signals) as (ray, scratch):
        from ray import tune

        def end(host: str, pid: int, began: float) -> None:
            nodes.end_worker(ray, host, pid, began)

        logs = scratch.parent / SESSIONS / "session_latest" / "logs"
        pool = Pool(job, ended, progress, list(job.calls), logs, signals, end)
        nodes.require_room(ray, {call[0].resources for call, _ in job.calls})
        if job.options.cluster is not None:
            nodes.require_shared(ray, job.orders, job.calls[0][0][0].task)
        try:
            memory = max(node["Resources"].get("memory", 0.0) for node in nodes.alive(ray))
            _run_calls(pool, range(len(job.calls)), scratch, memory)
            if len(pool.calls) > len(job.calls) and not pool.over:
                _run_calls(pool, range(len(job.calls), len(pool.calls)), scratch, memory)
        except (tune.TuneError, ray.exceptions.RayError) as error:
            if not signals.asked:
                raise WorkError(f"Ray Tune ended ({first_line(error)}); finished cells are safe, run again") from error
    if pool.stopped_by and not signals.asked:
        raise pool.stopped_by


def _run_calls(pool: Pool, numbers: Iterable[int], scratch: Path, most_memory: float) -> None:
    """Run the calls with these numbers."""
    from ray import tune

    tune.run(
        trainable(pool.job, pool.calls, most_memory),
        config={"call": tune.grid_search(list(numbers))},
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


def _callback(pool: Pool) -> Any:
    from ray import tune

    class Reports(tune.Callback):
        looked = 0.0

        def on_step_end(self, *_: Any, **info: Any) -> None:
            if time.monotonic() - self.looked > _LOOK_S:
                self.looked = time.monotonic()
                pool.look()

        def on_trial_start(self, *_: Any, **info: Any) -> None:
            pool.started(info["trial"].config["call"], info["trial"])

        def on_trial_result(self, *_: Any, **info: Any) -> None:
            pool.result(info["trial"].config["call"], info["result"])

        def on_trial_complete(self, *_: Any, **info: Any) -> None:
            pool.completed(info["trial"].config["call"])

        def on_trial_recover(self, *_: Any, **info: Any) -> None:
            pool.lost(info["trial"].config["call"], info["trial"])

        def on_trial_error(self, *_: Any, **info: Any) -> None:
            pool.failed(info["trial"].config["call"], last_failure(info["trial"]))

    return Reports()


def _stopper(pool: Pool) -> Any:
    from ray import tune

    class Stop(tune.Stopper):
        def __reduce__(self) -> Any:  # Tune saves it again and again, with all that it refers to; nobody reads that
            return tune.stopper.NoopStopper, ()

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return pool.over

    return Stop()
