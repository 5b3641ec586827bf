"""What the driver of a sweep tells all its workers: a file in the study's folder, which every worker has to see.

It says whose sweep this is, so that a worker that sees another folder, or none, of that name finds out before it
trains; and it asks to stop, which reaches workers on every node, whatever they are doing.
"""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from scaling.errors import WorkError
from scaling.files import require_file, write_atomically

ORDERS = ".orders"
_MOST = 10_000  # characters that are read


@dataclass(frozen=True)
class Orders:
    """The orders of one sweep of the study in a folder."""

    out: Path
    sweep: str = field(default_factory=lambda: secrets.token_hex(8))

    def give(self, stop: str = "") -> None:
        """Say that this sweep runs or, with a reason, that its workers should stop. Raises WorkError."""
        write_atomically(self.out / ORDERS, json.dumps({"sweep": self.sweep, "stop": stop}).encode(), self.out)

    def withdraw(self) -> None:
        """The sweep has ended."""
        (self.out / ORDERS).unlink(missing_ok=True)

    def unseen(self) -> str:
        """Why a worker here cannot take part, or "": it does not see the folder of the driver."""
        found = self._read()
        if found is not None and found.get("sweep") == self.sweep:
            return ""
        host = socket.gethostname()
        if not self.out.is_dir():
            return f"{host} has no folder {self.out}"
        return f"{host} has a folder {self.out}, but not the one of the driver"

    def stop(self) -> str:
        """Why workers should stop, or "". A file that cannot be read now says nothing."""
        found = self._read()
        if found is None:
            return ""
        return str(found.get("stop", "")) if found.get("sweep") == self.sweep else "another sweep of this study began"

    def _read(self) -> dict[str, str] | None:
        path = self.out / ORDERS
        try:
            require_file(path)
            with path.open(encoding="utf-8") as handle:
                found = json.loads(handle.read(_MOST))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


def not_shared(out: Path, unseen: list[str]) -> WorkError:
    """The error where hosts do not see the study's folder."""
    return WorkError(
        f"{'; '.join(unseen)}: on a cluster the study's folder must be one that all nodes share, under one path; "
        "name one by `out`"
    )
