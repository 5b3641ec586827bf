"""A folder of this user's alone: what is refused on the way to it, and in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scaling.data import own_folder
from scaling.data.cache import cache_folder, programs_doubt, programs_folder, writable
from scaling.data.own_folder import NotOursError, OwnFolder
from scaling.errors import InputError

OTHER = 65532


def test_it_is_made_closed_and_its_files_too(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with OwnFolder(tmp_path / "a" / "b" / "mine") as folder:
            folder.write("entry", b"old")
            folder.write("entry", b"new")
            assert folder.read("entry") == b"new"
    finally:
        os.umask(before)
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "a" / "b" / "mine" / "entry").parents]
    assert modes[:3] == [0o700, 0o755, 0o755]
    assert [path.name for path in (tmp_path / "a" / "b" / "mine").iterdir()] == ["entry"], "no temporary file is left"


def test_a_link_on_the_way_is_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    OwnFolder(tmp_path / "link" / "mine").close()
    assert (tmp_path / "real" / "mine").is_dir()
    (tmp_path / "real").chmod(0o777)
    with pytest.raises(NotOursError, match="real"):
        OwnFolder(tmp_path / "link" / "mine")
    (tmp_path / "real").chmod(0o1777)  # as /tmp: others may add, not exchange
    OwnFolder(tmp_path / "link" / "mine").close()


def test_a_group_of_the_user_alone_may_write_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o775)
    for private in (False, True):
        monkeypatch.setattr(own_folder, "_is_private_group", lambda _, private=private: private)
        if private:
            OwnFolder(tmp_path / "shared" / "mine").close()
        else:
            with pytest.raises(NotOursError, match="shared"):
                OwnFolder(tmp_path / "shared" / "mine")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("given", ["above", "mine", "mine/entry"])
def test_another_users_folder_or_file_is_refused(given: str, tmp_path: Path) -> None:
    path = tmp_path / "above" / "mine"
    with OwnFolder(path) as folder:
        folder.write("entry", b"planted")
    os.chown(path.parents[1] / "above" if given == "above" else path.parent / given, OTHER, OTHER)
    with pytest.raises(NotOursError, match=r"another user"), OwnFolder(path) as folder:
        folder.read("entry")


def test_a_cache_that_cannot_be_is_named_with_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="SCALING_CACHE") as raised:
        writable("corpora")
    assert str(tmp_path / "file" / "cache" / "corpora") in str(raised.value)
    assert "SCALING_CACHE" in programs_doubt()
    monkeypatch.delenv("SCALING_CACHE")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", homeless)
    with pytest.raises(InputError, match="SCALING_CACHE"):
        cache_folder()
    assert "SCALING_CACHE" in programs_doubt()


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_programs_of_two_users_lie_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = programs_folder()
    monkeypatch.setattr(os, "geteuid", lambda: OTHER)
    assert programs_folder().parent == ours.parent
    assert programs_folder() != ours
