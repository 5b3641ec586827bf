"""Files: written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from pathlib import Path

from scaling.errors import WorkError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all: temporary name in its folder, fsync, rename, fsync of the folder.

    The folder is made where it is missing; the file's mode is what the umask leaves; what a symlink points to is
    written. Raises WorkError when the disk refuses (full, read-only), and for what is no regular file (a folder, a
    device, a pipe: a rename would replace it); what was there before is untouched then.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "device or pipe"
        raise WorkError(f"{path}: cannot be written, it is a {kind}; name a file")
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
        remedy = "the disk is full: make room" if error.errno in _FULL else f"{error.strerror}: make it writable"
        raise WorkError(f"{path}: cannot be written, {remedy} and run again; what was there is untouched") from error
    finally:
        with contextlib.suppress(OSError):  # also where the folder itself could not be made
            temporary.unlink()
