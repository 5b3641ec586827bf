"""The benchmark of recalibration: its studies are of the truths they say, and its figures of those studies."""

from __future__ import annotations

import json

import numpy as np
import pytest

from analysis.fitting.published import published
from analysis.fitting.published_spread import FITS
from benchmarks import recalibration


@pytest.mark.parametrize("name", recalibration.TRUTHS)
def test_a_study_is_of_its_truth(name):
    study = recalibration.study(name, 60, 3)
    columns = study.table.columns(("n_active", "tokens", "n_experts"))
    off = np.log(study.table.column("loss_val") / study.loss(columns))
    assert 0.003 < np.std(off) < 0.013
    assert 1 / 4.5 <= study.scale <= 1.0
    assert np.all((columns["n_active"] >= 3e7) & (columns["n_active"] <= 3e8 * (1 + 1e-9)))
    of = recalibration.TRUTHS[name][0]
    assert (of in study.papers) == (name in ("perturbed", "moe"))  # a truth is not in its own prior
    assert len(study.papers) >= len(FITS) - 1


def test_perturbed_truths_differ_as_papers_do():
    logs = []
    for seed in range(200):
        truth = recalibration.study("perturbed", 1, seed).truth
        at = {"n_active": 1e9, "tokens": 2e10, "n_experts": 1}
        logs.append([np.log(-truth.params["alpha"]), float(truth.loss(at))])
    slopes, losses = np.array(logs).T
    assert np.std(slopes) == pytest.approx(0.37, rel=0.2)  # of ln exponents of size over papers
    assert np.std(np.log(losses)) < 0.2  # terms differ by .4 and make up for each other


def test_the_optimum_of_a_law_without_a_closed_form_is_that_of_the_formula():
    numbers = recalibration._optimum(published("chinchilla-epoch"), 1e21, 1)
    assert numbers[0] == pytest.approx(2.7821e9, rel=1e-4)  # laws.md 1.3
    size, tokens = recalibration._optimum(published("fine-grained-2024"), 1e21, 1)
    p = published("fine-grained-2024").params
    slope_n = p["alpha"] * (p["g"] / 8 ** p["gamma"] + p["a"]) * (43.0 * size) ** -p["alpha"]
    assert slope_n == pytest.approx(p["beta"] * p["b"] * tokens ** -p["beta"], rel=5e-3)


def test_the_document(capsys):
    recalibration.main(["chinchilla-epoch", "--studies", "2", "--json"])
    (found,) = json.loads(capsys.readouterr().out).values()
    assert {"printed", "offset", "recalibrated", "scratch"} <= set(found)
    assert set(found["recalibrated"]) == {
        "loss x10", "held x10", "halfwidth x10", "loss x100", "held x100", "halfwidth x100", "N_opt",
    }  # fmt: skip
    with pytest.raises(SystemExit):
        recalibration.main(["nothing"])
