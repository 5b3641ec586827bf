"""Where what can be computed again is kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Tokenised corpora, spooled streams and compiled programs: $SCALING_CACHE, or ~/.cache/scaling."""
    return Path(os.environ.get("SCALING_CACHE") or Path.home() / ".cache" / "scaling")
