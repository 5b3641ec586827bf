"""`scaling serve`: the answer first, one document, models by name, by configuration and by family, refusals."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import scaling
from scaling.cli.main import app

CONFIG = {
    "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 16,
    "vocab_size": 50304, "intermediate_size": 1024, "num_experts": 64, "num_experts_per_tok": 8,
    "tie_word_embeddings": False, "model_type": "olmoe",
}  # fmt: skip


def call(*words: object):
    return CliRunner().invoke(app, ["serve", *map(str, words)], env={"COLUMNS": "80"})


@pytest.mark.parametrize(
    "words",
    [
        ("deepseek-v3", "--device", "h200", "--weights", "fp8"),
        ("gpt-oss-120b", "--device", "b200", "--experts-in", "mxfp4", "--kv", "fp8", "--tpot-ms", "20"),
        ("--family", "qwen3", "--n-active", "3B", "--n-experts", "64", "--device", "a100", "--apart"),
    ],
)
def test_the_price_comes_first_in_few_lines(words):
    ended = call(*words)
    assert ended.exit_code == 0, ended.output
    lines = ended.stdout.splitlines()
    assert " in, $" in lines[0]
    assert " out per M tokens" in lines[0]
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    assert ended.stderr == ""


def test_the_document_is_what_python_gives():
    document = json.loads(call("mixtral-8x7b", "--device", "h100", "--weights", "fp8", "--json").stdout)
    found = scaling.serve("mixtral-8x7b", device="h100", weights="fp8")
    assert [point["tpot_ms"] for point in document["ladder"]] == [point.tpot_ms for point in found.ladder]
    assert [point["usd_per_million_input"] for point in document["front"]] == [
        point.usd_per_million_input for point in found.front
    ]
    assert document["service"]["engine"]["name"] == "published:vllm-h100"
    assert document["ladder"][0]["concurrency"] == 1
    assert document["ladder"][0]["tpot_ms_interval"][0] < document["ladder"][0]["tpot_ms"]


def test_a_configuration_is_served_as_the_model_of_that_name(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    by_name, by_file = (
        json.loads(call(model, "--device", "h100", "--json").stdout) for model in ("olmoe-1b-7b", tmp_path)
    )
    assert [point["tpot_ms"] for point in by_name["ladder"]] == [point["tpot_ms"] for point in by_file["ladder"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("deepseek-v3",), "--device says on what"),
        (("deepseek-v4", "--device", "h100"), "found 'deepseek-v4'; allowed: mixtral-8x7b"),
        (("--device", "h100"), "name a model, or give --family"),
        (("mixtral-8x7b", "--family", "qwen3", "--device", "h100"), "name a model, or give --family"),
        (("mixtral-8x7b", "--device", "a100", "--weights", "fp8"), "device a100 multiplies no fp8"),
        (("kimi-k2", "--device", "h100", "--max-devices", "8"), "allow more with --max-devices"),
        (("--family", "qwen3", "--n-active", "0", "--device", "h100"), "--n-active"),
        (("mixtral-8x7b", "--device", "h100", "--latency", "no.json"), "no.json"),
    ],
)
def test_wrong_input_is_one_message(words, message):
    ended = call(*words)
    assert ended.exit_code == 2
    assert message in " ".join(ended.stderr.split())
