"""The report of a study of methods: which one, how sure, and what cannot be said; a law only where one was asked
for."""

import json
import shutil

import numpy as np
import pytest
from reported import section, strings, template_warnings, unchecked
from synthetic_methods import EFFECTS, LEAKY, METHODS, write_methods

from analysis import laws
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting import fit
from analysis.methods.comparison import compare_methods
from analysis.report import build as reports
from analysis.report.build import build_report
from analysis.report.study import load_report_study
from analysis.tables import runs


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_methods(
        tmp_path_factory.mktemp("report") / "routers", METHODS | {"leaky": LEAKY}, EFFECTS | {"leaky": -0.5},
        failed={("hash", 2): "diverged"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def page(study):
    return reports._content(load_report_study(study))


def table(blocks, first):
    return next(block for block in blocks if block["kind"] == "table" and block["columns"][0] == first)


def test_a_study_of_methods_gives_a_report_without_a_law_and_says_why(study, tmp_path):
    one, two = (build_report(study, tmp_path / name, tmp_path / f"{name}.png") for name in ("a.pdf", "b.pdf"))
    assert one.path.read_bytes().startswith(b"%PDF-")
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.picture.is_file()
    (note,) = one.notes
    assert "No law was fitted: the runs are of 7 methods" in note  # 6 causal ones that route, and the leaky one
    assert not (study / "fits").exists()


def test_the_template_compiles_without_a_warning(study, tmp_path):
    assert template_warnings(load_report_study(study), tmp_path) == []


def test_the_front_page_says_which_method_and_that_a_tie_is_one(page, study):
    made = compare_methods(study, np.random.default_rng(0))[0]
    best, *tied = made.leaders
    assert page["title"] == "Which method?"
    assert page["headline"] == f"Not decided; {best} leads"
    assert not page["decided"]
    assert all(name in page["because"] for name in tied)
    assert "No law was fitted" in " ".join(strings(page["summary"]))


def test_a_clear_winner_is_decided(tmp_path):
    effects = EFFECTS | {"sigmoid": -0.3}
    page = reports._content(load_report_study(write_methods(tmp_path / "clear", effects=effects)))
    assert page["headline"] == "sigmoid has the least loss"
    assert page["decided"]


def test_every_method_is_in_the_ranking_and_the_leaky_one_apart(page):
    blocks = section(page, "The ranking")
    ranking = table(blocks, "method")
    assert sorted(row[0] for row in ranking["rows"]) == sorted(METHODS)
    apart = next(block for block in blocks if block["kind"] == "table" and "leak" in block["columns"])
    assert [row[0] for row in apart["rows"]] == ["expert-choice"]
    failed = next(block for block in blocks if block["kind"] == "table" and "status" in block["columns"])
    assert [row[:3] for row in failed["rows"]] == [["hash", "1", "diverged"]]


def test_losses_worse_than_dense_and_what_cannot_be_said_are_told(page, study):
    told = " ".join(strings(section(page, "The ranking")))
    made = compare_methods(study, np.random.default_rng(0))[0]
    assert "Higher loss than the dense model, all differences together: hash" in told
    assert "flatters it by about" in told
    assert "pooled over all methods" in told
    for warning in made.warnings:
        assert warning[1:] in told


def test_one_seed_gives_a_report_that_ranks_nothing(tmp_path):
    page = reports._content(load_report_study(write_methods(tmp_path / "one", seeds=1)))
    assert "nothing is ranked" in page["because"]
    assert not page["decided"]
    assert "rank" not in table(section(page, "The ranking"), "method")["columns"]


def test_without_latency_curves_and_evaluations_there_is_a_report_too(study, tmp_path):
    folder = shutil.copytree(study, tmp_path / "bare")
    for name in ("latency", "curves", "evals"):
        shutil.rmtree(folder / name)
    assert build_report(folder, tmp_path / "r.pdf").path.is_file()
    told = " ".join(strings(reports._content(load_report_study(folder))))
    assert "document sampling is in no interval" in told
    assert "No decode step was measured" in told


def test_a_law_that_was_asked_for_stays_and_the_mixture_is_said(tmp_path, monkeypatch):
    unchecked(monkeypatch)
    folder = tmp_path / "both"
    for tokens in (250_000, 500_000, 1_000_000):
        for width in (32, 48, 64):
            wider = {name: {"d_model": width, **settings} for name, settings in METHODS.items()}
            wider["dense"] = {"d_model": width, "n_experts": 1, "d_expert": 2 * width}
            effects = {
                name: EFFECTS[name] - 0.1 * np.log(tokens / 2.5e5) - 0.1 * np.log(width / 32) for name in METHODS
            }
            write_methods(folder, wider, effects, tokens=tokens, seeds=2)
    fitted = fit.fit(runs.read_runs(folder), laws.law_named("joint-moe"))
    answer = recommend(fitted, Question(train_flops=1e12, serve_tokens=1e8))
    for name, document in (("fits", fitted.to_json()), ("recommendations", answer.to_json())):
        (folder / name).mkdir()
        (folder / name / "joint-moe.json").write_text(json.dumps(document), encoding="utf-8")
    page = reports._content(load_report_study(folder))
    assert page["title"] == "How many experts?"
    assert "a law over E takes them for one" in " ".join(strings(section(page, "What was run")))
    blocks = section(page, "Which method?")
    assert any(block["kind"] == "figure" and block["path"] == "methods.svg" for block in blocks)
    assert any("Compared apart were also" in text for text in strings(blocks))
    assert build_report(folder, tmp_path / "r.pdf").path.is_file()
