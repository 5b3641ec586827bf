"""The judge of a case: a command ends well, or says what is wrong and where, in time and within its folder."""

from __future__ import annotations

import contextlib
import resource
import signal
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import FrameType

from typer.testing import CliRunner

from scaling.cli.main import app

SECONDS, MEGABYTES = 10, 1000
_LONGEST = 4000  # letters of one message


class Hang(BaseException):
    """A case took longer than `SECONDS`."""


@dataclass(frozen=True)
class Verdict:
    """How a command ended. `fault` is "" where that is as it must be."""

    words: tuple[str, ...]
    status: int
    said: str
    stdout: str
    fault: str = ""


def judged(words: Sequence[str | Path], folder: Path, places: Sequence[str], writes: Sequence[str] = ()) -> Verdict:
    """Run a command in `folder`, where it may write `writes` alone; what is refused must name one of `places`."""
    before, memory = _content(folder, writes), _peak()
    words = tuple(map(str, words))
    with contextlib.chdir(folder), _watched(), warnings.catch_warnings(record=True) as unexplained:
        warnings.simplefilter("always")
        try:
            ended = CliRunner().invoke(app, list(words))
        except Hang:
            return Verdict(words, -1, "", "", f"took longer than {SECONDS} s")
    fault = _fault(ended.exit_code, ended.stderr, places)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        lines = traceback.format_exception(ended.exception)
        fault = "traceback: " + "".join(lines)[-1500:]
    elif _peak() - memory > MEGABYTES:
        fault = f"took {_peak() - memory:.0f} MB more"
    elif changed := sorted(set(before.items()) ^ set(_content(folder, writes).items())):
        fault = f"touched {', '.join({path for path, _ in changed})}"
    elif strays := {str(one.message) for one in unexplained if issubclass(one.category, RuntimeWarning)}:
        fault = f"warned of {strays}"
    return Verdict(words, ended.exit_code, ended.stderr, ended.stdout, fault)


def _fault(status: int, said: str, places: Sequence[str]) -> str:
    if status not in (0, 1, 2):
        return f"exit status {status}"
    if "Traceback" in said:
        return "a traceback in the message"
    if len(said) > _LONGEST:
        return f"a message of {len(said)} letters"
    if status == 1 and "failed: " not in said:
        return "failed without saying so"
    if status == 2 and not any(place in said for place in (*places, "Usage:")):
        return f"refused without naming a place, one of {', '.join(places)}"
    return ""


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    def stop(signal_: int, frame: FrameType | None) -> None:
        raise Hang

    signals = (signal.SIGALRM, signal.SIGPROF)
    previous = [signal.signal(number, stop) for number in signals]
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # CPU time: others may use the machine
    signal.alarm(12 * SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for number, handler in zip(signals, previous, strict=True):
            signal.signal(number, handler)


def _peak() -> float:
    """The most memory that this process had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _content(folder: Path, writes: Sequence[str]) -> dict[str, str]:
    """Every file below a folder but those that may be written, with a digest."""
    allowed = tuple(str(folder / name) for name in writes)
    return {
        str(path): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink() and not str(path).startswith(allowed or "\0")
    }
