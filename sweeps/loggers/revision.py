"""The git revision of the folder in which a sweep was started."""

from __future__ import annotations

import subprocess

_SECONDS = 10.0


def git_revision() -> str:
    """The commit of the current folder, with `-dirty` for changes since; "" where there is no checkout or no git."""
    # A monitor of files is a program that the folder's configuration may name.
    command = ["git", "-c", "core.fsmonitor=false", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""
