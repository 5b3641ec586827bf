"""The nodes of a cluster: whether they see the study's folder, what they offer, and how a process on one is ended."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from scaling.config.bench import Resources
from scaling.errors import InputError, WorkError
from scaling.formatting import listed
from scaling.tasks.rows import code_version
from sweeps.stopping.orders import Orders, not_shared

TITLE = "SweepCall"
"""The class of our actors, which Ray shows as the name of their processes."""
_CLOCK_S = 5.0  # by which a clock may have been set since
_ANSWER_S = 60.0  # in which a node starts a process and imports this module


def alive(ray: Any) -> list[dict[str, Any]]:
    """The nodes that are up."""
    return [node for node in ray.nodes() if node["Alive"]]


def largest_first(ray: Any, gpus: float) -> list[dict[str, Any]]:
    """The nodes with CPUs and so many GPUs, those with most CPUs first."""
    able = [node for node in alive(ray) if node["Resources"].get("GPU", 0.0) >= gpus and node["Resources"].get("CPU")]
    return sorted(able, key=lambda node: -node["Resources"]["CPU"])


def require_room(ray: Any, resources: Iterable[Resources]) -> None:
    """Raise InputError for a cell that needs more than any node has: Ray would wait for such a node for ever."""
    offered = [node["Resources"] for node in alive(ray)]
    for need in resources:
        if not any(node.get("CPU", 0) >= need.cpus and node.get("GPU", 0) >= need.gpus for node in offered):
            have = listed(sorted({f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in offered}))
            raise InputError(
                f"resources.cpus={need.cpus}, resources.gpus={need.gpus:g}, but Ray sees no such node ({have}); "
                "lower them, or start such a node first"
            )


def require_shared(ray: Any, orders: Orders, task: str) -> None:
    """Ask every node whether it sees the study's folder and runs this code of the task. Raises WorkError naming those
    that do not.

    A node that does not answer is left out: what it trains is checked again.
    """
    look = ray.remote(_look)
    asked = [look.options(num_cpus=0, scheduling_strategy=on(node)).remote(orders, task) for node in alive(ray)]
    answered, _ = ray.wait(asked, num_returns=len(asked), timeout=_ANSWER_S)
    unseen, other_code = [], []
    for answer in answered:
        try:
            reason, host, code = ray.get(answer)
        except ray.exceptions.RayError as error:
            raise WorkError(f"a node cannot run this code: {str(error).splitlines()[-1]}") from error
        unseen += [reason] if reason else []
        other_code += [f"{host} has {code}"] if code != code_version(task) else []
    if unseen:
        raise not_shared(orders.out, sorted(set(unseen)))
    if other_code:
        raise WorkError(
            f"nodes run other code than the driver's {code_version(task)}: {listed(sorted(set(other_code)))}; install "
            "one version on all"
        )


def end_worker(ray: Any, host: str, pid: int, began: float) -> None:
    """Kill a worker on the node with this host name that had begun its work at this time of day; without waiting.

    The process is killed from outside: one that is stopped or hangs hears nothing.
    """
    if host == socket.gethostname():
        kill_worker(pid, began)
        return
    for node in alive(ray):
        if node["NodeManagerHostname"] == host:
            ray.remote(kill_worker).options(num_cpus=0, scheduling_strategy=on(node)).remote(pid, began)
            return


def kill_worker(pid: int, began: float) -> bool:
    """Kill a process of this machine if it is the worker that began its work then; returns whether it was.

    One that was given the number later, or is no worker of a sweep, is left alone.
    """
    folder = Path("/proc", str(pid))
    with suppress(OSError, ValueError, IndexError):
        titled = (folder / "cmdline").read_bytes().startswith(f"ray::{TITLE}".encode())
        ticks = int((folder / "stat").read_text().rpartition(")")[2].split()[19])
        up_s = float(Path("/proc/uptime").read_text().split()[0])
        started = time.time() - up_s + ticks / os.sysconf("SC_CLK_TCK")
        if titled and started < began + _CLOCK_S:
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def _look(orders: Orders, task: str) -> tuple[str, str, str]:
    return orders.unseen(), socket.gethostname(), code_version(task)


def on(node: dict[str, Any]) -> Any:
    """Where a task runs that is for this node alone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
