"""Validation: unseen runs are predicted as well as is claimed, evidence finds planted laws, influence finds planted
faults."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from planted import EPOCH_MAP, moe_grid, table_of
from scipy import optimize, stats

from analysis import figures, laws
from analysis.fitting.bootstrap import bootstrap
from analysis.fitting.fit import fit
from analysis.fitting.objective import Objective
from analysis.fitting.refit import refit
from analysis.fitting.roll_out import roll_out, selected_runs, share_interval
from analysis.laws import HOFFMANN, JOINT_MOE
from analysis.tables import runs
from analysis.validation import law_comparison
from analysis.validation.held_out import leave_one_expert_count_out
from analysis.validation.influence import sensitivity
from analysis.validation.law_comparison import compare_laws, pseudo_bma_plus, scale_and_correlation, stacking_weights
from analysis.validation.residuals import diagnose
from scaling.errors import InputError

DENSE = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.36}
R = np.random.default_rng


def dense_runs(noise, seed=0, shared=0.0, sizes=10, budgets=6):
    """Dense models on a grid of N and D with losses by hoffmann; a trunk a size, with an error of its own
    (`shared`)."""
    rng, rows = R(seed), []
    for size in np.geomspace(1e8, 3e9, sizes):
        own = shared * rng.standard_normal()
        for tokens in np.geomspace(1e9, 3e10, budgets):
            rows.append({"trunk_id": f"{size:.4g}", "n_active": size, "tokens": tokens, "n_experts": 1,
                         "train_flops": 6 * size * tokens, "error": own + noise * rng.standard_normal()})  # fmt: skip
    frame = pd.DataFrame(rows)
    loss = HOFFMANN.loss(DENSE, {name: frame[name].to_numpy(copy=True) for name in HOFFMANN.columns})
    return frame.assign(loss_val=loss * np.exp(frame.pop("error")))


@pytest.fixture(scope="module")
def moe():
    return table_of(moe_grid(experts=(1, 2, 4, 8, 16), noise=0.003))


# Roll-out and expert counts left out


@pytest.mark.parametrize(("inside", "n"), [(0, 7), (7, 7), (11, 12), (3, 40)])
def test_the_interval_of_a_share_is_the_exact_binomial_one(inside, n):
    judge = stats.binomtest(inside, n).proportion_ci(0.95, method="exact")
    assert share_interval(inside / n, n) == pytest.approx((judge.low, judge.high), abs=1e-12)


def test_what_lies_on_the_law_is_predicted_exactly_and_noise_scales_the_error():
    errors = {}
    for noise in (0.0, 0.002, 0.008):
        table = table_of(dense_runs(noise).drop(columns="trunk_id"))
        found = roll_out(table, HOFFMANN, rng=R(0), cuts=[2e20], resamples=2)
        errors[noise] = found.overall.median_error
        (cut,) = found.cuts
        assert cut.n_fitted + cut.summary.n == len(table)
        assert all(run.train_flops > 2e20 and run.ratio > 1 for run in cut.runs)
    # The minimum is found to 1e-11 of the objective, so predictions of exact runs are good to far below 1e-4 %.
    assert errors[0.0] < 1e-4
    # Errors are linear in small noise: four times, but for the corner of the Huber objective.
    assert 2.5 < errors[0.008] / errors[0.002] < 6


def test_no_trunk_is_both_fitted_and_predicted():
    """Two trunks straddle the cut, one begins above it: only the last is predicted. Without it, the two are held
    out."""
    frame = dense_runs(0.002, sizes=8, budgets=4)
    late = dense_runs(0.002, seed=1, sizes=8, budgets=4).query("n_active > 2.9e9 and tokens > 2.9e10")
    cut = 3e20
    with_late = table_of(pd.concat([frame, late.assign(trunk_id="late")], ignore_index=True))
    (part,) = roll_out(with_late, HOFFMANN, rng=R(0), cuts=[cut], resamples=2).cuts
    assert {run.trunk for run in part.runs} == {"late"}
    assert part.n_fitted == (frame["train_flops"] <= cut).sum()
    left = int((frame["train_flops"] > cut).sum())
    assert part.notes == (f"{left} points above the cut of 2 trunks fitted below were left out",)
    (part,) = roll_out(table_of(frame), HOFFMANN, rng=R(0), cuts=[cut], resamples=2).cuts
    beyond = frame.groupby("trunk_id")["train_flops"].transform("max") > cut
    assert part.n_fitted == (~beyond).sum()
    assert {run.trunk for run in part.runs} == set(frame.loc[beyond, "trunk_id"])
    assert all(run.train_flops > cut for run in part.runs)
    assert "held out whole" in part.notes[0]
    (part,) = roll_out(table_of(frame), HOFFMANN, rng=R(0), cuts=[cut], resamples=2, keep_trunks=True).cuts
    assert part.n_fitted == (frame["train_flops"] <= cut).sum()
    assert part.summary.n == left


def test_a_cut_below_which_nothing_is_determined_is_listed_with_the_reason(moe):
    found = roll_out(moe, JOINT_MOE, rng=R(0), cuts=[1.0, 4e12, 1e30], resamples=2)
    assert [part.summary for part in found.cuts] == [None, None, None]
    low, single, all_below = (part.reason for part in found.cuts)
    assert low == "no run is left to fit"
    assert "every run has the same n_active" in single
    assert all_below == "no run is left to predict"
    assert found.overall is None
    assert "nothing could be predicted" in found.verdict()
    with pytest.raises(InputError, match="cuts are training FLOPs above 0"):
        roll_out(moe, JOINT_MOE, rng=R(0), cuts=[-1.0])
    with pytest.raises(InputError, match="train_flops"):
        roll_out(table_of(moe.frame.drop(columns="train_flops")), JOINT_MOE, rng=R(0))


def test_an_expert_count_on_the_law_is_predicted_and_one_off_it_is_not(moe):
    found = leave_one_expert_count_out(moe, JOINT_MOE, rng=R(0), resamples=40)
    assert {part.label: part.kind for part in found.parts} == {
        "E = 1": "extrapolation", "E = 2": "interpolation", "E = 4": "interpolation", "E = 8": "interpolation",
        "E = 16": "extrapolation",
    }  # fmt: skip
    inside = found.summary("interpolation")
    # Of 60 predictions at 95 %, fewer than 51 inside has probability 4e-4 if they were independent.
    assert inside.n == 60
    assert inside.n_inside >= 51
    assert inside.median_error < 2 * 100 * 0.003
    off = table_of(moe.frame, loss_val=moe.frame["loss_val"] * np.where(moe.frame["n_experts"] == 4, 1.05, 1.0))
    parts = {part.label: part for part in leave_one_expert_count_out(off, JOINT_MOE, rng=R(0), resamples=10).parts}
    assert parts["E = 4"].summary.n_inside == 0
    assert parts["E = 4"].summary.bias == pytest.approx(100 * (1 / 1.05 - 1), abs=0.5)


def test_leaving_out_what_is_not_there_is_an_error(moe):
    with pytest.raises(InputError, match="hoffmann"):
        leave_one_expert_count_out(moe, HOFFMANN, rng=R(0))
    with pytest.raises(InputError, match="at least two, found 4"):
        leave_one_expert_count_out(selected_runs(moe, moe.column("n_experts") == 4), JOINT_MOE, rng=R(0))


@pytest.mark.slow
@pytest.mark.parametrize("trunks", [False, True])
def test_prediction_intervals_hold_as_often_as_they_say(trunks):
    """20 simulated studies; the mean share is no more than three of its own standard errors below 95 %.

    The error is taken over studies: predictions of one study share its fit, so they are no independent trials.
    """
    shares = []
    for seed in range(20):
        frame = dense_runs(0.001, seed, shared=0.004, sizes=12, budgets=4) if trunks else dense_runs(0.004, seed)
        table = table_of(frame if trunks else frame.drop(columns="trunk_id"))
        found = roll_out(table, HOFFMANN, rng=R(seed), cuts=[1.5e20 if trunks else 1e20], resamples=100).overall
        assert found.n >= 6
        shares.append(found.share_inside)
    assert np.mean(shares) > 0.95 - 3 * np.std(shares, ddof=1) / np.sqrt(len(shares))


# Evidence between laws


def test_the_score_of_a_trunk_is_the_multivariate_t_of_scipy():
    residuals, trunks = 0.01 * R(0).standard_normal(7), np.array([0, 0, 0, 1, 2, 2, 2])
    found = law_comparison.log_density(residuals, trunks, 0.008, 0.3)
    for trunk in range(3):
        mine = residuals[trunks == trunk]
        shape = 0.008**2 * (0.7 * np.eye(len(mine)) + 0.3)
        judge = stats.multivariate_t(loc=np.zeros(len(mine)), shape=shape, df=law_comparison.FREEDOM).logpdf(mine)
        assert found[trunk] == pytest.approx(float(judge), rel=1e-12)


def test_scale_and_correlation_are_those_of_most_likelihood():
    single = 0.01 * R(0).standard_t(4, size=200)
    scale, correlation = scale_and_correlation(single, np.arange(200))
    judge = optimize.minimize_scalar(
        lambda s: -stats.t.logpdf(single, 4, scale=s).sum(),
        bounds=(1e-4, 1.0),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert correlation == 0
    assert scale == pytest.approx(judge.x, rel=1e-4)  # the judge's tolerance and a flat top
    trunks = np.repeat(np.arange(300), 5)
    mixed = stats.multivariate_t(shape=0.01**2 * (0.4 * np.eye(5) + 0.6), df=4).rvs(300, random_state=R(1)).ravel()
    scale, correlation = scale_and_correlation(mixed, trunks)
    assert correlation == pytest.approx(0.6, abs=0.11)  # one step of the grid
    assert scale == pytest.approx(0.01, rel=0.12)


def test_weights_in_closed_form():
    """A constant difference d in each of n units: every draw gives the softmax of n d, whatever its shares."""
    scores = np.array([[1.2] * 5, [1.0] * 5])
    assert pseudo_bma_plus(scores, 50, R(0)) == pytest.approx([1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(1.0))])
    same = R(0).standard_normal((1, 30)).repeat(3, axis=0)
    assert pseudo_bma_plus(same, 50, R(0)) == pytest.approx([1 / 3] * 3)
    assert stacking_weights(same) == pytest.approx([1 / 3] * 3)
    # f = .6 of the units favour the first by r = 5, the rest the second: w = f + (2f - 1)/(r - 1) = .65.
    apart = np.log(np.where(np.arange(10) < 6, 5.0, 1.0)), np.log(np.where(np.arange(10) < 6, 1.0, 5.0))
    assert stacking_weights(np.array(apart)) == pytest.approx([0.65, 0.35], abs=1e-6)


def test_few_units_give_no_certainty():
    """One unit of 8 carries the whole difference of 6: softmax says .998, while it is left out in a third of the
    draws."""
    scores = np.zeros((2, 8))
    scores[0, 0] = 6.0
    assert pseudo_bma_plus(scores, 4000, R(0))[0] < 0.95


def test_a_law_without_the_effect_of_experts_loses(moe):
    found = compare_laws(
        moe, [HOFFMANN, JOINT_MOE, laws.LAWS["leverage"], laws.LAWS["fine-grained"]], rng=R(0), folds=5
    )
    best, other = found.contenders
    assert (best.law, other.law) == ("joint-moe", "hoffmann")
    assert best.weight > 0.95
    assert other.difference < -5 * other.difference_se
    assert best.aicc < other.aicc
    assert best.rmse == pytest.approx(0.003, rel=0.25)
    assert other.correlation > 0.5, "what experts do is the same at every budget of a trunk"
    assert best.effective_runs > other.effective_runs >= found.n_trunks
    assert found.skipped["leverage"] == "it predicts compute_leverage, not loss_val"
    assert "granularity" in found.skipped["fine-grained"]
    assert best.advice.n_active * best.advice.tokens * 6 == pytest.approx(10 * moe.column("train_flops").max())
    assert "joint-moe predicts unseen trunks best" in found.verdict()
    again = compare_laws(moe, [HOFFMANN, JOINT_MOE], rng=R(0), folds=5)
    assert [one.weight for one in again.contenders] == [one.weight for one in found.contenders]


def test_folds_are_whole_trunks_spread_over_expert_counts(moe):
    _, trunks = np.unique(moe.trunks, return_inverse=True)
    dealt = law_comparison._deal(moe, trunks, 5, R(0))
    assert np.bincount(dealt).tolist() == [5] * 5
    for e in (1, 2, 4, 8, 16):
        assert sorted(dealt[np.unique(trunks[moe.column("n_experts") == e])]) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="two folds and trunks"):
        compare_laws(moe, [HOFFMANN], rng=R(0), folds=1)


def test_comparing_nothing_says_why():
    table = table_of(moe_grid(experts=(4,), widths=(32,), tokens=(1e6, 2e6)), trunk_id=["a", "b"])
    found = compare_laws(table, [HOFFMANN], rng=R(0))
    assert found.contenders == ()
    assert "2 runs cannot determine 5 parameters" in found.verdict()


@pytest.mark.slow
def test_a_law_with_a_missing_term_is_found_out_in_most_studies():
    weights = []
    for seed in range(20):
        table = table_of(moe_grid(experts=(1, 4, 16), noise=0.005, seed=seed))
        found = compare_laws(table, [HOFFMANN, JOINT_MOE], rng=R(seed), folds=5, draws=500)
        weights.append({one.law: one.weight for one in found.contenders}["joint-moe"])
    assert np.mean(np.array(weights) > 0.95) >= 0.9


@pytest.mark.slow
def test_laws_that_are_equally_wrong_share_the_weight(monkeypatch):
    """Two laws see N off by e^z and e^-z, so which fits better is chance, and neither should be called certain.

    Over 40 studies the mean weight is within 3 standard errors of one half (sd of a weight at most .5), and fewer
    studies are certain (a weight above .95) than without the Bayesian bootstrap.
    """
    for name in ("na", "nb"):

        def log_formula(p, x, name=name):
            return HOFFMANN.log_formula(p, {"n_active": x[name], "tokens": x["tokens"]})

        seen = {"name": name, "n_column": name, "columns": (name, "tokens"), "log_formula": log_formula}
        monkeypatch.setitem(laws.LAWS, name, replace(HOFFMANN, optimum=None, **seen))
    weights, certain_without = [], []
    for seed in range(40):
        frame = dense_runs(0.002, seed, sizes=8, budgets=5).drop(columns="trunk_id")
        off = np.exp(0.06 * R(500 + seed).standard_normal(len(frame)))
        table = table_of(frame, na=frame["n_active"] * off, nb=frame["n_active"] / off)
        found = compare_laws(table, [laws.LAWS["na"], laws.LAWS["nb"]], rng=R(seed), folds=5, draws=1000)
        weights.append({one.law: one.weight for one in found.contenders}["na"])
        certain_without.append(1 / (1 + np.exp(found.contenders[1].difference)) > 0.95)
    assert abs(np.mean(weights) - 0.5) < 3 * 0.5 / np.sqrt(40)
    certain = np.mean(np.maximum(weights, 1 - np.array(weights)) > 0.95)
    assert certain <= 0.3
    assert certain < np.mean(certain_without)


# Refits, sensitivity, residuals


@pytest.fixture(scope="module")
def fitted(moe):
    return bootstrap(fit(moe, JOINT_MOE), moe, 60, R(0))


def test_refits_reach_the_minimum_that_a_fit_of_the_same_runs_reaches(moe, fitted):
    kept = np.array([moe.column("n_experts") != 8, moe.column("tokens") > 3e5, np.ones(len(moe), dtype=bool)])
    found = refit(fitted, moe, kept, R(0))
    pins = {name: pin.value for name, pin in fitted.pinned.items()}
    assert found.determined.all()
    for index, rows in enumerate(kept):
        alone = fit(selected_runs(moe, rows), JOINT_MOE, pin=pins)
        theirs = {name: float(values[index]) for name, values in found.params.items()}
        assert theirs == pytest.approx(dict(alone.params), rel=1e-4)  # starts differ; a flat ridge of a and alpha
        predicted = np.log(alone.loss(moe.columns(JOINT_MOE.columns)))
        np.testing.assert_allclose(found.log_residuals[index], predicted - np.log(moe.column("loss_val")), atol=1e-7)
    with pytest.raises(InputError, match="refit the table"):
        refit(fitted, selected_runs(moe, kept[0]), kept, R(0))


def test_a_selection_that_determines_nothing_is_a_reason(moe, fitted):
    found = refit(fitted, moe, np.array([moe.column("d_model") == 64]), R(0))
    assert not found.determined[0]
    assert "same n_active" in found.reasons[0]


def test_the_trunk_that_went_wrong_is_the_most_influential(moe):
    wrong = moe.frame.assign(loss_val=moe.frame["loss_val"] * np.where(moe.frame["trunk_id"] == "4-96-0", 1.04, 1.0))
    table = table_of(wrong)
    # Least squares has no defence of its own against it.
    found = sensitivity(
        bootstrap(fit(table, JOINT_MOE, objective=Objective("least-squares")), table, 60, R(0)), table, R(1)
    )
    assert found.trunks[0].label == "4-96-0"
    assert found.trunks[0].influence > 1.3 * found.trunks[1].influence
    assert found.n_trunks_tried == 25
    assert {one.label for one in found.groups} >= {"E = 1", "E = 16", "tenth of least compute", "5 highest losses"}


def test_the_jackknife_over_trunks_agrees_with_the_bootstrap():
    """Least squares is smooth, so both estimate one standard error: 400 draws know it to 4 %, 40 trunks to about 15
    %."""
    table = table_of(dense_runs(0.004, sizes=8, budgets=5).drop(columns="trunk_id"))
    found = bootstrap(fit(table, HOFFMANN, objective=Objective("least-squares")), table, 400, R(0))
    out = sensitivity(found, table, R(1), most=len(table)).trunks
    assert len(out) == len(table)
    for name in ("alpha", "beta"):
        values = np.array([one.changes[name].value for one in out])
        jackknife = np.sqrt((len(values) - 1) / len(values) * np.sum((values - values.mean()) ** 2))
        assert jackknife == pytest.approx(np.std(found.draws[name]), rel=0.35)


def test_dropping_epochs_five_highest_losses_moves_the_law_as_published(epoch_path):
    """laws.md, trap 9: flagged points kept or dropped move E 2.00 -> 1.83, beta .54 -> .40, more than any optimiser
    does.

    There of another extraction of such points; here the same direction on Epoch's, whose own fit drops five
    (2404.10102).
    """
    every = runs.read_runs(epoch_path, EPOCH_MAP, law=HOFFMANN)
    found = bootstrap(fit(every, HOFFMANN, objective=Objective("least-squares")), every, 60, R(0))
    out = sensitivity(found, every, R(1), highest=(5,))
    (five,) = (one for one in out.groups if one.label == "5 highest losses")
    assert found.params["E"] - five.changes["E"].value > 0.1
    assert found.params["beta"] - five.changes["beta"].value > 0.1
    dropped = runs.read_runs(epoch_path, EPOCH_MAP, law=HOFFMANN, drop_highest_loss=5)
    alone = fit(dropped, HOFFMANN, objective=Objective("least-squares"))
    for name in ("E", "alpha", "beta"):
        assert five.changes[name].value == pytest.approx(alone.params[name], rel=1e-4)
    huber = refit(
        fit(every, HOFFMANN),
        every,
        np.isin(np.arange(len(every)), np.argsort(every.column("loss_val"))[:-5])[None],
        R(0),
    )
    assert float(huber.params["E"][0]) == pytest.approx(1.8172180, rel=1e-4)  # Epoch's minimum, laws.md 1.3


def test_without_draws_changes_are_in_percent_alone(moe):
    found = sensitivity(fit(moe, JOINT_MOE), moe, R(0))
    assert all(q.standard_error is None for q in found.quantities.values())
    assert {"alpha", "beta", "c", "optimal N", "loss at the optimum"} == set(found.quantities)
    assert found.verdict() == "sensitivity: the fit has no standard errors to measure changes by"


def test_residuals_of_a_law_without_experts_follow_experts(moe, fitted):
    assert any(fault.column == "n_experts" for fault in diagnose(fit(moe, HOFFMANN), moe).faults)
    assert not [fault for fault in diagnose(fitted, moe).faults if fault.test == "trend"]


# Documents and figures


@pytest.fixture(scope="module")
def account(moe, fitted):
    return {
        "roll_out": roll_out(moe, JOINT_MOE, rng=R(0), cuts=[1.2e13], resamples=20),
        "comparison": compare_laws(moe, [HOFFMANN, JOINT_MOE], rng=R(0), folds=3, draws=200),
        "sensitivity": sensitivity(fitted, moe, R(0)),
    }


def test_every_part_is_plain_json_with_its_verdict(account):
    for part in account.values():
        document = json.loads(json.dumps(part.to_json(), allow_nan=False))
        assert document["verdict"] == part.verdict()


def test_panels_show_what_they_were_given(account, moe, tmp_path):
    rolled, moved = account["roll_out"].frame(), account["sensitivity"].frame()
    weights = pd.DataFrame([vars(contender) for contender in account["comparison"].contenders])
    palette = figures.colours([1, 2, 4, 8, 16])
    experts = moe.column("n_experts")
    rows = [
        [partial(figures.roll_out_errors, rolled, palette), partial(figures.evidence, weights)],
        [partial(figures.residuals_against, moe.column(name), 0.01 * experts, experts, palette, label=name)
         for name in ("n_active", "tokens")],
        [partial(figures.influence, moved)],
    ]  # fmt: skip
    page = figures.pages(*rows, heights=[2.5, 1.9, 2.9], legend=palette)
    errors, bars, residuals, _, influence = page.axes
    outside = (rolled["error"] < rolled["low"]) | (rolled["error"] > rolled["high"])
    assert len(errors.collections[1].get_offsets()) == outside.sum()
    assert len(errors.collections[2].get_offsets()) == len(rolled)
    assert [bar.get_width() for bar in bars.patches] == pytest.approx(weights["weight"].tolist())
    assert residuals.lines[-1].get_ydata() == pytest.approx([4.0] * 5), (
        "medians of 1, 2, 4, 8, 16 percent at every size"
    )
    widths = [bar.get_width() for bar in influence.patches[1:]]
    assert np.abs(widths) == pytest.approx(sorted(moved["in_se"].abs(), reverse=True)[: len(widths)])
    assert figures.save(page, tmp_path / "page.png").stat().st_size > 10_000
