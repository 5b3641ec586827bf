"""An engine's speed as a file: what `scaling latency` writes of end-to-end measurements, and what prices serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scaling.serving.engine_speed import EngineSpeed
from scaling.values import ENGINE_SPEED


def speed_document(speed: EngineSpeed) -> dict[str, Any]:
    """The speed as the content of a file."""
    return ENGINE_SPEED.document(speed)


def load_speed(path: str | Path) -> EngineSpeed:
    """The speed in a file that `scaling latency` wrote.

    Raises InputError naming file and field where it is missing, of another kind, damaged, or impossible.
    """
    return ENGINE_SPEED.value(EngineSpeed, ENGINE_SPEED.read(path), str(path))
