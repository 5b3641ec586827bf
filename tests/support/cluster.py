"""A cluster of two raylets on this machine, in a process of its own: `cluster.py FOLDER [blind STUDY | jobs]`.

Prints its address, loses its second node when a line comes in, and ends with its standard input. A `blind` second node
is started in a mount namespace of its own in which the folder of the study is another, empty one. With `jobs`, the
address is that of a dashboard, which takes jobs.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CALM = {"RAY_USAGE_STATS_ENABLED": "0"}
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(folder: str, *options: str, blind: str = "") -> subprocess.Popen[bytes]:
    """`ray start --block` in a group of its own, until it has started; again where the machine is too busy for it."""
    for attempt in range(5):
        log = Path(folder, f"{attempt}{'-'.join(options)[:9]}.log")
        node = _start(log, options, blind)
        while node.poll() is None:
            if "Ray runtime started" in log.read_text():
                return node
            time.sleep(0.1)
    raise SystemExit(log.read_text())


def _start(path: Path, options: Sequence[str], blind: str) -> subprocess.Popen[bytes]:
    here = ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--object-store-memory=78643200"]
    command = [RAY, "start", "--block", *here, *options]
    if blind:
        script = f"mount -t tmpfs none {shlex.quote(blind)} && exec {shlex.join(command)}"
        command = ["unshare", "-m", "sh", "-c", script]
    with path.open("wb") as log:
        return subprocess.Popen(
            command, env=os.environ | CALM, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
        )


def children_of(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        try:
            found += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
        except OSError:
            continue
    return found


def lose(node: subprocess.Popen[bytes]) -> None:
    """Kill a node at once, raylet first."""
    pids = children_of(node.pid)
    for pid in sorted(pids, key=lambda pid: b"/raylet " not in Path(f"/proc/{pid}/cmdline").read_bytes()):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    node.wait()


def main() -> None:
    folder, *rest = sys.argv[1:]
    port = free_port()
    address = f"127.0.0.1:{port}"
    jobs, dashboard = rest == ["jobs"], free_port()
    offer = [f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={free_port()}"]
    board = ["--include-dashboard=true", *offer] if jobs else ["--include-dashboard=false"]
    head = start(folder, "--head", f"--port={port}", *board, f"--temp-dir={folder}/r")
    blind = rest[1] if rest[:1] == ["blind"] else ""
    nodes = [head]
    try:
        nodes.append(start(folder, f"--address={address}", blind=blind))
        print(f"http://127.0.0.1:{dashboard}" if jobs else address, flush=True)
        for _ in sys.stdin:
            lose(nodes[1])
            print("lost", flush=True)
    finally:
        for node in reversed(nodes):
            if node.poll() is None:
                lose(node)


if __name__ == "__main__":
    main()
