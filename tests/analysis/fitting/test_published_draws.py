"""Draws of published fits: the rule against the covariance it stands for, and against what papers print."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.fitting.fit_file import load_fit
from analysis.fitting.published import PUBLISHED, published, published_name
from analysis.fitting.published_draws import DRAWS, SHORTFALL, design, ranges_of, refits, rounding, runs_of, with_draws
from analysis.fitting.published_error import ASSUMED_RMSE, error_of
from scaling.errors import InputError


def spread(name):
    """The rms deviation of ln loss from the published law over the runs that the draws were refitted to."""
    fit, error = with_draws(name), error_of(name)
    columns = design(fit, error, ranges_of(fit, error)[0])
    moved = fit.definition.log_loss(fit.parameter_draws(), columns) - fit.definition.log_loss(fit.params, columns)
    return float(np.sqrt(np.mean(moved**2)))


@pytest.mark.parametrize("name", ["joint-moe-2025", "chinchilla-tex", "chinchilla-epoch", "tencent-2025"])
def test_refits_spread_as_least_squares_does(name):
    """The mean variance of P fitted parameters' predictions over n runs is sigma^2 P/n, where rounding is nothing."""
    fit, error = with_draws(name), error_of(name)
    expected = SHORTFALL * fit.rmse_log * np.sqrt(len(fit.definition.names) / runs_of(error))
    assert spread(name) == pytest.approx(expected, rel=0.12)  # 256 draws, and constants of four digits


def test_refits_have_the_covariance_of_gauss_newton_where_that_holds():
    """Kaplan's law is all but linear in its coordinates over five decades: the deviations are (J'J)^-1 sigma^2."""
    fit, error = published("kaplan-2020"), error_of("kaplan-2020")
    columns = design(fit, error, ranges_of(fit, error)[0])
    law = fit.definition
    theta = np.array([law.to_coordinates(name, fit.params[name]) for name in law.names])
    jacobian = law.log_loss_gradient(theta[None], law.names, {}, columns)[1][0]
    noise, n_runs = 1e-4, 64  # so small that rounding is nothing beside: it is taken off by planting exact constants
    exact = {name: value * (1 + 1e-13) for name, value in fit.params.items()}
    drawn = refits(replace(fit, params=exact), columns, noise, n_runs, np.random.default_rng(1))
    scale = noise**2 * jacobian.shape[1] / n_runs
    expected = np.sqrt(np.diag(np.linalg.inv(jacobian @ jacobian.T)) * scale)
    found = np.array([np.std(law.to_coordinates(name, drawn[name])) for name in law.names])
    assert found == pytest.approx(expected, rel=0.15)


def test_standard_errors_are_those_that_the_epoch_paper_prints():
    fit, printed = with_draws("chinchilla-epoch"), error_of("chinchilla-epoch").standard_errors
    ratios = [printed[name] / np.std(fit.draws[name]) for name in printed]
    assert np.median(ratios) == pytest.approx(1.0, abs=0.1)
    assert min(ratios) > 0.7
    assert max(ratios) < 1.3


def test_the_optimum_of_fine_grained_spreads_as_its_paper_prints():
    """Krajewski et al. print 10 to 90 % of 100 bootstraps for D at the optimal N, at G = 16: 21.17 to 40.73 B at
    1.93e20 FLOPs, 50.20 to 105.88 B at 1.41e21. The widths by the rule are 1.33 and 1.41 times theirs, in ln D."""
    fit = with_draws("fine-grained-2024")
    draws = {name: np.array(values)[:, None] for name, values in fit.draws.items()}
    for budget, low, high in ((1.93e20, 21.17e9, 40.73e9), (1.41e21, 50.20e9, 105.88e9)):
        active = np.exp(np.linspace(np.log(1e8), np.log(1e11), 800))
        tokens = budget / (6.9 * active)  # 6 N D and what routers take
        columns = {"n_total_nonembed": 43 * active, "tokens": tokens, "granularity": 16.0}
        best = tokens[np.argmin(fit.definition.loss(draws, columns), axis=1)]
        ends = np.quantile(best, (0.1, 0.9))
        assert np.log(ends[1] / ends[0]) / np.log(high / low) == pytest.approx(1.25, abs=0.25)


def test_rounding_is_half_a_unit_of_the_last_digit():
    assert rounding(0.115) == pytest.approx(0.0005)
    assert rounding(-0.082) == pytest.approx(0.0005)
    assert rounding(8.8e13) == pytest.approx(5e11)
    assert rounding(18.1) == pytest.approx(0.05)
    constants = published("fine-grained-2024").params
    alpha = np.array(with_draws("fine-grained-2024").draws["alpha"])
    assert np.std(alpha) > rounding(constants["alpha"]) / np.sqrt(3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_fit_has_draws_within_bounds_around_its_constants(name):
    fit = load_fit(f"published:{name}")
    assert fit.n_draws == DRAWS
    assert fit.status == "published"
    assert fit.params == published(name).params
    for parameter in fit.definition.parameters:
        low, high = parameter.bounds
        values = np.array(fit.draws[parameter.name])
        assert np.isfinite(values).all()
        assert (values >= low).all()
        assert (values <= high).all()
    assert published_name(fit) == f"published:{name}"


def test_what_a_paper_does_not_print_is_assumed_and_said():
    fit, error = with_draws("tencent-2025"), error_of("tencent-2025")
    assert error.rmse is None
    assert fit.rmse_log == ASSUMED_RMSE
    assert "assumed" in fit.warnings[-1]
    assert "assumed" not in with_draws("joint-moe-2025").warnings[-1]
    assert published("tencent-2025").draws == {}  # the constants alone stay as printed


def test_a_run_of_a_published_law_has_its_printed_residual_around_it():
    fit = with_draws("chinchilla-epoch")
    columns = {"n_active": 1e9, "tokens": 2e10}
    law, run = (np.log(np.ravel(ends)) for ends in (fit.loss_interval(columns), fit.prediction_interval(columns)))
    expected = np.hypot(law[1] - law[0], 2 * 1.96 * fit.rmse_log)
    assert run[1] - run[0] == pytest.approx(expected, rel=0.03)


def test_an_unknown_name_lists_the_names():
    with pytest.raises(InputError, match="joint-moe-2025"):
        load_fit("published:epoch")
