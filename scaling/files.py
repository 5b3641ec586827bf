"""Atomic writing of files."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling.errors import WorkError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file completely or not at all: temporary file in the same folder, fsync, rename, fsync of the folder.

    Missing folders are created, the mode follows the umask, and symlinks are followed. Raises WorkError, leaving the
    old content untouched, when the disk is full or read-only, or when the target is not a regular file: the rename
    would replace a folder, device or pipe.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "device or pipe"
        raise WorkError(f"{path}: cannot be written because it is a {kind}; give the path of a file")
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        remedy = "the disk is full: free some space" if error.errno in _FULL else f"{error.strerror}: make it writable"
        raise WorkError(f"{path}: cannot be written, {remedy} and run again; the old content is untouched") from error
    finally:
        with contextlib.suppress(OSError):  # the folder may not exist
            temporary.unlink()


def write_json(path: Path, document: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a JSON document as `write_atomically` does. Raises ValueError for NaN and infinity in it."""
    write_atomically(path, json.dumps(document, allow_nan=False, indent=1).encode())
