"""The command around the parts: resuming, stopping a part at its limit, and a computer without a GPU."""

import json
import subprocess
import sys

import pytest

from benchmarks.gpu import command, parts, record
from benchmarks.gpu.command import DONE, FAILED, PARTIAL

DEVICE = {
    "kind": "NVIDIA Test 9000", "platform": "gpu", "compute_capability": "9.0", "attention": "cudnn",
    "kernels": ["loop", "tokamax"], "versions": {"jax": "1"},
}  # fmt: skip
CELLS, EQUALITY = (next(part for part in parts.PARTS if part.name == name) for name in ("cells", "equality"))


def writes(rows):
    """Python of a process that leaves these rows of a part and ends."""
    start = "import pathlib, sys; from benchmarks.gpu.record import write"
    return f"{start}; write(pathlib.Path(sys.argv[1]), {rows!r})"


@pytest.fixture
def started(monkeypatch):
    """Parts that are processes of these programs; the names of those that were started."""
    monkeypatch.setattr(command, "_device", lambda tiny: DEVICE)
    monkeypatch.setattr(command, "_GRACE_S", 0.3)
    programs, names = {}, []

    def of(part, folder, limit, tiny):
        names.append(part.name)
        folder.mkdir(parents=True, exist_ok=True)
        return [sys.executable, "-c", programs[part.name], str(folder / f"{part.name}.parquet")]

    monkeypatch.setattr(command, "_command", of)
    return programs, names


def test_parts_that_are_done_are_not_measured_again(started, tmp_path):
    programs, names = started
    row = {"case": "E=8 4 together", "status": record.OK, "error": "", "n_experts": 8, "together": 4, "speedup": 6.0}
    programs |= {"cells": writes([row]), "equality": "raise SystemExit('Error: no driver')"}
    first = command.run(tmp_path, [EQUALITY, CELLS])
    folder = tmp_path / "nvidia-test-9000"
    assert {name: part["status"] for name, part in first["parts"].items()} == {"equality": FAILED, "cells": DONE}
    assert "no driver" in first["parts"]["equality"]["error"]
    assert json.loads((folder / "summary.json").read_text()) == first
    assert "no driver" in (folder / "README.md").read_text()
    programs["equality"] = writes([{"case": "kernel loop", "status": record.SKIPPED, "error": "3 s were left"}])
    second = command.run(tmp_path, [EQUALITY, CELLS])
    assert names == ["equality", "cells", "equality"]
    assert second["parts"]["equality"]["status"] == PARTIAL
    assert second["parts"]["cells"] == first["parts"]["cells"]
    command.run(tmp_path, [CELLS], again=["cells"])
    assert names[-1] == "cells"


def test_a_part_that_does_not_look_at_the_clock_is_stopped_with_its_rows_kept(started, tmp_path):
    programs, _ = started
    row = {"case": "E=8 1 together", "status": record.RUNNING, "error": ""}
    record.write(tmp_path / "nvidia-test-9000" / "cells.parquet", [row])  # as a case that hangs leaves it
    programs["cells"] = "import time; time.sleep(60)"
    summary = command.run(tmp_path, [CELLS], seconds=1.0)
    assert summary["parts"]["cells"]["status"] == PARTIAL
    assert 0.9 < summary["parts"]["cells"]["seconds"] < 30
    assert record.read(tmp_path / "nvidia-test-9000" / "cells.parquet") == [row]
    assert command.run(tmp_path, [CELLS], seconds=0.1)["parts"]["cells"]["error"] == "no time was left for it"


def test_all_parts_and_their_starts_fit_a_command_of_nine_minutes():
    assert sum(part.seconds for part in parts.PARTS) + 30 <= parts.TOTAL_S <= 9 * 60


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["nothing"], "equality"), (["--again", "cell"], "cells"), (["--seconds", "x"], "float")],
)
def test_wrong_arguments_end_with_status_2(arguments, expected, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_without_a_gpu_the_command_says_so_and_measures_nothing(monkeypatch, tmp_path, capsys):
    for code, out, err in [(1, "", "RuntimeError: Unable to initialize backend 'cuda'"),
                           (0, json.dumps(DEVICE | {"platform": "cpu"}), "")]:  # fmt: skip
        ended = subprocess.CompletedProcess([], code, out, err)
        monkeypatch.setattr(command.subprocess, "run", lambda *_, ended=ended, **__: ended)
        assert command.main(["--out", str(tmp_path)]) == 2
        assert "--tiny" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    settings = parts.environment(gpu=True)
    assert settings["JAX_PLATFORMS"].startswith("cuda"), "JAX would take the CPU without a word"
    monkeypatch.setattr(command.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "boom"))
    assert command.main(["--out", str(tmp_path), "--tiny"]) == 1


@pytest.mark.slow
def test_the_whole_command_runs_on_a_cpu_and_a_second_time_measures_nothing(tmp_path, capfd):
    assert command.main(["--tiny", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "cpu"
    summary = json.loads((folder / "summary.json").read_text())
    assert {part["status"] for part in summary["parts"].values()} == {DONE}, capfd.readouterr().err
    assert not any(part["failed"] for part in summary["parts"].values())
    assert {path.name for path in folder.iterdir()} == {
        *(f"{part.name}.parquet" for part in parts.PARTS), "latency.parquet", "summary.json", "README.md"
    }  # fmt: skip
    assert len([*folder.iterdir()]) <= 8, "as many as a lent machine gives back"
    assert command.main(["--tiny", "--out", str(tmp_path)]) == 0
    assert capfd.readouterr().err.count("measured before") == len(parts.PARTS)
