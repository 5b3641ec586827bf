"""A sweep in a process of its own, with all the processes that it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from places import HERE, ROOT, Place

MARK = "KILLED_FAMILY"  # in the environment of a driver and of all that it starts
LONGEST_S = 400.0  # of one sweep
LEFT_S = 10.0  # after the end of a driver, in which all that it started has to end


@dataclass(frozen=True)
class Family:
    """A driver and the processes that it started, however they are now related."""

    driver: subprocess.Popen[str]
    mark: str

    def alive(self) -> dict[int, str]:
        """Command lines by process id."""
        found = {}
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self.mark.encode() in (folder / "environ").read_bytes():
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if command:  # else it has ended and nobody has asked how
                        found[int(folder.name)] = command
            except OSError:
                continue
        return found

    def of_kind(self, kind: str) -> list[int]:
        """The processes of one kind."""
        if kind == "driver":
            return [self.driver.pid] if self.driver.poll() is None else []
        sign = {
            "worker": "ray::", "training": "ray::SweepCall", "raylet": "/raylet ", "gcs": "/gcs_server ",
            "measuring": "sweeps.worker",
        }[kind]  # fmt: skip
        return [pid for pid, command in self.alive().items() if sign in command and pid != self.driver.pid]

    def ended(self) -> int:
        """The exit status of the sweep, of which nothing is alive 10 s later."""
        status = self.driver.wait(LONGEST_S)
        end = time.monotonic() + LEFT_S
        while self.alive() and time.monotonic() < end:
            time.sleep(0.1)
        assert self.alive() == {}
        return status

    def kill(self) -> None:
        """End what is alive."""
        for pid in self.alive():
            os.kill(pid, signal.SIGKILL)


def start(place: Place, grid: Path, executor: str, *, real: bool = False, **environment: str) -> Family:
    """Start a sweep with fake work, or by the command line with real work; what it says goes to the file `stderr`."""
    mark = uuid.uuid4().hex
    fake = [str(HERE / "driver.py"), str(grid), str(place.out), executor, "retry_failed"]
    cli = ["-m", "scaling.cli.main", "sweep", "run", str(grid), "--out", str(place.out), "--executor", executor]
    environ = os.environ | {"PYTHONPATH": str(ROOT), MARK: mark, "FAKE_SECONDS": "0.4"} | environment
    with (place.folder / "stderr").open("a") as stderr:
        command = [sys.executable, *([*cli, "--retry-failed"] if real else fake)]
        driver = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=stderr, text=True)
    return Family(driver, f"{MARK}={mark}")


def start_training(place: Place, grid: Path, executor: str, **environment: str) -> Family:
    """Start a sweep with fake work, and wait until a cell takes steps; several times where Ray does not start."""
    for _ in range(5):
        family, end = start(place, grid, executor, **environment), time.monotonic() + LONGEST_S
        while family.driver.poll() is None and time.monotonic() < end:
            if len(place.noted("step")) > 5:
                return family
            time.sleep(0.02)
        family.kill()
        assert "less busy" in (place.folder / "stderr").read_text().splitlines()[-1]
    raise AssertionError("Ray does not start")


def finish(place: Place, grid: Path, executor: str, *, real: bool = False, **environment: str) -> None:
    """Let a sweep go through; on a machine so busy that Ray does not start, several times."""
    for _ in range(5):
        status = start(place, grid, executor, real=real, **environment).ended()
        said = (place.folder / "stderr").read_text()
        if status == 0 or "less busy" not in said.splitlines()[-1]:
            break
    assert status == 0, said[-3000:]
