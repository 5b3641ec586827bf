"""`scaling recommend` on a device: money, loads, limits, prices of one's own, measured speed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from analysis.latency.law import HeldOutTimes, LatencyLaw, latency_document
from scaling.cli.main import app
from scaling.serving.devices import device
from scaling.serving.measured_range import MeasuredRange
from scaling.serving.published_training import assumed_training_speed
from scaling.serving.step_time import ASSUMED, TERMS
from scaling.serving.training_speed import TrainingLaw
from scaling.serving.training_work import LEAST
from scaling.values import TRAINING_LAW

JOINT = "published:joint-moe-2025"


@pytest.fixture(scope="module")
def call():
    runner = CliRunner()

    def run(*words):
        result = runner.invoke(app, ["recommend", JOINT, *map(str, words)])
        document = json.loads(result.stdout) if "--json" in words and result.stdout.strip() else None
        return result, document

    return run


@pytest.fixture(scope="module")
def law_file(tmp_path_factory):
    """A latency law of an H100 that reaches half of what is assumed, 20 % uncertain."""
    slow = replace(ASSUMED, bandwidth_share=0.3, flops_share=0.2, overhead_s=1e-4, source="measured: planted")
    errors = HeldOutTimes(0.05, 0.1, 10)
    draws = slow.coefficients()[:-1] * np.exp(0.2 * np.random.default_rng(0).standard_normal((200, len(TERMS) - 1)))
    law = LatencyLaw(device("h100"), slow, draws, np.ones(101), (), (), 10, 4, "bfloat16", "jax", {}, errors, errors)
    path = tmp_path_factory.mktemp("laws") / "latency.json"
    path.write_text(json.dumps(latency_document(law)))
    return path


def test_a_device_makes_cost_money_and_asks_what_would_change_the_answer(call):
    result, found = call("--train-flops", "1e21", "--serve-tokens", "1e12", "--device", "h100", "--json")
    assert result.exit_code == 0
    best = found["recommendation"]
    assert best["cost"]["unit"] == "USD"
    assert best["served"]["usd_per_million"] * 1e6 == pytest.approx(best["cost"]["serve"])
    assert not found["decided"]
    assert sum(found["probability_best"].values()) == pytest.approx(1.0)  # published fits have draws by a rule
    assert found["what_if"]["cases"]
    assert any("2.69 USD an hour (placeholder, replace it" in assumption for assumption in found["assumptions"])


def test_training_is_priced_by_the_speed_that_is_named(call, tmp_path):
    """Device-hours are FLOPs over the peak and the MFU of the chosen E: constant, by a name, and of a law in a file."""
    asked = ("--train-flops", "1e21", "--device", "h100", "--n-experts", "8", "--no-what-if", "--json")
    twice, covered = tuple(2.0 * LEAST), MeasuredRange("a test", n_experts=(1, 8))  # the time of products at the peak
    fitted = TrainingLaw("planted", twice, (), 0.1, "a test", 65_536.0, 2_048.0, covered)
    (tmp_path / "speed.json").write_text(json.dumps(TRAINING_LAW.document(fitted)))
    peak_hours = 1e21 / device("h100").peak_flops / 3600
    hours = {}
    for speed in ("constant", "assumed", "published:maxtext-1256", str(tmp_path / "speed.json")):
        result, found = call(*asked, "--training-speed", speed)
        assert result.exit_code == 0, result.stderr
        best = found["recommendation"]
        hours[speed] = best["train_device_hours"]
        assert best["train_device_hours"] == pytest.approx(peak_hours / best["train_mfu"], rel=1e-9)
        assert best["cost"]["train"] == pytest.approx(best["train_device_hours"] * 2.69, rel=1e-9)
        assert found["question"]["training_speed"]["name"] == ("planted" if "json" in speed else speed)
    assert hours["constant"] == pytest.approx(peak_hours / 0.4, rel=1e-9)
    assert hours["assumed"] == pytest.approx(peak_hours / assumed_training_speed().mfu_at(8), rel=1e-9)
    assert hours["published:maxtext-1256"] == pytest.approx(peak_hours / 0.504, rel=1e-9)
    # Twice the time at the peak, for 6 N_active FLOPs a token, embeddings in, and those of attention.
    assert peak_hours * 2 < hours[str(tmp_path / "speed.json")] < peak_hours * 2.5


def test_words_name_formulas_prices_and_what_would_change(call):
    given = ("--train-flops", "1e22", "--serve-tokens", "1e12", "--device", "h100")
    result, _ = call(*given, "--speed", "assumed", "--max-batch", "256", "--verbose")
    assert result.exit_code == 0
    for words in (
        "tpot: time of one iteration",
        "ttft: tpot / 2",
        "placeholder, replace it",
        "USD",
        "would be best with",
        "tokens served E = ",
    ):
        assert words in result.stdout


def test_a_load_takes_whole_replicas_for_months(call):
    given = ("--train-flops", "1e21", "--requests-per-month", "1e8", "--months", "6", "--device", "h100")
    _, found = call(*given, "--no-what-if", "--json")
    served = found["recommendation"]["served"]
    month = 365.25 / 12 * 24
    bill = served["replicas"] * served["n_devices"] * 2.69 * month * 6
    assert found["recommendation"]["cost"]["serve"] == pytest.approx(bill, rel=1e-9)
    capacity = served["replicas"] * served["output_throughput"] * 0.5
    assert capacity >= 1e8 * 256 / (month * 3600) * (1 - 1e-9)


def test_prices_of_ones_own_are_used_and_named(call, tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("h100: {usd_per_hour: 1.345, price_source: our contract, price_date: 2026-10-01}\n")
    given = ("--train-flops", "1e21", "--serve-tokens", "1e12", "--device", "h100", "--no-what-if")
    _, dear = call(*given, "--json")
    _, cheap = call(*given, "--devices", prices, "--json")
    assert cheap["recommendation"]["cost"]["total"] == pytest.approx(dear["recommendation"]["cost"]["total"] / 2)
    shown, _ = call(*given, "--devices", prices, "--verbose")
    assert "our contract; 2026-10-01" in shown.stdout
    assert cheap["question"]["rented"]["price_date"] == "2026-10-01"


def test_a_measured_device_is_slower_and_said_to_be_measured(call, law_file):
    given = ("--train-flops", "1e21", "--serve-tokens", "1e12", "--device", "h100", "--no-what-if")
    _, assumed = call(*given, "--speed", "assumed", "--json")
    _, found = call(*given, "--latency", law_file, "--json")
    assert found["recommendation"]["cost"]["serve"] > 1.5 * assumed["recommendation"]["cost"]["serve"]
    assert any("measured: planted" in assumption for assumption in found["assumptions"])
    served = found["recommendation"]["served"]
    assert served["tpot_ms_interval"][0] < served["tpot_ms"] < served["tpot_ms_interval"][1]
    assert served["usd_per_million_interval"][0] < served["usd_per_million"] < served["usd_per_million_interval"][1]
    assert assumed["recommendation"]["served"]["tpot_ms_interval"] is None


def test_limits_of_latency_are_milliseconds(call):
    given = ("--train-flops", "1e22", "--serve-tokens", "1e12", "--device", "h100", "--no-what-if", "--json")
    _, found = call(*given, "--tpot-ms", "20")
    assert found["recommendation"]["served"]["tpot_ms"] <= 20 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--train-flops", "1e20", "--minimise", "cost"), "'lifetime', 'serving', 'loss'"),
        (("--train-flops", "1e20", "--latency", "x.json"), "--latency needs --device"),
        (("--train-flops", "1e20", "--bandwidth-share", ".5"), "--bandwidth-share needs --device"),
        (
            ("--train-flops", "1e20", "--device", "h100", "--latency", "no.json"),
            "no.json: cannot be read",
        ),
        (("--train-flops", "1e20", "--devices", "x.yaml"), "--devices needs --device"),
        (("--train-flops", "1e20", "--device", "h100", "--prompt", "0"), "'--prompt': takes a whole number from 1"),
        (("--train-flops", "1e20", "--device", "h100", "--utilisation", "2"), "--utilisation must be above 0"),
        (("--train-usd", "1e5"), "--train-usd needs --device"),
        (("--train-flops", "1e20", "--weights", "fp8"), "--weights needs --device"),
        (("--train-flops", "1e20", "--speed", "assumed"), "--speed needs --device"),
        (("--train-flops", "1e20", "--top-k", "2"), "--top-k: law joint-moe says nothing of other shapes"),
        (("--train-flops", "1e20", "--family", "gpt"), "mixtral, deepseek"),
        (("--train-flops", "1e20", "--device", "a100", "--weights", "fp8"), "--weights: device a100 multiplies no fp8"),
        (("--train-flops", "1e20", "--device", "h100", "--kv", "int4"), "--kv: no engine caches"),
        (("--train-flops", "1e20", "--device", "h100", "--experts-in", "int3"), "--experts-in: found 'int3'"),
        (("--train-flops", "1e20", "--device", "h100", "--speed", "published:x"), "--speed: found 'published:x'"),
        (("--train-flops", "1e20", "--device", "h100", "--drafted", "3"), "--drafted and --accepted belong together"),
        (
            ("--train-flops", "1e20", "--device", "h100", "--speed", "assumed", "--flops-share", ".5"),
            "--flops-share and --speed say the same",
        ),
    ],
)
def test_wrong_input_is_one_message(call, words, message):
    result, _ = call(*words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_law_of_another_device_is_refused(call, law_file):
    result, _ = call("--train-flops", "1e20", "--device", "a100", "--latency", law_file)
    assert "was measured on h100, not on --device a100" in result.stderr


def test_a_limit_below_what_a_step_costs_on_its_own_is_refused(call, law_file):
    given = ("--train-flops", "1e20", "--serve-tokens", "1e9", "--device", "h100", "--latency", law_file)
    result, _ = call(*given, "--tpot-ms", "0.05")  # the planted overhead of a step is .1 ms
    assert "no model with E" in result.stderr
    assert "0.05 ms per further token (--tpot-ms)" in result.stderr


@pytest.mark.parametrize(
    ("option", "text", "unit"),
    [
        ("--memory-gb", "80G", "GB"),
        ("--memory-gb", "80K", "GB"),
        ("--tpot-ms", "50M", "ms"),
        ("--usd-per-hour", "2K", "USD"),
        ("--target-loss", "2K", "nats"),
        ("--mfu", "40%", "share"),
        ("--memory-gb", "8,5", "GB"),
        ("--train-flops", "1,5e21", "1,5e21"),
        ("--serve-tokens", "0x10", "0x10"),
        ("--serve-tokens", "٣", "٣"),
    ],
)
def test_an_option_that_says_its_unit_takes_no_suffix_and_none_takes_a_comma(call, option, text, unit):
    result, _ = call(option, text)
    assert result.exit_code == 2
    assert option in result.stderr
    assert unit in result.stderr


def test_a_unit_may_be_repeated(call):
    given = ("--train-flops", "1e21", "--no-what-if", "--json")
    answers = [call(*given, "--memory-gb", text)[1]["recommendation"] for text in ("80", "80 GB")]
    assert answers[0] == answers[1]


# ----------------------------------------------------------------------------------------------- the loss that is kept

_KEPT = ("--train-flops", "1e23", "--serve-tokens", "5e12", "--n-experts", "8")


@pytest.mark.parametrize(
    ("options", "model"),
    [
        (("--reference-fit", "published:chinchilla-epoch"), (2.95e10, 5.65e11)),
        (("--reference-model", "30B, 600B"), (3e10, 6e11)),
        (("--reference-loss", "2.03 nats"), None),
        (("--reference-experts", "8"), (5.54e10, 3.01e11)),
    ],
)
def test_the_reference_is_named_by_an_option_and_shown(call, options, model):
    result, found = call(*_KEPT, *options, "--json")
    assert result.exit_code == 0, result.stderr
    kept = found["reference"]
    assert (kept["n_active"], kept["tokens"]) == ((None, None) if model is None else pytest.approx(model, rel=3e-3))
    assert found["recommendation"]["loss"] == pytest.approx(kept["loss"], abs=1e-6)
    assert found["what_if"]["references"][0]["reference"] == kept
    if model is not None:
        assert kept["tokens_per_param"] == pytest.approx(kept["tokens"] / kept["n_active"])
        return
    page = call(*_KEPT, *options, "--no-what-if")[0].stdout
    assert "loss kept: 2.0300, as given" in page


def test_the_table_of_references_is_printed_with_verbose(call):
    page = " ".join(call(*_KEPT, "--verbose")[0].stdout.split())
    assert "What hangs on the loss that is kept" in page
    assert "62.4B parameters on 267B tokens, 4.28 per parameter" in page


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--reference-model", "30B"), "--reference-model"),
        (("--reference-model", "30B,many"), "--reference-model"),
        (("--reference-loss", "2", "--reference-model", "30B,600B"), "--reference-loss, --reference-model"),
        (("--reference-fit", "published:clark-2022-hash"), "--reference-fit"),
        (("--reference-fit", "no-such-file.json"), "no-such-file.json"),
    ],
)
def test_a_wrong_reference_is_one_message_with_its_option(call, options, named):
    result, _ = call(*_KEPT, *options)
    assert result.exit_code == 2
    assert named in result.stderr
    assert "Traceback" not in result.stderr
