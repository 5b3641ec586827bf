"""The connection to Ray: a cluster that runs already, or an instance of our own that ends with its driver."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from scaling.distribution import require_installed
from scaling.errors import WorkError
from scaling.formatting import first_line
from sweeps import worker
from sweeps.job import Options
from sweeps.ray_executor.address import RayAddress
from sweeps.ray_executor.guard import MARK, Guard
from sweeps.stopping.signals import Signals
from sweeps.store import Store

SESSIONS = "s"  # below our folder, which is closed to others, because Ray opens its own to everybody
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


def import_beside(options: Options) -> None:
    """Import Ray and Tune in a thread, which takes seconds, while the driver reads and plans.

    Where that fails, the import that follows in the driver fails alike, and is the one to be reported.
    """
    _set_environment(options)

    def load() -> None:
        with suppress(Exception):
            import ray.tune  # noqa: F401

    threading.Thread(target=load, name="import of Ray").start()


def _set_environment(options: Options) -> None:
    os.environ |= _ENVIRONMENT | ({} if options.cluster else _LOCAL)


@contextmanager
def ray_connected(options: Options, store: Store, signals: Signals) -> Iterator[tuple[Any, Path]]:
    """Connect Ray to the cluster at the address, or to a local instance that ends with this process.

    Also yields a scratch folder visible to all nodes: in the study's folder on a cluster, else a local one. Ray's
    standard output is dropped, because that of the command must stay clean; rows record how workers ended. Raises
    InputError if Ray is not installed or no cluster answers, WorkError if a local instance does not start.
    """
    _set_environment(options)
    require_installed("`executor` ray (inline does not)", "ray")
    if options.cluster:
        options.cluster.require_answer()  # Ray itself takes seconds to import and minutes to give up
    import ray

    connected = _joined(ray, options.cluster, store, signals) if options.cluster else _started(ray, signals)
    with connected as scratch:
        try:
            with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
                yield ray, scratch
                ray.shutdown()
        finally:
            ray.shutdown()
            signals.take()


@contextmanager
def _joined(ray: Any, address: RayAddress, store: Store, signals: Signals) -> Iterator[Path]:
    """A connection to a cluster, with a scratch folder in the study's."""
    scratch = store.out / ".ray"
    try:
        # Of a client, ray://, the server has the paths.
        paths = {} if address.text.startswith("ray://") else {"job_config": _job_config()}
        with signals.blocked(), _deaf(ray):
            ray.init(address=address.text, **paths, **_QUIET)
    except Exception as error:  # Ray has no common type for what is wrong with a cluster
        raise address.unanswered(first_line(error).partition(". ")[0] or type(error).__name__) from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _started(ray: Any, signals: Signals) -> Iterator[Path]:
    """An instance of our own, with a scratch folder; its folder has a short path because those of sockets are below 107
    bytes. Whatever ends this process, the instance ends with it (`guard`)."""
    _remove_folders_of_dead_drivers()
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"ray-{_host()}-{os.getpid()}-", dir="/tmp"))
    except OSError as error:
        raise WorkError(f"Ray needs a folder in /tmp ({error.strerror}); `executor` inline works without it") from error
    local: dict[str, Any] = {
        "num_cpus": worker.machine_cpus(),
        "include_dashboard": False,
        "_temp_dir": str(folder / SESSIONS),
    }
    guard = Guard(folder)
    try:
        try:
            settings = {"object_store_memory": _OBJECT_STORE_BYTES, **local, **_QUIET}
            os.environ[MARK] = guard.mark
            with signals.blocked(), _deaf(ray), _alone(ray):
                _twice(ray, settings)
        except Exception as error:  # Ray has no common type for errors of ports, memory or process limits
            ray.shutdown()  # else Tune waits at the end of this process for what did not start
            busy = "; it waited twice: try again when this machine is less busy" if "timed out" in str(error) else ""
            raise WorkError(f"Ray did not start ({error}{busy}); `executor` inline works without it") from error
        finally:
            del os.environ[MARK]
        yield folder / "scratch"
    finally:
        guard.close()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _deaf(ray: Any) -> Iterator[None]:
    """Keep Ray from handling SIGTERM, which it would by ending the process with status 15 and no word."""
    theirs = ray._private.utils.set_sigterm_handler
    ray._private.utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray._private.utils.set_sigterm_handler = theirs


@contextmanager
def _alone(ray: Any) -> Iterator[None]:
    """Keep Ray from starting what only clusters and people at a browser need: the autoscaler's monitor, the log monitor
    and the head of the dashboard, which starts even where none is asked for.

    Each is a Python process that takes seconds of a core to begin and polls until the end, and Ray waits for the last:
    on two idle cores an instance is ready after 8 seconds instead of 14.
    """
    parameters, services = ray._private.parameter, ray._private.services
    full, start = parameters.RayParams, services.start_api_server

    def fewer(*given: Any, **named: Any) -> Any:
        return full(*given, **named, no_monitor=True, include_log_monitor=False)

    parameters.RayParams, services.start_api_server = fewer, lambda *_, **__: (None, None)  # as where it fails to start
    try:
        yield
    finally:
        parameters.RayParams, services.start_api_server = full, start


def _twice(ray: Any, settings: dict[str, Any]) -> None:
    """Start an instance; once more where the machine is so busy that Ray gave up waiting for itself."""
    try:
        ray.init(address="local", job_config=_job_config(), **settings)
    except Exception as error:
        if "timed out" not in str(error):
            raise
        ray.shutdown()
        ray.init(address="local", job_config=_job_config(), **settings)


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
