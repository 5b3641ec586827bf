"""Serving benchmarks of other tools: what they measured is read as that, or refused by column and row."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from analysis.latency.reported_names import measure_of
from analysis.latency.reported_throughput import measured_throughput
from analysis.tables.readers import read_table
from scaling.cli.main import app
from scaling.errors import InputError
from scaling.serving import replicas
from scaling.serving.devices import device
from scaling.serving.service import SERVICE, Layout, ModelSizes, Service
from scaling.serving.step_time import ASSUMED, Efficiency, total_seconds
from scaling.serving.steps import prefill_work

H100 = device("h100")
FACTOR = 1.25
PLANTED = Efficiency(FACTOR * ASSUMED.bandwidth_share, FACTOR * ASSUMED.flops_share)
MODEL = {"n_active": 3e9, "n_total": 30e9, "n_layers": 48, "d_model": 2048, "n_experts": 128, "top_k": 8}
LENGTHS = {"random_input_len": 1024, "random_output_len": 512}
BATCHES = (8, 32, 64)


def planted(batch, kv=2 * 48 * 2048, devices=1, **precision):
    """tokens/s, tpot and ttft in seconds of the model on H100s that reach what is planted."""
    sizes = ModelSizes(kv_elements_per_token=kv, **MODEL)
    service = Service(prompt=1024, generated=512, efficiency=PLANTED, **precision)
    tpot = float(total_seconds(replicas.iteration(sizes, H100, batch, service, Layout(devices)), PLANTED))
    first = float(prefill_work(sizes, H100, 1.0, service, Layout(devices)).seconds(H100, PLANTED))
    return batch / tpot, tpot, 0.5 * tpot + first


def table(devices=1, **more):
    rates = [planted(batch, devices=devices, **more)[0] for batch in BATCHES]
    rows = [MODEL | LENGTHS | {"max_concurrency": batch, "tensor_parallel_size": devices} for batch in BATCHES]
    return pd.DataFrame(rows).assign(output_throughput=rates)


GOOD = table()
TPOT = np.array([planted(batch)[1] for batch in BATCHES])
TTFT = np.array([planted(batch)[2] for batch in BATCHES])
RATE = GOOD["output_throughput"]
BARE = GOOD.drop(columns="output_throughput")


def read(rows, service=SERVICE):
    return measured_throughput(rows, H100, service, "rows.csv")


def factor(rows, service=SERVICE):
    return read(rows, service).efficiency.bandwidth_share / ASSUMED.bandwidth_share


def doubts(rows, service=SERVICE):
    return " ".join(read(rows, service).measured_range.doubts)


def refused(rows, service=SERVICE):
    with pytest.raises(InputError) as error:
        read(rows, service)
    return str(error.value)


def texts(rows, name, cells):
    column = rows[name].astype(object)
    for row, text in cells.items():
        column.iloc[row - 1] = text
    return rows.assign(**{name: column})


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet"])
def test_the_planted_factor_comes_back_from_every_format_and_order(tmp_path, ending):
    path, rows = tmp_path / f"rows.{ending}", GOOD.sample(frac=1, random_state=1)[[*reversed(GOOD.columns)]]
    {
        "csv": lambda: rows.to_csv(path, index=False),
        "json": lambda: path.write_text(rows.to_json(orient="records", double_precision=15)),
        "jsonl": lambda: path.write_text(rows.to_json(orient="records", lines=True, double_precision=15)),
        "parquet": lambda: rows.to_parquet(path),
    }[ending]()
    assert factor(read_table(path)) == pytest.approx(FACTOR, rel=1e-9)


DEVICES_4 = table(4)
OF_UNITS = {
    "total_token_throughput": GOOD.assign(total_token_throughput=RATE * 3),
    "request_throughput": GOOD.assign(request_throughput=RATE / 512),
    "tokens_per_s_per_user": GOOD.assign(tokens_per_s_per_user=1 / TPOT),
    "tokens_per_s": GOOD.assign(tokens_per_s=RATE),
    "mean_tpot_ms": GOOD.assign(mean_tpot_ms=1e3 * TPOT),
    "tpot_us": GOOD.assign(tpot_us=1e6 * TPOT),
    "Median TPOT (s)": GOOD.assign(**{"Median TPOT (s)": TPOT}),
    "mean_ttft_ms": GOOD.assign(mean_ttft_ms=1e3 * TTFT),
    "ttft_s": GOOD.assign(ttft_s=TTFT),
    "output_throughput_per_gpu": DEVICES_4.assign(output_throughput_per_gpu=DEVICES_4["output_throughput"] / 4),
    "total_tokens_per_s_per_device": DEVICES_4.assign(
        total_tokens_per_s_per_device=3 * DEVICES_4["output_throughput"] / 4
    ),
}


@pytest.mark.parametrize("name", OF_UNITS)
def test_a_speed_is_what_its_name_says(name):
    rows = OF_UNITS[name].drop(columns="output_throughput")
    assert factor(rows) == pytest.approx(FACTOR, rel=1e-9)
    assert f"from {name}" in doubts(rows) or name in ("tpot_ms", "ttft_ms")


def test_names_that_measure_nothing_known_are_none():
    for name in ("p99_tpot_ms", "tpot", "throughput", "latency_ms", "tokens", "wall_s", "output_tokens"):
        assert measure_of(name) is None
    assert "tpot does not say its unit" in refused(BARE.assign(tpot=TPOT))


def test_lengths_come_from_the_table_else_from_what_was_measured_else_from_the_question():
    without = GOOD.drop(columns=[*LENGTHS])
    asked = Service(prompt=1024, generated=512)
    assert factor(without, asked) == pytest.approx(FACTOR, rel=1e-9)
    assert "1024 tokens" in doubts(without, asked)
    other = Service(prompt=64, generated=64)
    assert factor(without, other) != pytest.approx(FACTOR, rel=0.1)
    assert factor(GOOD, other) == pytest.approx(FACTOR, rel=1e-9)
    some = texts(GOOD, "random_input_len", {2: None})
    assert factor(some, asked) == pytest.approx(FACTOR, rel=1e-9)
    assert "`prompt` is not in the table in row 2" in doubts(some, asked)
    counted = without.assign(completed=10, total_input_tokens=10_240, total_output_tokens=5_120)
    assert factor(counted, other) == pytest.approx(FACTOR, rel=1e-9)
    assert "512 tokens" not in doubts(counted, other)
    nominal = counted.assign(random_input_len=4096, random_output_len=512)
    assert factor(nominal, other) == pytest.approx(FACTOR, rel=1e-9)
    assert "prompt: total_input_tokens" in doubts(nominal, other)


def test_sequences_at_once_are_those_measured():
    blank = GOOD.assign(concurrency=GOOD["max_concurrency"], max_concurrency=None)
    assert factor(blank) == pytest.approx(FACTOR, rel=1e-9)
    both = GOOD.assign(concurrency=GOOD["max_concurrency"], max_concurrency=1_000)
    assert factor(both) == pytest.approx(FACTOR, rel=1e-9)
    unlimited = GOOD.drop(columns="max_concurrency").assign(mean_tpot_ms=1e3 * TPOT)
    assert factor(unlimited) == pytest.approx(FACTOR, rel=1e-9)
    assert "sequences at once from tokens/s" in doubts(unlimited)
    slow_arrivals = GOOD.assign(max_concurrency=1_000, request_rate=RATE / 512, mean_tpot_ms=1e3 * TPOT)
    assert factor(slow_arrivals) == pytest.approx(FACTOR, rel=1e-9)
    assert factor(GOOD.assign(request_rate="inf", mean_tpot_ms=1e3 * TPOT)) == pytest.approx(FACTOR, rel=1e-9)
    assert "concurrency" in refused(GOOD.drop(columns="max_concurrency"))


def test_tokens_per_second_and_latency_that_contradict_the_load_are_named():
    both = GOOD.assign(mean_tpot_ms=1e3 * TPOT)
    assert factor(both) == pytest.approx(FACTOR, rel=1e-9)
    for rows in (both.assign(mean_tpot_ms=1e6 * TPOT), both.assign(output_throughput=4 * RATE)):
        message = refused(rows)
        assert "rows 1, 2, 3" in message
        assert "`total_token_throughput`" in message
    first = both.assign(mean_ttft_ms=1e3 * TTFT)
    assert "in row 2 " in refused(first.assign(output_throughput=np.where(np.arange(3) == 1, RATE / 8, RATE)))
    assert "rows 1, 2, 3" in doubts(both.assign(output_throughput=RATE / 8))
    of_one = DEVICES_4.assign(mean_tpot_ms=1e3 * np.array(BATCHES) / DEVICES_4["output_throughput"])
    assert factor(of_one) == pytest.approx(FACTOR, rel=1e-9)
    assert "`output_throughput_per_gpu`" in refused(of_one.assign(output_throughput=of_one["output_throughput"] / 4))


@pytest.mark.parametrize(
    ("name", "cell"),
    [("top_k", "8 of 128"), ("n_experts", "many"), ("max_concurrency", "64 users"), ("n_active", "A3B"),
     ("tensor_parallel_size", "8x H100"), ("output_throughput", "1500 tok/s"), ("random_input_len", "1k/1k")],
)  # fmt: skip
def test_text_where_a_number_belongs_is_named_by_column_row_and_cell(name, cell):
    message = refused(texts(GOOD, name, {2: cell}))
    assert f"`{name}`" in message
    assert f"row 2 ('{cell}')" in message


def test_rows_that_failed_are_left_out_and_others_keep_their_number():
    failed = texts(GOOD, "output_throughput", {1: "OOM", 2: None})
    assert factor(failed) == pytest.approx(FACTOR, rel=1e-9)
    assert "row 1 ('OOM')" in doubts(failed)
    assert "rows 1, 2" in doubts(failed)
    assert "in row 3 " in refused(texts(failed, "output_throughput", {3: 1e6}))
    assert "rows 1, 2, 3" in refused(GOOD.assign(output_throughput=None))
    assert "no rows" in refused(GOOD.iloc[:0])


def test_the_speed_of_training_and_measured_steps_are_no_serving():
    training = BARE.assign(tokens_per_s=1e5, loss_val=3.1, train_flops=1e20, batch_tokens=1e6)
    for rows in (
        training,
        training.drop(columns="max_concurrency"),
        training.drop(columns=["train_flops", "loss_val"]),
    ):
        message = refused(rows)
        assert "tokens_per_s is the speed of training" in message
        assert "batch_tokens" in message
    assert factor(GOOD.assign(loss_val=3.1)) == pytest.approx(FACTOR, rel=1e-9)  # its name says output
    assert "training" in refused(BARE.drop(columns="max_concurrency").assign(tokens_per_s=1e5))
    steps = BARE.assign(phase="decode", time_ms=3.0, tokens_per_s=1e3)
    assert "`scaling latency`" in refused(steps)


def test_what_a_model_is_must_be_said_where_it_does_not_follow():
    assert "`n_experts` is missing" in refused(GOOD.drop(columns="n_experts"))
    assert "row 2" in refused(texts(GOOD, "n_experts", {2: None}))
    assert "`top_k` is missing" in refused(GOOD.drop(columns="top_k"))
    assert "`top_k` is above n_experts in row 2" in refused(texts(GOOD, "top_k", {2: 200}))
    assert "swapped" in refused(GOOD.rename(columns={"n_active": "n_total", "n_total": "n_active"}))
    assert "`n_experts` is not whole in row 3" in refused(texts(GOOD, "n_experts", {3: 12.5}))
    assert "far above n_active" in refused(GOOD.assign(n_experts=1))
    dense = GOOD.assign(n_total=GOOD["n_active"])
    known = factor(dense.assign(n_experts=1, top_k=1))
    for cell in (0, None, "dense"):
        assert factor(dense.assign(n_experts=cell, top_k=None)) == pytest.approx(known, rel=1e-12)
    assert factor(dense.drop(columns=["n_experts", "top_k"])) == pytest.approx(known, rel=1e-12)
    missing = refused(GOOD.drop(columns=["n_active", "d_model"]))
    assert "n_active, d_model is missing" in missing
    hub = {"n_layers": "num_hidden_layers", "d_model": "hidden_size", "top_k": "num_experts_per_tok"}
    assert factor(GOOD.rename(columns=hub)) == pytest.approx(FACTOR, rel=1e-9)


def test_replicas_counted_as_one_are_refused_by_row():
    for name in ("pipeline_parallel_size", "dp"):
        assert f"`{name}`" in (message := refused(GOOD.assign(**{name: [1, 2, 1]})))
        assert "row 2" in message
        assert factor(GOOD.assign(**{name: 1})) == pytest.approx(FACTOR, rel=1e-9)


GROUPED = 2 * 48 * 4 * 128


def test_grouped_heads_and_precisions_are_priced_where_columns_say_them():
    grouped = table(kv=GROUPED)
    assert factor(grouped.assign(n_kv_heads=4, head_dim=128)) == pytest.approx(FACTOR, rel=1e-9)
    assert factor(grouped.assign(num_key_value_heads=4, num_attention_heads=16)) == pytest.approx(FACTOR, rel=1e-9)
    assert factor(grouped.assign(kv_elements_per_token=GROUPED)) == pytest.approx(FACTOR, rel=1e-9)
    alone = grouped.assign(n_kv_heads=4)
    assert factor(alone) == pytest.approx(FACTOR, rel=1e-9)
    assert "128 (no column `head_dim`)" in doubts(alone)
    cached = table(bytes_per_kv=1.0)
    assert factor(cached.assign(kv_cache_dtype="fp8")) == pytest.approx(FACTOR, rel=1e-9)
    assert factor(GOOD.assign(dtype="torch.bfloat16", kv_cache_dtype="auto")) == pytest.approx(FACTOR, rel=1e-9)
    assert "no column `dtype`" in doubts(GOOD)
    assert "no column `dtype`" not in doubts(GOOD.assign(dtype="bf16"))
    assert "`dtype`" in (message := refused(texts(GOOD.assign(dtype="bf16"), "dtype", {2: "int3"})))
    assert "row 2 ('int3')" in message


def test_fewer_bits_are_read_faster_and_multiplied_in_their_arithmetic():
    eighth = table(bytes_per_weight=1.0, arithmetic="fp8")
    assert factor(eighth.assign(dtype="float8_e4m3fn")) == pytest.approx(FACTOR, rel=1e-9)
    quarter = table(bytes_per_weight=4.25 / 8)
    assert factor(quarter.assign(quantization="mxfp4", dtype="bfloat16")) == pytest.approx(FACTOR, rel=1e-9)
    with pytest.raises(InputError, match=r"multiplies no fp8.*row 2"):
        measured_throughput(texts(GOOD.assign(dtype="bf16"), "dtype", {2: "fp8"}), device("a100"), SERVICE, "rows.csv")


def test_what_explains_a_speed_beyond_the_device_is_named_and_then_read():
    long = {"random_input_len": 16_384}
    sizes = ModelSizes(kv_elements_per_token=GROUPED, **MODEL)
    service = Service(prompt=16_384, generated=512, efficiency=PLANTED)
    rates = [
        batch / float(total_seconds(replicas.iteration(sizes, H100, batch, service, Layout()), PLANTED))
        for batch in BATCHES
    ]
    rows = GOOD.assign(**long, output_throughput=rates)
    message = refused(rows)
    assert "`n_kv_heads`" in message
    assert "fp8" not in message
    assert factor(rows.assign(n_kv_heads=4, head_dim=128)) == pytest.approx(FACTOR, rel=1e-9)
    total = refused(GOOD.assign(output_throughput=3 * RATE))
    assert "`total_token_throughput`" in total
    assert "`tpot_s`" in refused(BARE.assign(tpot_ms=TPOT))
    assert "microseconds" in doubts(BARE.assign(tpot_ms=1e6 * TPOT))
    short = refused(GOOD.assign(n_total=90e9))
    assert "180 GB" in short
    assert {"`n_devices`", "`tensor_parallel_size`"} <= {word.strip("(),;") for word in short.split()}


def test_a_row_unlike_the_others_is_named():
    assert "row 2 " in doubts(GOOD.assign(output_throughput=np.where(np.arange(3) == 1, RATE / 30, RATE)))


def test_what_was_measured_goes_with_the_speed():
    measured = read(GOOD).measured_range
    assert measured.n_experts == (128,)
    assert measured.top_k == (8.0,)
    assert measured.batch == (8.0, 64.0)
    assert measured.context == (1280.0, 1280.0)


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_the_result_of_a_benchmark_is_one_row(tmp_path, ending):
    result = {
        "backend": "vllm", "label": None, "request_rate": "inf", "max_concurrency": 32, "completed": 64, "failed": 0,
        "total_input_tokens": 64 * 1024, "total_output_tokens": 64 * 512, "output_throughput": float(RATE[1]),
        "mean_tpot_ms": float(1e3 * TPOT[1]), "itls": [[0.1, 0.2]],
    }  # fmt: skip
    path = tmp_path / f"result.{ending}"
    path.write_text(json.dumps(result | MODEL, indent=4 if ending == "json" else None))
    assert factor(read_table(path)) == pytest.approx(FACTOR, rel=1e-9)
    path.write_text(json.dumps(result, indent=4 if ending == "json" else None))
    message = refused(read_table(path))
    assert "n_active, n_total, n_layers, d_model" in message


def test_sizes_of_no_model_and_speeds_of_another_device_are_refused_by_row():
    assert "row 2 (3.0)" in refused(texts(GOOD, "n_active", {2: 3.0}))
    assert "swapped" in refused(GOOD.rename(columns={"n_layers": "d_model", "d_model": "n_layers"}))
    for cell in ("NVIDIA A100-SXM4-80GB", "MI300X", "8xH200"):
        assert f"row 2 ('{cell}')" in refused(texts(GOOD.assign(gpu="NVIDIA H100 80GB HBM3"), "gpu", {2: cell}))
    assert factor(GOOD.assign(gpu="8xH100", Hardware="our cluster")) == pytest.approx(FACTOR, rel=1e-9)


def recommended(path, *words):
    asked = ["--train-flops", "1e21", "--serve-tokens", "1e12", "--device", "h100", "--no-what-if", "--json"]
    return CliRunner().invoke(app, ["recommend", "published:joint-moe-2025", *asked, "--throughput", str(path), *words])


def test_recommend_reads_lengths_from_its_options_and_says_what_was_assumed(tmp_path):
    path = tmp_path / "rows.csv"
    GOOD.drop(columns=[*LENGTHS]).to_csv(path, index=False)
    result = recommended(path, "--prompt", "1024", "--generated", "512")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    reached = found["question"]["service"]["efficiency"]["bandwidth_share"]
    assert reached == pytest.approx(PLANTED.bandwidth_share, rel=1e-9)
    said = " ".join(found["warnings"])
    assert "1024 tokens" in said
    assert "E = 128 (not 1, 2, 4, 8, 16, 32)" in said
    texts(GOOD, "top_k", {2: "8 of 128"}).to_csv(path, index=False)
    result = recommended(path)
    assert result.exit_code == 2
    assert "row 2 ('8 of 128')" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("name", "cell"), [("n_kv_heads", 0), ("kv_elements_per_token", -5), ("n_kv_heads", 64)])
def test_a_cache_of_no_size_is_refused_by_row(name, cell):
    rows = GOOD.assign(n_kv_heads=4, n_heads=16, head_dim=128, kv_elements_per_token=None)
    assert f"`{name}`" in (message := refused(texts(rows, name, {2: cell})))
    assert f"row 2 ({float(cell)})" in message
