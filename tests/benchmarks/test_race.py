"""The race without its clocks: equal work on both sides, and the arithmetic of its figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import peer, race, studies
from benchmarks.peer import Settings, Shape
from benchmarks.studies import Sweep, Sweeps
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.config.training import TrainConfig
from scaling.data.batches import TrainBatches
from scaling.training.schedule import learning_rate


def cell(n_experts: int) -> RunConfig:
    model = ModelConfig(n_experts=n_experts, d_model=32, n_layers=1, d_head=8, top_k=2, router="topk")
    train = TrainConfig(batch_tokens=64, seq_len=16, warmup_tokens=128)
    return RunConfig(model=model, train=train, tokens=640, seed=3)


def test_shapes_are_equal_and_a_dense_cell_has_the_width_of_its_active_experts() -> None:
    routed = race.shape_of(cell(4))
    vocab = cell(4).data.vocab_size
    d_expert = cell(4).model.d_expert
    assert routed == Shape(32, 1, 4, 2, d_expert, d_head=8, vocab_size=vocab, sequences=4, seq_len=16)
    assert race.shape_of(cell(1)) == replace(routed, n_experts=1, top_k=1, d_expert=2 * d_expert)


def test_a_process_of_theirs_trains_on_our_batches_at_our_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, windows = np.arange(5000, dtype=np.uint16) % 251, np.ones((3, 17), np.int32)
    corpus = SimpleNamespace(tokens=lambda: tokens, heldout=lambda: None)
    held_out = SimpleNamespace(tokens=windows, weight=np.ones((3, 16), np.float32))
    monkeypatch.setattr(race.data, "prepare", lambda config: corpus)
    monkeypatch.setattr(race, "eval_windows", lambda *_: held_out)
    race.written(cell(4), Settings(), tmp_path / "0.npz")
    with np.load(tmp_path / "0.npz") as written:
        batches = TrainBatches(tokens, 16, 4, 3)
        assert (written["batches"] == np.stack([batches(step) for step in range(10)])).all()
        assert written["rates"].tolist() == [learning_rate(cell(4), step) for step in range(10)]
        assert Shape(**json.loads(str(written["shape"]))) == race.shape_of(cell(4))
    if peer.available():
        seconds, (loss,) = race.raced([race.Theirs(tmp_path / "0.npz", 1.0, {})])
        assert seconds > 0
        assert 3 < loss < 8  # ln 257 is 5.5, and ten steps teach nothing


def test_figures_are_theirs_over_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    swept = Sweeps(Sweep(200, 50, 100, 110), Sweep(160, 4, 80, 88), Sweep(144, 2, 150, 160))
    monkeypatch.setattr(peer, "available", lambda: True)
    monkeypatch.setattr(race, "prepared", lambda cells, folder: [])
    monkeypatch.setattr(race, "raced", lambda theirs: (440.0, [2.0]))
    monkeypatch.setattr(studies, "run_sweeps", lambda grid, say: swept)
    race.main(["--json"])
    figures = {"cold": 4.0, "warm": 5.0, "compile_share": 0.25, "parallel_efficiency": 0.9}
    assert json.loads(capsys.readouterr().out) == figures


def test_without_the_peer_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "available", lambda: False)
    with pytest.raises(SystemExit, match="BENCH_PYTHON"):
        race.main([])
