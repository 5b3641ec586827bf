"""The latency law: planted costs come back, closed forms and statsmodels agree, the floor is never crossed."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_latency import CPU, GRID, TRUTH, frame, time_interval

from analysis.latency import law as latency
from analysis.latency.law import FITTED, left_out, modelled
from analysis.latency.reported_throughput import measured_throughput
from analysis.latency.robust import robust
from analysis.latency.table import LatencyTable, device_of, read_latency, with_shapes, works
from scaling.errors import InputError
from scaling.serving import replicas, steps
from scaling.serving import service as service_module
from scaling.serving.device import roofline_seconds
from scaling.serving.devices import device
from scaling.serving.expert_load import distinct_experts
from scaling.serving.service import SERVICE, ModelSizes
from scaling.serving.step_time import LEAST, TERMS, Efficiency, StepWork


def table(**kinds):
    return LatencyTable(frame(**kinds), "planted")


EXACT = table()


def test_planted_costs_come_back_exactly_without_noise():
    found, at_bound = robust(latency.design_matrix(EXACT, CPU), LEAST[:FITTED])
    # 1e-6: the rounding of a least-squares problem whose columns span ten decades.
    assert found == pytest.approx(TRUTH.coefficients()[:FITTED], rel=1e-6)
    assert not at_bound.any()


@pytest.mark.parametrize("axis", latency.AXES)
def test_what_is_left_out_of_an_exact_table_is_predicted_exactly(axis):
    rows = left_out(EXACT, CPU, axis)
    assert len(rows) == len(EXACT)
    assert np.abs(rows["error"]).max() < 1e-6


def test_noise_and_outliers_are_seen_through_and_intervals_cover():
    """6 % of noise and one row in 20 slowed threefold, which is what a disturbed machine does."""

    def noise(n):
        rng = np.random.default_rng(4)
        return rng.normal(0, 0.06, n) + np.log(3) * (rng.random(n) < 0.05)

    measured = table(noise=noise)
    law = latency.fit_latency(measured, CPU, np.random.default_rng(0), resamples=200)
    truth = asdict(TRUTH)
    covered = [low <= truth[name] <= high for name, (low, high) in law.intervals.items()]
    assert sum(covered) >= len(covered) - 1  # eight 95 % intervals: two misses have a chance of 6 %
    clean = modelled(measured, law)["modelled_ms"] / EXACT.frame["time_ms"] - 1
    # Outliers draw an M-estimate with Huber's corner by about .05 x 1.345 sd: .4 %; 3 % leaves room for the
    # coefficients' error.
    assert abs(float(np.median(clean))) < 0.03
    assert law.held_out["all"].median < 0.10
    assert law.after.median < law.before.median
    plain = sm.OLS(np.ones(len(measured)), latency.design_matrix(measured, CPU)).fit().params
    off = [
        np.median(np.abs(latency.design_matrix(EXACT, CPU) @ one - 1))
        for one in (law.efficiency.coefficients()[:FITTED], plain)
    ]
    assert off[0] < off[1], "least squares follows the outliers"


def test_it_is_the_answer_of_statsmodels_where_no_bound_is_met():
    measured = table(noise=lambda n: np.random.default_rng(1).normal(0, 0.05, n))
    design = latency.design_matrix(measured, CPU)
    found, at_bound = robust(design, LEAST[:FITTED])
    scaled = np.linalg.norm(design, axis=0)
    judge = sm.RLM(np.ones(len(design)), design / scaled, M=sm.robust.norms.HuberT()).fit(
        maxiter=500, tol=1e-12, conv="coefs"
    )
    assert not at_bound.any()
    assert found == pytest.approx(judge.params / scaled, rel=1e-4)  # both stop when a step changes little


def test_without_outliers_it_is_least_squares():
    """Residuals of about 5 % either way: the scale is .05/.6745, its corner 10 %, every weight 1, and what is left is
    the closed form (X'X)^-1 X'1."""
    design = latency.design_matrix(
        table(noise=lambda n: np.where(np.random.default_rng(2).random(n) < 0.5, -0.05, 0.05)), CPU
    )
    found, at_bound = robust(design, LEAST[:FITTED])
    scaled = np.linalg.norm(design, axis=0)
    x = design / scaled
    closed = np.linalg.solve(x.T @ x, x.T @ np.ones(len(x))) / scaled
    assert np.abs(1 - design @ closed).max() < 1.345 * np.median(np.abs(1 - design @ closed)) / 0.6745
    assert not at_bound.any()
    assert found == pytest.approx(closed, rel=1e-6)  # the rounding of normal equations


def test_a_share_above_one_and_a_negative_cost_are_refused_and_said():
    fast = table(truth=replace(TRUTH, flops_share=1.0, overhead_s=0.0))
    slower_peak = replace(CPU, peak_flops=CPU.peak_flops / 1.5)  # the data would have a share of 1.5
    law = latency.fit_latency(fast, slower_peak, np.random.default_rng(0), resamples=20)
    assert law.efficiency.flops_share == 1.0
    assert "flops" in law.at_bound


@settings(max_examples=60, deadline=None)
@given(
    shares=st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)),
    costs=st.tuples(*[st.floats(0, 1e-3)] * 6),
    asked=st.tuples(st.floats(1, 1e12), st.floats(1, 1e15), st.floats(0, 1e9), st.floats(0, 500), st.floats(0, 1e10)),
)
def test_no_modelled_time_is_under_the_floor(shares, costs, asked):
    n_bytes, flops, activations, experts, largest = asked
    work = StepWork(
        layers=4.0,
        experts=experts,
        activations=activations,
        bytes=n_bytes,
        flops=flops,
        largest=largest,
        prompts=4.0,
        rereads=n_bytes,
    )
    for on in (CPU, device("h100")):
        assert work.seconds(on, Efficiency(*shares, *costs)) >= roofline_seconds(flops, n_bytes, on) * (1 - 1e-12)


def test_the_interval_of_a_time_covers_what_is_measured_next():
    def noise(seed):
        return lambda n: np.random.default_rng(seed).normal(0, 0.08, n)

    law = latency.fit_latency(table(noise=noise(0)), CPU, np.random.default_rng(0), resamples=200)
    again = table(noise=noise(1))
    low, high = time_interval(law, works(again))
    covered = np.mean((low <= again.seconds) & (again.seconds <= high))
    # 288 rows: .95 +- 2.6 standard errors of .013, and a little for the quantiles' own error.
    assert 0.90 <= covered <= 0.99


def test_a_law_survives_its_file(tmp_path):
    law = latency.fit_latency(EXACT, CPU, np.random.default_rng(0), resamples=20)
    path = tmp_path / "law.json"
    path.write_text(json.dumps(latency.latency_document(law), allow_nan=False))
    again = latency.load_latency_law(path)
    assert latency.latency_document(again) == latency.latency_document(law)
    assert np.array_equal(again.draws, law.draws)
    assert again.made_from == EXACT.digest
    older = {key: value for key, value in latency.latency_document(law).items() if key != "schema_version"}
    del older["made_from"]
    path.write_text(json.dumps(older))
    assert latency.latency_document(latency.load_latency_law(path)) == latency.latency_document(
        replace(law, made_from="")
    )
    drawn = Efficiency.of(again.speeds.coefficients[0], "drawn").coefficients()
    assert drawn[: latency.FITTED] == pytest.approx(again.speeds.coefficients[0])
    other_terms = latency.latency_document(law) | {"terms": ["bytes"]}
    for text in ("{", "[]", "{}", json.dumps({"terms": list(TERMS[:FITTED])}), json.dumps(other_terms)):
        path.write_text(text)
        with pytest.raises(InputError, match=r"law\.json.*scaling latency"):
            latency.load_latency_law(path)


def test_what_a_row_asked_is_what_the_shape_says():
    """Shape (8, 1, 64, 2), decode of 4 at 512: two layers, the experts touched in each, and elements by their
    arithmetic."""
    row = EXACT.frame.query(
        "n_experts == 8 and d_model == 64 and n_layers == 2 and phase == 'decode' and batch == 4 and context == 512"
    )
    work = works(LatencyTable(row.reset_index(drop=True), "one"))
    heads = int(row["n_heads"].iloc[0])
    assert work.experts == pytest.approx(2 * distinct_experts(8, 1, 4))
    assert work.activations == pytest.approx(2 * (4 * 64 * (20 + 10) + 4 * 512 * heads + 4 * 512 * 64))
    narrow = works(LatencyTable(row.reset_index(drop=True).assign(kv_width=16), "one"))  # one group of four heads
    fewer = 2 * (4 * 4 + 4 * 512) * (64 - 16)  # keys and values before and after rotation; values of the cache copied
    assert work.activations - narrow.activations == pytest.approx(fewer)
    every = works(LatencyTable(row.reset_index(drop=True).assign(reads_all=True), "one"))
    expert = (row["n_total"] - row["n_active"]).iloc[0] / 7
    assert every.experts == pytest.approx(16)
    assert every.bytes - work.bytes == pytest.approx(4 * expert * (8 - distinct_experts(8, 1, 4)))


def test_a_prefill_that_loops_over_blocks_computes_padding_and_reads_again():
    """Shape (8, 1, 64, 2), prefill of 4 x 512 tokens: blocks of 128 rows, 16 full ones and half a block more an
    expert."""
    row = EXACT.frame.query(
        "n_experts == 8 and d_model == 64 and n_layers == 2 and phase == 'prefill' and batch == 4 and context == 512"
    ).reset_index(drop=True)
    loops, plain = (works(LatencyTable(row.assign(kernel=kernel), "one")) for kernel in ("loop", None))
    touched, expert = row["distinct_experts"].iloc[0], (row["n_total"] - row["n_active"]).iloc[0] / 7
    blocks = 16 + touched * 127 / 256
    assert loops.flops - plain.flops == pytest.approx(2 * expert * (128 * blocks - 2048))
    assert loops.rereads == pytest.approx(4 * expert * (blocks - touched))
    assert plain.rereads == 0
    assert loops.prompts == plain.prompts == 2


def test_what_no_row_has_is_said_and_is_at_no_bound():
    dense = LatencyTable(EXACT.frame.query("n_experts == 1 and phase == 'decode'").reset_index(drop=True), "dense")
    law = latency.fit_latency(dense, CPU, np.random.default_rng(0), resamples=20)
    assert law.absent == ("prompts", "experts", "rereads")
    assert not set(law.absent) & set(law.at_bound)
    assert law.efficiency.reread == law.efficiency.prompt_s == law.efficiency.expert_s == 0


def test_before_there_was_a_column_our_own_rows_looped_and_others_are_not_taken_to(tmp_path):
    path, rows = tmp_path / "theirs.parquet", frame(grid=GRID[3:9]).drop(columns="kernel")
    for dispatch, kernels in (("grouped", {None, "loop"}), ("dense", {None})):
        rows.assign(dispatch=dispatch).to_parquet(path)
        found = read_latency(path).frame
        assert set(found["kernel"]) == kernels
        assert ((found["kernel"] == "loop") == ((found["n_experts"] > 1) & (dispatch == "grouped"))).all()
    rows.to_parquet(path)
    assert read_latency(path).frame["kernel"].isna().all()


def test_older_studies_take_their_shape_from_the_runs(tmp_path):
    rows = frame(grid=GRID[:6])
    rows["run_id"] = (
        rows["n_experts"].astype(str) + rows["d_model"].astype(str) + rows["n_layers"].astype(str)
    ).to_numpy()
    of_shape = ["run_id", "n_experts", "top_k", "d_model", "n_layers", "n_active", "n_total", "n_router", "n_heads"]
    cells = rows[of_shape].drop_duplicates("run_id")
    bare = rows.drop(columns=[*of_shape[1:], "reads_all", "busy_cores", "device"])
    for name, part in (("latency", bare), ("runs", cells)):
        (tmp_path / name).mkdir()
        part.to_parquet(tmp_path / name / "one.parquet")
    found = read_latency(tmp_path)
    assert len(found) == len(rows)
    assert works(found).activations == pytest.approx(works(LatencyTable(rows, "x")).activations)
    assert ["do not say whether the machine was busy" in note for note in found.notes] == [True]
    null = bare.assign(n_experts=np.nan, d_model=np.nan)  # as the schema writes columns that a row lacks
    assert with_shapes(null, cells)["d_model"].tolist() == rows["d_model"].tolist()


def test_wrong_tables_are_refused_with_the_remedy(tmp_path):
    def written(rows):
        path = tmp_path / "rows.parquet"
        rows.to_parquet(path)
        return path

    good = frame(grid=GRID[:3])
    with pytest.raises(InputError, match=r"no latency rows; `scaling sweep run` measures"):
        read_latency(tmp_path)
    with pytest.raises(InputError, match="the table has no rows"):
        read_latency(written(good.iloc[:0]))
    with pytest.raises(InputError, match=r"column distinct_experts is missing.*`map`"):
        read_latency(written(good.drop(columns="distinct_experts")))
    with pytest.raises(
        InputError, match=r"no usable latency row is left \(36 with time_ms missing\).* in rows 1, 2, 3"
    ):
        read_latency(written(good.assign(time_ms=np.nan)))
    with pytest.raises(InputError, match=r"dtype bfloat16, float32 are mixed.*`where`"):
        read_latency(written(pd.concat([good, good.assign(dtype="bfloat16")])))
    assert len(
        read_latency(written(pd.concat([good, good.assign(dtype="bfloat16")])), where="dtype == 'bfloat16'")
    ) == len(good)
    some = good.assign(time_ms=np.where(np.arange(len(good)) < 2, np.nan, good["time_ms"]))
    assert read_latency(written(some)).dropped == (("time_ms missing", 2),)
    busy = read_latency(written(good.assign(busy_cores=0.7)))
    assert any("0.7 cores" in note for note in busy.notes)
    one = LatencyTable(frame(grid=GRID[:1]), "one shape")
    with pytest.raises(InputError, match=r"one shape: 12 rows of 1 shapes.*`scaling bench`"):
        latency.fit_latency(one, CPU, np.random.default_rng(0))
    with pytest.raises(InputError, match="a single d_model"):
        left_out(one, CPU, "d_model")
    with pytest.raises(InputError, match="`device`"):
        device_of(LatencyTable(good.assign(platform="gpu"), "g"))


def test_rows_carry_their_device():
    told = json.dumps(asdict(CPU))
    assert device_of(LatencyTable(frame(grid=GRID[:2]).assign(device=told), "x")) == CPU
    assert device_of(EXACT, "h100").name == "h100"


SIZES = ModelSizes(7e9, 47e9, 65_536 * 4, 32, 4096, n_experts=8, top_k=2)


@pytest.mark.parametrize(
    ("measure", "devices"), [("output_throughput", 1), ("output_throughput", 4), ("tpot_ms", 2), ("ttft_ms", 1)]
)
def test_somebody_elses_speed_is_reproduced(measure, devices):
    """A row made by the serving model at 1.2 times the assumed shares gives 1.2 back, and with it the same speed."""
    h200, planted = device("h200"), Efficiency(0.6 * 1.2, 0.4 * 1.2)
    sizes = replace(SIZES, kv_elements_per_token=2 * 32 * 4096)
    service = replace(SERVICE, prompt=1024, generated=128, efficiency=planted)
    layout = service_module.Layout(devices)
    batch = 16.0
    terms = replicas.iteration(sizes, h200, batch, service, layout)
    tpot = float(planted.coefficients() @ terms)
    first = steps.prefill_work(sizes, h200, 1.0, service, layout).seconds(h200, planted)
    value = {"output_throughput": batch / tpot, "tpot_ms": 1e3 * tpot, "ttft_ms": 1e3 * (0.5 * tpot + float(first))}[
        measure
    ]
    model = {"n_active": 7e9, "n_total": 47e9, "n_layers": 32, "d_model": 4096, "n_experts": 8, "top_k": 2}
    load = {"max_concurrency": 16, "input_len": 1024, "output_len": 128, "tensor_parallel_size": devices}
    row = model | load | {measure: value}
    found = measured_throughput(pd.DataFrame([row]), h200).efficiency
    assert found.bandwidth_share == pytest.approx(planted.bandwidth_share, rel=1e-9)
    assert found.flops_share == pytest.approx(planted.flops_share, rel=1e-9)
    assert found.source.startswith("scaled by 1.2 to the measured speed of the table")


def test_impossible_and_missing_speeds_are_refused():
    row = {"n_active": 7e9, "n_total": 7e9, "n_layers": 32, "d_model": 4096, "batch": 1, "output_throughput": 1e6}
    with pytest.raises(InputError, match=r"NVIDIA H100.*output_throughput.* row 2 "):
        measured_throughput(pd.DataFrame([row | {"batch": np.nan}, row]), device("h100"))
    with pytest.raises(InputError, match="column output_throughput or tpot_ms or ttft_ms is missing"):
        measured_throughput(pd.DataFrame([row]).drop(columns="output_throughput"), device("h100"))
    with pytest.raises(InputError, match=r"no row can be used: batch missing in row 1"):
        measured_throughput(pd.DataFrame([row | {"batch": np.nan}]), device("h100"))


def test_the_terms_are_those_of_the_serving_model():
    assert TERMS[-1] == "communication"
    coefficients = TRUTH.coefficients()
    assert Efficiency.of(coefficients, "planted").coefficients() == pytest.approx(coefficients)
