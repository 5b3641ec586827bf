"""The work of a sweep: training cells and measuring shapes, and writing their parts."""

from __future__ import annotations

import datetime
import json
import logging
import os
import pkgutil
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from scaling.config.cell import Cell
from scaling.config.run import RunConfig
from scaling.errors import WorkError
from scaling.tasks import TASKS
from scaling.tasks.costs import cell_of, shape_of
from scaling.tasks.rows import describe
from scaling.training import malloc
from sweeps.calls import apart
from sweeps.live import LiveWriter
from sweeps.stopping.interruption import Interrupted, Interruption, TimeLimit
from sweeps.store import Store

_ERROR_CHARACTERS = 4000
_BEAT, _BEAT_S = b"{}", 3.0  # what the measuring process says while it has no answer
_LOGGER = "scaling"
_DEVICES = "--xla_force_host_platform_device_count"
_OUT_OF_MEMORY = ("MemoryError", "RESOURCE_EXHAUSTED", "Out of memory", "running low on memory")


@dataclass(frozen=True)
class CellFunctions:
    """The functions that do the work, as `module:function`, so that only the process that runs them imports them.

    train: (cells of one call, folder for checkpoints, who is told how far it is) -> results of the cells as they end.
    measure: cell -> latency rows.   Those of the cells' task where they are "".
    """

    train: str = ""
    measure: str = ""

    def train_of(self, cell: Cell) -> str:
        """The function that trains this cell."""
        return self.train or TASKS[cell.task].train

    def measure_of(self, cell: Cell) -> str:
        """The function that measures this cell's latency."""
        return self.measure or TASKS[cell.task].measure


CELL_FUNCTIONS = CellFunctions()


def _never_asked() -> str:
    return ""


def _tell_nobody(interruption: Interruption) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """The end of a cell, whose row is on disk.

    Tokens and FLOPs exclude those shared with its trunk; a cell that is not ok has trained none. `notes` are warnings
    of its training.
    """

    run_id: str
    status: str
    error: str
    tokens: int
    train_flops: float
    wall_s: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LatencyShape:
    """The cells of one shape (`scaling.tasks.costs.shape_of`), which share a latency measurement."""

    config: Cell
    run_ids: tuple[str, ...]


def environment(cpus: int, gpus: float, *, spread: bool = True) -> dict[str, str]:
    """Environment variables, to be set before JAX is imported, that limit a cell to its threads and device.

    NPROC sets the size of the thread pool of XLA's CPU client, for which there is no other switch. With `spread` each
    thread is a device, over which training splits a cell, because the threads of one device do not share small products
    well. Compiled programs are cached by scaling/training/executable_cache.py, not by JAX.
    """
    devices = cpus if spread and not gpus else 1
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if _DEVICES not in flag]
    settings = {
        "NPROC": str(cpus),
        "OMP_NUM_THREADS": str(cpus),
        "XLA_FLAGS": " ".join([*flags, *([f"{_DEVICES}={devices}"] if devices > 1 else [])]),
        "JAX_PLATFORMS": "cuda,cpu" if gpus > 0 else "cpu",
        "JAX_CPU_ENABLE_ASYNC_DISPATCH": "false",  # temporaries on the calling thread: scaling/training/malloc.py
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    if 0 < gpus < 1:  # Ray only counts shares of a GPU; XLA has to limit the memory
        settings["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * gpus:.3f}"
    return settings


def pin(cpus: int, gpus: float, *, spread: bool = True) -> None:
    """Apply `environment` to this process, unless JAX is already imported and would ignore it."""
    if "jax" not in sys.modules:
        os.environ.update(environment(cpus, gpus, spread=spread))


def spreads(cell: Cell) -> bool:
    """Whether a cell's training makes use of one device for each CPU thread: that of the language model does."""
    return isinstance(cell, RunConfig)


def machine_cpus() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def train_cells(
    cells: Sequence[Cell],
    corpus_hash: str,
    store: Store,
    executor: str,
    functions: CellFunctions,
    asked: Callable[[], str] = _never_asked,
    told: Callable[[Interruption], None] = _tell_nobody,
) -> Generator[Outcome, None, None]:
    """Train the cells of one call and write the parts of each when it ends.

    A failure becomes a row with a status and the error's text for every cell that it kept from ending. What can train
    without the others (`sweeps.calls.apart`) is retried separately first, but after a time limit. `asked` gives a
    reason to stop, or ""; `told` is given what interrupts the call. Raises Interrupted after being asked, with a
    checkpoint written, and WorkError if a row cannot be written.
    """
    started_at, clock = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), time.perf_counter()
    left = {cell.run_id(corpus_hash): cell for cell in cells}

    def results() -> Iterator[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]]:
        try:
            folder = store.checkpoints(cell.trunk_id(corpus_hash) for cell in cells)
            train = pkgutil.resolve_name(functions.train_of(cells[0]))
            for result in train(list(cells), folder, interruption):
                if result.run["run_id"] not in left:
                    raise WorkError("the corpus changed during the sweep; run again to train on the new text")
                took = {"started_at": started_at, "wall_s": time.perf_counter() - clock}
                yield took | result.run | {"executor": executor}, result.evals, result.curves
        except Interrupted:
            raise
        except Exception as error:
            late = isinstance(error, TimeLimit)
            if not late and len(apart(left.values())) > 1:  # one alone may be the cause: retry each separately
                return
            status = "oom" if is_out_of_memory(f"{type(error).__name__}: {error}") else "timeout" if late else "error"
            wall_s = (time.perf_counter() - clock) / max(1, len(left))
            for cell in list(left.values()):
                text = str(error) if late else _text(error)
                yield failed_row(cell, corpus_hash, status, text, executor, started_at, wall_s), [], []

    with (
        _Notes() as notes,
        LiveWriter(store, cells, corpus_hash) as live,
        Interruption(live, cells, asked) as interruption,
    ):
        told(interruption)
        ending = results()
        while (result := interruption.timed(ending)) is not None:
            run, evals, curves = result
            store.write_cell(run, evals, curves)
            del left[run["run_id"]]
            clock = time.perf_counter()
            interruption.phase("wait")
            yield outcome(run, notes.taken())
    for some in apart(left.values()):
        yield from train_cells(some, corpus_hash, store, executor, functions, asked, told)


def outcome(run: dict[str, Any], notes: tuple[str, ...] = ()) -> Outcome:
    """The outcome of a cell with this row."""
    whole = run.get("tokens") or 0  # a task with another budget tells none
    own = run.get("tokens_own") or whole
    tokens, flops = (own, run["train_flops"] * (own / whole if whole else 1.0)) if run["status"] == "ok" else (0, 0.0)
    return Outcome(run["run_id"], run["status"], run.get("error") or "", tokens, flops, run.get("wall_s") or 0.0, notes)


class _Notes(logging.Handler):
    """The warnings that training logs, to be told by the driver: nobody sees the output of a worker."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: list[str] = []

    def __enter__(self) -> _Notes:
        logging.getLogger(_LOGGER).addHandler(self)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger(_LOGGER).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(record.getMessage())

    def taken(self) -> tuple[str, ...]:
        """The warnings since the last call."""
        texts, self._texts = tuple(self._texts), []
        return texts


def failed_row(
    config: Cell,
    corpus_hash: str,
    status: str,
    error: str,
    executor: str,
    started_at: str | None = None,
    wall_s: float | None = None,
) -> dict[str, Any]:
    """The `runs` row of a cell without a result."""
    ending = {"status": status, "error": error, "executor": executor, "started_at": started_at, "wall_s": wall_s}
    if isinstance(config, RunConfig):
        ending["tokens_own"] = 0  # what it trained is lost
    return describe(config, corpus_hash) | ending


def is_out_of_memory(text: str) -> bool:
    """Whether the text of an error from Python, XLA or Ray says that memory ran out."""
    return any(word in text for word in _OUT_OF_MEMORY)


def measure_shapes(
    shapes: list[LatencyShape],
    store: Store,
    functions: CellFunctions,
    cpus: int,
    gpus: float,
    silent_s: float = float("inf"),
) -> Iterator[tuple[LatencyShape, str]]:
    """Measure shapes one after another in a new process with `cpus` threads; yields each with its error or "".

    The process writes the parts. If it dies, or gives no sign of life for `silent_s`, the current shape has failed and
    another process measures the rest.
    """
    while shapes:
        job = {
            "out": str(store.out),
            "measure": functions.measure_of(shapes[0].config),
            "shapes": [{"config": s.config.model_dump(mode="json"), "run_ids": s.run_ids} for s in shapes],
        }
        paths = os.pathsep.join(path for path in sys.path if path)
        environ = os.environ | environment(cpus, gpus, spread=False) | {"PYTHONPATH": paths}
        command = [sys.executable, "-P", "-m", "sweeps.worker"]  # -P: nothing is imported from the current folder
        pipe, done, ended = subprocess.PIPE, 0, "ended at once"
        # A broken pipe means that the process died at once, which is handled below.
        with (
            suppress(BrokenPipeError),
            subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environ) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(job).encode() + b"\n")
                process.stdin.flush()  # stays open, so that the process ends when we do
                for line in _lines(process.stdout, silent_s):
                    if line != _BEAT:
                        yield shapes[done], json.loads(line)["error"]
                        done += 1
                ended = f"ended early with exit status {process.wait()}"
            except TimeoutError:
                ended = f"gave no sign of life for {silent_s:g} s"
            finally:
                process.kill()
        if done < len(shapes):
            yield shapes[done], f"the measuring process {ended}"
            done += 1
        shapes = shapes[done:]


def _lines(stream: IO[bytes], silent_s: float) -> Iterator[bytes]:
    """The lines of a pipe as they come. Raises TimeoutError where none comes for so long."""
    rest, patience = b"", None if silent_s == float("inf") else silent_s
    while True:
        if not select.select([stream], [], [], patience)[0]:
            raise TimeoutError
        chunk = os.read(stream.fileno(), 1 << 16)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def main() -> None:
    """The measuring process: reads a job from standard input and writes one line of JSON per shape."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # other output goes to standard error
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C, and this process ends with it
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Thread(target=_beat, args=(answers.fileno(),), daemon=True).start()
    malloc.keep()
    store, measure = Store(Path(job["out"])), pkgutil.resolve_name(job["measure"])
    for shape in job["shapes"]:
        try:
            cell = cell_of(shape["config"])
            rows = [{"shape_id": shape_of(cell)} | row for row in measure(cell)]
            for run_id in shape["run_ids"]:
                store.write_latency(run_id, rows)
            error = ""
        except Exception as problem:
            error = _text(problem)
        print(json.dumps({"error": error}), file=answers, flush=True)


def _beat(pipe: int) -> None:
    while True:
        time.sleep(_BEAT_S)
        os.write(pipe, _BEAT + b"\n")


def _end_with_parent() -> None:
    while os.read(0, 1):  # returns nothing when the driver has died; unbuffered, so that exit is not blocked by a lock
        pass
    os._exit(1)


def _text(error: BaseException) -> str:
    """Type and message of an error, then its traceback."""
    where = "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__name__}: {error}\n{where}"[:_ERROR_CHARACTERS]


if __name__ == "__main__":
    main()
