"""Whether JAX starts with the settings of the environment, tried in a process of its own: a wrong one ends it."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Mapping

from scaling.distribution import require_installed
from scaling.errors import InputError
from scaling.formatting import listed

_SETTINGS = re.compile(r"(JAX|XLA)_\w+")
_HARMLESS = ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION", "JAX_CPU_ENABLE_ASYNC_DISPATCH")
_CAUSE = re.compile(r"Unknown flag|Error: |FATAL|terminate called|what\(\): |^F\d{4} ")
_PLACE = re.compile(r"^[A-Z]\d{4} [\d:.]+ +\d+ \S+\] ")  # of a line of XLA's log
_SECONDS = 120


def require_jax(changes: Mapping[str, str] | None = None) -> None:
    """Check that JAX is installed and starts with this environment and these changes to it.

    Tried only where the environment has settings of JAX or XLA and JAX has not been imported yet. Raises InputError
    with the settings, what JAX says and the remedy.
    """
    require_installed("training and measuring", "jax")
    given = tuple(sorted(name for name in os.environ if _SETTINGS.fullmatch(name) and name not in _HARMLESS))
    if given and "jax" not in sys.modules:
        _try(given, tuple(sorted((os.environ | dict(changes or {})).items())))


@functools.lru_cache(maxsize=1)
def _try(given: tuple[str, ...], environ: tuple[tuple[str, str], ...]) -> None:
    command = [sys.executable, "-P", "-c", "import jax; jax.devices()"]
    settings = {**dict(environ), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        ended = subprocess.run(
            command, env=settings, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return  # slow, not wrong
    if ended.returncode:
        cause = last_words(ended.stderr.decode(errors="replace")) or f"exit status {ended.returncode}"
        names = " or ".join(given)
        values = listed(f"{name}={os.environ[name]}" for name in given)
        raise InputError(f"JAX does not start with {values} ({cause}): correct or unset {names}")


def last_words(text: str) -> str:
    """The line in which a process that died says why: the last that names an error, or the last of all."""
    return cause_of_death(text) or next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def cause_of_death(text: str) -> str:
    """The last line that names an error, without its time and place; "" where none does."""
    named = [line.strip() for line in text.splitlines() if _CAUSE.search(line)]
    return _PLACE.sub("", named[-1]) if named else ""
