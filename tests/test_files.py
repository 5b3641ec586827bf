"""The atomic writer: file modes, no partial files, and refused targets."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from scaling.errors import WorkError
from scaling.files import why_not_written, write_atomically


@pytest.fixture
def umask():
    before = os.umask(0o022)
    os.umask(before)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_mode_follows_the_umask(tmp_path: Path, umask, mask: int, mode: int) -> None:
    umask(mask)
    write_atomically(tmp_path / "new" / "x", b"content")
    assert (tmp_path / "new" / "x").stat().st_mode & 0o777 == mode


def test_old_content_is_replaced_and_no_other_file_remains(tmp_path: Path) -> None:
    for content in (b"before", b"after"):
        write_atomically(tmp_path / "x", content)
    assert (tmp_path / "x").read_bytes() == b"after"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_in_place_of_the_folder_is_a_work_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in ("file/x", "file/folder/x"):
        with pytest.raises(WorkError, match=r"a file stands where a folder .*give another path"):
            write_atomically(tmp_path / place, b"content")


def test_the_remedy_is_one_for_the_cause() -> None:
    assert "free some space" in why_not_written(OSError(errno.ENOSPC, ""))
    assert "Permission denied: make it writable" in why_not_written(OSError(errno.EACCES, "Permission denied"))


def test_a_folder_as_target_is_a_work_error_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(WorkError, match="cannot be written"):
        write_atomically(tmp_path / "x", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_devices_pipes_and_links_are_not_replaced(tmp_path: Path) -> None:
    """A rename would replace a pipe or a link, and as root a device, by a regular file."""
    pipe, target, link = tmp_path / "pipe", tmp_path / "target", tmp_path / "link"
    os.mkfifo(pipe)
    with pytest.raises(WorkError, match="device or pipe"):
        write_atomically(pipe, b"x")
    assert pipe.is_fifo()
    link.symlink_to(target)
    write_atomically(link, b"x")
    assert link.is_symlink()
    assert target.read_bytes() == b"x"
