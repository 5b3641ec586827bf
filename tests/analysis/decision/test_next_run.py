"""The next run: its tokens per parameter are plausible, and its regret is that of the verdict, to the digit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import PLANTED_MOE, moe_grid, table_of

from analysis.decision.next_run import most_informative_run, run_towards
from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommend import recommend, recommend_with_regrets
from analysis.decision.size_search import SearchSpace, least_loss
from analysis.decision.suggest import Candidates, suggest
from analysis.fitting.fit import Fit, fit
from analysis.fitting.studied import Studied, plausible_ratios
from analysis.latency.speeds import with_speed
from analysis.laws import JOINT_MOE
from scaling.cli.serving_options import speeds_of
from scaling.serving.service import SERVICE
from scaling.values import plain, typed

EXPERTS = (1, 2, 4, 8, 16)
INSIDE = {"omega": 0.31, "delta": -0.1}  # the best E lies within those studied
ASKED = Question(train_flops=3e13)


def drawn(spread: float = 0.05, tokens=(1e6, 4e6, 1.6e7), **changes: float) -> Fit:
    """A fit of a planted study whose draws jitter around the truth in the parameters of E."""
    planted = dict(PLANTED_MOE | INSIDE | changes)
    table = table_of(moe_grid(experts=EXPERTS, tokens=tokens, params=planted))
    fitted = fit(table, JOINT_MOE, pin=planted)
    chance = np.random.default_rng(0)
    draws = {name: tuple(planted[name] + spread * chance.standard_normal(150)) for name in ("delta", "omega")}
    pinned = {name: pin for name, pin in fitted.pinned.items() if name not in draws}
    return replace(fitted, draws=draws, pinned=pinned, rmse_log=0.002)


def free_ratio(given: Fit, n_experts: int = 4) -> float:
    """Tokens per parameter of least loss at the compute of the largest run, by the law alone."""
    optimum = least_loss(SearchSpace(given, n_experts, given.params), np.array([given.largest_train_flops]))
    return float(optimum.tokens[0] / optimum.n_active[0])


# Fits that divide compute as nobody trains: the term of tokens, or that of size, is next to nothing.
@pytest.mark.parametrize(("changes", "few"), [({"b": 6.0}, True), ({"b": 0.6}, True), ({"a": 3.0}, False)])
@pytest.mark.parametrize("studied", [(20.0, 60.0), (1.0, 100.0), None])
def test_a_run_that_is_proposed_has_plausible_tokens_per_parameter(changes, few, studied):
    given = drawn(**changes)
    given = replace(given, studied={} if studied is None else dict.fromkeys(EXPERTS, Studied(studied)))
    low, high = plausible_ratios(given)
    assert free_ratio(given) < 0.1 * low if few else free_ratio(given) > 5 * high
    regrets = np.abs(np.random.default_rng(1).standard_normal((150, len(EXPERTS))))
    runs = [
        most_informative_run(given, EXPERTS, regrets, 4),
        run_towards(given, 16, 1e6, 1e7),  # at the edge
        run_towards(given, 4, 1e9, 1e7),  # beyond the largest run, at a hundredth of a token per parameter
        run_towards(given, 4, 1e5, 1e12),
    ]
    for run in filter(None, runs):
        assert low * (1 - 1e-9) <= run.tokens / run.n_active <= high * (1 + 1e-9)
        assert run.train_flops == pytest.approx(6.0 * run.n_active * run.tokens)
    assert all(runs[1:])


def test_a_run_within_the_plausible_range_is_where_the_law_has_it():
    given = drawn(tokens=(2.5e5, 1e6, 4e6, 1.6e7))
    low, high = plausible_ratios(given)
    assert low < free_ratio(given, 16) < high
    run = run_towards(given, 16, 1e6, 1e7)
    assert run.tokens / run.n_active == pytest.approx(free_ratio(given, 16), rel=1e-6)


def test_a_run_nearer_to_an_answer_has_its_tokens_per_parameter_and_at_most_its_compute():
    given = drawn()
    largest = given.largest_train_flops
    for times, compute in ((100.0, 3.0), (2.0, 2.0)):
        size = np.sqrt(times * largest / (6 * 40.0))
        run = run_towards(given, 4, size, 40.0 * size)
        assert run.tokens / run.n_active == pytest.approx(40.0)
        assert run.train_flops == pytest.approx(compute * largest)
        assert run.n_experts == 4
    assert run_towards(given, 4, 1e5, 1e6) is None


def unanswerable(given: Fit, count: int) -> Fit:
    """In `count` of the draws experts bring nothing and cost much."""
    delta = np.array(given.draws["delta"])
    delta[:count] += 1.0
    return replace(given, draws={**given.draws, "delta": tuple(delta)})


def cells(given: Fit) -> Candidates:
    table = moe_grid(experts=EXPERTS, tokens=(1e6, 4e6, 1.6e7))
    columns = {name: table[name].to_numpy(dtype=float) for name in JOINT_MOE.columns}
    tokens, active = table["tokens"].to_numpy(dtype=float), table["n_active"].to_numpy(dtype=float)
    shape = table.groupby(["n_experts", "d_model"]).ngroup().to_numpy()
    return Candidates(columns, shape, table["n_experts"].to_numpy(), active, tokens, 0.2 * tokens, 6.0 * active)


def questions() -> list[tuple[Fit, Question]]:
    """Where all can answer; where some draws cannot; and where the E of the estimate is not that of least regret."""
    plain = drawn()
    best = recommend(drawn(1e-5), ASKED).recommendation
    tight = Question(target_loss=best.loss, memory_gb=1.5 * best.memory_bytes / 1e9)
    skewed = replace(plain, draws={**plain.draws, "omega": tuple(np.array(plain.draws["omega"]) + 0.04)})
    return [(plain, ASKED), (unanswerable(drawn(0.01), 15), tight), (skewed, ASKED)]


@pytest.mark.parametrize("number", range(3))
def test_the_regret_now_is_the_recommendations_to_the_digit_wherever_it_is_said(number):
    given, question = questions()[number]
    answer = recommend(given, question)
    chosen = answer.recommendation
    assert not answer.decided
    stated = answer.expected_regret
    assert stated == chosen.regret
    assert answer.next_run.regret_before == stated
    suggestion = suggest(given, question, cells(given), given.largest_train_flops, np.random.default_rng(0))
    assert suggestion.regret_before == suggestion.picks[0].regret_before == stated
    assert suggestion.n_experts == chosen.n_experts
    if number != 1:
        assert suggestion.unsettled is None
        # not so where draws lack an answer: a run that shows it makes one choose an E of more regret
        assert max(suggestion.regret_after, answer.next_run.regret_after) < stated


def test_the_regret_now_agrees_at_draws_of_the_devices_speed_too():
    """As a file keeps the question: the draws follow from the engine in it."""
    service, speeds = with_speed(SERVICE, "h100")
    asked = Question(train_flops=3e13, serve_tokens=1e9, device="h100", service=service)
    given = drawn()
    answer = recommend(given, asked, speeds)
    again = typed(Question, plain(asked), "x")
    restored = speeds_of(again.service, again.device, None)
    assert np.array_equal(restored.coefficients, speeds.coefficients)
    assert recommend(given, again, restored).expected_regret == answer.expected_regret
    suggestion = suggest(
        given, again, cells(given), given.largest_train_flops, np.random.default_rng(0), speeds=restored
    )
    assert suggestion.regret_before == answer.expected_regret


def test_the_verdict_names_the_e_of_less_regret_than_that_of_the_estimate():
    given, question = questions()[2]
    answer = recommend(given, question)
    least = min((answer.recommendation, *answer.alternatives), key=lambda choice: choice.regret)
    assert least.n_experts != answer.recommendation.n_experts
    assert any(f"that of E = {least.n_experts} is" in doubt for doubt in answer.undecided_because)


def test_a_run_that_would_only_confirm_the_e_of_least_regret_is_not_proposed():
    """The E of the estimate costs .3 in every draw and another nothing: a run teaches nothing, though the regret of
    what is recommended would fall."""
    given = drawn()
    regrets = np.tile([0.3, 0.0, 0.4, 0.5, 0.6], (150, 1))
    assert most_informative_run(given, EXPERTS, regrets, 1) is None


def test_where_no_single_run_changes_the_choice_several_are_still_looked_for():
    """`next_run` is None and the draws disagree: `suggest` chooses a set, or says that the budget is too small."""
    given = replace(drawn(0.02), noise=0.3)
    answer, regrets = recommend_with_regrets(given, ASKED)
    assert answer.next_run is None
    assert regrets is not None
    assert answer.expected_regret > 0.01
    assert SizeOptimiser(given, ASKED).estimate(EXPERTS).ranked()[0] == answer.recommendation.n_experts
    many = suggest(given, ASKED, cells(given), 30 * given.largest_train_flops, np.random.default_rng(0))
    assert len(many.picks) > 1
