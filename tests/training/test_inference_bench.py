"""Measured latency: the rows, and invariants of every measurement."""

import json
import os

import jax
import pytest

from scaling.config import counts
from scaling.data.cache import programs_folder
from scaling.schema import to_arrow
from scaling.serving import device, devices
from scaling.training import executable_cache, inference_bench
from scaling.training.inference_bench import measure


def test_both_phases_at_every_point_with_their_counts(micro):
    config = micro(n_experts=4, top_k=2, router="topk")
    rows = measure(config)
    to_arrow("latency", [row | {"run_id": "x"} for row in rows])
    for row in rows:
        # 1.2: the peak is measured with NumPy on a machine that also does other things.
        assert row["roofline_ms"] is None or row["roofline_ms"] <= 1.2 * row["time_ms"]
    assert [(r["phase"], r["batch"]) for r in rows] == [("prefill", 1), ("decode", 1), ("prefill", 2), ("decode", 2)]
    for row in rows:
        assert 0 < row["time_q25_ms"] <= row["time_ms"] <= row["time_q75_ms"]
        assert row["compile_s"] * 1e3 > row["time_ms"]  # a call that was compiled inside would be slower than compiling
        tokens = row["batch"] * (row["context"] if row["phase"] == "prefill" else 1)
        assert abs(row["tokens_per_s"] * row["time_ms"] / 1e3 / tokens - 1) < 1e-9
        assert 2 <= row["distinct_experts"] <= min(4, 2 * tokens)
        per_token = {"prefill": counts.prefill_flops_per_token, "decode": counts.decode_flops_per_token}[row["phase"]]
        assert row["flops"] == tokens * per_token(config.model, 257, row["context"])
        assert row["shape_id"] == config.shape_id()


def test_a_row_is_self_contained(micro):
    """Shape, sizes, kernel and device are in the row, as the run table and the device table have them."""
    config = micro(n_experts=4, top_k=2, router="topk")
    row = measure(config)[0]
    sizes = counts.parameters(config.model, 257)
    assert (row["n_experts"], row["top_k"], row["d_model"], row["n_layers"], row["n_heads"]) == (4, 2, 16, 1, 2)
    assert (row["n_active"], row["n_total"], row["n_router"]) == (sizes.n_active, sizes.n_total, sizes.router)
    assert (row["dispatch"], row["kernel"], row["reads_all"]) == ("grouped", "loop", False)
    on = json.loads(row["device"])
    assert on["peak_flops"] >= devices.device("cpu").peak_flops
    assert row["roofline_ms"] == pytest.approx(
        1e3
        * device.roofline_seconds(row["flops"], row["bytes"], inference_bench.device_of(jax.devices()[0], "float32"))
    )
    assert row["busy_cores"] is None or row["busy_cores"] >= 0


def test_a_dense_model_activates_one_expert(micro):
    rows = measure(micro())
    assert {row["distinct_experts"] for row in rows} == {1.0}
    assert {(row["dispatch"], row["kernel"], row["reads_all"]) for row in rows} == {("dense", None, False)}


def test_load_by_other_processes_is_recorded(micro, monkeypatch):
    ticks = iter(range(0, 10**6, 60))
    cores = 60 / os.sysconf("SC_CLK_TCK") / 0.3  # so many ticks in .3 s
    monkeypatch.setattr(inference_bench, "_busy_ticks", lambda: float(next(ticks)))
    assert inference_bench.others_busy() == pytest.approx(cores)
    assert measure(micro())[0]["busy_cores"] == pytest.approx(cores)
    monkeypatch.setattr(inference_bench, "_busy_ticks", lambda: None)
    assert inference_bench.others_busy() is None


@pytest.mark.parametrize(
    ("dispatch", "kernel", "all_read"),
    [
        ("grouped", "loop", False),
        ("grouped", "tokamax", False),
        ("grouped", "ragged", True),
        ("dense", "", True),
        ("capacity", "", True),
    ],
)
def test_which_kernels_read_every_expert(micro, dispatch, kernel, all_read):
    router = "switch" if dispatch == "capacity" else "topk"
    model = micro(n_experts=4, router=router, top_k=1, dispatch=dispatch).model
    assert inference_bench.reads_all(model, kernel) is all_read
    assert not inference_bench.reads_all(micro().model, kernel), "a dense model has one expert, and reads it"


def test_repeats_are_split_over_rounds():
    assert inference_bench._rounds(15) == [3] * 5
    assert inference_bench._rounds(7) == [2, 2, 1, 1, 1]


@pytest.fixture(scope="module")
def compiled_once():
    """Compiles for all tests that measure a shape at the same points once."""
    programs, compile_ = {}, inference_bench._BenchedShape._compile

    def compiled(shape):
        points = (shape.config.model, shape.config.bench.batch, shape.config.bench.context)
        if points not in programs:
            programs[points] = compile_(shape)
        return programs[points]

    return compiled


def test_shapes_take_turns_and_each_gets_all_its_repeats(micro, monkeypatch, compiled_once):
    monkeypatch.setattr(inference_bench._BenchedShape, "_compile", compiled_once)
    turns = []
    timed = inference_bench._BenchedShape.time

    def noted(shape, repeats):
        turns.append((shape.config.model.n_experts, repeats))
        timed(shape, repeats)

    monkeypatch.setattr(inference_bench._BenchedShape, "time", noted)
    one = {"batch": (1,), "context": (8,)}
    configs = [micro(n_experts=e, bench=one | {"repeats": 5 + e}) for e in (1, 2, 4)]
    rows = measure(*configs)
    assert [(row["n_experts"], row["phase"]) for row in rows] == [
        (e, p) for e in (1, 2, 4) for p in inference_bench.PHASES
    ]
    for begin in range(0, 3 * inference_bench.ROUNDS, 3):
        assert sorted(e for e, _ in turns[begin : begin + 3]) == [1, 2, 4], "a round takes every shape once"
    assert {e: sum(n for other, n in turns if other == e) for e in (1, 2, 4)} == {1: 6, 2: 7, 4: 9}


@pytest.mark.parametrize("keeps", [True, False])
def test_every_shape_is_compiled_once_with_and_without_a_cache(micro, monkeypatch, tmp_path, compiled_once, keeps):
    monkeypatch.setenv("SCALING_CACHE", str(tmp_path))
    compiled = []

    def noted(shape):
        compiled.append(shape.config.model.n_experts)
        return compiled_once(shape)

    monkeypatch.setattr(inference_bench._BenchedShape, "_compile", noted)
    monkeypatch.setattr(inference_bench, "is_enabled", lambda: keeps)
    monkeypatch.setattr(executable_cache, "is_enabled", lambda: keeps)
    one = {"batch": (1,), "context": (8,), "repeats": 5}
    rows = measure(*(micro(n_experts=e, bench=one) for e in (1, 2)))
    assert compiled == [1, 2]
    assert all(row["compile_s"] > 0 for row in rows)
    assert programs_folder().is_dir() == keeps
