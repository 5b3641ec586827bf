"""A study that somebody sent may hold links, pipes and devices: nothing is written through them or waits for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from places import Place, sweep

from analysis.tables.import_study import import_runs
from analysis.tables.runs import read_runs
from scaling import files
from scaling.errors import InputError, WorkError
from scaling.files import study_around, write_atomically
from sweeps import status
from sweeps.store import Store

GRID = "{d_model: 16, tokens: 1K, seed: [0, 1]}"
TABLE = "n_active,tokens,loss_val\n1e6,1e9,3.0\n2e6,1e9,2.9\n"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that is none of ours, with files in it."""
    folder = tmp_path / "outside"
    (folder / "inner").mkdir(parents=True)
    for name in ("file", "inner/.x.parquet.1-00000000.tmp", "inner/file", ".grid.yaml.1-00000000.tmp"):
        (folder / name).write_text("theirs")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(to)


@pytest.mark.parametrize(
    "name",
    [".lock", "grid.yaml", "runs", "evals", "curves", "latency", "checkpoints", "checkpoints/some", "live", ".ray"],
)
@pytest.mark.parametrize("target", ["file", "inner", "missing"])
def test_a_sweep_writes_through_no_link_and_says_so_before_it_trains(
    place: Place, outside: Path, name: str, target: str
) -> None:
    before = content(outside)
    link(place.out / name, outside / target)
    with pytest.raises(InputError, match=f"{name}: a symbolic link"):
        sweep(place.grid(GRID), place)
    assert content(outside) == before
    assert place.noted("train") == []


def test_the_part_of_a_cell_to_train_is_no_link(place: Place, outside: Path) -> None:
    sweep(place.grid(GRID), place)
    store = Store(place.out)
    run_id = next(iter(store.survey().cells))
    store.path("runs", run_id).unlink()
    link(store.path("curves", run_id), outside / "missing")
    with pytest.raises(InputError, match="a symbolic link"):
        sweep(place.grid(GRID), place)
    assert len(place.noted("train")) == 2
    with pytest.raises(InputError, match="a symbolic link"):
        store.write_cell({"run_id": run_id}, [], [{"step": 1}])
    assert not (outside / "missing").exists()


def test_a_study_of_links_is_read_and_completed(place: Place, tmp_path: Path) -> None:
    """As caches of hubs hold one: every file a link. What is missing is written beside them."""
    sweep(place.grid(GRID), place)
    blobs = tmp_path / "blobs"
    for number, path in enumerate(sorted(place.out.rglob("*.parquet"))):
        blobs.mkdir(exist_ok=True)
        shutil.move(path, blobs / str(number))
        path.symlink_to(blobs / str(number))
    before = {path: path.read_bytes() for path in blobs.iterdir()}
    assert len(read_runs(place.out)) == 2
    assert sweep(place.grid("{d_model: 16, tokens: 1K, seed: [0, 1, 2]}"), place).trained_now == 1
    assert {path: path.read_bytes() for path in blobs.iterdir()} == before


def test_the_root_itself_may_be_a_link(place: Place, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    place.out.symlink_to(tmp_path / "scratch")
    assert sweep(place.grid(GRID), place).ok == 2
    assert len(list((tmp_path / "scratch" / "runs").iterdir())) == 2


@pytest.mark.parametrize("target", ["inner", "missing"])
def test_an_import_writes_through_no_link(tmp_path: Path, outside: Path, target: str) -> None:
    (tmp_path / "theirs.csv").write_text(TABLE)
    before = content(outside)
    link(tmp_path / "study" / "runs", outside / target)
    with pytest.raises(InputError, match="a symbolic link"):
        import_runs(tmp_path / "theirs.csv", tmp_path / "study")
    assert content(outside) == before


@pytest.mark.parametrize("name", ["runs.parquet", "evals.parquet", "grid.yaml"])
def test_packing_writes_through_no_link(place: Place, outside: Path, tmp_path: Path, name: str) -> None:
    sweep(place.grid(GRID), place)
    before = content(outside)
    link(tmp_path / "packed" / name, outside / "missing")
    with pytest.raises(InputError, match="a symbolic link"):
        Store(place.out).pack(tmp_path / "packed")
    assert content(outside) == before


@pytest.mark.parametrize(
    "name", ["report.pdf", "fits/a.json", "recommendations/a.json", "latency.json", "a/b/figure.svg"]
)
def test_whatever_is_written_into_a_study_follows_no_link(tmp_path: Path, outside: Path, name: str) -> None:
    """Reports, fits and figures name no study: the folder with runs around them is one."""
    (tmp_path / "theirs.csv").write_text(TABLE)
    study = tmp_path / "study"
    import_runs(tmp_path / "theirs.csv", study)
    before = content(outside)
    top = study / Path(name).parts[0]
    for place, target in ((top, "inner"), (top, "missing"), (study / name, "file")):
        link(place, outside / target)
        with pytest.raises(InputError, match="a symbolic link"):
            write_atomically(study / name, b"ours")
        place.unlink()
    assert content(outside) == before
    write_atomically(study / name, b"ours")
    assert (study / name).read_bytes() == b"ours"


def test_elsewhere_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "grid.yaml").write_text("")  # people's own: no study without a table of runs
    (tmp_path / "scratch").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "scratch")
    assert study_around(tmp_path / "results" / "fit.json") is None
    write_atomically(tmp_path / "results" / "fit.json", b"ours")
    assert (tmp_path / "scratch" / "fit.json").read_bytes() == b"ours"


def test_a_hard_link_is_replaced_and_its_other_name_kept(place: Place, outside: Path) -> None:
    sweep(place.grid(GRID), place)
    for name in ("grid.yaml", "runs/" + next((place.out / "runs").iterdir()).name):
        (place.out / name).unlink()
        os.link(outside / "file", place.out / name)
        write_atomically(place.out / name, b"ours", place.out)
    assert (outside / "file").read_text() == "theirs"
    (place.out / ".lock").unlink()
    os.link(outside / "file", place.out / ".lock")
    with pytest.raises(InputError, match=r"\.lock is a link"):
        sweep(place.grid(GRID), place)
    assert (outside / "file").read_text() == "theirs"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_a_pipe_or_folder_in_place_of_a_file_is_said_at_once(place: Place, make: Callable[[Path], None]) -> None:
    sweep(place.grid(GRID), place)
    store = Store(place.out)
    first, second = store.survey().cells
    for path in (store.path("runs", first), store.path("latency", second), place.out / "evals.parquet"):
        path.unlink(missing_ok=True)
        make(path)
    assert store.survey().unusable.keys() >= {store.path("runs", first), store.path("latency", second)}
    assert status.study_status(store, *status.opened(place.out)).ok == 1
    with pytest.raises(InputError, match=r"evals\.parquet: cannot be read"):
        sweep(place.grid(GRID), place)
    (place.out / "evals.parquet").rename(place.out / "away")
    store.path("curves", first).unlink()
    make(store.path("curves", first))
    assert sweep(place.grid(GRID), place).trained_now == 1
    assert store.survey().unusable == {}
    (place.out / ".lock").unlink()
    make(place.out / ".lock")
    assert store.driver() == ""
    with pytest.raises((InputError, WorkError), match="cannot be used"):
        sweep(place.grid(GRID), place)


def test_temporary_files_of_others_are_left(place: Place) -> None:
    place.out.mkdir()
    theirs, ours = place.out / ".mine.tmp", place.out / ".grid.yaml.12-0123abcd.tmp"
    theirs.write_text("")
    ours.write_text("")
    sweep(place.grid(GRID), place)
    assert theirs.exists()
    assert not ours.exists()
    assert files.left_by_a_killed_writer(ours)
