"""The cache folder and the names of its entries."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path


def cache_folder() -> Path:
    """The folder of tokenised corpora, saved streams and compiled programs: $SCALING_CACHE or ~/.cache/scaling."""
    return Path(os.environ.get("SCALING_CACHE") or Path.home() / ".cache" / "scaling")


def entry_name(version: int, settings: object, files: Iterable[tuple[str, Path]]) -> str:
    """The name of a cache entry: a hash of its format version, settings, and the name, size and time of its files."""
    stats = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in files]
    return hashlib.sha256(json.dumps([version, settings, stats]).encode()).hexdigest()[:24]
