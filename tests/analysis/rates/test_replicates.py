"""Replicates read from a study folder, a file and a frame; the errors of what cannot be read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted_rates import LEVELS, power, replicates, write_rates
from synthetic import cells, write_study

from analysis.rates.face import rates
from analysis.rates.table import IDENTITY, VALUE, read_replicates
from scaling.errors import InputError

CELLS = [{"gate": gate, "samples": n} for gate in ("sigmoid", "softmax") for n in LEVELS]
FRAME = replicates(CELLS, power(-0.5), count=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_rates(tmp_path_factory.mktemp("rates") / "planted", FRAME, failed=[{"gate": "softmax", "samples": 7}])


def test_a_folder_has_the_replicates_of_its_evals_and_the_settings_of_its_configurations(folder):
    table = read_replicates(folder, "risk")
    assert len(table) == len(FRAME)
    order = ["gate", "samples", IDENTITY]
    found = table.frame.sort_values(order)[VALUE].to_numpy()
    names = FRAME["seed"].astype(str) + "/" + FRAME["replicate"].astype(str)
    assert found == pytest.approx(FRAME.assign(**{IDENTITY: names}).sort_values(order)["risk"].to_numpy())
    assert {"gate", "samples"} >= set(table.settings) - {"task"}
    assert table.dropped == (("status diverged", 1),)


def test_a_frame_and_a_file_have_the_same_values(folder, tmp_path):
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    ours = read_replicates(folder, "risk").frame[[IDENTITY, VALUE]]
    for source in (FRAME, tmp_path / "rows.csv"):
        theirs = read_replicates(source, "risk").frame[[IDENTITY, VALUE]]
        assert np.sort(theirs[VALUE]) == pytest.approx(np.sort(ours[VALUE]), rel=1e-12)  # of a decimal text
        assert sorted(theirs[IDENTITY]) == sorted(ours[IDENTITY])


def test_without_seed_and_replicate_a_row_is_a_replicate_of_its_own():
    rows = read_replicates(FRAME.drop(columns=["seed", "replicate"]), "risk").frame
    assert rows[IDENTITY].is_unique


def test_where_selects_runs(folder):
    table = read_replicates(folder, "risk", "samples >= 1000 and gate == 'softmax'")
    assert set(table.frame["samples"]) == {n for n in LEVELS if n >= 1000}
    assert set(table.frame["gate"]) == {"softmax"}


def test_a_missing_metric_names_those_that_there_are(folder):
    with pytest.raises(InputError, match="no metric 'kl'; it has risk"):
        read_replicates(folder, "kl")
    with pytest.raises(InputError, match=r"no metric 'kl'; it has samples, .*risk"):
        read_replicates(FRAME, "kl")


def test_values_that_are_no_number_are_left_out_and_counted():
    frame = FRAME.copy()
    frame.loc[[3, 5], "risk"] = [np.nan, np.inf]
    table = read_replicates(frame, "risk")
    assert (len(table), table.blank) == (len(FRAME) - 2, 2)
    assert table.dropped == (("risk that is no finite number", 2),)
    with pytest.raises(InputError, match=r"no value of risk is left \(80 with risk that is no finite number\)"):
        read_replicates(pd.concat([frame.assign(risk=np.nan)] * 2).head(80), "risk")


def test_a_folder_that_is_no_study_is_named(tmp_path):
    with pytest.raises(InputError, match="no runs"):
        read_replicates(tmp_path, "risk")


def test_a_study_of_language_models_has_its_runs_as_replicates(tmp_path):
    """Its metric is a column of runs, a seed is a replicate, and its steps are no setting beside its tokens."""
    configs = cells(experts=(1, 4), widths=(32,), tokens=(500_000, 1_000_000, 2_000_000))
    table = read_replicates(write_study(tmp_path / "models", configs=configs), "loss_val")
    assert table.unit == "nats/token"
    assert (table.better, len(table)) == ("lower", len(configs) - 1)  # one diverged
    assert {"n_experts", "d_model", "tokens"} <= set(table.settings)
    assert "steps" not in table.settings
    (dense,) = rates(tmp_path / "models", metric="loss_val", axis="tokens", where="n_experts == 1", bootstrap=0).rates
    assert -0.3 < dense.slope < 0.0  # a loss with an irreducible part falls slower than its D^-0.38
