"""A planted study with its fit and its answer, made, read and laid out once for all tests of the report."""

import numpy as np
import pytest
from reported import quick_checks, store
from synthetic import cells, write_study

from analysis import laws
from analysis.decision.answer import answer as answer_of
from analysis.decision.answer import answer_document
from analysis.decision.question import Question
from analysis.fitting import bootstrap, fit
from analysis.report.contents import content
from analysis.report.study import load_report_study
from analysis.tables import runs
from scaling.values import FIT

CONFIGS = cells(experts=(1, 4, 8), widths=(32, 48, 64), tokens=(500_000, 1_000_000, 2_000_000))
BUDGET, SERVED = 1e13, 1e8


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quick_checks(monkeypatch)


@pytest.fixture(scope="session")
def configs():
    return CONFIGS


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """A study with runs, evaluations and latency, but neither fits nor recommendations."""
    return write_study(tmp_path_factory.mktemp("report") / "planted", configs=CONFIGS)


@pytest.fixture(scope="session")
def joint(bare):
    """A joint fit of it with few draws."""
    table = runs.read_runs(bare)
    found = fit.fit(table, laws.JOINT_MOE, n_starts=16)
    return bootstrap.bootstrap(found, table, 60, np.random.default_rng(0))


@pytest.fixture(scope="session")
def answer(joint):
    """The answer from that fit."""
    with pytest.MonkeyPatch.context() as patch:
        quick_checks(patch)
        return answer_of(joint, Question(train_flops=BUDGET, serve_tokens=SERVED), law_file="fits/joint-moe.json")


@pytest.fixture(scope="session")
def answered(bare, joint, answer, tmp_path_factory):
    """That study with the fit and the answer; no test changes it."""
    folder = write_study(tmp_path_factory.mktemp("answered") / "planted", configs=CONFIGS)
    store(folder / "fits" / "joint-moe.json", FIT.document(joint))
    store(folder / "recommendations" / "joint-moe.json", answer_document(answer))
    return folder


@pytest.fixture(scope="session")
def loaded(answered):
    """That study as read."""
    with pytest.MonkeyPatch.context() as patch:
        quick_checks(patch)
        return load_report_study(answered)


@pytest.fixture(scope="session")
def page(loaded):
    return content(loaded)
