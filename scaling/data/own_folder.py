"""A folder to which this user alone can write: what is read from it, nobody else can have put there.

The path is walked from the root by descriptors, without following links, so that what was checked is what is used. Each
folder on the way must belong to this user or to root, and no one else may write to it (a sticky one, such as /tmp, may
be shared: others cannot replace our entries there). The last must be this user's and closed to all others, and so must
its files.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from pathlib import Path
from types import TracebackType

_ROOT = 0
_WALK = getattr(os, "O_PATH", os.O_RDONLY)  # O_PATH: folders above may be closed to reading
_FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


class NotOursError(Exception):
    """Somebody else could have written here; the message names the place, what is wrong, and what would be right."""


class OwnFolder:
    """An open folder of this user's alone, made where it is missing (mode 0700). Close it, or use it in a `with`.

    Raises NotOursError where others could write to it, or could put another in its place; where it cannot be made; and
    on systems on which neither can be told.
    """

    def __init__(self, path: Path) -> None:
        if not hasattr(os, "geteuid") or os.open not in os.supports_dir_fd:
            raise NotOursError(f"{path}: this system does not say who may write to it")
        # Links on the way may be anybody's: the folders that they lead to are what is checked.
        real = Path(os.path.realpath(path))
        self._descriptor = os.open(real.anchor, _WALK | _FOLDER)
        try:
            for number, name in enumerate(real.parts[1:], start=2):
                self._enter(name, Path(*real.parts[:number]), last=number == len(real.parts))
        except NotOursError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise NotOursError(f"{path}: it cannot be made or opened ({error.strerror})") from error

    def _enter(self, name: str, path: Path, *, last: bool) -> None:
        """Go down into the folder of this name, and check it."""
        try:
            below = os.open(name, _WALK | _FOLDER, dir_fd=self._descriptor)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700 if last else 0o755, dir_fd=self._descriptor)
            below = os.open(name, _WALK | _FOLDER, dir_fd=self._descriptor)
        os.close(self._descriptor)
        self._descriptor = below
        about = os.fstat(self._descriptor)
        owners = (os.geteuid(),) if last else (os.geteuid(), _ROOT)
        if about.st_uid not in owners:
            raise NotOursError(f"{path} belongs to another user (uid {about.st_uid})")
        if last and about.st_mode & 0o077:
            raise NotOursError(f"{path} is open to other users: chmod 700 it, or remove it to have it made anew")
        if not last and _others_may_write(about) and not about.st_mode & stat.S_ISVTX:
            raise NotOursError(f"other users can write to {path}, so they could exchange what is below it")

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError where there is none, NotOursError for one of others."""
        descriptor = os.open(name, os.O_RDONLY | _FILE, dir_fd=self._descriptor)
        with open(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            # More than one name: others may have linked another file of ours into this folder.
            if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
                raise NotOursError(f"{name} is not a file of its own")
            if about.st_uid != os.geteuid() or about.st_mode & 0o077:
                raise NotOursError(f"{name} is another user's or open to others")
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        """Write a file (mode 0600) completely or not at all, in the place of any that has its name."""
        temporary = f".{name}.{uuid.uuid4().hex[:8]}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE
        try:
            with open(os.open(temporary, flags, 0o600, dir_fd=self._descriptor), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> OwnFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _others_may_write(about: os.stat_result) -> bool:
    """Whether anybody but the owner may: everyone, or a group that has other members than this user."""
    mode = about.st_mode
    return bool(mode & stat.S_IWOTH) or (bool(mode & stat.S_IWGRP) and not _is_private_group(about.st_gid))


def _is_private_group(number: int) -> bool:
    """Whether this is the user's own group, as many systems give every user one and let it write to what they make."""
    try:
        import grp
        import pwd

        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(number)
    except (ImportError, KeyError):
        return False
    return user.pw_gid == number and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
