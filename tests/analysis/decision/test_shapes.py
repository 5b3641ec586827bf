"""Shapes of experts: published optima, claims of laws, planted truths, and price and law speaking of one model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import PLANTED_MOE, moe_grid, table_of

from analysis.decision.answer import answer, answer_document, parse_answer
from analysis.decision.lineage import sizes_of_lineage
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.decision.shape_comparison import compare_shapes, doubts_of_shape
from analysis.decision.shapes import variants
from analysis.fitting.fit import Fit, fit
from analysis.fitting.leveraged import with_dense
from analysis.fitting.published import published
from analysis.laws import JOINT_MOE
from analysis.laws.law import Law, floor
from scaling.columns import TOKENS
from scaling.errors import InputError
from scaling.serving.families import FAMILIES

FINE = published("fine-grained-2024")
OLMOE = FAMILIES["olmoe"]


@pytest.mark.parametrize(
    ("budget", "active", "tokens", "granularity"),
    [
        (2.95e18, 1e8, 4.37e9, 8),
        (1.93e20, 1e9, 28.94e9, 16),
        (1.41e21, 3e9, 72.9e9, 16),
        (6.46e21, 7e9, 137.6e9, 32),
        (4.16e23, 7e10, 941.07e9, 32),
        (5.69e24, 3e11, 2.96e12, 64),
        (4.97e25, 1e12, 7.94e12, 64),
    ],
)
def test_krajewskis_compute_optimal_models(budget, active, tokens, granularity):
    """Table 2 of arXiv 2402.07871: G exactly; N_active and D within 3 %, as its constants have three digits."""
    question = Question(train_flops=budget, granularity=tuple(2.0**power for power in range(9)))
    shapes, best = compare_shapes(variants({"fine": FINE}, question), front=False)
    chosen = shapes.rows[0]
    assert (chosen.granularity, chosen.top_k, chosen.n_experts) == (granularity, granularity, 64 * granularity)
    assert chosen.n_active == pytest.approx(active, rel=0.03)
    assert chosen.tokens == pytest.approx(tokens, rel=0.03)
    found = recommend(FINE, best.question).recommendation
    assert found.train_flops == pytest.approx(budget, rel=1e-9)  # routers in it
    assert found.train_flops > 6.0 * found.n_active * found.tokens
    assert (found.n_experts, found.top_k, found.granularity) == (chosen.n_experts, chosen.top_k, chosen.granularity)


def test_tencents_seven_active_experts_of_which_two_are_shared():
    """G_opt = sqrt(f/e) = 6.78 and S_opt = .315 (arXiv 2509.23678), at one share of active experts: the nearest whole
    ones. At 1e24 FLOPs routers cost too little to move them."""
    compared = []
    for active in (5, 6, 7, 8, 9):
        for shared in (1, 2, 3):
            experts = 16 * active - shared  # the same N_total of every shape
            question = Question(
                train_flops=1e24,
                family=OLMOE,
                top_k=(active - shared,),
                n_shared=(shared,),
                n_experts=(experts,),
            )
            compared += variants({"tencent": published("tencent-2025")}, question)
    rows = compare_shapes(compared, front=False)[0].rows
    assert (rows[0].top_k, rows[0].n_shared) == (5, pytest.approx(2.0))
    totals = [row.n_total / row.n_active for row in rows]
    assert np.ptp(totals) < 0.02 * totals[0]


def test_sparsity_raises_total_and_lowers_active_size():
    """Claims of arXiv 2501.12370: at a budget N_total of the best model rises with S and N_active falls, and the more
    parameters a model has, the larger its best S."""
    question = Question(train_flops=1e21, family=OLMOE, top_k=(1,), n_experts=(1, 2, 4, 8, 16, 32))
    rows = compare_shapes(variants({"sparsity": published("sparsity-2025")}, question), front=False)[0].rows
    by_experts = sorted(rows, key=lambda row: row.n_experts)
    assert np.all(np.diff([row.n_total for row in by_experts]) > 0)
    assert np.all(np.diff([row.n_active for row in by_experts]) < 0)

    law, total = published("sparsity-2025"), np.array([1e9, 1e10, 1e11, 1e12])
    shares = np.geomspace(1.0, 1e-3, 200)  # k/E of a model that is all experts, so that N_active = N k/E
    columns = {"n_total": total[:, None], TOKENS: 1e21 / (6.0 * total[:, None] * shares), "top_k": 1.0}
    best = shares[law.loss({**columns, "n_experts": 1.0 / shares}).argmin(axis=1)]
    assert np.all(np.diff(best) < 0)
    assert best[-1] < 0.02


def planted_law(best_experts=8, best_k=2):
    """A loss that is least at one E and one k, whatever the size."""

    def formula(p, x):
        off = np.log(x["n_experts"] / best_experts) ** 2 + np.log(x["top_k"] / best_k) ** 2
        terms = 400.0 / np.asarray(x["n_active"]) ** 0.34 + 0.01 * off + p["c"]
        tokens = x[TOKENS]
        return _log(terms + 2000.0 * _power(tokens, -0.36))

    return Law(
        name="planted",
        formula="",
        typst="",
        n_column="n_active",
        parameters=(floor("c"),),
        log_formula=formula,
        source="",
        domain="",
        columns=("n_active", TOKENS, "n_experts", "top_k"),
    )


def _power(tokens, exponent):
    from analysis.laws.autodiff import exp, log

    return exp(exponent * log(tokens))


def _log(value):
    from analysis.laws.autodiff import log

    return log(value)


def planted_fit(spread=0.3, count=64, **best):
    draws = tuple(np.linspace(1.8 - spread, 1.8 + spread, count).tolist())
    return Fit(law="planted", own_law=planted_law(**best), params={"c": 1.8}, draws={"c": draws})


@pytest.mark.parametrize(("n_experts", "top_k"), [(8, 2), (32, 4)])
@pytest.mark.parametrize("extra", [{}, {"serve_tokens": 1e11}], ids=["loss", "cost"])
def test_the_planted_shape_is_found_and_is_sure(n_experts, top_k, extra):
    """Draws move the loss of all shapes alike, by more than shapes differ: under common draws one is always best."""
    question = Question(train_flops=1e19, family=OLMOE, top_k=(1, 2, 4, 8), n_experts=(4, 8, 16, 32, 64), **extra)
    fitted = planted_fit(best_experts=n_experts, best_k=top_k)
    found = answer(fitted, question, what_if=False, cost_curves=False)
    best = found.shapes.rows[0]
    assert (best.n_experts, best.top_k) == (n_experts, top_k)
    assert (found.best.n_experts, found.best.top_k) == (n_experts, top_k)
    assert (best.probability_best, best.regret) == (1.0, 0.0)
    assert sum(row.probability_best for row in found.shapes.rows) == pytest.approx(1.0)
    assert found.best.d_expert == pytest.approx(best.d_expert, rel=1e-3)
    value = found.best.loss if not extra else found.best.cost.total
    assert best.value == pytest.approx(value, rel=1e-3)
    front = found.shapes.front
    assert set(front[front["on_front"] == 1]["shape"]) == {0}
    assert parse_answer(answer_document(found), "a test").shapes.rows == found.shapes.rows


def test_law_and_price_speak_of_one_model():
    """The table that is searched is the lineage to 2e-4, and the model that is priced has its k and expert width."""
    question = Question(train_flops=1e21, family=FAMILIES["deepseek"], top_k=(4,), n_shared=(2,), n_experts=(64,))
    (variant,) = variants({"tencent": published("tencent-2025")}, question)
    wanted = np.geomspace(1e8, 1e11, 50)
    table = variant.optimiser.space(64).sizes(wanted)
    exact = sizes_of_lineage(variant.question.family, wanted, 64)
    for name in ("n_total", "active_experts", "shared_share", "n_routing"):
        np.testing.assert_allclose(table.column(name), getattr(exact, name), rtol=2e-4)
    priced = variant.optimiser.pricing.structure(table)
    assert (priced.top_k, priced.n_experts) == (4, 64)
    np.testing.assert_allclose(priced.n_total, exact.n_total, rtol=1e-9)
    np.testing.assert_allclose(exact.column("active_experts"), 6.0)


def study(top_k, lead):
    planted = PLANTED_MOE | {"c": PLANTED_MOE["c"] - lead}
    fitted = fit(table_of(moe_grid(params=planted).assign(top_k=top_k)), JOINT_MOE, pin=planted)
    draws = {"c": tuple((planted["c"] + 0.002 * np.random.default_rng(top_k).standard_normal(100)).tolist())}
    pinned = {name: pin for name, pin in fitted.pinned.items() if name != "c"}
    return replace(fitted, params={**fitted.params, "c": planted["c"]}, draws=draws, pinned=pinned)


def test_fits_of_one_k_each_are_one_table():
    """The fit with the lower floor holds the best shape, and every (E, k) stands in the table."""
    fits = {"k1.json": study(1, 0.0), "k2.json": study(2, 0.05)}
    found = answer(
        fits["k1.json"],
        Question(train_flops=1e14),
        law_file="k1.json",
        of_other_k={"k2.json": fits["k2.json"]},
        what_if=False,
        cost_curves=False,
    )
    rows = found.shapes.rows
    assert (found.law_file, found.best.top_k, rows[0].name, rows[0].top_k) == ("k2.json", 2, "k2.json", 2)
    experts = {row.n_experts for row in rows if row.name == "k1.json"}
    assert {(row.name, row.n_experts) for row in rows} == {(name, e) for name in fits for e in experts}
    assert sum(row.probability_best for row in rows) == pytest.approx(1.0)
    own = recommend(fits["k2.json"], Question(train_flops=1e14)).recommendation
    assert (rows[0].n_experts, rows[0].value) == (own.n_experts, pytest.approx(own.loss, rel=1e-6))


def test_what_no_law_knows_is_doubted():
    """Narrow experts on a device, routers larger than a token's experts, and an end of what was compared."""
    shapes, _ = compare_shapes(
        variants({"fine": FINE}, Question(train_flops=2.95e18, granularity=(64.0, 128.0))), front=False
    )
    alone = doubts_of_shape(shapes, narrow=False)
    assert len(doubts_of_shape(shapes, narrow=True)) == len(alone) + 1  # experts of 256 n / 64 columns, n = 9
    assert shapes.rows[0].d_expert < 128
    wide = replace(shapes, rows=(replace(shapes.rows[0], router_share=1.5), *shapes.rows[1:]))
    assert len(doubts_of_shape(wide, narrow=False)) == len(alone) + 1


@pytest.mark.parametrize(
    ("fitted", "asked"),
    [
        (published("joint-moe-2025"), {"top_k": (1, 2)}),
        (published("joint-moe-2025"), {"granularity": (4.0,)}),
        (study(1, 0.0), {"top_k": (2,)}),
        (planted_fit(), {}),  # no lineage to read k from
        (FINE, {"granularity": (1.5,)}),
        (FINE, {"granularity": (4.0,), "top_k": (4,)}),
        (FINE, {"granularity": (4.0,), "settings": {"granularity": 8.0}}),
    ],
)
def test_shapes_that_a_fit_cannot_tell_apart_are_refused(fitted, asked):
    with pytest.raises(InputError):
        answer(fitted, Question(train_flops=1e20, **asked), what_if=False)


def test_leverage_is_compared_as_the_dense_law_at_el_times_the_compute():
    """At a budget without routers' work the loss of a shape is that of the dense optimum at EL C."""
    beside = with_dense(published("leverage-2025"), published("chinchilla-epoch"))
    question = Question(train_flops=1e20, family=FAMILIES["deepseek"], top_k=(8,), n_experts=(1, 64, 256))
    rows = {row.n_experts: row for row in compare_shapes(variants({"el": beside}, question), front=False)[0].rows}
    dense = recommend(published("chinchilla-epoch"), Question(train_flops=1e20)).recommendation
    assert rows[1].loss == pytest.approx(dense.loss, rel=1e-6)
    assert rows[256].loss < rows[64].loss < rows[1].loss


def test_all_shapes_keep_one_loss_which_the_recommendation_keeps_too():
    """Law tencent reads a dense model by the G and S of the routed ones, so every shape would keep another loss."""
    question = Question(train_flops=1e20, serve_tokens=1e11, family=OLMOE, top_k=(1, 6), n_shared=(1,), n_experts=(32,))
    found = answer(published("tencent-2025"), question, what_if=False, cost_curves=False)
    losses = {row.loss for row in found.shapes.rows}
    assert losses == {found.question.reference_loss}
    assert found.best.loss == pytest.approx(found.question.reference_loss, rel=1e-9)
    best = found.shapes.rows[0]
    assert (best.top_k, best.n_active) == (found.best.top_k, pytest.approx(found.best.n_active, rel=0.02))
    assert best.cost == pytest.approx(found.best.cost.total, rel=1e-3)
