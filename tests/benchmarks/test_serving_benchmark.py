"""The serving benchmark: what it says of other rows, and, where the shared data is, that what ships is what it fits."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from engine_rows import engine_table

from analysis.latency.end_to_end import end_to_end
from benchmarks import serving
from benchmarks.production import deepseek_production
from scaling.serving.engine_speed import TERMS
from scaling.serving.published_speeds import published_speed

SPEED = published_speed("published:vllm-h100")
SHARED = serving.data_folder()
needs_data = pytest.mark.skipif(not (SHARED / "end_to_end.csv.gz").is_file(), reason="no shared data here")


def _answer(capsys, *arguments) -> dict:
    assert serving.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def _file(tmp_path, table: pd.DataFrame, name: str = "rows.csv"):
    table.to_csv(tmp_path / name, index=False)
    return tmp_path / name


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_rows_that_follow_the_shipped_speed_have_no_error(tmp_path, capsys, name):
    table = engine_table(("olmoe-1b-7b", "mixtral-8x7b"))
    table["silicon_tpot_ms"] = 1e3 * SPEED.seconds(end_to_end(table, "", None).iterations.T) * 1.1
    answer = _answer(capsys, "--test", _file(tmp_path, table, name))
    assert list(answer["test"]) == ["org/olmoe-1b-7b", "org/mixtral-8x7b"]
    for entry in answer["test"].values():
        assert entry == {
            "rows": 48,
            "median": pytest.approx(1 - 1 / 1.1),
            "p90": pytest.approx(1 - 1 / 1.1),
            "inside": 48,
        }


def test_rows_that_say_nothing_are_counted_and_others_are_apart(tmp_path, capsys):
    good = engine_table(("olmoe-1b-7b",)).head(6).astype(object)
    odd = [
        {"system": "abacus"}, {"model_path": "org/unheard-of"}, {"batch_size": np.nan}, {"precision": "fp3"},
        {"system": "gb200"}, {"attention_dp_size": 4, "tp_size": 1}, {"backend": "some other"}, {"precision": "int4"},
        {"precision": np.nan}, {"mode": "disagg"}, {"mode": "neither"},
    ]  # fmt: skip
    table = pd.concat([good, *(good.head(1).assign(**cells) for cells in odd)], ignore_index=True)
    answer = _answer(capsys, "--test", _file(tmp_path, table))
    assert answer["test"]["org/olmoe-1b-7b"]["rows"] == 6 + 3
    assert answer["apart"]["attention data-parallel"]["rows"] == 1
    assert answer["apart"]["other devices"]["rows"] == 1
    assert answer["apart"]["disaggregated"]["rows"] == 0
    assert sum(answer["left_out"].values()) == 5
    assert answer["left_out"]["mode neither"] == 1


def test_a_folder_of_configurations_decides_which_models_are_known(tmp_path, capsys):
    file = _file(tmp_path, engine_table(("olmoe-1b-7b",)).head(3))
    answer = _answer(capsys, "--test", file, "--configs", tmp_path)
    assert answer["test"] == {}
    ((why, count),) = answer["left_out"].items()
    assert "olmoe-1b-7b.json" in why
    assert count == 3


def test_a_file_of_nothing_else_gives_an_empty_answer(tmp_path, capsys):
    table = engine_table(("olmoe-1b-7b",)).head(2).assign(system="abacus")
    answer = _answer(capsys, "--test", _file(tmp_path, table))
    assert answer["test"] == {}
    assert answer["left_out"] == {"a device that is not in the table": 2}


def test_a_table_of_something_else_is_refused(tmp_path, capsys):
    assert serving.main(["--test", str(_file(tmp_path, pd.DataFrame({"a": [1]})))]) == 2
    assert "model_path" in capsys.readouterr().err


def test_without_data_every_key_is_skipped_and_said(tmp_path, capsys):
    answer = _answer(capsys, "--data", tmp_path)
    assert set(answer) == {"deepseek_production", "skipped"}
    assert {"model_left_out", "coverage", "kernels", "collectives", "disaggregated"} <= set(answer["skipped"])


def test_a_production_service_is_predicted_within_half():
    for part in deepseek_production().values():
        assert 1 / 1.5 < part["ratio"] < 1.5
        assert part["hidden"] > part["predicted"]


@needs_data
def test_what_ships_is_what_the_data_gives(capsys):
    rows, fit = serving.fitted(SHARED)
    assert len(rows.frame) == 1625
    assert fit.coefficients == pytest.approx(SPEED.coefficients, rel=2e-3)
    for found, shipped in zip(fit.without, SPEED.without, strict=True):
        assert found == pytest.approx(shipped, rel=2e-3)
    assert fit.scatter == pytest.approx(SPEED.scatter, abs=1e-3)
    speed = fit.speed("", "", "")
    assert speed.error == pytest.approx(SPEED.error, abs=1e-3)
    answer = _answer(capsys, "--test", SHARED / "end_to_end.csv.gz", "--configs", SHARED / "model_configs")
    for model, entry in answer["test"].items():
        of_model = (rows.frame["model"] == model).to_numpy()
        off = np.abs(fit.seconds(rows.iterations[of_model]) / rows.tpot_s[of_model] - 1)
        assert entry["rows"] == of_model.sum()
        assert entry["median"] == pytest.approx(np.median(off), abs=2e-3)
        assert entry["p90"] == pytest.approx(np.quantile(off, 0.9), abs=5e-3)
    assert serving.shown(speed.coefficients).count(",") == len(TERMS) - 1


@pytest.mark.slow
@needs_data
def test_the_figures_that_were_asked_for_are_reached():
    answer = serving.measured(SHARED)
    assert answer["mean_median"] <= 0.15
    assert answer["mean_p90"] <= 0.40
    assert 0.90 <= answer["coverage"] <= 0.98
    assert all(entry["median"] <= 0.30 for entry in answer["device_left_out"].values())
    assert answer["kernels"]["median"] <= 0.04
    assert answer["kernels"]["p90"] <= 0.15
    assert all(entry["median"] <= 0.25 for entry in answer["collectives"].values())
