"""The shapes whose training steps are timed, and a row as the reader of training speeds takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.training_speed.table import read_training
from benchmarks import training_speed
from scaling.config.counts import parameters


def test_shapes_differ_and_cross_width_with_experts() -> None:
    configs = training_speed.shapes()
    of = {(c.model.d_model, c.model.n_layers, c.model.n_experts, c.model.top_k, c.train.batch_tokens) for c in configs}
    assert len(of) == len(configs)
    crossed = {(d, e) for d, layers, e, _, batch in of if (layers, batch) == (2, 1024)}
    assert crossed == {(d, e) for d in (32, 64, 128, 256) for e in (1, 2, 4, 8, 16, 32)}
    active: dict[tuple[int, int], set[int]] = {}
    for config in configs:
        model = config.model
        active.setdefault((model.d_model, model.n_layers), set()).add(parameters(model, 257).n_active)
    assert {len(counts) for counts in active.values()} == {1}  # of equal active size, whatever E and k


@pytest.mark.slow
def test_a_measured_row_is_read_as_a_training_speed(tmp_path: Path) -> None:
    rows = training_speed.measure(training_speed.shapes()[:1], 1, lambda text: None)
    pd.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    table = read_training(tmp_path / "rows.parquet")
    assert table.on.peak_flops == json.loads(rows[0]["device"])["peak_flops"]
    assert 0 < table.seconds[0] < 1e-3
