"""Fits: the global minimum on public data, planted truths, invariances, pins, and refusal where nothing can be said."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from planted import PLANTED_MOE, moe_grid, table_of

from analysis.fitting import identifiability
from analysis.fitting.fit import Fit, fit
from analysis.fitting.fit_file import load_fit, parse_fit
from analysis.fitting.fitted_to import seed_noise
from analysis.fitting.objective import Objective
from analysis.fitting.published import published
from analysis.laws import HOFFMANN, JOINT_MOE, YUN
from scaling.errors import InputError
from scaling.values import FIT

EPOCH_MINIMUM = {
    "E": 1.8172180246012493, "A": 477.82548640682364, "alpha": 0.34731045081660344, "B": 2143.417174517524,
    "beta": 0.36717242854450255,
}  # fmt: skip
TRUTH = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.36}


def dense(n=(1e8, 3e8, 1e9, 3e9, 1e10, 3e10), d=(2e9, 6e9, 2e10, 6e10, 2e11, 6e11), params=None, noise=0.0, seed=0):
    size, tokens = (x.ravel() for x in np.meshgrid(n, d))
    loss = HOFFMANN.loss(params or TRUTH, {"n_active": size, "tokens": tokens})
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(size.size))
    return pd.DataFrame({"n_active": size, "tokens": tokens, "loss_val": loss, "train_flops": 6 * size * tokens})


def test_epoch_global_minimum(epoch):
    """The lowest sum of Huber(1e-3) that any peer found on these points is 1.0182740178e-3 (2404.10102's data)."""
    found = fit(epoch, HOFFMANN)
    assert found.n_runs == 240
    assert found.objective <= 1.0182741e-3
    for name in ("E", "alpha", "beta"):
        assert found.params[name] == pytest.approx(EPOCH_MINIMUM[name], rel=1e-4)
    for name in ("A", "B"):
        assert found.params[name] == pytest.approx(EPOCH_MINIMUM[name], rel=1e-3)
    assert found.n_starts_at_minimum > found.n_starts / 2
    assert found.status == "ok"
    n, d = HOFFMANN.optimum(found.params, 5.76e23, 1)
    assert (n, d / n) == (pytest.approx(7.319e10, rel=1e-3), pytest.approx(17.92, rel=1e-3))
    assert found.condition == pytest.approx(220, rel=0.01)


def test_epoch_objective_of_the_published_point(epoch):
    """1.01864e-3 at Epoch's published estimate: it minimises another objective than the sum of Huber."""
    columns = epoch.columns(HOFFMANN.columns)
    residuals = HOFFMANN.log_loss(published("chinchilla-epoch").params, columns) - np.log(epoch.column("loss_val"))
    assert Objective().penalty(residuals).sum() == pytest.approx(1.0186384e-3, rel=1e-5)


def test_epoch_least_absolute_deviations(epoch):
    """What Epoch published is in effect LAD: A 482.0, B 2085.4, E 1.81686, alpha .34780, beta .36586."""
    found = fit(epoch, HOFFMANN, objective=Objective("lad"))
    expected = {"A": 482.0, "B": 2085.4, "E": 1.81686, "alpha": 0.34780, "beta": 0.36586}
    assert found.params == pytest.approx(expected, rel=1e-3)


def test_epoch_asymmetric_penalty(epoch):
    """allenai/OLMo-core with overestimate_penalty 10 on the same points: alpha .2913, beta .3645, E 1.7124."""
    found = fit(epoch, HOFFMANN, objective=Objective("asymmetric"))
    assert found.params["alpha"] == pytest.approx(0.2913, abs=1e-4)
    assert found.params["beta"] == pytest.approx(0.3645, abs=1e-4)
    assert found.params["E"] == pytest.approx(1.7124, abs=1e-4)


@pytest.mark.parametrize("objective", ["huber", "lad", "least-squares", "asymmetric"])
@pytest.mark.parametrize("residual", ["log", "raw"])
def test_noiseless_data_give_the_planted_parameters(objective, residual):
    found = fit(table_of(dense()), HOFFMANN, objective=Objective(objective, residual))
    assert found.params == pytest.approx(TRUTH, rel=1e-3)
    assert found.rmse_log < 1e-6


def test_joint_moe_recovers_a_planted_truth_unpinned():
    frame = moe_grid(experts=(1, 2, 4, 8, 16, 32, 64, 128))
    found = fit(table_of(frame), JOINT_MOE, objective=Objective("least-squares"))
    assert not found.pinned
    columns = {"n_active": 1e6, "tokens": 1e9, "n_experts": 64.0}  # well beyond the grid
    assert found.loss(columns) == pytest.approx(JOINT_MOE.loss(PLANTED_MOE, columns), rel=1e-4)
    assert found.rmse_log < 1e-6


def test_yun_recovers_a_planted_truth():
    truth = {
        "A": 40.0, "alpha": 0.3, "B": 0.5, "beta": 0.6, "C": 90.0, "gamma": 0.33, "F": 0.9, "d": 0.0, "E_start": 2.0732,
        "E_max": 290.4521,
    }  # fmt: skip
    found = fit(table_of(moe_grid(experts=(1, 4, 8, 16), params=truth, law=YUN)), YUN)
    assert set(found.pinned) == {"d", "E_start", "E_max"}
    for name in ("alpha", "beta", "gamma", "F"):
        assert found.params[name] == pytest.approx(truth[name], rel=1e-3)


def test_the_answer_does_not_depend_on_row_order_or_on_the_unit_of_n():
    frame = dense(noise=0.01)
    found = fit(table_of(frame), HOFFMANN)
    shuffled = fit(table_of(frame.sample(frac=1, random_state=3)), HOFFMANN)
    assert shuffled.objective == pytest.approx(found.objective, rel=1e-9)
    in_millions = fit(table_of(frame, n_active=frame["n_active"] / 1e6), HOFFMANN)
    assert in_millions.objective == pytest.approx(found.objective, rel=1e-8)
    for name in ("E", "alpha", "beta", "B"):
        assert in_millions.params[name] == pytest.approx(found.params[name], rel=1e-4)
    assert in_millions.params["A"] == pytest.approx(found.params["A"] * 1e-6 ** found.params["alpha"], rel=1e-3)


def test_doubling_every_row_doubles_the_sum_and_moves_nothing():
    frame = dense(noise=0.01)
    found, twice = (fit(table_of(pd.concat([frame] * times)), HOFFMANN) for times in (1, 2))
    assert twice.objective == pytest.approx(2 * found.objective, rel=1e-9)
    assert twice.params == pytest.approx(found.params, rel=1e-4)


def at_ratios(*ratios):
    """Six sizes, each at these tokens per parameter, with losses at the Epoch minimum."""
    return pd.concat(
        [dense((n,), tuple(ratio * n for ratio in ratios), EPOCH_MINIMUM) for n in np.geomspace(1e8, 1e10, 6)]
    )


@pytest.mark.parametrize(
    ("frame", "expected"),
    [  # condition numbers at the Epoch minimum, recomputed for these designs
        (dense(np.geomspace(1e8, 1e10, 6), np.geomspace(2e9, 2e11, 6), EPOCH_MINIMUM), 204),
        (at_ratios(5, 10, 20, 40, 80), 230),
        (at_ratios(10, 20, 40), 350),
    ],
)  # fmt: skip
def test_condition_numbers_of_usual_designs(frame, expected):
    assert fit(table_of(frame), HOFFMANN).condition == pytest.approx(expected, rel=0.05)


def test_constant_tokens_per_parameter_are_refused():
    frame = pd.concat([dense((n,), (20 * n,), noise=0.002) for n in np.geomspace(1e8, 1e10, 8)])
    found = fit(table_of(frame), HOFFMANN)
    assert found.status == "unidentified"
    assert found.params == {}
    assert {f.name: f.refused for f in found.findings}["constant-tokens-per-parameter"]
    assert found.warnings == tuple(map(str, found.findings))
    with pytest.raises(InputError, match="predicts nothing"):
        found.loss({"n_active": 1e9, "tokens": 2e10})


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        (dense(d=(2e10,)), "one-tokens"),
        (dense(n=(1e9,)), "one-n_active"),
        (dense(n=(1e9,), d=(2e10,)), "too-few-runs"),
        (dense(n=(1e8, 1e9), d=(2e9, 2e10)), "too-few-runs"),
    ],
)
def test_designs_that_say_nothing_are_named_and_refused(frame, name):
    found = fit(table_of(frame), HOFFMANN)
    assert found.status == "unidentified"
    assert not found.params
    assert name in {finding.name for finding in found.findings if finding.refused}


def test_small_grids_are_pinned_to_published_values_and_say_so():
    found = fit(table_of(moe_grid(experts=(1, 8), widths=(32, 48, 64), tokens=(1e6, 4e6))), JOINT_MOE)
    assert set(found.pinned) == {"E_start", "E_max", "gamma", "zeta"}
    assert found.params["E_max"] == 290.4521
    assert all("2502.05172" in pin.source for pin in found.pinned.values())
    assert sum(all(name in warning for name in found.pinned) for warning in found.warnings) == 1


def test_a_users_pin_wins_and_auto_pin_can_be_turned_off():
    table = table_of(moe_grid(experts=(1, 8), widths=(32, 48, 64), tokens=(1e6, 4e6)))
    mine = fit(table, JOINT_MOE, pin={"E_max": 500.0, "zeta": 0.0})
    assert mine.params["E_max"] == 500.0
    assert mine.pinned["zeta"].source == "as asked"
    assert not any(warning.startswith("E_max") for warning in mine.warnings)
    free = fit(table, JOINT_MOE, auto_pin=False)
    assert not free.pinned
    assert free.status == "unidentified"  # twelve runs, two expert counts, eleven parameters


def test_every_parameter_pinned_is_an_evaluation():
    frame = dense(noise=0.01)
    found = fit(table_of(frame), HOFFMANN, pin=TRUTH)
    residuals = HOFFMANN.log_loss(TRUTH, {"n_active": frame["n_active"], "tokens": frame["tokens"]}) - np.log(
        frame["loss_val"]
    )
    assert found.params == TRUTH
    assert found.objective == pytest.approx(Objective().penalty(residuals.to_numpy()).sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("pin", "message"),
    [({"zeta": 1.0}, "has no parameter 'zeta'"), ({"A": -1.0}, "positive"), ({"alpha": np.nan}, "number")],
)
def test_wrong_pins_are_named(pin, message):
    with pytest.raises(InputError, match=message):
        fit(table_of(dense()), HOFFMANN, pin=pin)


def test_one_expert_count_leaves_the_effect_of_experts_to_others_and_says_so():
    found = fit(table_of(moe_grid(experts=(8,))), JOINT_MOE)
    assert {"delta", "omega", "gamma", "zeta", "E_start", "E_max"} == set(found.pinned)
    assert ("one-n_experts", "n_experts") in {(finding.name, finding.vary) for finding in found.findings}


def test_pooling_expert_counts_in_a_dense_law_is_warned_of():
    found = fit(table_of(moe_grid(experts=(1, 8), noise=0.002)), HOFFMANN)
    assert any("which law hoffmann ignores" in warning for warning in found.warnings)


def test_experts_that_grow_with_size_are_warned_of():
    parts = [moe_grid(experts=(e,), widths=(d,)) for e, d in ((1, 32), (2, 48), (4, 64), (8, 96), (16, 128))]
    columns = {name: pd.concat(parts)[name].to_numpy(dtype=float) for name in JOINT_MOE.columns}
    names = {finding.name for finding in identifiability.design_findings(JOINT_MOE, columns, (), None)}
    assert "n_active-with-n_experts" in names


def test_a_floor_that_is_not_there_ends_at_its_bound():
    frame = dense(params=TRUTH | {"E": 1e-9})
    found = fit(table_of(frame, loss_val=frame["loss_val"] - 0.05), HOFFMANN)  # as if the floor were negative
    assert (found.status, found.at_bounds) == ("at_bound", ("E",))
    assert found.params["E"] == pytest.approx(HOFFMANN.parameter("E").bounds[0])
    assert sum(warning.startswith("E ") for warning in found.warnings) == 1


def test_a_law_that_misses_the_runs_says_so():
    frame = dense()
    bent = frame["loss_val"] * (1 + 0.1 * np.sin(np.log(frame["tokens"]) * 3))
    found = fit(table_of(frame, loss_val=bent), HOFFMANN)
    assert found.rmse_log > 0.015
    assert sum(f"{found.rmse_log:.1%}" in warning for warning in found.warnings) == 1
    assert not fit(table_of(dense(noise=0.005)), HOFFMANN).warnings


def test_seed_noise_is_the_pooled_deviation_and_unknown_without_replicates():
    assert seed_noise(table_of(moe_grid())) is None
    frame = moe_grid(experts=(1, 8), widths=(32, 64), seeds=range(40), noise=0.01)
    assert seed_noise(table_of(frame)) == pytest.approx(0.01, rel=0.05)  # 8 x 2 x 39 degrees of freedom: 2 %
    pair = frame.iloc[[0, 4]].assign(tokens=1e6, loss_val=[2.0, 2.0 * np.exp(0.02)])
    assert seed_noise(table_of(pair)) == pytest.approx(0.02 / np.sqrt(2), rel=1e-9)


def test_replicates_are_runs_of_one_configuration_where_the_table_names_it():
    frame = moe_grid(experts=(1,), widths=(32,), tokens=(1e6,), seeds=range(4))
    frame = frame.assign(loss_val=2.0 * np.exp([0.0, 0.02, 0.5, 0.52]), configuration=["a", "a", "b", "b"])
    assert seed_noise(table_of(frame)) == pytest.approx(0.02 / np.sqrt(2), rel=1e-9)
    assert seed_noise(table_of(frame.assign(tokens=[1e6, 2e6, 1e6, 2e6]))) is None  # other budgets are other runs
    unnamed = frame.assign(configuration=None, loss_val=2.0 * np.exp([0.0, 0.02, 0.0, 0.02]))
    assert seed_noise(table_of(unnamed)) == pytest.approx(0.02 / np.sqrt(3), rel=1e-9)  # as an import leaves it


def test_the_text_studied_is_tokens_over_epochs():
    frame = moe_grid(experts=(1,))
    assert fit(table_of(frame), HOFFMANN).corpus_tokens is None
    epochs = (frame["tokens"] / 7.4e6).where(frame["d_model"] > 32)
    assert fit(table_of(frame.assign(epochs=epochs)), HOFFMANN).corpus_tokens == pytest.approx(7.4e6)


def test_a_fit_survives_its_file(tmp_path):
    found = fit(table_of(moe_grid(noise=0.002)), JOINT_MOE)
    path = tmp_path / "fit.json"
    path.write_text(json.dumps(FIT.document(found), allow_nan=False))
    assert load_fit(str(path)) == found


def test_law_and_params_are_a_fit_and_anything_else_is_named(tmp_path):
    path = tmp_path / "fit.json"
    path.write_text(json.dumps({"law": "hoffmann", "params": TRUTH}))
    assert load_fit(str(path)).loss({"n_active": 1e9, "tokens": 2e10}) > 1.7
    for text, named in [
        ("{", ["not a fit", "JSON", "scaling fit"]),
        ("[]", ['"law"', '"params"', "scaling fit"]),
        ('{"law": "x", "params": {}}', ["'x'", "hoffmann"]),
        ('{"law": "hoffmann", "params": {"A": 1}}', ["params: ", "E, alpha"]),
        ('{"law": "hoffmann", "params": {"A": "x"}}', ["params.A: ", "scaling fit"]),
        (json.dumps({"law": "hoffmann", "params": TRUTH, "findings": [{"name": "x"}]}), ["findings[0].message: "]),
        (json.dumps({"law": "hoffmann", "params": TRUTH, "status": "splendid"}), ["status: "]),
        (json.dumps({"law": "hoffmann", "params": TRUTH | {"E": float("nan")}}), ["NaN"]),
        (json.dumps({"law": "hoffmann", "params": TRUTH, "schema_version": 9}), ['"schema_version"', "9", "up to 1"]),
        (json.dumps({"efficiency": {}, "ratios": []}), ["latency law", "scaling fit"]),
    ]:
        path.write_text(text)
        with pytest.raises(InputError) as refused:
            load_fit(str(path))
        for words in (str(path), *named):
            assert words in str(refused.value)
    with pytest.raises(InputError, match="no such fit"):
        load_fit(str(tmp_path / "missing.json"))
    with pytest.raises(InputError, match="joint-moe-2025"):
        load_fit("published:missing")


def test_predictions_outside_the_domain_are_named():
    found = fit(table_of(dense()), HOFFMANN)
    assert found.outside_domain({"n_active": 1e9, "tokens": 2e10}) == []
    (note,) = found.outside_domain({"n_active": 1e12, "tokens": 2e10})
    assert note.startswith("n_active = 1T ")


def test_a_given_fit_has_no_interval():
    assert Fit("hoffmann", TRUTH).loss_interval({"n_active": 1e9, "tokens": 2e10}) is None
    assert parse_fit({"law": "hoffmann", "params": {}}, "x").params == {}


@pytest.mark.slow
def test_a_million_rows(tmp_path):
    frame = pd.concat([dense(noise=0.01, seed=s) for s in range(27_778)])
    found = fit(table_of(frame), HOFFMANN)
    assert found.n_runs > 1_000_000
    assert found.params["alpha"] == pytest.approx(TRUTH["alpha"], rel=0.01)
