"""The cache folder: where it is, its parts, and the names of its entries."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from scaling.data.own_folder import NotOursError, OwnFolder
from scaling.errors import InputError

VARIABLE = "SCALING_CACHE"
REMEDY = f"set {VARIABLE} to a folder that you can write to"


def cache_folder() -> Path:
    """The folder of tokenised corpora, saved streams and compiled programs: $SCALING_CACHE or ~/.cache/scaling.

    Raises InputError where there is neither, as for a user of a container whom its list of users lacks.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    try:
        return Path.home() / ".cache" / "scaling"
    except RuntimeError as error:
        raise InputError(f"there is no home folder for a cache of texts and programs: {REMEDY}") from error


def writable(part: str) -> Path:
    """A part of the cache to write to, made where it is missing. Raises InputError where that cannot be."""
    folder = cache_folder() / part
    try:
        make_folder(folder)
    except OSError as error:
        raise InputError(f"{folder}: the cache cannot be made ({error.strerror}): {REMEDY}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: the cache cannot be written to: {REMEDY}")
    return folder


def programs_folder() -> Path:
    """The folder of this user's compiled programs, which nobody else may write to: a program that is read is run."""
    return cache_folder() / f"programs-{os.geteuid() if hasattr(os, 'geteuid') else 'all'}"


def programs_doubt() -> str:
    """Why compiled programs are neither kept nor read, with the remedy; "" where they are."""
    try:
        OwnFolder(programs_folder()).close()
    except (InputError, NotOursError) as error:
        return f"compiled programs are not kept: {error}; {VARIABLE} names a folder, where you alone should write"
    return ""


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing; whatever the umask, only their owner may write to them."""
    if not folder.is_dir():
        if folder.parent != folder:
            make_folder(folder.parent)
        folder.mkdir(mode=0o755, exist_ok=True)


def entry_name(version: int, settings: object, files: Iterable[tuple[str, Path]]) -> str:
    """The name of a cache entry: a hash of its format version, settings, and the name, size and time of its files."""
    stats = [(name, path.stat().st_size, path.stat().st_mtime_ns) for name, path in files]
    return hashlib.sha256(json.dumps([version, settings, stats]).encode()).hexdigest()[:24]
