"""The `config` column of a run: its configuration as JSON, by section."""

from __future__ import annotations

import json
from typing import Any

_SECTIONS = ("model", "train", "data")


def configuration_parts(config: object) -> dict[str, Any]:
    """The sections of a run's `config`; empty where it has none, or something else."""
    try:
        parts = json.loads(config) if isinstance(config, str) and config else {}
    except (ValueError, RecursionError):
        return {}
    whole = isinstance(parts, dict) and all(isinstance(parts.get(name, {}), dict) for name in _SECTIONS)
    return parts if whole else {}
