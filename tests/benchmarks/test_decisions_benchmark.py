"""The benchmark of decisions: its truths, its arithmetic of reliability, and a tiny run of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from analysis.fitting import fitted_to
from analysis.laws.model_family import JOINT_MOE_2025
from benchmarks import decisions
from benchmarks.truths import TRUTHS
from scaling.errors import InputError


def _of_kind(kind, **wanted):
    """The first world of a kind whose truth has an answer."""
    for seed in range(60):
        here = decisions.world(seed)
        if here.kind != kind:
            continue
        found = decisions.oracle(here)
        if all(getattr(found, name) < value for name, value in wanted.items()):
            return here, found
    raise AssertionError(kind)


def test_the_oracles_choice_costs_nothing_and_the_others_more():
    for kind in decisions.KINDS:
        found = _of_kind(kind)[1]
        assert found.of_expert_count(found.best) == 0.0
        others = [found.of_expert_count(e) for e in decisions.EXPERTS if e != found.best]
        assert min(others) == pytest.approx(found.lead)
        assert min(others) > 0
        assert max(others) <= decisions.MOST_REGRET
        assert decisions.world(3).params == decisions.world(3).params


@pytest.mark.parametrize("kind", decisions.KINDS)
def test_the_oracles_model_costs_nothing_and_another_size_money_or_budget(kind):
    here, found = _of_kind(kind)
    solved = decisions.SizeOptimiser(here.exact, here.question).solve(decisions.EXPERTS, dict(here.params), 1)
    best = solved.by_experts[found.best]
    n, d = float(best.n_active[0]), float(best.tokens[0])
    # Both are of one search; where the budget binds, its allowance of 1e-9 (`search.least_cost`) shows as an overrun.
    assert found.of_model(found.best, n, d) == pytest.approx((0.0, 0.0), abs=1e-8)
    for factor in (0.5, 0.8):  # smaller models keep all limits but the budget
        assert max(found.of_model(found.best, factor * n, d / factor)) > 1e-4


def test_what_cannot_answer_costs_the_most_there_is():
    here, _ = _of_kind("money")
    found = decisions.Oracle(here, {1: 0.3, 2: 0.0, 4: float("nan")}, 1.0, None)
    assert (found.best, found.lead) == (2, 0.3)
    assert found.of_expert_count(4) == decisions.MOST_REGRET
    assert decisions.Oracle(here, {1: float("nan"), 2: 0.0}, 1.0, None).lead == decisions.MOST_REGRET


def test_truths_differ_in_their_best_expert_count():
    best = {decisions.oracle(decisions.world(seed)).best for seed in range(14)}
    assert len(best) >= 5


def test_the_family_that_the_runs_tell_is_that_of_the_truth():
    table = decisions.measured(decisions.world(0), np.random.default_rng(0))
    family = fitted_to.family_of(table)
    n_active = np.geomspace(1e8, 1e11, 20)
    for e in decisions.EXPERTS:
        derived, true = family.sizes(n_active, e), JOINT_MOE_2025.sizes(n_active, e)
        for name in ("n_total", "n_layers", "d_model"):
            # Polynomials solved for on five widths, evaluated ten times beyond: rounding grows with the cube.
            np.testing.assert_allclose(getattr(derived, name), getattr(true, name), rtol=1e-6)


def test_noise_is_of_the_size_it_says_and_shared_by_trunks(monkeypatch):
    monkeypatch.setattr(decisions, "RATIOS", (5.0, 20.0))
    left, here = [], decisions.world(0)
    exact = decisions.laws.JOINT_MOE.log_loss(
        here.params, {n: decisions.grid(here.seeds)[n].to_numpy(float) for n in decisions.laws.JOINT_MOE.columns}
    )
    for seed in range(60):
        table = decisions.measured(here, np.random.default_rng(seed))
        frame = table.frame.assign(left=np.log(table.column("loss_val")) - exact)
        left.append(frame.pivot_table(index="trunk_id", columns=frame.groupby("trunk_id").cumcount(), values="left"))
    pairs = np.concatenate([one.to_numpy() for one in left])  # 1,800 trunks or more
    assert len(pairs) >= 1_800
    # Four standard errors: (1 - .4^2)/sqrt(1800) = .02 of the correlation, 1/sqrt(7200) = 1.2 % of the deviation.
    assert np.corrcoef(pairs.T)[0, 1] == pytest.approx(decisions.SHARED, abs=0.08)
    assert pairs.std() == pytest.approx(here.noise, rel=0.05)


def test_reliability_of_numbers_counted_by_hand():
    """Ten at .95 of which nine are right: .9 beside .95, se sqrt(.95 x .05/10) = .0689. Four at .25, all right: se
    .2165."""
    stated = np.array([0.95] * 10 + [0.25] * 4 + [1.0, 0.0, 0.3])
    right = np.array([True] * 9 + [False] + [True] * 4 + [True, False, False])
    rows = {row["from"]: row for row in decisions.reliability(stated, right)}
    assert set(rows) == {0.0, 0.2, 0.3, 0.9}
    assert rows[0.9]["count"] == 11
    assert rows[0.9]["stated"] == pytest.approx(10.5 / 11)
    assert rows[0.9]["right"] == pytest.approx(10 / 11)
    assert rows[0.2]["standard_error"] == pytest.approx(np.sqrt(0.25 * 0.75 / 4))
    assert not rows[0.2]["within"]  # .75 off, three errors are .65
    assert rows[0.3]["count"] == 1  # .3 begins its tenth, though 10 x .3 may round below 3
    assert rows[0.0]["within"]


def test_probabilities_that_are_shares_are_called_calibrated_and_certain_ones_that_are_not_are_not():
    """Bold probabilities halve the doubt: in a tenth of 1,000 to 4,000 they are a twentieth off or more, and 3 errors
    .047."""
    rng = np.random.default_rng(0)
    stated = rng.random(20_000)
    right = rng.random(20_000) < stated
    assert all(row["within"] for row in decisions.reliability(stated, right))
    bold = np.where(stated > 0.5, 1 - (1 - stated) / 2, stated / 2)
    rows = {row["from"]: row["within"] for row in decisions.reliability(bold, right)}
    assert [rows[tenth] for tenth in (0.1, 0.2, 0.7, 0.8)] == [False] * 4


def _record(best, chosen, stated, decided, lead=0.1, regret=0.0):
    return {
        "best": best, "chosen": chosen, "stated": stated, "decided": decided, "lead": lead, "regret": regret,
        "regret_of_E": regret, "overrun": 0.0, "expected_regret": 0.01, "cpu_s": 1.0,
    }  # fmt: skip


def test_the_summary_of_studies_counted_by_hand():
    sure, split = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.6, 0.4, 0.0, 0.0]
    found = decisions.summary(
        [
            _record(4, 4, sure, True),
            _record(8, 4, sure, True, regret=0.04),
            _record(8, 4, split, False, regret=0.3),
            _record(32, 4, split, False, lead=0.2, regret=0.5),
            _record(4, 4, split, False, lead=0.01),
            {"failed": "no fit"},
        ]
    )
    assert (found["studies"], found["without_an_answer"], found["decided"]) == (6, 1, 2)
    assert found["regret_of_decided"]["mean"] == pytest.approx(0.02)
    assert found["right_of_decided"]["mean"] == 0.5
    assert (found["clear"], found["clear_inside"]) == (4, 3)
    assert found["decided_of_clear"]["mean"] == pytest.approx(2 / 4)
    assert found["decided_of_clear_inside"]["mean"] == pytest.approx(2 / 3)
    assert sum(row["count"] for row in found["chosen"]) == 5
    assert sum(row["count"] for row in found["every"]) == 5 * len(decisions.EXPERTS)
    with pytest.raises(InputError, match="no study"):
        decisions.summary([{"failed": "no fit"}])


def test_a_tiny_run_gives_the_document_and_goes_on_from_its_lines(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(decisions, "DRAWS", 20)
    monkeypatch.setattr(decisions, "BLOCKS", (*decisions.BLOCKS[:3], 15))
    out = tmp_path / "lines"
    decisions.main(["--studies", "5", "--out", str(out), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["studies"] == 5
    assert sum(row["count"] for row in document["chosen"]) == 5 - document["without_an_answer"]
    lines = out.read_text().splitlines()
    out.write_text("\n".join(lines[:3]) + "\n")
    kept = [json.loads(line) for line in lines]

    def again(seed, free, truths):
        assert seed >= 3, "what is in the file is not done again"
        return kept[seed]

    monkeypatch.setattr(decisions, "study", again)
    decisions.main(["--studies", "5", "--out", str(out)])
    assert "the E chosen" in capsys.readouterr().out
    assert [json.loads(line) for line in out.read_text().splitlines()] == kept


@pytest.mark.parametrize("name", TRUTHS)
def test_every_truth_gives_losses_like_those_of_runs_and_falls_with_size_and_tokens(name):
    for seed in range(4):
        here = decisions.world(seed, truths=(name,))
        assert here.params == decisions.world(seed, truths=(name,)).params
        losses = decisions.measured(here, np.random.default_rng(0)).column("loss_val")
        assert 1.5 < losses.min() < losses.max() < 20
        frame = decisions.grid()
        columns = {column: frame[column].to_numpy(float) for column in here.truth.law.columns}
        exact = frame.assign(exact=here.truth.law.loss(here.params, columns))
        for _, same in exact.groupby(["n_experts", "d_model"]):
            assert (np.diff(same.sort_values("tokens")["exact"]) < 0).all()
        ratio = exact["tokens"] / exact["n_active"]
        for _, same in exact.groupby([exact["n_experts"], ratio.round(6)]):
            assert (np.diff(same.sort_values("n_active")["exact"]) < 0).all()


def test_truths_are_drawn_evenly_and_the_first_is_the_joint_law():
    names = tuple(TRUTHS)
    laws = [decisions.world(seed, truths=names).truth.law.name for seed in range(100)]
    assert {laws.count(each) > 8 for each in set(laws)} == {True}  # 20 +- 4 of each
    assert len(set(laws)) == len(names)
    assert decisions.world(5, truths=("joint-moe",)).params == decisions.world(5).params


def test_the_mixture_and_the_single_law_answer_the_same_runs(capsys, monkeypatch):
    monkeypatch.setattr(decisions, "DRAWS", 10)
    monkeypatch.setattr(decisions, "STARTS", 4)
    decisions.main(["--studies", "1", "--truths", "joint-moe", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["by_truth"].keys() == {"joint-moe"}
    for found in (document, document["single"]):
        assert sum(row["count"] for row in found["chosen"]) == 1
    with pytest.raises(SystemExit):
        decisions.main(["--truths", "joint-moe,hofman"])
