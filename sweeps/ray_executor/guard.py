"""The guard of a Ray instance of our own: ends what is left of it as soon as its driver is gone, however that ended.

Ray's daemons notice the death of a driver, but its agents stay for a minute and more, and a worker that is stopped
stays for ever. The guard is a process of its own, which runs this file with the standard library alone: it waits at a
pipe of which the driver holds the only other end, and then ends every process that has the instance's mark in its
environment. Nobody but the daemons of the instance and what they started has that mark.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

MARK = "SCALING_RAY_INSTANCE"
_PROCESSES = Path("/proc")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SECONDS = 8.0  # the most that it tries to end what is left
_CALM = 3  # times in a row that nothing was left: a process that was just forked may have hidden


class Guard:
    """Watches over an instance from before its start; `close` ends the instance's processes and removes its folder."""

    def __init__(self, folder: Path) -> None:
        self.mark = secrets.token_hex(16)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # which the guard inherits
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, self.mark, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # what ends the driver's group does not end the guard
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def close(self) -> None:
        """Have everything of the instance ended."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_SECONDS + 2)


def family(mark: str) -> list[int]:
    """The processes that have this mark in their environment; none where the system does not tell."""
    sign, found = f"{MARK}={mark}".encode(), []
    for folder in _PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if sign in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def end_family(mark: str) -> None:
    """Kill every process with this mark until none is left."""
    end, calm = time.monotonic() + _SECONDS, 0
    while calm < _CALM and time.monotonic() < end:
        left = family(mark)
        calm = 0 if left else calm + 1
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def main() -> None:
    """The guard's process."""
    mark, folder = sys.argv[1:]
    while os.read(0, 1):  # returns nothing when the driver has closed its end, or has died
        pass
    end_family(mark)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
