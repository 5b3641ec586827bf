"""What a latency law and a throughput table cover: their range travels, and a price beyond it is refused or said."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic_latency import CPU, GRID, frame
from typer.testing import CliRunner

from analysis.latency import law as latency
from analysis.latency.coverage import not_covered, require_experts
from analysis.latency.table import LatencyTable
from scaling.cli.main import app
from scaling.cli.show.latency import bench_page
from scaling.errors import InputError
from scaling.serving.measured_range import MeasuredRange
from scaling.serving.service import SERVICE

RANGE = MeasuredRange(
    "the latency law",
    n_experts=(1, 8),
    top_k=(1.0, 2.0),
    batch=(1.0, 64.0),
    context=(64.0, 512.0),
    d_model=(64.0, 256.0),
    n_layers=(2.0, 4.0),
    phases=("decode", "prefill"),
    dtype="float32",
)
INSIDE = {"batch": 64.0, "context": 640.0, "d_model": 256.0, "n_layers": 4.0}


def law_of(rows):
    return latency.fit_latency(LatencyTable(rows.reset_index(drop=True), "x"), CPU, np.random.default_rng(0), 10)


@pytest.fixture(scope="module")
def dense():
    return law_of(frame(grid=[shape for shape in GRID if shape[0] == 1]))


@pytest.fixture(scope="module")
def routed():
    return law_of(frame(grid=GRID[3:15]))


def test_a_law_knows_what_its_rows_cover_and_keeps_it_in_its_file(routed, tmp_path):
    covered = routed.measured_range
    assert covered.n_experts == (1, 4, 8)
    assert covered.top_k == (1.0, 2.0)
    assert (covered.batch, covered.context) == ((1.0, 32.0), (64.0, 512.0))
    assert covered.prompt_batch == (1.0, 32.0)
    assert covered.phases == ("decode", "prefill")
    path = tmp_path / "law.json"
    path.write_text(json.dumps(latency.latency_document(routed)))
    assert latency.load_latency_law(path).measured_range == covered
    service = latency.load_latency_law(path).measured(SERVICE)
    assert service.measured_range.n_experts == (1, 4, 8)
    assert service.measured_range.doubts == routed.warnings


def test_inside_its_range_nothing_is_said():
    assert not_covered(RANGE, (1, 4, 8), 2, INSIDE, "float32") == []
    assert not_covered(None, (32,), 8, INSIDE, "bfloat16") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [({"experts": (1, 8, 32)}, ("E = 1, 8 ", "not 32")), ({"top_k": 8}, ("k = 1, 2 ", "not 8")),
     ({"served": INSIDE | {"batch": 256.0}}, ("batch 1 to 64 ", "not 256")),
     ({"served": INSIDE | {"context": 20.0}}, ("context 64 to 512 ", "not 20")),
     ({"served": INSIDE | {"d_model": 4096.0}}, ("d_model 64 to 256 ", "not 4.1K")),
     ({"measured": replace(RANGE, prompt_batch=(64.0, 64.0)), "prompts": (1.0, 20.0)}, ("at once 64 ", "not 1, 20")),
     ({"dtype": "bfloat16"}, ("float32 ", "not bfloat16")),
     ({"measured": replace(RANGE, phases=("decode",))}, ("decode alone",)),
     ({"measured": replace(RANGE, doubts=("rows 3 are odd",))}, ("rows 3 are odd",))],
)  # fmt: skip
def test_beyond_its_range_the_range_and_the_value_are_said(change, said):
    asked = {"measured": RANGE, "experts": (1, 8), "top_k": 2, "served": INSIDE, "dtype": "float32"} | change
    (doubt,) = not_covered(**asked)
    assert all(words in doubt for words in said)
    assert ("scaling latency" in doubt) == ("odd" not in doubt)


def test_a_law_of_dense_models_prices_no_experts(dense, routed):
    assert dense.measured_range.n_experts == (1,)
    covered = dense.measured(SERVICE).measured_range
    require_experts(covered, (1,))
    require_experts(routed.measured_range, (1, 32))
    with pytest.raises(InputError, match=r"E = 1 alone.*E = 8, 32 .*`scaling bench`.*`n_experts`"):
        require_experts(covered, (1, 8, 32))
    older = replace(dense, measured_range=MeasuredRange("the latency law")).measured(SERVICE).measured_range
    with pytest.raises(InputError, match="E = 1 alone"):
        require_experts(older, (32,))


def test_an_older_file_is_said_to_be_unknown(routed, tmp_path):
    path, document = tmp_path / "old.json", latency.latency_document(routed)
    del document["measured_range"]
    path.write_text(json.dumps(document))
    covered = latency.load_latency_law(path).measured(SERVICE).measured_range
    require_experts(covered, (32,))
    *_, doubt = not_covered(covered, (32,), 1, INSIDE, "float32")
    assert all(name in doubt for name in ("n_experts", "top_k", "batch", "unknown"))


@pytest.fixture(scope="module")
def recommend(tmp_path_factory):
    folder = tmp_path_factory.mktemp("laws")

    def call(law, *words):
        document = latency.latency_document(replace(law, device=replace(CPU, name="h100")))  # so no CPU is measured
        (folder / "law.json").write_text(json.dumps(document))
        asked = ["--train-flops", "1e21", "--serve-tokens", "1e12", "--device", "h100", "--no-what-if", "--json"]
        asked += ["--latency", str(folder / "law.json"), "--max-devices", "1024"]
        return CliRunner().invoke(app, ["recommend", "published:joint-moe-2025", *asked, *words])

    return call


def test_recommend_refuses_experts_that_were_not_measured(recommend, dense):
    result = recommend(dense)
    assert result.exit_code == 2
    assert "E = 1 alone" in result.stderr
    assert "--n-experts" in result.stderr
    assert "Traceback" not in result.output


def test_recommend_says_what_lies_outside_the_measurement(recommend, routed):
    result = recommend(routed, "--n-experts", "1,8,32")
    assert result.exit_code == 0, result.output
    (doubt,) = [words for words in json.loads(result.stdout)["warnings"] if "was measured at" in words]
    assert "E = 1, 4, 8 (not 32)" in doubt
    assert "d_model 64 to 256 (not " in doubt


def test_prompts_that_were_timed_together_alone_are_said_where_each_is_priced_alone(recommend, routed):
    rows = frame(grid=GRID[3:15])
    law = law_of(rows[(rows["phase"] == "decode") | (rows["batch"] >= 32)])
    assert (law.measured_range.batch, law.measured_range.prompt_batch) == ((1.0, 32.0), (32.0, 32.0))
    alone, together = (
        [words for words in json.loads(recommend(each, "--n-experts", "8").stdout)["warnings"] if "prompts at" in words]
        for each in (routed, law)
    )
    assert alone == []
    (doubt,) = together
    assert "prompts at once 32 (not 1)" in doubt


@pytest.mark.parametrize(("batch", "warned"), [((1, 8), False), ((64,), True)])
def test_bench_says_that_no_prompt_was_timed_alone(batch, warned):
    shape = {"n_experts": 1, "top_k": 1, "d_model": 64, "n_layers": 2, "device_kind": "cpu", "threads": 2}
    timed = {"time_ms": 1.0, "time_q25_ms": 1.0, "time_q75_ms": 1.0, "tokens_per_s": 1.0, "roofline_ms": None}
    rows = [
        {**shape, **timed, "phase": phase, "batch": b, "context": 64, "busy_cores": 0.0, "dtype": "float32",
         "distinct_experts": 1.0}
        for phase in ("prefill", "decode") for b in batch
    ]  # fmt: skip
    assert bool(bench_page(rows).warnings) == warned
