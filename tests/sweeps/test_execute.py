"""A sweep completes what is missing and nothing else, whatever was killed before."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import pytest
from places import FAKE, ROOT, TIMINGS, Place, sweep, table

from scaling.errors import InputError, WorkError
from sweeps import execute, grid, status, worker
from sweeps.job import Options
from sweeps.progress import Progress
from sweeps.ray_executor.pool import lost_cell
from sweeps.store import Store


def snapshot(out: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*.parquet")}


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)


def test_a_sweep_trains_every_cell_once_and_measures_every_shape_once(place: Place) -> None:
    path = place.grid("{n_experts: [1, 4], d_model: 16, tokens: [1K, 2K], seed: [0, 1]}")
    summary = sweep(path, place)
    assert (summary.cells, summary.ok, summary.trained_now, summary.left, summary.latency_owed) == (8, 8, 8, 0, 0)
    assert len(place.noted("train")) == len(set(place.noted("train"))) == 8
    cells = grid.load_grid(path).cells
    shapes = {cell.shape_id() for cell in cells}
    # With every CPU of the machine and no GPU; E = 1 and E = 4 are two shapes.
    assert sorted(place.noted("measure")) == sorted(f"{shape} {worker.machine_cpus()} cpu" for shape in shapes)
    latency = table(place.out, "latency")
    assert len(latency) == 16
    assert {row["run_id"] for row in latency} == {row["run_id"] for row in table(place.out, "runs")}
    assert {row["executor"] for row in Store(place.out).read("runs", latency[0]["run_id"])} == {"inline"}


def test_a_second_call_does_nothing_and_needs_neither_jax_nor_ray(place: Place) -> None:
    path = place.grid("{d_model: 16, tokens: 1K, seed: [0, 1]}")
    sweep(path, place)
    before = snapshot(place.out)
    script = (
        "import sys; sys.modules |= {'jax': None, 'ray': None, 'flax': None}\n"
        "import io, pathlib; from sweeps import execute, grid, progress\n"
        f"execute.run_sweep(grid.load_grid({str(path)!r}), pathlib.Path({str(place.out)!r}), execute.Options(),"
        " progress.Progress(io.StringIO()))\n"
    )
    subprocess.run([sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    assert snapshot(place.out) == before
    assert len(place.noted("train")) == 2


def test_a_grown_grid_trains_only_what_is_new_and_reuses_the_latency_of_a_shape(place: Place) -> None:
    sweep(place.grid("{d_model: 16, tokens: 1K, seed: [0, 1]}"), place)
    before = snapshot(place.out)
    summary = sweep(place.grid("{d_model: 16, tokens: [1K, 2K], seed: [1, 2]}"), place)
    assert (summary.cells, summary.trained_now, len(summary.of_older_grids)) == (4, 3, 1)
    after = snapshot(place.out)
    assert {path: after[path] for path in before} == before
    assert len(place.noted("train")) == 5
    assert len(place.noted("measure")) == 1
    assert len(table(place.out, "latency")) == 10


def test_what_a_grid_was_made_with_stays_when_nothing_is_trained_and_is_new_with_new_cells(place: Place) -> None:
    path = place.grid("{d_model: 16, tokens: 1K, seed: [0, 1]}")
    sweep(path, place)
    kept = place.out / "grid.yaml"
    earlier = kept.read_text().replace("code_version: ", "code_version: earlier ")
    kept.write_text(earlier)
    sweep(path, place)
    assert kept.read_text() == earlier
    sweep(place.grid("{d_model: 16, tokens: 1K, seed: 0}"), place)  # nothing to train, and other cells
    assert [cell.seed for cell in grid.load_grid(kept).cells] == [0]
    assert "code_version: earlier" in kept.read_text()
    sweep(place.grid("{d_model: 16, tokens: 1K, seed: [0, 1, 2]}"), place)
    assert "earlier" not in kept.read_text()


def test_a_changed_bench_needs_new_latency_but_no_training(place: Place) -> None:
    sweep(place.grid("{d_model: 16, tokens: 1K}"), place)
    path = place.grid("{d_model: 16, tokens: 1K}")
    path.write_text(path.read_text().replace("context: [16]", "context: [8]"))
    assert sweep(path, place).trained_now == 0
    assert len(place.noted("train")) == 1
    assert len(place.noted("measure")) == 2


def test_a_changed_corpus_gives_another_run(place: Place, tmp_path: Path) -> None:
    path = place.grid("{d_model: 16, tokens: 1K}")
    sweep(path, place)
    docs = place.folder / "more"
    docs.mkdir()
    for file in (place.folder / "docs").iterdir():
        (docs / file.name).write_bytes(file.read_bytes())
    (docs / "new.txt").write_text("a document that was not there")
    path.write_text(path.read_text().replace("docs/*", "more/*"))
    assert sweep(path, place).trained_now == 1
    assert len({row["corpus_hash"] for row in table(place.out, "runs")}) == 2


def test_failed_cells_are_rows_and_the_others_continue(place: Place) -> None:
    seeds = [0, fakes.ERROR, fakes.MEMORY, fakes.DIVERGED, fakes.FOREIGN, 1]
    path = place.grid(f"{{d_model: 16, tokens: 1K, seed: {seeds}}}")
    summary = sweep(path, place)
    assert (summary.ok, summary.left, summary.failed) == (2, 0, {"error": 2, "oom": 1, "diverged": 1})
    rows = {row["seed"]: row for row in table(place.out, "runs")}
    assert {seed: row["status"] for seed, row in rows.items()} == {
        0: "ok", 1: "ok", fakes.ERROR: "error", fakes.MEMORY: "oom", fakes.DIVERGED: "diverged", fakes.FOREIGN: "error"
    }  # fmt: skip
    assert rows[fakes.ERROR]["error"].startswith("ValueError: an unlucky seed\nwith a second line\n")
    assert "fakes.py" in rows[fakes.ERROR]["error"]
    assert "the corpus changed" in rows[fakes.FOREIGN]["error"]
    assert all((row["loss_val"] is None) == (row["status"] != "ok") for row in rows.values())
    assert len(table(place.out, "latency")) == 4  # of ok cells only

    # A failed cell is retried only on request, and ok cells remain unchanged.
    assert sweep(path, place).trained_now == 0
    before = snapshot(place.out)
    again = sweep(path, place, retry_failed=True)
    assert len(place.noted("train")) == 6 + 4
    assert again.failed == summary.failed
    after = snapshot(place.out)
    ok = {row["run_id"] for row in rows.values() if row["status"] == "ok"}
    assert all(after[part] == content for part, content in before.items() if part.stem in ok)


def test_the_driver_tells_the_warnings_of_training_and_a_failed_cell_trained_nothing(place: Place) -> None:
    printed = io.StringIO()
    path = place.grid(f"{{d_model: 16, tokens: 1K, seed: [{fakes.WARNS}, {fakes.ERROR}]}}")
    execute.run_sweep(grid.load_grid(path), place.out, Options(executor="inline"), Progress(printed), FAKE)
    (warning,) = [line for line in printed.getvalue().splitlines() if line.startswith("warning: ")]
    assert f"seed={fakes.WARNS}" in warning
    assert warning.endswith("a checkpoint is damaged")
    rows = {row["seed"]: row for row in table(place.out, "runs")}
    assert rows[fakes.ERROR]["tokens_own"] == 0
    assert worker.outcome(rows[fakes.ERROR]).tokens == worker.outcome(rows[fakes.ERROR]).train_flops == 0
    assert worker.outcome(rows[fakes.WARNS]).tokens == rows[fakes.WARNS]["tokens"]


def test_trunks_that_fail_together_are_retried_separately(place: Place) -> None:
    """Dense trunks of one program train in one call; a failure of one of them does not cost the others."""
    seeds = [0, fakes.ERROR, 1, fakes.MEMORY, 2]
    summary = sweep(place.grid(f"{{n_experts: 1, d_model: 16, tokens: [1K, 2K], seed: {seeds}}}"), place)
    assert (summary.ok, summary.failed) == (6, {"error": 2, "oom": 2})
    assert all(part.exists() is False for part in (place.out / "checkpoints").glob("*"))


def test_fail_fast_stops_at_the_first_failure(place: Place) -> None:
    # The longest cell, which fails, is first.
    path = place.grid(f"[{{d_model: 16, tokens: 1K, seed: [0, 1]}}, {{d_model: 16, tokens: 2K, seed: {fakes.ERROR}}}]")
    with pytest.raises(WorkError, match=r"`fail_fast`: .* status error; finished cells are safe"):
        sweep(path, place, fail_fast=True)
    assert len(place.noted("train")) == 1
    assert sweep(path, place).trained_now == 2


def test_a_sweep_without_an_ok_cell_fails(place: Place) -> None:
    path = place.grid(f"{{d_model: 16, tokens: 1K, seed: [{fakes.ERROR}, {fakes.DIVERGED}]}}")
    with pytest.raises(WorkError, match="every cell failed; first failure: "):
        sweep(path, place)
    assert len(table(place.out, "runs")) == 2


def test_no_cell_is_started_after_max_hours(place: Place) -> None:
    summary = sweep(place.grid("{d_model: 16, tokens: 1K, seed: [0, 1]}"), place, max_hours=1e-12)
    assert (summary.trained_now, summary.left) == (0, 2)
    assert sweep(place.grid("{d_model: 16, tokens: 1K, seed: [0, 1]}"), place, max_hours=1.0).left == 0


def test_a_failed_measurement_does_not_affect_other_shapes(place: Place) -> None:
    path = place.grid("{d_model: [16, 48, 64, 80], tokens: 1K}")  # the fake dies at 48 and raises at 80
    with pytest.raises(WorkError, match="latency of 2 of 4 shapes could not be measured; trained cells are safe"):
        sweep(path, place)
    widths = {row["run_id"]: row["d_model"] for row in table(place.out, "runs")}
    assert {widths[row["run_id"]] for row in table(place.out, "latency")} == {16, 64}
    assert len(place.noted("measure")) == 4
    assert status.study_status(Store(place.out), *status.opened(place.out)).latency_owed == 2


def test_nothing_is_imported_from_the_current_folder(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.folder / "pyarrow.py").write_text("raise RuntimeError('a file of somebody else was run')")
    monkeypatch.chdir(place.folder)
    assert sweep(place.grid("{d_model: 16, tokens: 1K, seed: 0}"), place).latency_owed == 0


def test_a_damaged_part_is_trained_again(place: Place) -> None:
    path = place.grid("{d_model: 16, tokens: 1K, seed: [0, 1]}")
    sweep(path, place)
    rows = table(place.out, "runs")
    part = Store(place.out).path("evals", rows[0]["run_id"])
    part.write_bytes(part.read_bytes()[:50])
    printed = io.StringIO()
    execute.run_sweep(grid.load_grid(path), place.out, Options(executor="inline"), Progress(printed), FAKE)
    assert "warning" in printed.getvalue()
    assert rows[0]["run_id"] in printed.getvalue()
    assert place.noted("train").count(rows[0]["run_id"]) == 2
    assert table(place.out, "runs") == rows


def test_a_full_disk_stops_the_sweep(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(store: Store, run: Any, evals: Any, curves: Any) -> None:
        raise WorkError("the disk is full: free some space")

    monkeypatch.setattr(Store, "write_cell", full)
    with pytest.raises(WorkError, match="disk is full"):
        sweep(place.grid("{d_model: 16, tokens: 1K, seed: [0, 1]}"), place)
    assert len(place.noted("train")) == 1


def test_driver_killed_then_resumed_equals_uninterrupted(place: Place) -> None:
    # The second-longest trunk hangs: when the driver is killed, one cell is done, two are running, one is not started.
    path = place.grid(
        "[{d_model: 16, tokens: 6K}, {d_model: 16, tokens: 2K, seed: 1}, "
        f"{{d_model: 16, tokens: [1K, 4K], seed: {fakes.HANGS}}}]"
    )
    driver = place.drive(path)
    with driver:
        wait_for(lambda: place.noted("hangs"), driver)
        refused = place.drive(path)
        assert f"another sweep of this study is running (process {driver.pid} on" in refused.communicate()[1]
        assert refused.returncode == 1
        driver.kill()
    before = snapshot(place.out / "runs")
    assert len(before) == 1
    place.mercy.touch()
    assert sweep(path, place).trained_now == 3
    assert before.items() <= snapshot(place.out / "runs").items()

    resumed = {name: table(place.out, name) for name in ("runs", "evals", "curves", "latency")}
    calm = Place(place.folder, place.folder / "calm", place.log, place.mercy)
    sweep(path, calm)
    assert {name: table(calm.out, name) for name in resumed} == resumed


def test_the_row_of_a_worker_that_died_after_writing_it_is_kept(place: Place) -> None:
    path = place.grid(f"{{d_model: 16, tokens: 1K, seed: [0, {fakes.ERROR}]}}")
    sweep(path, place)
    before = snapshot(place.out / "runs")
    store = Store(place.out)
    for run_id, cell in status.opened(place.out)[1].items():
        outcome = lost_cell(cell, store.read("runs", run_id)[0]["corpus_hash"], store, "Failure 1\nIt died: low memory")
        assert outcome.run_id == run_id
        if cell.seed == 0:
            assert outcome.status == "ok"
            assert (
                snapshot(place.out / "runs").items()
                >= {store.path("runs", run_id): before[store.path("runs", run_id)]}.items()
            )
        else:
            assert store.read("runs", run_id)[0]["error"].endswith("written: It died: low memory")


def test_ended_cells_are_printed_in_plain_lines(place: Place) -> None:
    printed = io.StringIO()
    path = place.grid(f"{{d_model: 16, tokens: [1K, 2K], seed: [0, {fakes.ERROR}]}}")
    execute.run_sweep(grid.load_grid(path), place.out, Options(executor="inline"), Progress(printed), FAKE)
    lines = printed.getvalue().splitlines()
    assert any(line.startswith("[4/4] ") and "2 failed" in line and "tokens/s" in line for line in lines)
    assert any("ValueError: an unlucky seed" in line for line in lines)
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"address": "auto", "executor": "inline"}, "`address`"),
        ({"max_concurrent": 2, "executor": "inline"}, "`max_concurrent`"),
        ({"max_concurrent": 0}, "`max_concurrent` must be at least 1, found 0"),
        ({"max_hours": 0.0}, "`max_hours` must be above 0, found 0"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        Options(**options)


def test_more_cpus_than_the_machine_has_are_refused(place: Place) -> None:
    with pytest.raises(InputError, match=r"resources.cpus=100000, but this machine has"):
        sweep(place.grid("{d_model: 16, tokens: 1K}", more="resources: {cpus: 100000}\n"), place)


def test_a_cell_gets_its_share_of_gpu_memory_and_cpu_threads() -> None:
    assert worker.environment(1, 0.5)["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.450"
    assert worker.environment(3, 0, spread=False)["NPROC"] == "3"
    training = worker.environment(3, 0)  # each thread is a device
    assert (training["NPROC"], training["XLA_FLAGS"].split()[-1]) == ("3", "--xla_force_host_platform_device_count=3")
    assert "device_count" not in worker.environment(3, 1)["XLA_FLAGS"]
    assert worker.environment(1, 0)["JAX_PLATFORMS"] == "cpu"
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in worker.environment(1, 1)


def test_ray_gives_the_rows_of_inline_and_survives_killed_workers(place: Place) -> None:
    """One start of Ray covers equal rows, killed workers and a failed cell."""
    path = place.grid(
        "[{d_model: 16, tokens: [1K, 2K], seed: [0, 1]}, "
        f"{{d_model: 16, tokens: 1K, seed: [{fakes.KILLED}, {fakes.ERROR}, {fakes.KILLED_ONCE}]}}]"
    )
    driver = place.drive(path, "ray")
    printed = driver.communicate()[1]
    assert driver.returncode == 0, printed
    rows = table(place.out, "runs")
    assert {row["seed"]: row["status"] for row in rows} == {
        0: "ok",
        1: "ok",
        fakes.KILLED: "error",
        fakes.ERROR: "error",
        fakes.KILLED_ONCE: "ok",
    }
    killed = [row for row in rows if row["seed"] == fakes.KILLED]
    assert all("ended before its row was written: The actor died" in row["error"] for row in killed)
    assert len(table(place.out, "latency")) == 5 * 2
    assert not (place.out / ".ray").exists()

    calm = Place(place.folder, place.folder / "calm", place.log, place.mercy)
    block = f"[{{d_model: 16, tokens: [1K, 2K], seed: [0, 1]}}, {{d_model: 16, tokens: 1K, seed: {fakes.KILLED_ONCE}}}]"
    sweep(place.grid(block), calm)  # KILLED_ONCE already died once, according to the log
    both = {row["run_id"] for row in table(calm.out, "runs")}
    for name in ("runs", "evals", "curves", "latency"):
        ours = [row for row in table(place.out, name) if row.get("run_id") in both or name in ("evals", "curves")]
        assert ours == table(calm.out, name)


@pytest.mark.slow
def test_ray_driver_killed_then_resumed_equals_uninterrupted(place: Place) -> None:
    path = place.grid(
        "[{d_model: 16, tokens: 6K}, {d_model: 16, tokens: 2K, seed: 1}, "
        f"{{d_model: 16, tokens: [1K, 4K], seed: {fakes.HANGS}}}]"
    )
    driver = place.drive(path, "ray")
    with driver:
        wait_for(lambda: place.noted("hangs") and list(place.out.glob("runs/*")), driver)
        driver.send_signal(signal.SIGKILL)
    before = snapshot(place.out / "runs")
    place.mercy.touch()
    again = place.drive(path, "ray")
    assert again.communicate()[1] is not None
    assert again.returncode == 0
    assert before.items() <= snapshot(place.out / "runs").items()
    calm = Place(place.folder, place.folder / "calm", place.log, place.mercy)
    sweep(path, calm)
    for name in ("runs", "evals", "curves", "latency"):
        assert table(place.out, name) == table(calm.out, name)


@pytest.mark.slow
def test_ray_fail_fast_and_hours(place: Place) -> None:
    path = place.grid(
        f"[{{d_model: 16, tokens: 1K, seed: [0, 1, 2, 3]}}, {{d_model: 16, tokens: 2K, seed: {fakes.ERROR}}}]"
    )
    driver = place.drive(path, "ray", "fail_fast")
    assert "WorkError: `fail_fast`" in driver.communicate()[1]
    assert driver.returncode == 1
    assert {row["seed"]: row["status"] for row in table(place.out, "runs")}[fakes.ERROR] == "error"


@pytest.mark.slow
def test_real_cells_are_bit_for_bit_the_same_inline_and_under_ray(place: Place) -> None:
    """Two real micro models: with either executor each has one thread and the same compiled program."""
    path = place.grid("{n_experts: [1, 4], d_model: 16, tokens: 4K}")
    for executor in ("inline", "ray"):
        command = [
            sys.executable,
            "-m",
            "scaling.cli.main",
            "sweep",
            "run",
            str(path),
            "--executor",
            executor,
            "--json",
        ]
        command += ["--out", str(place.folder / executor)]
        ended = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, check=True
        )
        assert json.loads(ended.stdout)["ok"] == 2
    for name in ("runs", "evals", "curves"):
        assert table(place.folder / "inline", name) == table(place.folder / "ray", name)
    assert {row["threads"] for row in table(place.folder / "ray", "runs")} == {1}
    inline, ray = (table(place.folder / executor, "latency") for executor in ("inline", "ray"))
    strip = [[{k: v for k, v in row.items() if k not in TIMINGS} for row in rows] for rows in (inline, ray)]
    assert strip[0] == strip[1]
