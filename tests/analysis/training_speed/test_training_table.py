"""Anybody's training speeds as a table: units, devices, what is refused, and where it stands."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.training_speed.table import TrainingTable, read_training
from scaling.errors import InputError
from scaling.serving.devices import device

H100 = device("h100")
MODEL = {"n_active": 1e9, "n_total": 1e9, "n_experts": 1, "top_k": 1, "n_layers": 24, "d_model": 2048}
ROUTED = MODEL | {"n_total": 5e9, "n_experts": 8, "top_k": 2}
SPEED = 50_000.0  # tokens/s of 8 devices: 6e9 x 50e3 / (8 x 989e12) = 3.8 % of the peak
STEP = {"batch_tokens": 2**19, "seq_len": 2048, "num_gpus": 8}


def read(tmp_path: Path, *rows: dict[str, object], name: str = "h100", **mapping: str) -> TrainingTable:
    path = tmp_path / "runs.csv"
    pd.DataFrame(list(rows)).to_csv(path, index=False)
    return read_training(path, mapping, device_name=name)


@pytest.mark.parametrize(
    "columns",
    [
        {"tokens_per_s": SPEED},
        {"tok/s/gpu": SPEED / 8},
        {"step_time_ms": 2**19 / SPEED * 1e3},
        {"iteration_time_s": 2**19 / SPEED},
        {"train_s": 1e10 / SPEED, "tokens": 1e10},
        {"gpu_hours": 8 * 1e10 / SPEED / 3600, "tokens": "10B"},
        {"mfu": 6e9 * SPEED / 8 / H100.peak_flops},
        {"MFU (%)": 600e9 * SPEED / 8 / H100.peak_flops},
        {"wall_s": 1e10 / SPEED + 60, "compile_s": 60, "tokens": 1e10},
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_every_way_to_say_a_speed_gives_the_same_device_seconds(tmp_path: Path, columns: dict[str, object]) -> None:
    table = read(tmp_path, MODEL | STEP | columns)
    assert table.seconds == pytest.approx([8 / SPEED], rel=1e-9)


def test_rows_of_one_configuration_are_one_and_their_median_counts(tmp_path: Path) -> None:
    rows = [MODEL | STEP | {"tokens_per_s": SPEED * factor} for factor in (0.5, 1.0, 1.25)]
    table = read(tmp_path, *rows, ROUTED | STEP | {"tokens_per_s": SPEED / 2})
    assert table.seconds == pytest.approx([8 / SPEED, 16 / SPEED])
    assert table.column("rows").tolist() == [3, 1]
    assert table.column("spread") == pytest.approx([2.5, 1])


def test_terms_that_the_table_cannot_feed_are_absent(tmp_path: Path) -> None:
    bare = {name: MODEL[name] for name in ("n_active", "n_total", "n_experts")}
    terms = read(tmp_path, bare | {"tokens_per_s": SPEED / 8}).terms()[0]
    assert terms[0] == pytest.approx(6e9 / H100.peak_flops)
    assert np.count_nonzero(terms) == 1


def test_a_row_of_a_cpu_is_its_share_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two threads trains a token in half the device's time."""
    from analysis.training_speed import table as module

    monkeypatch.setattr(module, "device", lambda name: replace(H100, name="cpu"))
    monkeypatch.setattr(module, "cpu_cores", lambda: 2)
    columns = {"platform": "cpu", "threads": 1, "batch_tokens": 512, "tokens_per_s": 1000}
    assert read(tmp_path, MODEL | columns, name="cpu").seconds == pytest.approx([0.5e-3])


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([{"tokens_per_s": SPEED, "step_time_ms": 20e3}], "step_time_ms.*contradict.*row 1"),
        ([{"tokens_per_s": SPEED, "gpu_hours": 1.0, "tokens": 1e10}], "gpu_hours.*contradict.*row 1"),
        ([{"tokens_per_s": 1e6}, {"tokens_per_s": 1e9}], "tokens_per_s.*faster than.*row 2"),
        ([{"mfu": 0.3}, {"mfu": 38.0}], "mfu.*share or percent.*row 1"),
        ([{"mfu": 38.0}, {"mfu": 140.0}], "mfu.*more than the peak.*row 2"),
        ([{"tokens_per_s": "fast1"}], "tokens_per_s.*row 1"),
        ([{"loss_val": 2.0}], "nothing says how fast"),
        ([{"step_time": 2.0}], "unit"),
        ([{"gpu_hours": 1.0}], "gpu_hours needs tokens"),
    ],
)
def test_what_cannot_be_is_refused_by_column_and_row(tmp_path: Path, rows: list[dict[str, object]], named: str) -> None:
    with pytest.raises(InputError, match=named):
        read(tmp_path, *(MODEL | STEP | row for row in rows))


def test_a_routed_row_says_what_its_experts_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"n_total.*row 1"):
        read(tmp_path, ROUTED | STEP | {"n_total": None, "tokens_per_s": SPEED})


def test_nothing_says_the_device(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    pd.DataFrame([MODEL | STEP | {"tokens_per_s": SPEED}]).to_csv(path, index=False)
    with pytest.raises(InputError, match="device"):
        read_training(path)
    pd.DataFrame([MODEL | STEP | {"tokens_per_s": SPEED, "gpu": "NVIDIA H100 80GB HBM3"}]).to_csv(path, index=False)
    assert read_training(path).on == H100


def test_a_row_can_describe_its_device(tmp_path: Path) -> None:
    described = replace(H100, name="cpu", title="a planted CPU", levels=((3e7, 1e11),))
    path = tmp_path / "runs.csv"
    row = MODEL | STEP | {"tokens_per_s": SPEED, "threads": 1, "device": json.dumps(asdict(described))}
    pd.DataFrame([row]).to_csv(path, index=False)
    assert read_training(path).on == read_training(path, device_name="cpu").on == described
    pd.DataFrame([row | {"device": "NVIDIA H100 80GB HBM3"}]).to_csv(path, index=False)
    assert read_training(path).on == H100


def test_runs_that_failed_and_trunks_side_by_side_are_left_out(tmp_path: Path) -> None:
    rows = [
        MODEL | STEP | {"tokens_per_s": SPEED, "status": "ok", "trunks_together": 1},
        MODEL | STEP | {"tokens_per_s": SPEED, "status": "oom", "trunks_together": 1},
        MODEL | STEP | {"tokens_per_s": 9 * SPEED, "status": "ok", "trunks_together": 4},
    ]
    table = read(tmp_path, *rows)
    assert table.column("rows").tolist() == [1]
    assert sum(count for _, count in table.dropped) == 2
