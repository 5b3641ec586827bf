"""Contrasts: intervals that cover, against planted studies; critical values and variances, against SciPy and
statsmodels."""

import itertools

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from analysis.methods import contrasts
from scaling.clustered_mean import clustered_mean

STUDIES = 1000  # of a simulation: the error of a coverage of .95 is then .007 over independent intervals


def planted(rng, effects, n_seeds=3, n_documents=60, seed_sd=0.004, method_document=0.02, run_document=0.02):
    """Losses (runs, documents) of one study: what a seed does to all is large, documents differ by much more."""
    method, seed = np.repeat(np.arange(len(effects)), n_seeds), np.tile(np.arange(n_seeds), len(effects))
    run = effects[method] + rng.normal(0, 0.02, n_seeds)[seed] + rng.normal(0, seed_sd, len(method))
    document = rng.normal(0, 0.25, n_documents) + rng.normal(0, method_document, (len(effects), n_documents))[method]
    losses = run[:, None] + document + rng.normal(0, run_document, (len(method), n_documents))
    return losses, rng.integers(400, 2000, n_documents).astype(float), method, seed


DESIGNS = {
    "both kinds of noise": {},
    "two methods": {"n_methods": 2},
    "two seeds": {"n_seeds": 2},
    "many methods": {"n_methods": 12},
    "runs alone": {"method_document": 0.0, "run_document": 0.0},
    "documents alone": {"seed_sd": 0.0, "run_document": 0.0, "method_document": 0.05},
}


@pytest.mark.parametrize("design", DESIGNS)
def test_95_percent_intervals_cover_the_planted_difference(design):
    settings = dict(DESIGNS[design])
    effects = np.linspace(-0.02, 0.01, settings.pop("n_methods", 6))
    rng, hits = np.random.default_rng(0), []
    for _ in range(STUDIES):
        low, high = contrasts.estimate(*planted(rng, effects, **settings)).intervals()
        truth = effects[1:] - effects[0]
        hits.append(np.mean((low[1:, 0] <= truth) & (truth <= high[1:, 0])))
    assert 0.93 < np.mean(hits) < 0.97


def test_documents_alone_or_seeds_alone_would_not_cover():
    """The reason for both: an interval with one of the two is far too narrow."""
    rng, effects, hits = np.random.default_rng(0), np.linspace(-0.02, 0.01, 6), []
    for _ in range(300):
        found = contrasts.estimate(*planted(rng, effects))
        miss = np.abs(found.differences[1:, 0] - (effects[1:] - effects[0]))
        documents = np.diag(found.documents)[1:] + found.documents[0, 0] - 2 * found.documents[1:, 0]
        seeds = found.variance * 2 / 3
        hits.append([np.mean(miss <= 1.96 * np.sqrt(one)) for one in (documents, seeds)])
    assert (np.mean(hits, axis=0) < 0.9).all()


def test_all_intervals_together_and_all_ranks_cover_at_95_percent():
    rng, effects = np.random.default_rng(1), np.array([0.0, -0.02, -0.02, -0.018, 0.01, 0.03])
    others, together, ranked = np.arange(1, 6), [], []
    best = 1 + (effects[:, None] > effects).sum(axis=1)  # a tie may have any of its ranks
    worst = 6 - (effects[:, None] < effects).sum(axis=1)
    for _ in range(500):
        found = contrasts.estimate(*planted(rng, effects))
        limit = found.critical((others, np.zeros(5, dtype=int)), rng, draws=2000) * found.errors[1:, 0]
        together.append(np.all(np.abs(found.differences[1:, 0] - effects[1:]) <= limit))
        worse = found.significant(rng, draws=2000) & (found.differences > 0)
        low, high = 1 + worse.sum(axis=1), 6 - worse.sum(axis=0)
        ranked.append(np.all((low <= best) & (worst <= high)))
    assert 0.92 < np.mean(together) < 0.98  # three errors of a share of 500
    assert np.mean(ranked) > 0.92  # conservative where methods differ


def test_equal_methods_are_seldom_told_apart():
    rng = np.random.default_rng(2)
    found = [contrasts.estimate(*planted(rng, np.zeros(8))).significant(rng, draws=2000).any() for _ in range(400)]
    assert np.mean(found) < 0.08  # 5 % and three errors of a share of 400


def alone(rng, n_methods, n_seeds, sd=1.0):
    """Runs without documents."""
    method, seed = np.repeat(np.arange(n_methods), n_seeds), np.tile(np.arange(n_seeds), n_methods)
    return rng.normal(0, sd, (len(method), 1)) + seed[:, None], np.ones(1), method, seed


def test_joint_critical_values_are_those_of_tukey_and_dunnett():
    rng = np.random.default_rng(3)
    found = contrasts.estimate(*alone(rng, 6, 3))
    assert found.df == 10
    tukey = found.critical(np.triu_indices(6, 1), rng, draws=200_000)
    # Quantiles of 200,000 draws are within .5 % of the exact ones.
    assert tukey == pytest.approx(stats.studentized_range.ppf(0.95, 6, 10) / np.sqrt(2), rel=0.01)
    dunnett = found.critical((np.arange(1, 6), np.zeros(5, dtype=int)), rng, draws=200_000)
    law = stats.multivariate_t(shape=0.5 + 0.5 * np.eye(5), df=10, seed=0)
    assert law.cdf(np.full(5, dunnett), lower_limit=np.full(5, -dunnett)) == pytest.approx(0.95, abs=0.003)


def test_without_documents_it_is_the_analysis_of_variance_with_missing_runs_too():
    losses, sizes, method, seed = alone(np.random.default_rng(4), 5, 4)
    keep = np.ones(len(method), dtype=bool)
    keep[[1, 7, 8]] = False
    found = contrasts.estimate(losses[keep], sizes, method[keep], seed[keep])
    columns = [np.eye(5)[method[keep]], np.eye(4)[seed[keep]][:, 1:]]
    model = sm.OLS(losses[keep, 0], np.hstack(columns)).fit()
    assert found.paired
    assert found.variance == pytest.approx(model.mse_resid)
    for i, j in itertools.combinations(range(5), 2):
        test = model.t_test(np.eye(8)[i] - np.eye(8)[j])
        low, high = found.intervals()
        np.testing.assert_allclose([low[i, j], high[i, j]], test.conf_int()[0], rtol=1e-9)


def test_with_one_seed_the_documents_part_is_that_of_a_paired_difference_and_nothing_is_claimed():
    losses, sizes, method, seed = planted(np.random.default_rng(5), np.array([0.0, -0.02, 0.01]), n_seeds=1)
    found = contrasts.estimate(losses, sizes, method, seed)
    difference, error = clustered_mean(losses[1] - losses[0], sizes)
    assert found.differences[1, 0] == pytest.approx(difference)
    documents = found.documents[0, 0] + found.documents[1, 1] - 2 * found.documents[0, 1]
    assert np.sqrt(documents) == pytest.approx(error)
    assert found.df == 0
    assert np.isnan(found.errors).all()


def test_methods_that_share_no_seed_are_compared_unpaired():
    rng = np.random.default_rng(6)
    losses = rng.normal(0, 1, (6, 1))
    found = contrasts.estimate(losses, np.ones(1), np.array([0, 0, 0, 1, 1, 1]), np.arange(6))
    assert not found.paired
    welch = stats.ttest_ind(losses[3:, 0], losses[:3, 0])
    assert found.differences[1, 0] / found.errors[1, 0] == pytest.approx(welch.statistic)
    assert found.degrees[1, 0] == pytest.approx(welch.df)


def test_the_noise_of_a_method_that_differs_more_is_seen_and_that_of_others_is_not():
    rng, seen = np.random.default_rng(7), []
    for _ in range(200):
        losses, sizes, method, seed = alone(rng, 10, 3)
        quiet = contrasts.noisier(contrasts.estimate(losses, sizes, method, seed))
        losses[method == 4] += rng.normal(0, 20, (3, 1))
        seen.append([len(quiet) > 0, contrasts.noisier(contrasts.estimate(losses, sizes, method, seed)) == [4]])
    false_alarm, found = np.mean(seen, axis=0)
    assert false_alarm < 0.1  # 5 % and three errors
    assert found > 0.8


def test_the_chance_to_be_best_is_shared_among_equals_and_choosing_flatters():
    rng = np.random.default_rng(8)
    losses, sizes, method, seed = alone(rng, 3, 40)
    losses[:, 0] -= contrasts.estimate(losses, sizes, method, seed).mean[method]  # the estimates are equal exactly
    share, optimism = contrasts.estimate(losses, sizes, method, seed).winners(rng, draws=40_000)
    np.testing.assert_allclose(share, 1 / 3, atol=0.01)  # four errors of a share of 40,000
    # The least of three independent means of 40: -.846 standard deviations.
    found = contrasts.estimate(losses, sizes, method, seed)
    assert optimism == pytest.approx(0.8463 * np.sqrt(found.variance / 40), rel=0.03)
    clear = contrasts.estimate(losses - 10 * (method == 1)[:, None], sizes, method, seed)
    assert clear.winners(rng)[0][1] == 1.0


def test_two_share_a_letter_exactly_where_they_are_not_told_apart():
    rng = np.random.default_rng(9)
    for _ in range(200):
        n = int(rng.integers(2, 9))
        apart = np.triu(rng.random((n, n)) < rng.random(), 1)
        apart |= apart.T
        letters = [set(row.split()) for row in contrasts.groups(apart)]
        assert all(letters)
        for i, j in itertools.combinations(range(n), 2):
            assert bool(letters[i] & letters[j]) == (not apart[i, j])
    assert contrasts.groups(np.zeros((3, 3), dtype=bool)) == ["a", "a", "a"]
    chain = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], dtype=bool)
    assert contrasts.groups(chain) == ["a", "a b", "b"]
