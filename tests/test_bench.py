"""Measured latency: the rows, and what must hold of any measurement."""

from scaling import cost
from scaling.bench import measure
from scaling.schema import to_arrow


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
        per_token = {"prefill": cost.prefill_flops_per_token, "decode": cost.decode_flops_per_token}[row["phase"]]
        assert row["flops"] == tokens * per_token(config.model, 257, row["context"])
        assert row["shape_id"] == config.shape_id()


def test_a_dense_model_touches_its_one_expert(micro):
    assert {row["distinct_experts"] for row in measure(micro())} == {1.0}
