"""Loggers are told of every value once, by whichever driver; a logger that fails stops nothing."""

from __future__ import annotations

import importlib.util
import io
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fakes
import pytest
from places import FAKE, Place, sweep
from told import CORPUS, ONE, TWO, steps

from scaling import live
from scaling.config.run import RunConfig
from scaling.errors import InputError
from sweeps.execute import run_sweep
from sweeps.grid import load_grid
from sweeps.job import Options
from sweeps.live import LiveWriter
from sweeps.loggers.forwarder import Forwarder
from sweeps.loggers.logger import LOGGERS, LoggedRun
from sweeps.progress import Progress
from sweeps.status import opened
from sweeps.store import Store

GRID = "{d_model: 16, tokens: 1K, seed: [0, 1]}"


@dataclass
class Recorder:
    """A logger that keeps what it is told."""

    runs: dict[str, LoggedRun] = field(default_factory=dict)
    values: dict[tuple[str, int], Mapping[str, float]] = field(default_factory=dict)
    ended: dict[str, tuple[str, Mapping[str, float]]] = field(default_factory=dict)
    begun: list[tuple[str, str, int]] = field(default_factory=list)
    fails: bool = False

    def begin(self, run: LoggedRun, handle: str, after: int) -> str:
        self.runs[run.run_id] = run
        self.begun.append((run.name, handle, after))
        return f"handle of {run.name}"

    def log(self, run_id: str, step: int, tokens: int, values: Mapping[str, float]) -> None:
        if self.fails:
            raise ConnectionError("the service is down")
        assert (run_id, step) not in self.values
        self.values[run_id, step] = values

    def end(self, run_id: str, status: str, results: Mapping[str, float]) -> None:
        assert run_id not in self.ended
        self.ended[run_id] = status, results

    def close(self) -> None:
        """Nothing is open."""


def forwarder(out: Path, logger: Any, cells: Mapping[str, RunConfig], note: Callable[[str], None] = print) -> Forwarder:
    labels = {run_id: f"cell {number}" for number, run_id in enumerate(cells)}
    corpora = dict.fromkeys(cells, CORPUS)
    return Forwarder("recorder", logger, Store(out), cells, labels, corpora, note)


CELLS = {cell.run_id(CORPUS): cell for cell in (ONE, TWO)}


def test_live_values_are_told_once_over_two_drivers(tmp_path: Path) -> None:
    """The second driver remembers how far the first came, and the run has the handle that it was given."""
    logger, tail = Recorder(), live.Tail(tmp_path)
    with LiveWriter(Store(tmp_path), [ONE, TWO], CORPUS, 60.0) as writer:
        first = forwarder(tmp_path, logger, CELLS)
        for last in (4, 8):
            writer.trained(steps(last, 4))
            writer._tell()
            first.look(tail.look(), ())
        first.close()
        writer.trained(steps(12, 4))
        writer._tell()
        second = forwarder(tmp_path, logger, CELLS)
        second.look(live.Tail(tmp_path).look(), ())
        second.close()
    one = ONE.run_id(CORPUS)
    assert list(logger.values) == [(one, 4), (one, 8), (one, 12)]
    assert logger.values[one, 8]["train/loss"] == pytest.approx(6.5)
    assert logger.values[one, 8]["train/tokens_per_s"] == pytest.approx(256 / 0.5)
    assert logger.begun == [("cell 0", "", 0), ("cell 0", "handle of cell 0", 8)]
    settings = logger.runs[one].settings
    assert (settings["train.batch_tokens"], settings["steps"], settings["n_active"] > 0) == (256, 20, True)
    assert {"git_revision", "code_version", "corpus_hash", "lr"} <= settings.keys()


def test_finished_and_failed_cells_are_told_once(place: Place) -> None:
    sweep(place.grid(f"{{d_model: 16, tokens: 1K, seed: [0, {fakes.ERROR}]}}"), place)
    cells = opened(place.out)[1]
    logger = Recorder()
    for _ in range(2):
        again = forwarder(place.out, logger, cells)
        again.look((), [*cells])
        again.close()
    assert sorted(status for status, _ in logger.ended.values()) == ["error", "ok"]
    (ok,) = (run_id for run_id, (status, _) in logger.ended.items() if status == "ok")
    assert logger.ended[ok][1]["result/loss_val"] == pytest.approx(1 + 1 / 1000)
    assert "result/n_total" not in logger.ended[ok][1]
    assert [step for _, step in logger.values] == [cells[ok].steps]


def test_a_logger_that_fails_is_given_up_with_a_message(tmp_path: Path) -> None:
    notes: list[str] = []
    with LiveWriter(Store(tmp_path), [ONE], CORPUS, 60.0) as writer:
        failing = forwarder(tmp_path, Recorder(fails=True), CELLS, notes.append)
        tail = live.Tail(tmp_path)
        for last in (4, 8):
            writer.trained(steps(last, 4))
            writer._tell()
            failing.look(tail.look(), ())
        failing.close()
    (note,) = notes
    assert "the service is down" in note


@pytest.mark.parametrize("name", LOGGERS)
def test_a_package_that_is_not_installed_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=rf"`log` {name} needs .*pip install 'moe-scaling\[{name}\]'"):
        Options(log=(name,))


def logged(place: Place, name: str) -> dict[str, RunConfig]:
    """The cells of a sweep that is logged there, and run again to nothing."""
    options = Options(executor="inline", log=(name,))
    for _ in range(2):
        run_sweep(load_grid(place.grid(GRID)), place.out, options, Progress(io.StringIO()), FAKE)
    memory = json.loads((place.out / "log" / f"{name}.json").read_text())
    cells = opened(place.out)[1]
    assert memory.keys() == cells.keys()
    assert {about["ended"] for about in memory.values()} == {"ok"}
    return cells


def events(folder: Path) -> Iterator[Any]:
    """The events of the files in a folder: records of a length and its checksum, the data and its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack("<Q", data[at : at + 8])
            yield Event.FromString(data[at + 12 : at + 12 + size])
            at += 16 + size


def test_tensorboard_has_a_folder_of_each_run(place: Place) -> None:
    pytest.importorskip("tensorboardX")
    cells = logged(place, "tensorboard")
    folders = [*(place.out / "log" / "tensorboard").iterdir()]
    assert sorted(folder.name[-8:] for folder in folders) == sorted(run_id[:8] for run_id in cells)
    for folder in folders:
        values = [value for event in events(folder) for value in event.summary.value]
        assert [value.simple_value for value in values if value.tag == "train/loss"] == [2.0]
        assert [value.simple_value for value in values if value.tag == "result/loss_val"] == [pytest.approx(1.001)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy
def test_mlflow_has_a_run_of_each_cell_in_the_experiment_of_the_study(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    cells = logged(place, "mlflow")
    client = MlflowClient(tracking_uri=f"sqlite:///{place.out / 'log' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.data.tags["run_id"] for run in runs} == cells.keys()
    for run in runs:
        assert run.info.status == "FINISHED"
        assert [point.value for point in client.get_metric_history(run.info.run_id, "train/loss")] == [2.0]
        assert run.data.metrics["result/loss_val"] == pytest.approx(1.001)
        assert run.data.params["model.d_model"] == "16"


def test_wandb_writes_a_run_of_each_cell_offline(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    cells = logged(place, "wandb")
    files = [*(place.out / "log" / "wandb").glob("offline-run-*/*.wandb")]
    assert sorted(path.stem for path in files) == sorted(f"run-{run_id}-tiny" for run_id in cells)
    for path in files:
        content = path.read_bytes()
        assert all(word in content for word in (b"train/loss", b"result/loss_val", b"git_revision", b"d_model"))
