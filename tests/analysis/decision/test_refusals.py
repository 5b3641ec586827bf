"""Refusals: a number that is no answer is not given as one, in Python, on the command line and on page 1."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from typer.main import get_command

from analysis.decision.answer import answer_document, read_answer
from analysis.fitting.discrepancy import Discrepancy
from analysis.fitting.fit import Fit
from analysis.fitting.limits import FAR, exponents, gain_of_compute, refused_of_model
from analysis.latency.coverage import unseen_experts
from analysis.laws import HOFFMANN, LAWS
from analysis.report.sections.decision import front_page
from analysis.report.subject import read_subject
from analysis.tables.runs import read_runs
from scaling import public
from scaling.cli.main import app
from scaling.files import write_json
from scaling.serving.measured_range import MeasuredRange
from scaling.values import FIT

TRUTH = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.36}
DOMAIN = {"n_active": (1e8, 1e9), "tokens": (2e9, 2e10), "train_flops": (1.2e18, 1.2e20)}


def fitted(**changes) -> Fit:
    draws = {name: (value,) * 150 for name, value in TRUTH.items()}
    made = Fit("hoffmann", TRUTH, n_runs=30, n_trunks=30, residuals=(0.001, -0.001) * 15, domain=DOMAIN, draws=draws)
    return replace(made, **changes)


def corner(seed: int) -> pd.DataFrame:
    """13 runs at one corner of sizes and tokens."""
    size, tokens = (each.ravel()[:13] for each in np.meshgrid(np.geomspace(2e7, 4e7, 5), np.geomspace(1e10, 1.6e10, 3)))
    noise = 0.004 * np.random.default_rng(seed).standard_normal(13)
    loss = HOFFMANN.loss(TRUTH, {"n_active": size, "tokens": tokens}) * np.exp(noise)
    return pd.DataFrame({"n_active": size, "tokens": tokens, "loss_val": loss})


def run(*words: str):
    return CliRunner().invoke(get_command(app), list(words))


def test_exponents_are_those_of_size_tokens_and_compute():
    assert exponents(LAWS["hoffmann"]) == ("alpha", "beta")
    assert exponents(LAWS["kaplan"]) == ("alpha_N", "alpha_D")
    assert exponents(LAWS["overtraining"]) == ("eta",)
    assert {"alpha", "beta"} <= set(exponents(LAWS["joint-moe"]))
    assert not {"gamma", "c"} & set(exponents(LAWS["coupled"]))


@pytest.mark.parametrize("n_active", [1e8, 9e8])
def test_inside_the_runs_every_prediction_is_an_answer(n_active):
    assert refused_of_model(fitted(at_bounds=("beta",)), {"n_active": n_active, "tokens": 1e10}) == ""


@pytest.mark.parametrize(
    ("n_active", "tokens", "named"),
    [(29e9, 2e10, ""), (31e9, 2e10, "n_active"), (3.2e6, 2e9, "n_active"), (1e9, 7e11, "tokens"), (1e9, 6e7, "tokens")],
)
def test_models_more_than_thirty_times_outside_are_refused(n_active, tokens, named):
    reason = refused_of_model(fitted(), {"n_active": n_active, "tokens": tokens})
    assert reason.startswith(f"{named} = ") if named else reason == ""
    frame = fitted().predict({"n_active": [n_active, 5e8], "tokens": [tokens, 1e10]})
    assert list(frame["refused"]) == [reason, ""]


def test_an_exponent_at_its_bound_refuses_what_lies_outside_and_every_optimum():
    held = fitted(at_bounds=("beta", "E"))
    assert held.exponents_at_bound == ("beta",)
    assert "beta" in refused_of_model(held, {"n_active": 2e9, "tokens": 1e10})
    found = public.recommend(held, train_flops=1e19, what_if=False).recommendation
    assert "beta" in found.refused[0]
    assert not found.decided
    assert found.undecided_because[: len(found.refused)] == found.refused
    assert not public.recommend(fitted(), train_flops=1e19, what_if=False).recommendation.refused
    assert not public.recommend(fitted(at_bounds=("E",)), train_flops=1e19, what_if=False).recommendation.refused


def test_a_law_that_missed_larger_runs_by_what_compute_gains_is_refused_beyond_them():
    gain = gain_of_compute(fitted())
    at = {"n_active": np.array([1e9]), "tokens": np.array([2e10])}
    further = {name: value * np.exp(0.5) for name, value in at.items()}
    assert gain == pytest.approx(float(np.log(HOFFMANN.loss(TRUTH, at) / HOFFMANN.loss(TRUTH, further))[0]))
    lost, kept = (fitted(discrepancy=Discrepancy(share * gain, 0.001, 1.2e20, 4)) for share in (0.6, 0.4))
    larger = {"n_active": 2e9, "tokens": 2e10}
    assert "roll-out" in refused_of_model(lost, larger)
    assert refused_of_model(kept, larger) == ""
    assert refused_of_model(lost, {"n_active": 1e9, "tokens": 2e10}) == ""  # not beyond
    assert refused_of_model(replace(lost, discrepancy=replace(lost.discrepancy, n_cuts=1)), larger) == ""
    assert public.recommend(lost, train_flops=1e21, what_if=False).recommendation.refused
    assert not public.recommend(lost, train_flops=1e20, what_if=False).recommendation.refused


def test_a_speed_measured_at_other_experts_is_none_of_this_one():
    measured = MeasuredRange(what="the law", n_experts=(1, 8), experts_cost=True)
    assert [e for e in (1, 4, 16, 17, 64) if unseen_experts(measured, e)] == [17, 64]
    assert "E = 64" in unseen_experts(measured, 64)[0]
    assert not unseen_experts(None, 64)


def test_the_command_line_and_page_1_say_that_it_is_no_answer(tmp_path):
    path = tmp_path / "fit.json"
    write_json(path, FIT.document(fitted()))
    words = ("recommend", str(path), "--train-flops", "1e25")
    document = json.loads(run(*words, "--json").stdout)
    assert document["refused"]
    assert document["decided"] is False
    assert document["recommendation"]["n_active"] > FAR * 1e9
    page = run(*words)
    assert page.exit_code == 0
    assert page.stdout.startswith("no answer: n_active = ")
    plan = tmp_path / "plan.json"
    assert run(*words, "--out", str(plan)).exit_code == 0
    first = front_page(read_subject(plan))
    assert first["verdict"] == "No answer"
    assert first["headline"].startswith("No answer: n_active = ")
    assert {tile["note"] for tile in first["tiles"]} == {"by the formula alone"}
    assert read_answer(plan).summary().title.startswith("No answer: n_active = ")
    words = ("predict", str(path), "--n-active", "1T", "--tokens", "1B")
    assert json.loads(run(*words, "--json").stdout)["refused"].startswith("n_active = ")
    assert run(*words).stdout.startswith("no answer: n_active = ")


def test_thirteen_runs_at_one_corner_give_no_optimum_far_from_them(tmp_path):
    path = tmp_path / "corner.csv"
    corner(0).to_csv(path, index=False)
    words = ("fit", str(path), "--budget", "3e22", "--bootstrap", "20")
    document = json.loads(run(*words, "--json").stdout)
    assert document["optimum"]["refused"]
    assert document["optimum"]["decided"] is False
    fit = public.fit(read_runs(path), bootstrap=20)
    answer = public.recommend(fit, train_flops=3e22, what_if=False)
    assert answer_document(answer)["refused"]
    assert "No answer" in answer.summary().title
