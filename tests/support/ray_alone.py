"""A local Ray in a process of its own: prints what its processes listen to, its environment, and how a death reads."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import psutil

from sweeps.job import Options
from sweeps.ray_executor.connection import ray_connected
from sweeps.ray_executor.pool import with_last_words
from sweeps.stopping.signals import Signals
from sweeps.store import Store


class Dies:
    def as_xla_does_of_an_unknown_flag(self) -> None:
        print("F1129 10:00:00.000000   12 parse_flags_from_env.cc:234] Unknown flag in XLA_FLAGS: --x", file=sys.stderr)
        sys.stderr.flush()
        os.abort()


def main() -> None:
    store = Store(Path(sys.argv[1]))
    with Signals() as signals, ray_connected(Options(executor="ray"), store, signals) as (ray, scratch):
        assert ray.get(ray.remote(lambda: 1).remote()) == 1
        here = psutil.Process()
        family = {process: process.name() for process in [here, *here.children(recursive=True)]}
        listening = [
            (name, connection.laddr.ip, connection.laddr.port)
            for process, name in family.items()
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        try:
            ray.get(ray.remote(Dies).remote().as_xla_does_of_an_unknown_flag.remote())
            said = ""
        except ray.exceptions.RayError as error:
            said = with_last_words(f"the time\n{error}", scratch.parent / "s" / "session_latest" / "logs")
        found = {
            "listening": listening,
            "environment": {name: value for name, value in os.environ.items() if name.startswith("RAY_")},
            "mode": oct(scratch.parent.stat().st_mode & 0o777),
            "said": said,
            "imports_from": ray.get(ray.remote(lambda: sys.path).remote()),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
