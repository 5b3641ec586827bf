"""An answer is one value and one file: written and read without loss, refused with its place and the remedy."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.decision.answer import Answer, answer, answer_document, parse_answer, read_answer
from analysis.decision.question import Question
from analysis.decision.tables import choices_table, crossovers_table, fits_table, replicas_table, what_if_table
from analysis.fitting.published import published
from analysis.latency.speeds import Speeds
from scaling.errors import InputError
from scaling.serving.step_time import ASSUMED

JOINT = published("joint-moe-2025")
SPEEDS = Speeds(np.tile(ASSUMED.coefficients()[:-1], (3, 1)), np.ones(11))
ON_A_DEVICE = Question(train_flops=1e21, requests_per_month=1e7, device="h100", n_experts=(1, 8))


@pytest.fixture(scope="module")
def found() -> Answer:
    return answer(JOINT, ON_A_DEVICE, SPEEDS, law_file="published:joint-moe-2025")


@pytest.fixture(scope="module")
def written(found):
    return json.loads(json.dumps(answer_document(found), allow_nan=False))


def test_a_file_holds_all_of_an_answer(found, written, tmp_path):
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(written))
    read = read_answer(path)
    assert replace(read, cost_curves=None) == replace(found, cost_curves=None)
    assert read.question.pricing == ON_A_DEVICE.pricing
    curves, before = read.cost_curves, found.cost_curves
    assert (curves.asked, curves.most_budget) == (before.asked, before.most_budget)
    np.testing.assert_array_equal(curves.plane.best, before.plane.best)
    np.testing.assert_array_equal(curves.plane.volumes, before.plane.volumes)
    assert curves.prices.equals(before.prices)


def test_the_document_has_the_recommendation_at_its_top(found, written):
    assert written["schema_version"] == 1
    assert written["recommendation"]["n_experts"] == found.best.n_experts
    assert {"alternatives", "probability_best", "decided", "warnings", "rivals", "what_if"} <= set(written)


def test_an_answer_knows_the_fit_behind_it(found):
    assert found.rests_on(JOINT)
    assert not found.rests_on(replace(JOINT, params={**JOINT.params, "c": 1.0}))
    other = answer(JOINT, replace(ON_A_DEVICE, months=6), what_if=False, cost_curves=False)
    assert other.fit_hash == found.fit_hash
    assert other.made_from != found.made_from


def test_the_best_of_several_fits_answers():
    lower = replace(JOINT, params={**JOINT.params, "c": 1.0})
    fits = {"lower": lower}
    question = Question(train_flops=1e21)
    found = answer(JOINT, question, law_file="first", compare_with=fits, what_if=False, cost_curves=False)
    assert found.law_file == "lower"
    assert found.rests_on(lower)
    assert fits_table(found).frame["name"].tolist() == ["lower", "first"]
    assert parse_answer(answer_document(found), "x") == found


def test_files_without_a_version_or_what_came_later_are_read(found, written):
    older = {
        key: value for key, value in written.items()
        if key not in ("schema_version", "what_if", "rivals", "cost_curves", "law_file", "fit_hash", "made_from")
    }  # fmt: skip
    read = parse_answer(older, "x")
    assert read.recommendation == found.recommendation
    assert (read.what_if, read.comparison, read.cost_curves) == (None, None, None)
    assert read.rests_on(JOINT)
    assert not read.rests_on(published("chinchilla-epoch"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema_version": 2}, ["schema_version", "2", "scaling recommend"]),
        ({"schema_version": "one"}, ["schema_version", "'one'"]),
        ({"decided": "perhaps"}, [": decided: ", "1", "scaling recommend"]),
        ({"question": {"train_flops": -1.0}}, ["train_flops", "-1", "scaling recommend"]),
        ({"question": {"train_flops": 1e20, "n_experts": ["many"]}}, ["question.n_experts[0]: "]),
    ],
)
def test_a_file_that_cannot_be_read_names_place_and_remedy(written, tmp_path, change, named):
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(written | change))
    with pytest.raises(InputError) as refused:
        read_answer(path)
    for words in (str(path), *named):
        assert words in str(refused.value)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("recommendation", "n_active"), -1.0, "recommendation.n_active: "),
        (("recommendation", "n_experts"), 10**9, "recommendation.n_experts: "),
        (("recommendation", "tokens"), "many", "recommendation.tokens: "),
        (("recommendation", "cost", "total"), -3.0, "recommendation.cost.total: "),
        (("recommendation", "loss_interval"), [3.0, 2.0], "recommendation.loss_interval: "),
        (("alternatives", 0, "loss"), 0, "alternatives[0].loss: "),
        (("probability_best",), {"8": 1.5}, "probability_best.8: "),
        (("expected_regret",), -0.1, "expected_regret: "),
        (("rivals",), {"rivals": [], "n_draws": "x"}, "comparison.n_draws: "),
        (("cost_curves", "prices", "n_experts"), None, "cost_curves.prices: "),
        (("cost_curves", "prices"), {}, "cost_curves.prices: has no column n_experts"),
    ],
)
def test_what_cannot_be_is_named_by_its_place_in_the_file(written, path, value, named):
    document = json.loads(json.dumps(written))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(InputError) as refused:
        parse_answer(document, "answer.json")
    assert named in str(refused.value)


def test_tables_have_what_the_answer_says(found):
    choices = choices_table(found)
    assert choices.frame["n_experts"].tolist() == [found.best.n_experts, *(
        choice.n_experts for choice in found.recommendation.alternatives
    )]  # fmt: skip
    assert choices.frame["cost_total"].tolist()[0] == found.best.cost.total
    assert "best in" not in choices.headings  # no draws, so no column
    replicas = replicas_table(found)
    assert replicas.frame["served_batch"].tolist()[0] == found.best.served.batch
    assert replicas.frame["served_replicas"].tolist()[0] == found.best.served.replicas
    cases = what_if_table(found)
    assert len(cases.rows) == len(found.what_if.cases)
    changing = what_if_table(found, changing=True)
    assert (0 if changing is None else len(changing.rows)) == sum(case.changes for case in found.what_if.cases)
    crossings = crossovers_table(found)
    assert (0 if crossings is None else len(crossings.rows)) == len(found.what_if.crossovers)


def test_without_a_device_and_what_if_there_are_no_such_tables():
    bare = answer(JOINT, Question(train_flops=1e21), what_if=False, cost_curves=False)
    assert (replicas_table(bare), what_if_table(bare), crossovers_table(bare), fits_table(bare)) == (None,) * 4
    assert choices_table(bare).cells[0][0] == str(bare.best.n_experts)
