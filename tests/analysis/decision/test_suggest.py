"""The value of runs not yet made: closed forms, an independent conditioning, and what is chosen by it."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from planted import PLANTED_MOE, moe_grid, table_of
from scipy.special import ndtri
from scipy.stats import norm

from analysis.decision.question import Question
from analysis.decision.suggest import MOST_CELLS, Candidates, choose, suggest
from analysis.decision.value_of_information import (
    Noise,
    RegretBelief,
    after_outcomes,
    outcome_weights,
    risks,
    run_noise,
)
from analysis.fitting.fit import fit
from analysis.laws import JOINT_MOE
from scaling.config.counts import train_flops
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.errors import InputError
from sweeps.calls import own_flops

DRAWS = 4_000
NORMALS = ndtri((np.arange(DRAWS) + 0.5) / DRAWS)  # a sample whose moments are those of the normal to 1e-3


def rng():
    return np.random.default_rng(0)


def closed_form(mean: float, prior: float, noise: float) -> float:
    """Expected value of sample information of two actions that differ by theta ~ N(mean, prior^2), seen with N(0,
    noise^2).

    s phi(d/s) - d Phi(-d/s), d = |mean|, s = prior^2/sqrt(prior^2 + noise^2): the unit normal loss of Raiffa and
    Schlaifer 1961, ch. 5, with the deviation of the posterior mean.
    """
    s, d = prior**2 / np.hypot(prior, noise), abs(mean)
    return s * norm.pdf(d / s) - d * norm.sf(d / s)


def two_actions(mean: float, prior: float):
    """Regrets of two actions whose costs differ by theta in every draw, and theta itself as the ln loss of a cell."""
    theta = mean + prior * NORMALS
    return np.stack([np.maximum(theta, 0.0), np.maximum(-theta, 0.0)], axis=1), theta[:, None]


CASES = [(0.0, 1.0, 1.0), (0.5, 1.0, 0.3), (-1.0, 0.7, 0.5), (0.05, 0.1, 0.1)]


@pytest.mark.parametrize(("mean", "prior", "noise"), CASES)
def test_linear_updates_give_the_closed_form_of_two_actions(mean, prior, noise):
    belief = RegretBelief.of_draws(*two_actions(mean, prior), Noise(noise))
    gain = belief.risk - belief.risk_after(belief.shifts(np.array([0]), np.ones(1)), rng())[0]
    # 512 strata of the surprise: the kinked mean is off by at most a stratum's width times its chance, 2/512 of s
    s = prior**2 / np.hypot(prior, noise)
    assert gain == pytest.approx(closed_form(mean, prior, noise), abs=2 * s / 512)


@pytest.mark.parametrize(("mean", "prior", "noise"), CASES)
def test_reweighted_draws_give_the_closed_form_too(mean, prior, noise):
    regrets, predicted = two_actions(mean, prior)
    after, _, effective = after_outcomes(regrets, outcome_weights(predicted, np.array([[noise**2]]), rng()))
    # 400 simulated outcomes: a posterior mean of deviation s is averaged to s/sqrt(400) a half, four of which are
    # allowed
    s = prior**2 / np.hypot(prior, noise)
    assert regrets.mean(axis=0).min() - after == pytest.approx(closed_form(mean, prior, noise), abs=4 * 0.5 * s / 20)
    assert effective > 50


def test_several_repeats_are_one_run_of_less_noise():
    belief = RegretBelief.of_draws(*two_actions(0.5, 1.0), Noise(1.0))
    one, nine = (belief.shifts(np.array([0]), np.array([float(times)])) for times in (1, 9))
    calm = RegretBelief.of_draws(*two_actions(0.5, 1.0), Noise(1 / 3))
    assert nine == pytest.approx(calm.shifts(np.array([0]), np.ones(1)), rel=1e-12)
    assert abs(nine[0, 0]) > abs(one[0, 0])


@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
def test_observing_run_after_run_conditions_on_all_of_them(shared):
    """The judge is the textbook formula, C - C h (h' C h + R)^-1 h' C, with R of all runs written out at once."""
    values = rng().standard_normal((300, 3 + 4)) @ rng().standard_normal((7, 7))
    noise = Noise(0.8, shared)
    belief = RegretBelief.of_draws(values[:, :3], values[:, 3:], noise)
    runs = [(0, 0), (1, 0), (2, 1), (0, 1), (0, 0)]  # cell, trunk
    belief = belief.begin_trunk().begin_trunk()
    for cell, trunk in runs:
        belief = belief.observe(cell, trunk, rng())
    covariance = np.cov(values, rowvar=False)
    cells, trunks = (np.array(column) for column in zip(*runs, strict=True))
    r = noise.deviation**2 * (shared * (trunks[:, None] == trunks) + (1 - shared) * np.eye(len(runs)))
    seen = covariance[np.ix_(3 + cells, 3 + cells)] + r
    expected = covariance - covariance[:, 3 + cells] @ np.linalg.solve(seen, covariance[3 + cells])
    scale = np.abs(covariance).max()
    assert belief.covariance[:7, :7] == pytest.approx(expected, abs=1e-10 * scale)


def test_a_branch_is_worth_less_than_a_run_of_its_own_and_as_much_where_nothing_is_shared():
    values = rng().standard_normal((300, 4)) @ rng().standard_normal((4, 4))
    for shared, compare in ((0.0, np.isclose), (0.8, np.less)):
        belief = (
            RegretBelief.of_draws(values[:, :2], values[:, 2:], Noise(0.5, shared)).begin_trunk().observe(0, 0, rng())
        )
        # another budget of the same size, by the same law: the trunk's part of the noise is seen again
        branch = np.linalg.norm(belief.shifts_on(np.array([0]), 0))
        alone = np.linalg.norm(belief.shifts(np.array([0]), np.ones(1)))
        assert compare(branch, alone)


def test_a_run_about_which_all_draws_agree_is_worth_nothing():
    regrets, _ = two_actions(0.1, 1.0)
    predicted = np.full((DRAWS, 1), 0.7)
    belief = RegretBelief.of_draws(regrets, predicted, Noise(0.01))
    assert belief.risk_after(belief.shifts(np.array([0]), np.ones(1)), rng())[0] == pytest.approx(
        belief.risk, abs=1e-12
    )
    after, _, effective = after_outcomes(regrets, outcome_weights(predicted, np.array([[1e-4]]), rng()))
    assert (after, effective) == (pytest.approx(regrets.mean(axis=0).min()), pytest.approx(DRAWS))
    assert choose(regrets, predicted, cells([1.0]), Noise(0.01), 10.0, rng()).picks == ()


def test_more_noise_is_worth_less():
    gains = []
    for noise in (0.1, 0.3, 1.0, 3.0):
        belief = RegretBelief.of_draws(*two_actions(0.3, 1.0), Noise(noise))
        gains.append(belief.risk - belief.risk_after(belief.shifts(np.array([0]), np.ones(1)), rng())[0])
    assert all(more > less > 0 for more, less in itertools.pairwise(gains))


def test_a_draw_without_an_answer_is_a_risk_of_a_fifth():
    assert risks(np.array([[0.1, np.nan]])).tolist() == [[0.1, 0.2]]


def test_noise_is_that_of_residuals_enlarged_and_trunks_share_what_was_planted():
    """600 trunks of three runs, .003 shared and .002 own: the share of the variance is 9/13, known to some .03."""
    chance = rng()
    trunks = np.repeat(np.arange(600), 3)
    residuals = 0.003 * chance.standard_normal(600)[trunks] + 0.002 * chance.standard_normal(1800)
    given = drawn()
    rmse = float(np.sqrt(np.mean(residuals**2)))
    repeated = replace(given, residuals=tuple(residuals), rmse_log=rmse, n_runs=1800, noise=None)
    noise = run_noise(repeated, trunks)
    assert noise.shared == pytest.approx(9 / 13, abs=0.09)
    assert noise.deviation == pytest.approx(rmse * np.sqrt(1800 / (1800 - len(given.free))))
    assert noise.of_trunk + noise.own == pytest.approx(noise.deviation**2)
    assert run_noise(replace(repeated, noise=0.02), trunks).deviation == 0.02
    assert (
        run_noise(repeated).shared == run_noise(repeated, np.arange(1800)).shared == 0.5
    )  # no trunk to estimate it from


# ----------------------------------------------------------------------------------------------------------- choice


def cells(costs, shapes=None):
    """Candidates of one token each, by their FLOPs."""
    n = len(costs)
    shape = np.arange(n) if shapes is None else np.array(shapes)
    ones = np.ones(n)
    return Candidates({}, shape, np.ones(n, dtype=int), ones, ones, 0.2 * ones, np.array(costs, dtype=float))


def test_by_the_exact_value_per_flop_among_many_single_cells():
    """Each cell measures its own mix of three independent directions: the judge conditions by the closed form of two
    actions, and every cell takes more than half of the budget, so that one is chosen."""
    chance = rng()
    draws = chance.standard_normal((DRAWS, 3))
    theta = draws @ [1.0, 0.4, 0.0]
    regrets = np.stack([np.maximum(theta, 0.0), np.maximum(-theta, 0.0)], axis=1)
    loads = chance.standard_normal((30, 3))
    costs = chance.uniform(0.55, 1.0, 30)
    predicted = draws @ loads.T
    suggestion = choose(regrets, predicted, cells(costs), Noise(0.5), 1.0, rng())
    mean = theta.mean()
    value = []
    for i in range(30):
        c = np.cov(theta, predicted[:, i])
        s = abs(c[0, 1]) / np.sqrt(c[1, 1] + 0.25)
        value.append((s * norm.pdf(mean / s) - abs(mean) * norm.sf(abs(mean) / s)) / costs[i])
    assert len(suggestion.picks) == 1
    # equal to within what 512 strata resolve
    assert value[suggestion.picks[0].cell] == pytest.approx(max(value), rel=0.02)


def test_one_run_that_could_change_nothing_is_repeated_where_several_would():
    """One moves the mean by s = .12, a sixth of the way to a change of mind; sixteen together by .35, which may do."""
    regrets, theta = two_actions(0.8, 0.5)
    assert closed_form(0.8, 0.5, 2.0) < 1e-9 < 1e-3 < closed_form(0.8, 0.5, 2.0 / 4)
    suggestion = choose(regrets, theta, cells([1.0]), Noise(2.0), 20.0, rng(), enough=0.0)
    assert len(suggestion.picks) > 1
    assert [pick.trunk for pick in suggestion.picks] == list(range(len(suggestion.picks)))  # a seed each


def test_the_budget_and_the_number_of_cells_are_kept_and_regret_never_rises():
    regrets, theta = two_actions(0.0, 1.0)
    suggestion = choose(regrets, theta, cells([1e-3]), Noise(5.0), 1.0, rng(), enough=0.0)
    assert len(suggestion.picks) <= MOST_CELLS
    suggestion = choose(regrets, theta * [1.0, 1.1], cells([0.3, 0.2], [0, 0]), Noise(1.0, 0.5), 1.0, rng(), enough=0.0)
    assert suggestion.train_flops == pytest.approx(sum(pick.train_flops for pick in suggestion.picks))
    assert suggestion.train_flops <= 1.0 + 1e-12
    for pick in suggestion.picks:
        assert pick.regret_after <= pick.regret_before


def test_it_stops_when_the_regret_is_low_enough():
    regrets, theta = two_actions(0.0, 1.0)
    few = choose(regrets, theta, cells([1.0]), Noise(0.3), 20.0, rng(), enough=0.1)
    many = choose(regrets, theta, cells([1.0]), Noise(0.3), 20.0, rng(), enough=0.0)
    assert len(few.picks) < len(many.picks)


def test_a_trunk_costs_what_the_sweep_will_train():
    """`sweeps.calls.own_flops` is the judge, in whatever order its budgets are added."""
    budgets = (400_000, 800_000, 1_600_000)
    trunk = [RunConfig(model=ModelConfig(n_experts=4, d_model=32), tokens=tokens) for tokens in budgets]
    tokens = np.array([cell.steps * cell.train.batch_tokens for cell in trunk], dtype=float)
    suggestion = replace(
        cells(np.ones(3), [0, 0, 0]),
        tokens=tokens,
        cooldown=np.array([float(cell.cooldown_steps * cell.train.batch_tokens) for cell in trunk]),
        flops_per_token=np.array([train_flops(cell) for cell in trunk]) / tokens,
    )
    for order in itertools.permutations(range(3)):
        cost = suggestion.train_flops[order[0]]
        for count in (1, 2):
            cost += suggestion.added_flops(np.array([order[count]]), list(order[:count]))[0]
        assert cost == pytest.approx(own_flops(tuple(trunk)), rel=1e-12)


# ------------------------------------------------------------------------------------------------------- suggestions

INSIDE = {"omega": 0.31, "delta": -0.1}


def drawn(spread=0.05, count=150, experts=(1, 2, 4, 8, 16), **changes):
    """A fit of a planted study whose draws jitter around the truth in the parameters of E."""
    planted = dict(PLANTED_MOE | changes)
    fitted = fit(table_of(moe_grid(experts=experts, params=planted)), JOINT_MOE, pin=planted)
    chance = rng()
    free = ("delta", "omega")
    draws = {name: tuple(planted[name] + spread * chance.standard_normal(count)) for name in free}
    pinned = {name: pin for name, pin in fitted.pinned.items() if name not in draws}
    return replace(fitted, draws=draws, pinned=pinned, rmse_log=0.002)


def new_cells(experts=(1, 2, 4, 8, 16, 32)):
    """Sizes of the planted grid and between them, three budgets each."""
    table = moe_grid(experts=experts, widths=(32, 48, 64, 96, 128), tokens=(1e6, 4e6, 1.6e7))
    shape = table.groupby(["n_experts", "d_model"]).ngroup().to_numpy()
    columns = {name: table[name].to_numpy(dtype=float) for name in JOINT_MOE.columns}
    tokens = table["tokens"].to_numpy(dtype=float)
    active = table["n_active"].to_numpy(dtype=float)
    return Candidates(columns, shape, table["n_experts"].to_numpy(), active, tokens, 0.2 * tokens, 6.0 * active)


def test_where_draws_disagree_cells_are_chosen_that_lower_the_regret_within_the_budget():
    given = drawn(**INSIDE)
    suggestion = suggest(given, Question(train_flops=3e13), new_cells(), given.largest_train_flops, rng())
    assert suggestion.picks
    assert 0 <= suggestion.regret_after < suggestion.regret_before
    assert suggestion.train_flops <= given.largest_train_flops
    assert all(f"E = {new_cells().n_experts[pick.cell]}" in pick.reason for pick in suggestion.picks)
    assert any("80%" in doubt or "1%" in doubt for doubt in suggestion.undecided_because)  # probability or regret


def test_where_draws_agree_at_an_edge_the_cell_lies_beyond_it_with_its_shorter_budgets():
    given = drawn(spread=1e-4)
    suggestion = suggest(given, Question(train_flops=3e13), new_cells(), 2 * given.largest_train_flops, rng())
    chosen = [pick.cell for pick in suggestion.picks]
    assert set(new_cells().n_experts[chosen]) == {32}
    assert suggestion.regret_after is None
    assert len(set(new_cells().shape[chosen])) == 1
    assert [pick.trunk for pick in suggestion.picks] == [0] * len(chosen)
    assert "edge" in suggestion.picks[0].reason
    assert suggestion.train_flops <= 2 * given.largest_train_flops


@pytest.mark.parametrize(
    ("given", "flops", "named"),
    [
        (lambda: replace(drawn(), draws={}), 1e13, "bootstrap"),
        (lambda: drawn(spread=1e-5, omega=1.5, delta=0.6), 1e13, None),  # the recommendation is decided
        (lambda: drawn(**INSIDE), 1.0, "flops"),
        (lambda: drawn(spread=1e-4), 1e11, "flops"),  # the cells beyond the edge are out of reach
    ],
)
def test_what_cannot_be_suggested_names_what_to_change(given, flops, named):
    with pytest.raises(InputError) as refused:
        suggest(given(), Question(train_flops=3e13), new_cells(), flops, rng())
    assert re.findall(r"`(\w+)`", str(refused.value)) == ([named] if named else [])


def test_nothing_is_suggested_that_would_not_help():
    given = drawn(**INSIDE)
    varied = new_cells()
    blind = replace(varied, columns={**varied.columns, "n_experts": np.ones(len(varied))})  # delta, omega hardly show
    with pytest.raises(InputError, match="`flops`"):
        suggest(replace(given, noise=10.0), Question(train_flops=3e13), blind, 1e12, rng())
