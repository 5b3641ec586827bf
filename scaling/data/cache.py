"""Where what can be computed again is kept, and under which name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path


def cache_folder() -> Path:
    """Tokenised corpora, spooled streams and compiled programs: $SCALING_CACHE, or ~/.cache/scaling."""
    return Path(os.environ.get("SCALING_CACHE") or Path.home() / ".cache" / "scaling")


def entry_name(version: int, settings: object, files: Iterable[tuple[str, Path]]) -> str:
    """Names a cache entry by its format, what shapes it, and its files by name, size and time."""
    stats = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in files]
    return hashlib.sha256(json.dumps([version, settings, stats]).encode()).hexdigest()[:24]
