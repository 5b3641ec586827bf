"""The report of a study of methods: which one, how sure, and what cannot be said; a law only where one was asked
for."""

import json
import shutil

import numpy as np
import pytest
from reported import column, section, template_warnings, unchecked, words
from synthetic_methods import EFFECTS, LEAKY, METHODS, write_methods

from analysis import laws
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting import fit
from analysis.methods.comparison import compare_methods
from analysis.report.build import build_report
from analysis.report.contents import content
from analysis.report.study import load_report_study
from analysis.tables import runs
from scaling import formatting
from scaling.values import FIT, plain


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_methods(
        tmp_path_factory.mktemp("report") / "routers", METHODS | {"leaky": LEAKY}, EFFECTS | {"leaky": -0.5},
        failed={("hash", 2): "diverged"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def loaded(study):
    return load_report_study(study)


@pytest.fixture(scope="module")
def page(loaded):
    return content(loaded)


@pytest.fixture(scope="module")
def compared(study):
    """The largest comparison, made anew."""
    return compare_methods(study, np.random.default_rng(0))[0]


def table(blocks, header):
    """The first table with that column."""
    return next(block for block in blocks if block["kind"] == "table" and header in block["columns"])


def test_a_study_of_methods_gives_a_report_without_a_law_and_says_why(study, tmp_path):
    one, two = (build_report(study, tmp_path / name, tmp_path / f"{name}.png") for name in ("a.pdf", "b.pdf"))
    assert one.path.read_bytes().startswith(b"%PDF-")
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.picture.is_file()
    (note,) = one.notes
    assert "No law was fitted: the runs are of 7 methods" in note  # 6 causal ones that route, and the leaky one
    assert not (study / "fits").exists()


def test_the_template_compiles_without_a_warning(loaded, tmp_path):
    assert template_warnings(loaded, tmp_path) == []


def test_the_front_page_says_which_method_and_that_a_tie_is_one(page, compared):
    best, *tied = compared.leaders
    assert tied
    assert page["title"] == "Which method?"
    assert page["headline"] == f"Not decided; {best} leads"
    assert not page["decided"]
    assert all(name in page["because"] for name in tied)
    assert "No law was fitted" in words(page["summary"])


def test_a_clear_winner_is_decided(tmp_path):
    effects = EFFECTS | {"sigmoid": -0.3}
    page = content(load_report_study(write_methods(tmp_path / "clear", effects=effects)))
    assert page["headline"] == "sigmoid has the least loss"
    assert page["decided"]


def test_every_method_is_in_the_ranking_and_the_leaky_one_apart(page):
    blocks = section(page, "The ranking")
    ranking, apart, failed = (table(blocks, header) for header in ("rank", "leak", "status"))
    assert sorted(column(ranking, "method")) == sorted(METHODS)
    assert column(apart, "method") == ["expert-choice"]
    assert [row[:3] for row in failed["rows"]] == [["hash", "1", "diverged"]]


def test_losses_higher_than_dense_and_what_cannot_be_concluded_are_in_lists(page, compared):
    shown, limits = (block["items"] for block in section(page, "The ranking") if block["kind"] == "list")
    worse = compared.rows[(compared.rows["low_all"] > 0) & (compared.rows["method"] != compared.reference)]
    (higher,) = [line for line in shown if line.startswith("Higher loss than the dense model")]
    assert set(worse["method"]) == {"hash"}
    assert all(f"{name} (" in higher for name in worse["method"])
    assert formatting.number(compared.optimism, ".2g") in " ".join(limits)
    assert f"{compared.seed_df} degrees of freedom" in " ".join(limits)
    assert compared.warnings
    assert all(any(warning[1:] in line for line in limits) for warning in compared.warnings)


def test_one_seed_gives_a_report_that_ranks_nothing(tmp_path):
    page = content(load_report_study(write_methods(tmp_path / "one", seeds=1)))
    assert "second seed" in page["because"]
    assert not page["decided"]
    assert "rank" not in table(section(page, "The ranking"), "method")["columns"]


def test_without_latency_curves_and_evaluations_there_is_a_report_too(study, tmp_path):
    folder = shutil.copytree(study, tmp_path / "bare")
    for name in ("latency", "curves", "evals"):
        shutil.rmtree(folder / name)
    document = load_report_study(folder)
    assert template_warnings(document, tmp_path) == []
    assert document.comparisons[0].n_documents == 0
    blocks = section(content(document), "The ranking")
    assert "No decode step was measured" in words(blocks)
    assert not any(block["kind"] == "table" and any("batch" in name for name in block["columns"]) for block in blocks)


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
    fitted = fit.fit(runs.read_runs(folder), laws.law_named("joint-moe"), n_starts=8)
    answer = recommend(fitted, Question(train_flops=1e12, serve_tokens=1e8))
    for name, document in (("fits", FIT.document(fitted)), ("recommendations", plain(answer))):
        (folder / name).mkdir()
        (folder / name / "joint-moe.json").write_text(json.dumps(document), encoding="utf-8")
    document = load_report_study(folder)
    page = content(document)
    assert page["title"] == "How many experts?"
    assert "methods" in words(section(page, "What was run"))
    assert not document.without_law
    blocks = section(page, "Which method?")
    assert any(block["kind"] == "figure" and block["path"] == "methods.svg" for block in blocks)
    assert len(document.comparisons) == 9
    assert "Compared separately: " in words(blocks)
    assert template_warnings(document, tmp_path) == []
