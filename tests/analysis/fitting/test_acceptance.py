"""Published constants against values recomputed from them as printed: the sources are named in
analysis/fitting/published.py.

What needs public data or a fit stands in test_fit.py and test_uncertainty.py; what serving costs, in test_serving.py.
"""

from __future__ import annotations

from math import log10

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting.published import published
from analysis.laws import law_named
from analysis.laws.model_family import FINE_GRAINED_2024, JOINT_MOE_2025, PolynomialFamily
from analysis.laws.moe import saturated_experts
from analysis.laws.moe_shape import FINE_GRAINED


def effective_parameters(p, n_dense, n_experts):
    """N_bar of clark: the size of the dense model with the loss of the routed one.

    N_bar = N^(alpha(E_hat)/alpha(E_start)) (E_hat/E_start)^(b/alpha(E_start)), alpha(x) = a + c log10 x (Clark et al.,
    arXiv 2202.01169). `p` are the law's parameters, `n_dense` is its N, in parameters.
    """
    saturated = saturated_experts(np.asarray(n_experts, dtype=float), p["E_start"], p["E_max"])
    steepness, first = (p["a"] + p["c"] * np.log10(x) for x in (saturated, p["E_start"]))
    return n_dense ** (steepness / first) * (saturated / p["E_start"]) ** (p["b"] / first)


def fine_grained_flops(n_blocks, tokens, granularity, expansion):
    """Training FLOPs of a fine-grained MoE of width d = 64 n_blocks with its routers: (12 d^2 c_f + d E G c_r) D
    n_blocks.

    Krajewski et al. 2024, arXiv 2402.07871, section 5 and appendix; c_f = 6, c_r = 14. E is the expansion rate: experts
    per layer are E G.
    """
    width = 64.0 * n_blocks
    return (12.0 * width**2 * 6.0 + width * expansion * granularity * 14.0) * tokens * n_blocks


def fine_grained_optimum(p, train_flops, expansion=64.0, most_granular=128):
    """N_active (without embeddings), D, G and loss of least loss at a compute budget, routers paid for.

    The compute study of arXiv 2402.07871: width 64 n_blocks, N = (8 E + 4) d^2 n_blocks, N_active = 12 d^2 n_blocks, G
    in powers of two; n_blocks is continuous. Paying for the router is what bounds G: the law alone says that more is
    always better.
    """
    best = (np.nan, np.nan, 0, np.inf)
    for power in range(int(np.log2(most_granular)) + 1):
        granularity = 2**power
        low, high = np.log(0.5), np.log(5e3)
        for _ in range(12):  # ever finer grids around the best n_blocks
            blocks = np.exp(np.linspace(low, high, 64))
            tokens = train_flops / fine_grained_flops(blocks, 1.0, granularity, expansion)
            total = (8.0 * expansion + 4.0) * (64.0 * blocks) ** 2 * blocks
            columns = {"n_total_nonembed": total, "tokens": tokens, "granularity": np.full(64, float(granularity))}
            loss = FINE_GRAINED.loss(p, columns)
            at = int(np.argmin(loss))
            low, high = np.log(blocks[max(at - 1, 0)]), np.log(blocks[min(at + 1, 63)])
        if loss[at] < best[3]:
            active = 12.0 * (64.0 * blocks[at]) ** 2 * blocks[at]
            best = (float(active), float(tokens[at]), granularity, float(loss[at]))
    return best


def tencent(total, active, tokens, experts, shared):
    return {"n_total": total, "n_active": active, "tokens": tokens, "active_experts": experts, "shared_share": shared}


@pytest.mark.parametrize(
    ("name", "columns", "expected", "tolerance"),
    [
        ("kaplan-2020", {"n_active_nonembed": 1e9, "tokens": 2e10}, 2.373882, 1e-5),
        ("kaplan-2020", {"n_active_nonembed": 1e9, "tokens": 1e12}, 2.320053, 1e-5),
        ("clark-2022-s-base", {"n_dense_nonembed": 1e8, "n_experts": 1}, 2.74415, 1e-4),
        ("clark-2022-s-base", {"n_dense_nonembed": 1e9, "n_experts": 64}, 2.08581, 1e-4),
        ("clark-2022-s-base", {"n_dense_nonembed": 1.3e9, "n_experts": 128}, 2.02172, 1e-4),
        ("clark-2022-rl-r", {"n_dense_nonembed": 1e8, "n_experts": 64}, 2.47925, 1e-4),
        ("clark-2022-rl-r", {"n_dense_nonembed": 1.3e9, "n_experts": 128}, 2.09505, 1e-4),
        ("clark-2022-hash", {"n_dense_nonembed": 1e9, "n_experts": 64}, 2.11073, 1e-4),
        ("clark-2022-hash", {"n_dense_nonembed": 1.3e9, "n_experts": 128}, 2.04403, 1e-4),
        ("fine-grained-2024", {"n_total_nonembed": 43e9, "tokens": 28.94e9, "granularity": 16}, 2.4714, 1e-3),
        ("fine-grained-2024", {"n_total_nonembed": 4.3e9, "tokens": 4.37e9, "granularity": 8}, 3.1097, 1e-3),
        ("fine-grained-2024", {"n_total_nonembed": 43e12, "tokens": 7.94e12, "granularity": 64}, 1.3558, 1e-3),
        ("sparsity-2025", {"n_total": 1e9, "tokens": 2e10, "n_experts": 1, "top_k": 1}, 2.565681, 1e-5),
        ("sparsity-2025", {"n_total": 1e10, "tokens": 1e11, "n_experts": 8, "top_k": 4}, 2.101931, 1e-5),
        ("sparsity-2025", {"n_total": 1e10, "tokens": 1e11, "n_experts": 10, "top_k": 1}, 2.149838, 1e-5),
        ("sparsity-2025", {"n_total": 1e11, "tokens": 1e12, "n_experts": 50, "top_k": 1}, 1.851102, 1e-5),
        ("leverage-2025", {"activation_ratio": 0.031, "granularity": 12, "train_flops": 1e22}, 7.2449, 1e-3),
        ("leverage-2025", {"activation_ratio": 0.034, "granularity": 12, "train_flops": 1e22}, 6.9614, 1e-3),
        ("leverage-2025", {"activation_ratio": 0.031, "granularity": 12, "train_flops": 1e21}, 5.7437, 1e-3),
        ("leverage-2025", {"activation_ratio": 0.034, "granularity": 8, "train_flops": 1e20}, 4.3625, 1e-3),
        ("leverage-2025", {"activation_ratio": 1.0, "granularity": 1, "train_flops": 1e20}, 0.99529, 1e-4),
        ("tencent-2025", tencent(30e9, 3e9, 1e12, 7, 0.31), 2.186688, 1e-5),
        ("tencent-2025", tencent(10e9, 1e9, 1e11, 8, 0.125), 2.400741, 1e-5),
        ("tencent-2025", tencent(671e9, 37e9, 14.8e12, 8, 0.111), 1.995603, 1e-5),
    ],
)  # fmt: skip
def test_published_values(name, columns, expected, tolerance):
    assert published(name).loss(columns) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(
    ("alpha", "scale", "column", "at", "expected"),
    [
        ("alpha_N", ("N_c", 8.8e13), "n_active_nonembed", 1e9, 2.375640),
        ("alpha_N", ("N_c", 8.8e13), "n_active_nonembed", 1.5e9, 2.303551),
        ("alpha_D", ("D_c", 5.4e13), "tokens", 1e10, 2.262442),
    ],
)
def test_kaplan_with_one_axis_without_limit(alpha, scale, column, at, expected):
    """L(N) = (N_c/N)^.076 and L(D) = (D_c/D)^.095 (arXiv 2001.08361): the joint law as the other axis goes to
    infinity."""
    params = {"alpha_N": 0.076, "alpha_D": 0.095, "N_c": 8.8e13, "D_c": 5.4e13} | dict([scale])
    columns = {"n_active_nonembed": 1e300, "tokens": 1e300, column: at}
    assert law_named("kaplan").loss(params, columns) == pytest.approx(expected, abs=1e-5), alpha


@pytest.mark.parametrize(
    ("router", "of_1e8_64", "of_5e6_128"),
    [("s-base", 4.593e8, 5.183e7), ("rl-r", 3.612e8, 4.891e7), ("hash", 3.785e8, 4.699e7)],
)
def test_effective_parameters_of_clark(router, of_1e8_64, of_5e6_128):
    params = published(f"clark-2022-{router}").params
    assert effective_parameters(params, 1e8, 64) == pytest.approx(of_1e8_64, rel=1e-3)
    assert effective_parameters(params, 5e6, 128) == pytest.approx(of_5e6_128, rel=1e-3)


@given(size=st.floats(1e6, 1e10), experts=st.integers(1, 512), router=st.sampled_from(["s-base", "rl-r", "hash"]))
def test_a_routed_model_has_the_loss_of_its_effective_dense_one(size, experts, router):
    fit = published(f"clark-2022-{router}")
    dense = effective_parameters(fit.params, size, experts)
    routed_loss = fit.loss({"n_dense_nonembed": size, "n_experts": experts})
    assert fit.loss({"n_dense_nonembed": dense, "n_experts": 1}) == pytest.approx(routed_loss, rel=1e-10)


@pytest.mark.parametrize(
    ("active", "tokens", "granularity", "flops"),
    [  # arXiv 2402.07871, the table of compute-optimal models: FLOPs as printed reproduce to .5 %
        (1e8, 4.37e9, 8, 2.944e18), (1e9, 28.94e9, 16, 1.934e20), (3e9, 72.90e9, 16, 1.416e21),
        (7e9, 137.60e9, 32, 6.468e21), (7e10, 941.07e9, 32, 4.171e23), (1e12, 7.94e12, 64, 4.981e25),
    ],
)  # fmt: skip
def test_fine_grained_flops_and_optimum(active, tokens, granularity, flops):
    blocks = (active / (12.0 * 64.0**2)) ** (1 / 3)
    assert fine_grained_flops(blocks, tokens, granularity, 64.0) == pytest.approx(flops, rel=1e-3)
    n, d, g, _ = fine_grained_optimum(published("fine-grained-2024").params, flops)
    # Three-digit constants: the source's own optima lie 1.4 to 2.5 % (N) and 1.6 to 2.3 % (D) away.
    assert (g, n, d) == (granularity, pytest.approx(active, rel=0.03), pytest.approx(tokens, rel=0.03))


def test_fine_grained_optimum_of_the_reference():
    n, d, g, _ = fine_grained_optimum(published("fine-grained-2024").params, 1.41e21)
    assert (g, n, d) == (16, pytest.approx(3.05e9, rel=0.03), pytest.approx(7.14e10, rel=0.03))


def test_counts_of_the_published_families():
    """64 x 25M with 8 blocks of width 512: 1.0821e9 in all, 2.5166e7 active (2402.07871); 2502.05172's E = 8, 12
    blocks."""
    fine = FINE_GRAINED_2024.sizes(np.array([12.0 * 512**2 * 8]), 64)
    assert fine.column("n_total_nonembed")[0] == pytest.approx(1.0821e9, rel=1e-4)
    assert fine.n_active[0] == pytest.approx(2.5166e7, rel=1e-4)
    joint = JOINT_MOE_2025.sizes(np.array([169_207_296.0]), 8)
    assert joint.column("n_total")[0] == pytest.approx(615_114_240, rel=1e-9)


def test_joint_moe_at_one_expert_count_is_a_dense_law():
    """Table 4 of 2502.05172 prints m, mu, n, nu of E = 32 to within .3 % of the closed form."""
    p = published("joint-moe-2025").params
    log_e = np.log(29.70422)
    found = (
        p["a"] * np.exp(p["delta"] * log_e), p["alpha"] + p["gamma"] * log_e, p["b"] * np.exp(p["omega"] * log_e),
        p["beta"] + p["zeta"] * log_e,
    )  # fmt: skip
    assert found == pytest.approx((16.5424, -0.1557, 234.6726, -0.2652), rel=3e-3)


def test_best_granularity_and_share_of_the_shape_laws():
    """2507.17702: G_opt = 2^(-beta/(2 gamma)) = 11.337; 2509.23678: G 6.7778, S .314846, Na/N .40049 at 30B, .22023 at
    671B."""
    p = published("leverage-2025").params
    best = 2 ** (-p["beta"] / (2 * p["gamma"]))
    assert best == pytest.approx(11.337, abs=1e-2)
    columns = {"activation_ratio": 0.031, "train_flops": 1e22}
    values = published("leverage-2025").loss({**columns, "granularity": np.array([best, 8.0, 16.0])})
    assert values.argmax() == 0
    fitted = published("tencent-2025")
    counts, shares = np.linspace(2, 20, 1801), np.linspace(0, 1, 100_001)
    base = tencent(30e9, 3e9, 1e12, 7.0, 0.31)
    assert counts[fitted.loss(base | {"active_experts": counts}).argmin()] == pytest.approx(6.7778, abs=0.006)
    assert shares[fitted.loss(base | {"shared_share": shares}).argmin()] == pytest.approx(0.314846, abs=2e-5)
    for total, share in ((30e9, 0.40049), (671e9, 0.22023)):
        active = np.linspace(0.05, 0.9, 85_001)
        loss = fitted.loss(base | {"n_total": total, "n_active": active * total})
        assert active[loss.argmin()] == pytest.approx(share, abs=1e-3)


def test_overtraining_is_hoffmann_with_equal_exponents():
    """arXiv 2403.08540: A = B = 400, alpha .3, E 1.7, N 1e9, D 1e11 give 2.69857982 in both forms."""
    eta = 0.15
    factor = 400.0 * 6.0**eta
    at = {"n_active": 1e9, "tokens": 1e11}
    mine = law_named("overtraining").loss({"E": 1.7, "a": factor, "b": factor, "eta": eta}, at)
    theirs = law_named("hoffmann").loss({"E": 1.7, "A": 400.0, "B": 400.0, "alpha": 0.3, "beta": 0.3}, at)
    assert mine == pytest.approx(2.69857982, abs=1e-8)
    assert mine == pytest.approx(theirs, rel=1e-12)


def test_overtraining_predicts_the_authors_large_runs():
    """The refit of 2403.08540 puts the 1.4B model on 921B tokens at 2.5198, the 6.9B one on 138B at 2.4427."""
    fit = published("overtraining-2024")
    for n, d, expected in ((921e9 / 640, 921e9, 2.5198), (138e9 / 20, 138e9, 2.4427)):  # M = 640 and 20
        # Constants of three or four digits: eta to 5e-5 moves the loss by some .001.
        assert fit.loss({"n_active": n, "tokens": d}) == pytest.approx(expected, abs=0.002)


def test_farseer_arithmetic():
    """Made-up constants: with a1 = a2 = a3 = 0 it is E + B/D^beta and N does not matter."""
    flat = {"a1": 0.0, "a2": 0.0, "a3": 0.0, "b3": np.log(1.69), "b2": np.log(410.7), "b1": np.log(0.28)}
    flat |= dict.fromkeys(("alpha", "beta", "gamma"), 0.1)
    for n in (1e8, 1e10):
        assert law_named("farseer").loss(flat, {"n_active": n, "tokens": 2e10}) == pytest.approx(2.2260883, abs=1e-6)
    bent = {
        "a1": -0.02,
        "b1": -0.7,
        "alpha": 0.12,
        "a2": -0.5,
        "b2": 9.0,
        "beta": 0.05,
        "a3": 2.0,
        "b3": -0.9,
        "gamma": -0.05,
    }
    for n, d, expected in ((1e9, 2e10, 1.0148417), (1e8, 1e10, 1.0694240)):
        assert law_named("farseer").loss(bent, {"n_active": n, "tokens": d}) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("constants", "dense_size", "served", "size", "ratio"),
    [  # arXiv 2401.00448: the quality of a compute-optimal model of that size, at least lifetime FLOPs
        ({"alpha": 0.336, "beta": 0.283, "E": 1.69, "A": 406.4, "B": 410.7}, 7e9, 1e11, 5.9997e9, 1.1758),
        ({"alpha": 0.336, "beta": 0.283, "E": 1.69, "A": 406.4, "B": 410.7}, 30e9, 1e13, 1.3613e10, 2.8448),
        ({"alpha": 0.34, "beta": 0.28, "E": 1.69, "A": 406.4, "B": 410.7}, 7e9, 1e11, 6.3392e9, 1.1077),
    ],
)
def test_lifetime_objective_of_sardana(constants, dense_size, served, size, ratio):
    from analysis.fitting.fit import Fit

    fit = Fit("hoffmann", constants)
    share = constants["beta"] / (constants["alpha"] + constants["beta"])
    factor = (constants["alpha"] * constants["A"] / (constants["beta"] * constants["B"])) ** (
        1 / (constants["alpha"] + constants["beta"])
    )
    budget = 6 * (dense_size / factor) ** (1 / share)
    tokens = budget / 6 / dense_size
    target = float(fit.loss({"n_active": dense_size, "tokens": tokens}))
    # Their tokens are all that a model reads or writes; ours are written, and 512 are read for 256 that are written.
    choice = recommend(fit, Question(target_loss=target, serve_tokens=served / 3)).recommendation
    assert choice.n_active == pytest.approx(size, rel=1e-3)
    assert choice.tokens / tokens == pytest.approx(ratio, rel=1e-3)
    eps_n = constants["alpha"] * constants["A"] * choice.n_active ** -constants["alpha"]
    eps_d = constants["beta"] * constants["B"] * choice.tokens ** -constants["beta"]
    # The first-order condition; a grid search of N to 1e-4 leaves its own error in it.
    assert eps_n / eps_d == pytest.approx(1 + served / (3 * choice.tokens), rel=1e-3)


def test_leverage_keeps_its_bases():
    """Only log10 of C with log2 of G gives the paper's claims (2507.17702): at G = 2^x, C = 10^y the power is linear in
    both."""
    p = published("leverage-2025").params
    at = {"activation_ratio": 0.05, "granularity": 8.0, "train_flops": 1e20}
    offset = 1 / (1 / p["A_start"] - 1 / p["A_max"])
    saturated = 1 / (1 / (0.05 + offset) + 1 / p["A_max"])
    power = p["a"] + p["d"] * log10(1e20) + p["gamma"] * 9 + p["beta"] * 3
    assert published("leverage-2025").loss(at) == pytest.approx(saturated**power, rel=1e-12)


@pytest.mark.parametrize(("experts", "share"), [(4, 2.0), (8, 10 / 3), (16, 6.0), (32, 34 / 3)])
def test_totals_of_experts_in_every_second_layer(experts, share):
    """2404.02852: gated MLPs are two thirds of a layer, every second one is routed to two: N_total = (1 + (E-1)/3)
    N."""
    family = PolynomialFamily(
        top_k=2, routed={"n_active": ((1, 4 / 3),), "n_dense_nonembed": ((1, 1.0),)}, dense={}, expert=((1, 1 / 3),),
        n_layers=(), d_model=(), source="arXiv 2404.02852",
    )  # fmt: skip
    found = family.sizes(np.array([4 / 3 * 1e8]), experts)
    assert found.column("n_dense_nonembed")[0] == pytest.approx(1e8, rel=1e-9)
    assert found.column("n_total")[0] == pytest.approx(share * 1e8, rel=1e-4)
