"""The engine's benchmark without its clocks: arguments, the document, the arithmetic, and children that answer."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import engine, peer, steps, studies
from benchmarks.peer import PeerError, Settings, Shape, load_inputs
from benchmarks.steps import MOE, Times, dense_twin, name_of, ours, take_turns, train_flops_per_token

SMALL = Shape(
    d_model=16, n_layers=1, n_experts=4, top_k=2, d_expert=16, d_head=8, vocab_size=61, sequences=2, seq_len=16
)
SHAPES = ["64-4-8-2", "128-4-8-2", "128-4-32-2", "256-4-8-2"]


# Seconds of contestants in two rounds, the second on a host at half its speed.
SECONDS = {name: one * np.array([1.0, 2.0]) for name, one in {"ours 64-4-8-2": 0.1, "ours 128-4-8-2": 0.2}.items()}
SECONDS |= {"ours 128-4-32-2": np.array([0.25, 0.5]), "ours 256-4-8-2": np.array([0.8, 1.6])}
SECONDS |= {f"theirs {name}": 1.5 * SECONDS[f"ours {name}"] for name in SHAPES}
SECONDS |= {"dense": np.array([0.16, 0.32]), "product": np.array([0.02, 0.04])}


@pytest.fixture
def clockless(monkeypatch):
    """Fakes for everything that takes time; the races that were asked for."""
    races, sweeps = [], iter([(100.0, 30.0, 70.0, 75.0), (80.0, 8.0, 50.0, 55.0), (90.0, 2.0, 99.0, 99.0)])

    def race(shapes, *, dense, theirs, product, say):
        races.append((shapes[0].d_model, dense, theirs, product))
        names = [f"ours {name_of(shape)}" for shape in shapes]
        names += [f"theirs {name_of(shape)}" for shape in shapes if theirs]
        names += [*(["dense"] if dense else []), *(["product"] if product else [])]
        return Times({name: list(SECONDS[name]) for name in names})

    child = SimpleNamespace(ask=lambda **request: {"trunk": 6.0, "alone": [2.0, 3.0, 5.0]})
    monkeypatch.setattr(steps, "race", race)
    monkeypatch.setattr(peer, "available", lambda: True)
    monkeypatch.setattr(engine, "ours", lambda *arguments: nullcontext(child))
    monkeypatch.setattr(studies, "run", lambda *arguments: studies.Sweep(*next(sweeps)))
    return races


def document(capsys, *arguments):
    engine.main(["--json", *arguments])
    return json.loads(capsys.readouterr().out)


def test_the_document_has_every_figure(clockless, capsys):
    """Fractions: counts below and, at d = 256, 6 x 4,333,568 + 6 x 4 x 256 x 129 FLOP a token, of 2 x 1024^3 in .02
    s."""
    rate = 2 * 1024**3 / 0.02
    assert document(capsys) == {
        "vs_mixtral": dict.fromkeys(SHAPES, 1.5),
        "moe_over_dense": {"8": 1.25, "32": 1.5625},
        "grouped_e32_over_e8": 1.25,
        "matmul_fraction": {
            "64": pytest.approx(1_979_904 * 2048 / 0.1 / rate, abs=1e-4),
            "256": pytest.approx(26_793_984 * 2048 / 0.8 / rate, abs=1e-4),
        },
        "trunk_over_alone": 0.6,
        "compile_share": {"cold": 0.3, "warm": 0.1},
        "parallel_efficiency": 0.9,
    }
    assert clockless == [(64, True, True, True), (128, True, True, False), (256, True, True, True)]


def test_a_part_runs_only_what_it_needs(clockless, capsys):
    assert list(document(capsys, "grouped_e32_over_e8", "trunk_over_alone")) == [
        "grouped_e32_over_e8",
        "trunk_over_alone",
    ]
    assert clockless == [(128, False, False, False)]


def test_the_table_has_goals_and_medians(clockless, capsys):
    engine.main([])
    said = capsys.readouterr().out
    for words in (*engine.PARTS, "goal at most .65", "ours 128-4-32-2 375.0", "8.0 s of 80.0 s"):
        assert words in said


def test_without_the_peer_its_figure_is_null_and_the_way_to_it_is_said(clockless, capsys, monkeypatch):
    monkeypatch.setattr(peer, "available", lambda: False)
    engine.main(["--json", "vs_mixtral"])
    out, err = capsys.readouterr()
    assert json.loads(out) == {"vs_mixtral": None}
    assert "moe-scaling[bench]" in err
    assert "BENCH_PYTHON" in err
    assert clockless == []


def test_an_unknown_part_is_an_error_with_the_list(capsys):
    with pytest.raises(SystemExit) as ended:
        engine.main(["--json", "vs_mixtral", "nonsense"])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "nonsense" in err
    assert all(part in err for part in engine.PARTS)


def test_flops_of_a_token_by_hand():
    """d = 64, 4 layers, 2 of 8 experts of width 128, V = 512, T = 128. Matrices that a token uses: head 64 x 512 =
    32,768; attention 4 layers x 4 x 64^2 = 65,536; experts 4 x 2 x 3 x 64 x 128 = 196,608; routers 4 x 64 x 8 = 2,048:
    296,960, times 6 is 1,781,760. Attention 6 x 4 x 64 x 129 = 198,144. The dense twin has no routers: 6 x 2,048 less.
    """
    assert name_of(MOE[0]) == "64-4-8-2"
    assert train_flops_per_token(MOE[0]) == 1_781_760 + 198_144
    assert train_flops_per_token(dense_twin(MOE[0])) == 1_781_760 + 198_144 - 6 * 2_048


def test_shapes_are_those_of_the_figures():
    assert [name_of(shape) for shape in MOE] == SHAPES
    assert [shape.d_model // shape.d_head for shape in MOE] == [2, 2, 2, 4]
    assert {(shape.vocab_size, shape.tokens, shape.d_expert // shape.d_model) for shape in MOE} == {(512, 2048, 2)}


def test_a_ratio_is_paired_by_round():
    """The host is slow in the second and third round, which the medians (2 and 3) would take for a difference."""
    times = Times({"one": [2.0, 4.0, 6.0], "other": [1.0, 2.0, 3.0]})
    assert times.ratio("one", "other") == 2
    assert times.median("other") == 2


def test_contestants_take_turns():
    turns = []

    def clock(name, seconds):
        return lambda n: turns.append((name, n)) or [seconds] * n

    found = take_turns({"quick": clock("quick", 0.001), "slow": clock("slow", 10.0)}, rounds=2)
    assert found == {"quick": [0.001] * 2, "slow": [10.0] * 2}
    assert turns == [("quick", 12), ("slow", 12), ("quick", 20), ("slow", 3), ("quick", 20), ("slow", 3)]


def test_a_sweep_is_read_from_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "load_grid", lambda grid: SimpleNamespace(cells=[0, 1]))
    (tmp_path / "runs").mkdir()
    for name, compile_s in (("a", 3.0), ("b", 0.0)):
        row = {"status": ["ok"], "wall_s": [5.0], "compile_s": [compile_s], "tokens": [1]}
        pd.DataFrame(row).to_parquet(tmp_path / "runs" / f"{name}.parquet")
    begun = (tmp_path / "runs" / "b.parquet").stat().st_mtime - 4
    sweep = studies.read("quickstart", tmp_path, begun - 2, begun)
    assert (sweep.wall_s, sweep.compile_s, sweep.compile_share) == (10, 3, 0.3)
    assert (sweep.phase_s, sweep.whole_s) == (pytest.approx(4), pytest.approx(6))
    (tmp_path / "runs" / "a.parquet").unlink()
    with pytest.raises(RuntimeError, match="1 of 2 cells"):
        studies.read("quickstart", tmp_path, begun, begun)


def test_our_child_answers(tmp_path):
    """It multiplies, trains and writes what it started from; an error is an answer."""
    with ours(1, "--whole") as child:
        assert len(child.ask(product=8, steps=3)["seconds"]) == 3
        inputs = tmp_path / "inputs.npz"
        _, losses = child.run(SMALL, Settings(), 2, inputs)
        weights, tokens = load_inputs(inputs)
        assert tokens.shape == (8, 2, 17)
        assert weights["block_0/moe/experts/gate"].shape == (4, 16, 16)
        assert losses[0] == pytest.approx(np.log(61), rel=0.02)
        with pytest.raises(PeerError, match="top_k"):
            child.ask(shape={"d_model": 16}, inputs=None, steps=1)
        sizes = {"d_model": 16, "d_head": 8, "n_layers": 1}
        assert len(child.ask(trunk=sizes, budgets=[50_000, 60_000])["alone"]) == 2
