"""The ensemble of published laws: readings, weights, draws, and what runs say of it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from analysis.decision.lineage import sizes_of_lineage
from analysis.decision.optima import UNANSWERED_LIMIT
from analysis.decision.published_models import as_models, weighed_by, with_lineage
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting.fit_file import load_fit
from analysis.fitting.published import published
from analysis.fitting.published_spread import NOISE
from analysis.mixture.composite import DISCREPANCY, parameter_name, weight_name
from analysis.mixture.ensemble import Ensemble, in_turn, published_moe, shape_of, together
from analysis.mixture.fine_grained import fine_grained, share_of_active
from analysis.mixture.readings import OFFSET, READINGS, reading_law
from analysis.mixture.stacking import RunErrors
from analysis.tables.runs import RunTable
from scaling.errors import InputError
from scaling.serving.families import FAMILIES

DEEPSEEK = FAMILIES["deepseek"]
EXPERTS = (1, 64, 256)


def models(n_experts, n_active=2e9, tokens=1e11):
    """The columns of one model of the DeepSeek lineage."""
    sizes = sizes_of_lineage(DEEPSEEK, np.array([n_active]), n_experts)
    names = ("n_active", "top_k", "n_active_nonembed", "n_total", "active_experts", "shared_share")
    return {name: sizes.column(name) for name in names} | {"tokens": np.array([tokens]), "n_experts": float(n_experts)}


def as_read(name, columns):
    params = {**READINGS[name].fit().params, OFFSET: 0.0}
    return float(np.ravel(reading_law(name, shape_of(DEEPSEEK)).loss(params, columns))[0])


def test_joint_moe_reads_the_expansion_as_its_experts():
    law, x = published("joint-moe-2025"), models(256)
    expected = law.loss({"n_active": 2e9, "tokens": 1e11, "n_experts": 32.0})
    assert as_read("joint-moe-2025", x) == pytest.approx(float(expected), rel=1e-12)
    dense = law.loss({"n_active": 2e9, "tokens": 1e11, "n_experts": 1.0})
    assert as_read("joint-moe-2025", models(1)) == pytest.approx(float(dense), rel=1e-12)


def test_sparsity_reads_the_share_of_idle_experts():
    x = models(256)
    expected = published("sparsity-2025").loss(
        {"n_total": x["n_total"], "tokens": 1e11, "n_experts": 256.0, "top_k": 8.0}
    )
    assert as_read("sparsity-2025", x) == pytest.approx(float(expected[0]), rel=1e-12)


@pytest.mark.parametrize(("n_experts", "rate"), [(128, 16), (512, 64)])
def test_fine_grained_is_what_was_published_at_the_expansions_that_were(n_experts, rate):
    x = models(n_experts)
    name = {16: "fine-grained-2024-e16", 64: "fine-grained-2024"}[rate]
    total = share_of_active(rate) * x["n_active_nonembed"]
    expected = published(name).loss({"n_total_nonembed": total, "tokens": 1e11, "granularity": 8.0})
    assert as_read("fine-grained-2024", x) == pytest.approx(float(expected[0]), rel=1e-12)


def test_fine_grained_is_the_dense_law_without_experts_and_lies_between_in_between():
    x = models(1)
    dense = published("fine-grained-2024-dense").loss({"n_active": x["n_active_nonembed"], "tokens": 1e11})
    assert as_read("fine-grained-2024", x) == pytest.approx(float(dense[0]), rel=1e-12)
    losses = [as_read("fine-grained-2024", models(8 * rate)) for rate in (2, 4, 8, 16, 32, 64)]
    assert np.all(np.diff(losses) < 0)
    assert losses[0] < float(dense[0])


def test_a_dense_model_of_tencent_is_the_limit_of_all_experts_active():
    x, (active, shared) = models(1), shape_of(DEEPSEEK)
    given = {"n_total": 2e9, "n_active": 2e9, "tokens": 1e11, "active_experts": active, "shared_share": shared}
    assert (active, shared) == pytest.approx((9.0, 1 / 9))
    assert as_read("tencent-2025", x) == pytest.approx(float(published("tencent-2025").loss(given)), rel=1e-8)


def test_every_draw_is_one_law_and_one_of_its_draws():
    ensemble = load_fit("published:moe")
    assert isinstance(ensemble, Ensemble)
    weights = np.array([ensemble.draws[weight_name(name)] for name in READINGS])
    assert (weights.sum(axis=0) == 1).all()
    assert weights.mean(axis=1) == pytest.approx([0.25] * 4)
    for name in READINGS:
        rows, own = ensemble.rows_of(name), READINGS[name].fit()
        for parameter in own.draws:
            drawn = np.array(ensemble.draws[parameter_name(name, parameter)])[rows]
            assert set(drawn) <= set(own.draws[parameter])


def test_the_composite_in_a_draw_is_the_law_of_that_draw_with_its_discrepancy():
    ensemble = as_models(published_moe(), Question(train_flops=1e23))
    x = models(64, 2e10, 1e12)
    found = ensemble.definition.log_loss(ensemble.parameter_draws(), x)[:, 0]
    for member in ensemble.members:
        rows = ensemble.rows_of(member.name)[:5]
        params = {
            name: np.array(ensemble.draws.get(parameter_name(member.name, name), [0.0] * 400))[rows, None]
            for name in member.definition.names
        }
        beyond = max(0.0, np.log(6 * 2e10 * 1e12 / member.discrepancy.train_flops))
        slope = np.array(ensemble.draws[DISCREPANCY])[rows]
        expected = reading_law(member.name, shape_of(DEEPSEEK)).log_loss(params, x)[:, 0] + slope * beyond
        assert found[rows] == pytest.approx(expected, abs=1e-12)


def test_along_the_tokens_the_ensemble_is_what_it_is():
    """The rest and the power of D that searches use are those of the formula, for draws and for the estimate."""
    ensemble, tokens = as_models(published_moe(), Question(train_flops=1e23)), np.array([3e9, 4e11, 2e13])
    for n_experts in EXPERTS:
        x = {name: np.repeat(value, 3) if np.ndim(value) else value for name, value in models(n_experts).items()}
        for params, rows in ((ensemble.parameter_draws(), 400), (ensemble.params, 1)):
            full = {**x, "tokens": np.broadcast_to(tokens, (rows, 3))}
            value, slope = ensemble.definition.along_tokens(params, full)(np.log(full["tokens"]))
            expected, expected_slope = ensemble.definition.log_loss_by_tokens(params, full)
            assert value == pytest.approx(expected, abs=1e-9)
            assert slope == pytest.approx(np.broadcast_to(expected_slope, value.shape), abs=1e-8)


def test_no_offset_of_a_law_moves_the_advice():
    """Losses of different corpora never meet: a law whose losses are all 40 % higher gives the same answer."""
    question = Question(train_flops=1e21, serve_tokens=1e12, n_experts=EXPERTS)
    ensemble = published_moe()
    name = parameter_name("tencent-2025", OFFSET)
    moved = replace(ensemble, params={**ensemble.params, name: np.log(1.4)}, pinned={})
    moved = replace(moved, draws={**ensemble.draws, name: tuple([float(np.log(1.4))] * 400)})
    first, second = recommend(ensemble, question), recommend(moved, question)
    assert second.probability_best == pytest.approx(first.probability_best)
    assert second.recommendation.n_active == pytest.approx(first.recommendation.n_active, rel=1e-4)
    assert second.recommendation.cost.total == pytest.approx(first.recommendation.cost.total, rel=1e-6)
    assert second.expected_regret == pytest.approx(first.expected_regret, rel=1e-3)


def test_each_law_advises_what_it_would_alone():
    question = Question(train_flops=1e21, serve_tokens=1e12, n_experts=EXPERTS)
    advice = {law.name: law for law in recommend(published_moe(), question).laws}
    assert set(advice) == set(READINGS)
    for name in ("sparsity-2025", "tencent-2025"):
        alone = recommend(load_fit(f"published:{name}"), question)
        best = alone.recommendation
        assert (advice[name].n_experts, best.top_k) == (best.n_experts, 8)
        assert advice[name].n_active == pytest.approx(best.n_active, rel=1e-3)
        assert advice[name].cost == pytest.approx(best.cost.total, rel=1e-5)
        assert advice[name].loss == pytest.approx(best.loss, rel=1e-9)
        assert advice[name].probability_best == pytest.approx(alone.probability_best[best.n_experts], abs=0.15)
        assert alone.laws == ()


def test_published_laws_alone_decide_nothing():
    question = Question(train_flops=1e21, n_experts=EXPERTS)
    for name in ("moe", "tencent-2025", "joint-moe-2025"):
        assert not recommend(load_fit(f"published:{name}"), question).decided


def test_a_loss_is_no_target_of_laws_of_several_corpora():
    with pytest.raises(InputError, match="`target_loss`"):
        recommend(published_moe(), Question(target_loss=2.2))


def test_a_law_that_cannot_speak_of_an_e_is_left_out_and_said():
    wide = as_models(published_moe(), Question(train_flops=1e23, n_experts=(1, 1024)))
    assert "fine-grained-2024" in wide.left_out
    assert [member.weight for member in wide.members] == pytest.approx([1 / 3] * 3)
    with pytest.raises(InputError, match="`n_experts`"):
        as_models(load_fit("published:fine-grained-2024"), Question(train_flops=1e23, n_experts=(1, 1024)))


def test_a_lineage_is_assumed_where_none_is_named():
    question = Question(train_flops=1e23)
    assert with_lineage(published_moe(), question).family == DEEPSEEK
    assert with_lineage(load_fit("published:joint-moe-2025"), question).family is None
    asked = Question(train_flops=1e23, family=FAMILIES["mixtral"])
    assert with_lineage(published_moe(), asked).family == FAMILIES["mixtral"]
    assert as_models(published_moe(), asked).experts == (1, 4, 8, 16, 32, 64)  # k = 2


def test_laws_take_turns_in_their_proportions():
    chosen = in_turn([0.5, 0.3, 0.2], 100)
    assert np.bincount(chosen).tolist() == [50, 30, 20]
    assert np.bincount(chosen[:50]).tolist() == pytest.approx([25, 15, 10], abs=1)


def runs_of(name, noise=0.003, offset=0.3):
    """Twenty runs of one law, whose losses are shifted."""
    rng, rows = np.random.default_rng(3), []
    for n_experts in (1, 16, 64, 128):
        for n_active, tokens in ((1e8, 2e9), (1e8, 2e10), (3e8, 6e9), (1e9, 2e10), (1e9, 5e9)):
            loss = as_read(name, models(n_experts, n_active, tokens))
            rows.append((n_active, n_experts, 8, tokens, loss * np.exp(offset + noise * rng.standard_normal())))
    frame = pd.DataFrame(rows, columns=["n_active", "n_experts", "top_k", "tokens", "loss_val"])
    return RunTable(frame, "runs.csv")


@pytest.mark.parametrize("name", READINGS)
def test_runs_give_weight_to_the_law_that_made_them(name):
    found = weighed_by(published_moe(), runs_of(name), DEEPSEEK)
    weights = {member.name: member.weight for member in found.members}
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights[name] == max(weights.values())
    assert weights[name] > 0.5
    offsets = np.array(found.draws[parameter_name(name, OFFSET)])[found.rows_of(name)]
    assert np.mean(offsets) == pytest.approx(0.3, abs=0.01)
    recommend(found, Question(target_loss=3.0, n_experts=EXPERTS))  # losses are of one corpus now


def test_weights_hang_on_no_level_of_the_losses():
    first = weighed_by(published_moe(), runs_of("sparsity-2025", offset=0.0), DEEPSEEK)
    second = weighed_by(published_moe(), runs_of("sparsity-2025", offset=0.5), DEEPSEEK)
    assert [m.weight for m in second.members] == pytest.approx([m.weight for m in first.members], rel=1e-6)


def between_laws(share, count):
    """Runs of neither law: ln L is a mean of that of joint-moe and of tencent, by `share`, with noise."""
    first, second = (runs_of(name, noise=0.0).frame for name in ("joint-moe-2025", "tencent-2025"))
    noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(len(first)))
    losses = first["loss_val"] ** share * second["loss_val"] ** (1.0 - share) * noise
    frame = first.assign(loss_val=losses).sample(frac=1.0, random_state=1)
    return RunTable(frame.iloc[:count].reset_index(drop=True), "runs.csv")


def test_laws_that_are_all_wrong_lose_their_weight_slowly_and_never_all_of_it():
    """Noise alone would give a law that is somewhat nearer all weight after five runs (.993; after 20 nothing else)."""
    found = {
        count: {m.name: m.weight for m in weighed_by(published_moe(), between_laws(0.75, count), DEEPSEEK).members}
        for count in (2, 5, 20)
    }
    assert found[2]["joint-moe-2025"] < 0.5
    assert 0.5 < found[5]["joint-moe-2025"] < 0.95
    assert 0.5 < found[20]["joint-moe-2025"] < 0.97
    assert found[20]["tencent-2025"] > 0.02


def test_runs_halfway_between_two_laws_leave_both_their_weight():
    weights = {m.name: m.weight for m in weighed_by(published_moe(), between_laws(0.5, 20), DEEPSEEK).members}
    assert weights["joint-moe-2025"] == pytest.approx(weights["tencent-2025"], abs=0.15)
    assert weights["joint-moe-2025"] + weights["tencent-2025"] > 0.8


def test_laws_that_are_equally_wrong_keep_equal_weights():
    """Errors along one direction: residuals of +x and -x are alike, and nearer ones likelier."""
    share, along = np.ones(8), np.linspace(-1.0, 1.0, 8)
    errors = RunErrors.between(np.stack([0.02 * along, -0.02 * along, 0.0 * along]), share, 8)
    likelihood, level = errors.log_likelihood(np.stack([along, -along, along + 3.0, 3.0 * along]) * 0.01)
    evidence = logsumexp(likelihood, axis=(1, 2))
    assert evidence[:3] == pytest.approx([evidence[0]] * 3, abs=1e-9)
    assert level == pytest.approx([0.0, 0.0, 0.03, 0.0])
    assert evidence[3] < evidence[0]


def test_the_likelihood_is_that_of_a_normal_whose_covariance_is_written_out():
    rng, n = np.random.default_rng(0), 7
    predicted, missed = 0.02 * rng.standard_normal((3, n)), 0.02 * rng.standard_normal((4, n))
    found, _ = RunErrors.between(predicted, np.ones(n), n).log_likelihood(missed)
    contrasts = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, 1:]]))[0][:, 1:]
    between = np.cov(predicted @ contrasts, rowvar=False)

    def density(row, s, t):
        noise, error = NOISE * np.exp(s), t
        covariance = noise**2 * np.eye(n - 1) + error**2 * between
        prior = -0.5 * 4.0 * (2.0 * np.log(noise) + NOISE**2 / noise**2) - 0.5 * (np.log(error) / np.log(2.0)) ** 2
        return multivariate_normal(np.zeros(n - 1), covariance).logpdf(missed[row] @ contrasts) + prior

    cells = [(0, 16, 6), (1, 20, 3), (2, 10, 12), (3, 30, 0)]
    places = [(row, -2.0 + 6.0 * s / 48, 2.0 ** (-3.0 + 0.5 * t)) for row, s, t in cells]
    expected = np.array([density(*place) for place in places])
    ours = np.array([found[cell] for cell in cells])
    assert ours - ours[0] == pytest.approx(expected - expected[0], abs=1e-8)


def test_an_ensemble_recommends_the_e_of_least_expected_regret():
    """The mean of laws is none of them: what is best by it may risk more than another E (here it does)."""
    question = Question(train_flops=1e22, serve_tokens=1e12, memory_gb=40.0, n_experts=(1, 16, 64, 128))
    for weights in ({}, {"sparsity-2025": 0.7}):
        ensemble = published_moe()
        if weights:
            rest = (1.0 - sum(weights.values())) / (len(READINGS) - len(weights))
            ensemble = together(tuple(READINGS), {name: weights.get(name, rest) for name in READINGS})
        answer = recommend(ensemble, question)
        chosen = answer.recommendation
        least = min(choice.unanswered for choice in (chosen, *answer.alternatives))
        assert chosen.unanswered <= max(least, UNANSWERED_LIMIT)
        for other in answer.alternatives:
            assert other.regret >= chosen.regret or other.unanswered > max(least, UNANSWERED_LIMIT)
        assert answer.best_at_estimate in (choice.n_experts for choice in (chosen, *answer.alternatives))


def test_one_run_says_nothing_of_the_laws():
    table = runs_of("sparsity-2025")
    found = weighed_by(published_moe(), RunTable(table.frame.iloc[:1], "one.csv"), DEEPSEEK)
    assert [member.weight for member in found.members] == pytest.approx([0.25] * 4)


def test_only_an_ensemble_is_weighed():
    with pytest.raises(InputError, match="`weigh_by`"):
        weighed_by(load_fit("published:joint-moe-2025"), runs_of("sparsity-2025"))


def test_the_fine_grained_law_has_draws_of_all_its_runs():
    fit = fine_grained()
    assert fit.n_runs == 200
    assert set(fit.draws) == set(fit.definition.names)
