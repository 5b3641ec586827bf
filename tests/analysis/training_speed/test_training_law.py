"""The training-speed law: planted coefficients come back, errors are honest, and what is missing is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from synthetic_training import H100, TRUTH, table

from analysis.training_speed.law import fit_training_speed, left_out
from analysis.training_speed.speeds import load_training_law
from scaling.errors import InputError
from scaling.files import write_json
from scaling.serving.service import ModelSizes
from scaling.serving.training_work import LEAST, TERMS


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_planted_coefficients_come_back_exactly_without_noise() -> None:
    fitted = fit_training_speed(table(), rng(), 2)
    # 1e-5: a least-squares problem whose columns span fifteen decades.
    assert fitted.law.coefficients == pytest.approx(TRUTH, rel=1e-5, abs=1e-18)
    assert fitted.law.absent == ("optimiser beyond caches", "messages")
    assert fitted.held_out["configuration"].p90 < 1e-6
    # With one of two depths left out, or one of two batches, two terms are one: those errors are of extrapolation.
    assert fitted.held_out["d_model"].p90 < 1e-6


def test_with_noise_the_draws_cover_the_truth_and_left_out_errors_are_those_of_the_noise() -> None:
    noise = 0.1
    fitted = fit_training_speed(table(noise), rng(), 100)
    model = ModelSizes(n_active=3e9, n_total=1.2e10, kv_elements_per_token=2.0 * 24 * 2048, n_layers=24.0,
                       d_model=2048.0, n_experts=8, top_k=2)  # fmt: skip
    truth = float(TRUTH @ fitted.law.work(model).terms(H100))
    drawn = np.array(fitted.law.drawn) @ fitted.law.work(model).terms(H100)
    low, high = np.quantile(drawn, [0.005, 0.995])
    assert low < truth < high
    assert high / low < 1.3
    # The median of |N(0, noise)| is .6745 noise; fits add a little.
    assert fitted.held_out["configuration"].median == pytest.approx(0.6745 * noise, rel=0.35)
    assert 0.8 * noise < fitted.law.scatter < 1.6 * noise  # levels of depth and batch left out are in it


def test_rows_that_others_disturbed_do_not_move_the_law() -> None:
    clean = table(0.02)
    seconds = clean.seconds
    seconds[::12] *= 3
    disturbed = fit_training_speed(
        type(clean)(clean.frame.assign(seconds=seconds), clean.source, on=clean.on), rng(), 0
    ).law
    modelled = clean.terms() @ np.array(disturbed.coefficients)
    assert np.median(np.abs(modelled / clean.seconds - 1)) < 0.03


def test_no_coefficient_is_faster_than_the_data_sheet() -> None:
    fitted = fit_training_speed(table(0.3, truth=np.where(TRUTH > 1, 1.0, TRUTH)), rng(), 20)
    assert np.all(np.array(fitted.law.coefficients) >= LEAST)
    assert np.all(np.array(fitted.law.drawn) >= LEAST)
    assert fitted.at_bound


def test_columns_that_the_table_lacks_leave_terms_absent_and_that_is_said() -> None:
    plain = fit_training_speed(table(0.01, seq_len=np.nan, batch_tokens=np.nan), rng(), 5)
    assert {"attention scores", "step", "layers", "experts", "optimiser"} <= {*plain.law.absent}
    assert plain.law.batch_tokens is None
    assert plain.law.seq_len is None
    assert any("seq_len" in doubt for doubt in plain.doubts)
    assert any("batch_tokens" in doubt for doubt in plain.doubts)
    model = ModelSizes(n_active=1e9, n_total=1e9, kv_elements_per_token=1e5, n_layers=24.0, d_model=2048.0)
    work = dict(zip(TERMS, plain.law.work(model).terms(H100), strict=True))
    assert work["step"] == work["optimiser"] == 0
    assert work["attention scores"] < 1e-6 * work["dense products"]


def test_an_expert_count_that_brings_a_new_term_is_not_predicted_from_the_others() -> None:
    """Without E = 2 there is no routed row: nothing is known of experts."""
    rows = left_out(table(0.01, experts=(1, 2)), "n_experts")
    assert {*rows["n_experts"]} == {1}


def test_a_busy_machine_and_few_configurations_are_said() -> None:
    fitted = fit_training_speed(table(0.01, widths=(512,), experts=(1, 8), busy_cores=1.5, spread=2.0), rng(), 5)
    text = " ".join(fitted.doubts)
    for named in ("configurations", "single d_model", "1.5 cores", "2.00 times"):
        assert named in text
    with pytest.raises(InputError, match="4 at least"):
        fit_training_speed(table(widths=(512,), experts=(1,), depths=(8,)), rng(), 5)


def test_a_law_on_disk_is_the_law(tmp_path: Path) -> None:
    fitted = fit_training_speed(table(0.05), rng(), 5)
    path = tmp_path / "law.json"
    write_json(path, fitted.document())
    assert load_training_law(path) == fitted.law
