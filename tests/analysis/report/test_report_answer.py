"""The report of an answer alone: short, dated, with its inputs; other files are refused in one message."""

import json
import os
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import typst
from reported import altered, section, store, strings, tables, words
from typer.testing import CliRunner

import scaling
from analysis.decision.answer import answer as answer_of
from analysis.decision.answer import answer_document, read_answer
from analysis.decision.question import Question
from analysis.fitting.fit_file import load_fit
from analysis.report.build import build_report, compile_pdf, report_answer
from analysis.report.contents import content, write_contents
from analysis.report.subject import read_subject
from scaling.cli.main import app
from scaling.errors import InputError
from scaling.formatting import sentence, si, usd
from scaling.serving.service import Service
from scaling.values import FIT

JOINT = "published:joint-moe-2025"


def pages(pdf):
    """The number of pages of a PDF."""
    return len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))


@pytest.fixture(scope="module")
def planned():
    """An answer on a device from published constants."""
    question = Question(train_flops=1e21, serve_tokens=1e12, device="h100", service=Service(max_batch=256))
    return answer_of(load_fit(JOINT), question, law_file=JOINT)


@pytest.fixture(scope="module")
def file(planned, tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(json.dumps(answer_document(planned)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def alone(file):
    return content(read_subject(file))


def details_start(subject, folder):
    """The page on which the sections start, after page 1 and its figure."""
    write_contents(subject, folder)
    compile_pdf(folder, datetime(2026, 1, 1, tzinfo=UTC))
    fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=True)
    return json.loads(
        typst.query(folder / "report.typ", "<details>", field="value", one=True, root=folder, font_paths=fonts)
    )


def call(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_command_makes_a_report_of_an_answer_of_at_most_four_pages(file):
    done = call(file)
    assert done.exit_code == 0, done.output
    assert 3 <= pages(file.with_suffix(".pdf")) <= 4


def test_page_1_has_what_a_budget_owner_asks_for(alone, planned, file):
    best = planned.best
    tiles = {tile["label"]: tile["value"] for tile in alone["tiles"]}
    assert tiles["Experts, E"] == str(best.n_experts)
    assert [tiles["Active parameters"], tiles["Training tokens"]] == [si(best.n_active), si(best.tokens)]
    assert tiles["Lifetime cost"] == usd(best.cost.total)
    summary = words(alone["summary"])
    costs = {
        "to train": best.cost.train,
        "to serve": best.cost.serve,
        "per million": best.served.usd_per_million,
    }
    for what, cost in costs.items():
        assert re.search(rf"{re.escape(usd(cost))} {what}", summary), what
    assert f"a replica takes {best.served.n_devices} device" in summary
    assert JOINT in summary
    assert planned.made_from in summary
    changing = next(case for case in planned.what_if.cases if case.changes)
    assert f"were {changing.value}, E = {changing.n_experts} would be best" in summary
    assert "Next step: " in summary
    assert [block["kind"] for block in alone["summary"]].count("figure") == 1
    assert not alone["decided"]
    assert planned.recommendation.undecided_because
    for reason in planned.recommendation.undecided_because:
        assert sentence(reason) in alone["because"]


def test_the_figure_is_on_page_1_and_the_details_start_on_page_2(file, tmp_path):
    assert details_start(read_subject(file), tmp_path) == 2


@pytest.mark.slow
def test_an_answer_of_several_laws_takes_a_page_more_at_most_and_page_1_stands_alone(tmp_path):
    question = Question(train_flops=1e23, serve_tokens=5e12, device="h100")
    found = answer_of(load_fit("published:moe"), question, law_file="published:moe")
    path = tmp_path / "laws.json"
    store(path, answer_document(found))
    subject = read_subject(path)
    assert details_start(subject, tmp_path) == 2
    document = content(subject)
    advice = next(t for t in tables(section(document, "The decision in detail")) if "weight" in t["columns"])
    assert len(advice["rows"]) == len(found.recommendation.laws)
    assert not tables(section(document, "The law"))  # 55 constants, which stand with each law
    assert pages(build_report(path, tmp_path / "laws.pdf").path) <= 5


def test_a_published_law_is_not_said_to_be_fitted_here(alone):
    blocks = section(alone, "The law")
    said = words(blocks)
    assert "Its constants were not fitted here" in said
    assert not re.search("bootstrap|trunk|jackknife|BCa", said)
    (parameters,) = tables(blocks)
    assert all(row[-1].endswith("; published") for row in parameters["rows"])
    assert all("–" in row[2] for row in parameters["rows"])  # an interval, of its draws


def test_an_answer_is_dated_as_its_file_and_one_of_python_now(file, planned, tmp_path):
    path = shutil.copy(file, tmp_path / "old.json")
    os.utime(path, (1.7e9, 1.7e9))
    assert "November 2023" in content(read_subject(path))["kicker"]
    written = report_answer(planned, planned.fit, tmp_path / "now.pdf")
    assert written.path.read_bytes().startswith(b"%PDF-")


def test_the_same_file_gives_the_same_bytes_and_a_picture(file, tmp_path):
    one, two = (build_report(file, tmp_path / name, tmp_path / f"{name}.png") for name in ("a.pdf", "b.pdf"))
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.picture.is_file()


def test_no_number_is_written_as_a_program_would(alone, page):
    for document in (alone, page):
        prose = [
            text
            for part in (document["summary"], *(part["blocks"] for part in document["sections"]))
            for block in part
            if block["kind"] != "code"
            for text in strings(block)
        ]
        # A number of one digit before its exponent: a hash may hold a digit, an e and two digits too.
        written = r"E = \d+\.\d|\b1 (row|run|device|trunk|replica)s\b|(?<![0-9a-f])\d(\.\d+)?e[+-]?\d\d(?![0-9a-f])"
        wrong = [text for text in prose if re.search(written, text)]
        assert wrong == []


def test_the_public_face_reports_an_answer_that_was_read(file, tmp_path):
    answer = scaling.read_answer(file)
    assert pages(scaling.report(answer, tmp_path / "p.pdf").path) <= 4  # a published fit is found by its name
    elsewhere = replace(answer, law_file="mine.json")
    with pytest.raises(InputError, match="needs the fit behind it"):
        scaling.report(elsewhere, tmp_path / "p.pdf")
    assert scaling.report(file, tmp_path / "q.pdf").path.is_file()


def test_a_question_in_flops_has_no_money(tmp_path):
    answer = answer_of(load_fit(JOINT), Question(train_flops=1e21), law_file=JOINT)
    path = tmp_path / "flops.json"
    store(path, answer_document(answer))
    document = content(read_subject(path))
    assert "$" not in words(document["summary"])
    assert words(section(document, "What serving costs")).startswith("text The question counts FLOPs")
    assert tables(section(document, "The law"))[0]["rows"][0][1] == "35.91"


def test_the_fit_behind_an_answer_is_found_beside_it_and_another_is_refused(answer, joint, tmp_path):
    store(tmp_path / "fits" / "joint-moe.json", FIT.document(joint))
    path = tmp_path / "plan.json"
    store(path, answer_document(answer))  # names fits/joint-moe.json, from where it was asked
    assert read_subject(path).law_fit.params == joint.params
    store(tmp_path / "fits" / "joint-moe.json", FIT.document(replace(joint, objective=2 * joint.objective)))
    with pytest.raises(InputError, match="does not rest on"):
        read_subject(path)
    store(tmp_path / "moved.json", FIT.document(joint))
    assert read_subject(path, tmp_path / "moved.json").law_fit.n_runs == joint.n_runs


def test_an_answer_given_with_a_study_is_its_decision(answered, answer, tmp_path):
    other = tmp_path / "other.json"
    store(other, answer_document(altered(answer, undecided_because=("of this file",), decided=False)))
    done = call(answered, "--answer", other, "--out", tmp_path / "r.pdf")
    assert done.exit_code == 0, done.output
    assert pages(tmp_path / "r.pdf") <= 10
    assert read_answer(other).recommendation.undecided_because == ("of this file",)


@pytest.mark.parametrize("kind", ["fit", "damaged", "missing", "empty folder", "two answers"])
def test_wrong_input_is_one_message_and_exit_2(kind, file, joint, tmp_path):
    source, more = tmp_path / "wrong.json", []
    if kind == "fit":
        store(source, FIT.document(joint))
    elif kind == "damaged":
        source.write_text(file.read_text(encoding="utf-8")[:300], encoding="utf-8")
    elif kind == "empty folder":
        source = tmp_path
    elif kind == "two answers":
        source, more = file, ["--answer", file]
    done = call(source, *more, "--out", tmp_path / "r.pdf")
    assert done.exit_code == 2
    assert not done.stdout
    assert str(source) in done.stderr
    assert not (tmp_path / "r.pdf").exists()
    expected = {"fit": "but a fit", "damaged": "not JSON", "missing": "neither a study folder nor"}
    assert expected.get(kind, "") in done.stderr
