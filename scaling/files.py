"""Writing of files: whole or not at all, and within a study through no symbolic link."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling.errors import InputError, WorkError

_WHY = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "the disk is full: free some space"),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a file stands where a folder of it would be: give another path"),
    errno.ENOENT: "its folder cannot be made: give another path",
}
_TEMPORARY = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")


def write_atomically(path: Path, content: bytes | memoryview, root: Path | None = None) -> None:
    """Write a file completely or not at all: temporary file in the same folder, fsync, rename, fsync of the folder.

    Missing folders are created, and the mode follows the umask. `root` is the study that the file belongs to, by
    default the folder with runs around it: below it no symbolic link is followed, because a study that somebody sent
    may lead anywhere. Elsewhere links are followed. Raises InputError for a link in a study; WorkError, leaving the
    old content untouched, when the disk is full or read-only, or when the target is not a regular file: the rename
    would replace a folder, device or pipe.
    """
    root = root or study_around(path)
    if root is not None:
        require_no_links(path, root)
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
        sync_folder(path.parent)
    except OSError as error:
        raise WorkError(f"{path}: {why_not_written(error)} and run again; the old content is untouched") from error
    finally:
        with contextlib.suppress(OSError):  # the folder may not exist
            temporary.unlink()


def write_json(path: Path, document: Mapping[str, Any] | Sequence[Any], root: Path | None = None) -> None:
    """Write a JSON document as `write_atomically` does. Raises ValueError for NaN and infinity in it."""
    write_atomically(path, json.dumps(document, allow_nan=False, indent=1).encode(), root)


def why_not_written(error: OSError) -> str:
    """The reason and the remedy, as the middle of a sentence."""
    return f"cannot be written, {_WHY.get(error.errno or 0) or f'{error.strerror}: make it writable'}"


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on disk, so that a rename outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def left_by_a_killed_writer(path: Path) -> bool:
    """Whether this is the name of a temporary file of `write_atomically`."""
    return _TEMPORARY.fullmatch(path.name) is not None


def require_no_links(path: Path, root: Path) -> None:
    """Raise InputError where a path below a study's root leads through a symbolic link, or is one.

    The root itself may be a link: the user named it.
    """
    place = Path(os.path.abspath(root))
    for part in Path(os.path.relpath(os.path.abspath(path), place)).parts:
        place /= part
        if place.is_symlink():
            raise InputError(
                f"{place}: a symbolic link, and within a study ({root}) nothing is written through one, because it may "
                "lead out of it; put the file or folder itself in its place (`cp -rL` copies a study without links)"
            )


def study_around(path: Path) -> Path | None:
    """The outermost folder with runs (a study) in which this path lies, if any."""
    folders = Path(os.path.abspath(path)).parents
    return next((folder for folder in reversed(folders) if _has_runs(folder)), None)


def _has_runs(folder: Path) -> bool:
    try:
        return (folder / "runs.parquet").is_file() or next((folder / "runs").glob("*.parquet"), None) is not None
    except OSError:
        return False


def require_file(path: Path) -> None:
    """Raise OSError where there is no regular file. A pipe or device would keep its reader waiting for ever."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "a folder, not a file", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a pipe or device, not a file", str(path))
