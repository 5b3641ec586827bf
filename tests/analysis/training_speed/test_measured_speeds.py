"""The measured training speeds that are committed: their law, its errors, and that E slows training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.training_speed.law import fit_training_speed, modelled
from analysis.training_speed.speeds import load_training_law
from analysis.training_speed.table import read_training

STUDY = Path(__file__).parents[3] / "results" / "training-speed-cpu"
TABLE = read_training(STUDY / "training.parquet")


def test_widths_and_expert_counts_left_out_are_predicted_as_the_page_says() -> None:
    """The goal is 10 % and 25 %; here the median of widths misses it by .7 %, and a second measurement by more."""
    held_out = fit_training_speed(TABLE, np.random.default_rng(0), 0).held_out
    assert held_out["n_experts"].median < 0.10
    assert held_out["n_experts"].p90 < 0.25
    assert held_out["d_model"].median == pytest.approx(0.107, abs=0.001)
    assert held_out["d_model"].p90 < 0.25


def test_the_law_predicts_a_second_measurement_at_another_time() -> None:
    """By 9.6 % (median) and 20.4 % (90th percentile), as the page says; coefficients refer to the first's device."""
    again = replace(read_training(STUDY / "again.parquet"), on=TABLE.on)
    error = modelled(again, load_training_law(STUDY / "law.json"))["error"].abs()
    assert error.median() == pytest.approx(0.096, abs=0.001)
    assert error.quantile(0.9) == pytest.approx(0.204, abs=0.001)


def test_the_law_on_disk_is_that_of_its_rows() -> None:
    law = load_training_law(STUDY / "law.json")
    assert law.coefficients == pytest.approx(fit_training_speed(TABLE, np.random.default_rng(0), 0).law.coefficients)
    assert law.device == TABLE.on
    assert len(law.drawn) == 400


def test_many_experts_take_longer_than_the_dense_model_of_equal_active_size() -> None:
    frame = TABLE.frame.query("batch_tokens == 1024 and d_model == 256").set_index("n_experts")["seconds"]
    assert frame[8] / frame[1] == pytest.approx(1.18, abs=0.01)
    assert frame[32] / frame[1] == pytest.approx(1.86, abs=0.01)
