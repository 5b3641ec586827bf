"""The laws against published values, their own identities, and independent optimisers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from analysis.fitting.published import PUBLISHED, published
from analysis.laws import LAWS, law_named, saturated_experts
from scaling.errors import InputError

MADE_UP = {  # laws whose constants nobody published
    "yun": {
        "A": 300.0, "alpha": 0.3, "B": 0.4, "beta": 0.5, "C": 900.0, "gamma": 0.33, "F": 1.4, "d": 1e-3,
        "E_start": 1.9, "E_max": 310.0,
    },
    "farseer": {
        "a1": -0.02, "b1": -0.7, "alpha": 0.12, "a2": -0.5, "b2": 9.0, "beta": 0.05, "a3": 2.0, "b3": -0.9,
        "gamma": -0.05,
    },
    "coupled": {"E": 1.7, "A": 3e4, "alpha": 0.6, "B": 3e5, "beta": 0.6, "gamma": 0.55},
    "coupled-moe": {**published("joint-moe-2025").params, "kappa": 0.6},
}  # fmt: skip
MODERATE = {fit.law: fit.params for fit in PUBLISHED.values()} | MADE_UP


def some_columns(definition):
    """Nine models with every column that any law reads."""
    rng = np.random.default_rng(1)
    columns = {
        **{name: rng.uniform(1e7, 1e9, 9) for name in ("n_active", "n_dense_nonembed", "n_active_nonembed")},
        **{name: rng.uniform(1e8, 1e10, 9) for name in ("tokens", "n_total", "n_total_nonembed")},
        "n_experts": np.array([1.0, 1, 2, 4, 8, 8, 16, 32, 64]), "top_k": np.array([2.0, 1, 1, 2, 1, 4, 2, 8, 6]),
        "granularity": np.array([1.0, 1, 2, 4, 8, 8, 16, 32, 16]), "active_experts": rng.uniform(1, 9, 9),
        "shared_share": rng.uniform(0, 0.5, 9), "activation_ratio": rng.uniform(0.01, 1, 9),
        "train_flops": rng.uniform(1e18, 1e20, 9),
    }  # fmt: skip
    return {key: columns[key] for key in definition.columns}


@pytest.mark.parametrize(
    ("name", "n", "d", "expected"),
    [  # 2203.15556 and 2404.10102, recomputed from the constants as printed
        ("chinchilla-rounded", 1e9, 2e10, 2.580048),
        ("chinchilla-rounded", 7e10, 1.4e12, 1.936645),
        ("chinchilla-tex", 1e9, 2e10, 2.530668),
        ("chinchilla-tex", 7e10, 1.4e12, 1.920846),
        ("chinchilla-epoch", 1e9, 2e10, 2.529159),
        ("chinchilla-epoch", 4e8, 8e9, 2.804653),
    ],
)
def test_published_chinchilla_losses(name, n, d, expected):
    assert published(name).loss({"n_active": n, "tokens": d}) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "flops", "size", "ratio", "loss"),
    [
        ("chinchilla-rounded", 1e21, 1.8242e9, 50.084, 2.328883),
        ("chinchilla-rounded", 5.76e23, 3.2190e10, 92.647, 1.930748),
        ("chinchilla-tex", 5.76e23, 4.0361e10, 58.932, 1.918412),
        ("chinchilla-epoch", 5.76e23, 7.2356e10, 18.337, 1.973963),
        ("chinchilla-epoch", 1e26, 1.0176e12, 16.095, 1.879504),
    ],
)
def test_chinchilla_allocations(name, flops, size, ratio, loss):
    fit = published(name)
    n, d = fit.definition.optimum(fit.params, flops, 1)
    assert n == pytest.approx(size, rel=1e-4)
    assert d / n == pytest.approx(ratio, rel=1e-3)
    assert fit.loss({"n_active": n, "tokens": d}) == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize(
    ("experts", "flops", "size", "tokens", "loss"),
    [  # 2502.05172: closed form, recomputed
        (1, 1e20, 1.727e9, 9.651e9, 2.58970),
        (8, 1e20, 9.90e8, 1.684e10, 2.52913),
        (32, 1e20, 6.742e8, 2.472e10, 2.47244),
        (4, 1e21, 4.390e9, 3.797e10, 2.31638),
        (16, 1e22, 1.327e10, 1.256e11, 2.08781),
    ],
)
def test_joint_moe_optima(experts, flops, size, tokens, loss):
    fit = published("joint-moe-2025")
    n, d = fit.definition.optimum(fit.params, flops, experts)
    assert (n, d) == (pytest.approx(size, rel=1e-3), pytest.approx(tokens, rel=1e-3))
    assert fit.loss({"n_active": n, "tokens": d, "n_experts": experts}) == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize(
    ("experts", "saturated", "loss"),
    [(1, 2.07320, 2.57760), (2, 3.05562, 2.55868), (8, 8.81237, 2.50878), (32, 29.70422, 2.45456)],
)
def test_joint_moe_values(experts, saturated, loss):
    fit = published("joint-moe-2025")
    assert saturated_experts(experts, 2.0732, 290.4521) == pytest.approx(saturated, abs=1e-5)
    assert fit.loss({"n_active": 1e9, "tokens": 2e10, "n_experts": experts}) == pytest.approx(loss, abs=1e-5)


@given(start=st.floats(1.01, 10), ratio=st.floats(10, 1e4))
def test_saturation_identities(start, ratio):
    """E_hat(1) = E_start; strictly increasing; bounded by E_max (2202.01169)."""
    top = start * ratio
    experts = np.geomspace(1, 1e7, 60)
    values = saturated_experts(experts, start, top)
    assert values[0] == pytest.approx(start, rel=1e-12)
    assert np.all(np.diff(values) > 0)
    assert values[-1] < top


@pytest.mark.parametrize("name", LAWS)
def test_gradient_equals_differences(name):
    definition = law_named(name)
    columns = some_columns(definition)
    names = definition.names
    theta = np.array([[definition.to_coordinates(p, MODERATE[name][p]) for p in names]], dtype=float)
    value, jacobian = definition.log_loss_gradient(theta, names, {}, columns)
    assert value[0] == pytest.approx(definition.log_loss(MODERATE[name], columns), rel=1e-13)
    for index in range(len(names)):
        step = 1e-5 * max(1.0, abs(theta[0, index]))
        moved = np.repeat(theta, 2, axis=0)
        moved[:, index] += [step, -step]
        ends, _ = definition.log_loss_gradient(moved, names, {}, columns)
        # Differences of ln losses near 1 over 2e-5 know a derivative to some 1e-10.
        assert jacobian[0, index] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-9)
    if "tokens" not in columns:
        return
    _, slope = definition.log_loss_by_tokens(MODERATE[name], columns)
    up, down = ({**columns, "tokens": columns["tokens"] * np.exp(h)} for h in (1e-5, -1e-5))
    difference = definition.log_loss(MODERATE[name], up) - definition.log_loss(MODERATE[name], down)
    assert slope == pytest.approx(difference / 2e-5, rel=1e-6)


@pytest.mark.parametrize("name", ["coupled", "coupled-moe"])
@given(value=st.floats(0.3, 3.0))
def test_a_coupled_law_contains_the_simpler_one_and_shares_its_limits(name, value):
    """At a coupling of 1 the two agree; at any value they agree where one of the two terms is negligible."""
    definition = law_named(name)
    simpler, columns = definition.extends.simpler, some_columns(definition)
    params = {p: MODERATE[simpler.name][p] for p in simpler.names}
    joined = definition.extends.params(params, 1.0)
    assert definition.log_loss(joined, columns) == pytest.approx(simpler.log_loss(params, columns), rel=1e-12)
    parted = definition.extends.params(params, value)
    for unlimited in ("tokens", definition.n_column):
        limit = {**columns, unlimited: np.full(9, 1e200)}
        assert definition.log_loss(parted, limit) == pytest.approx(simpler.log_loss(params, limit), rel=1e-6)


def test_coupled_contains_kaplan():
    """E = 0 and beta = 1: (A N^-alpha + B/D)^gamma with gamma = alpha_D, alpha = alpha_N/alpha_D, A = N_c^alpha."""
    p = published("kaplan-2020").params
    ratio, sizes, tokens = p["alpha_N"] / p["alpha_D"], np.array([1e8, 1e9, 3e10]), np.array([1e10, 2e9, 1e12])
    same = {"E": 1e-300, "A": p["N_c"] ** ratio, "alpha": ratio, "B": p["D_c"], "beta": 1.0, "gamma": p["alpha_D"]}
    of_kaplan = law_named("kaplan").log_loss(p, {"n_active_nonembed": sizes, "tokens": tokens})
    assert law_named("coupled").log_loss(same, {"n_active": sizes, "tokens": tokens}) == pytest.approx(of_kaplan)


@pytest.mark.parametrize(("name", "experts"), [("coupled", 1), ("coupled-moe", 1), ("coupled-moe", 16)])
def test_the_optimum_of_a_coupled_law_equals_search(name, experts):
    definition, params = law_named(name), MODERATE[name]
    for flops in (1e19, 1e22, 1e25):
        n, d = definition.optimum(params, flops, experts)
        assert 6 * n * d == pytest.approx(flops, rel=1e-12)

        def log_loss(log_n, flops=flops):
            columns = {"n_active": np.exp(log_n), "tokens": flops / 6 / np.exp(log_n), "n_experts": experts}
            return float(definition.log_loss(params, columns))

        found = minimize_scalar(
            log_loss, bounds=(np.log(n) - 5, np.log(n) + 5), method="bounded", options={"xatol": 1e-9}
        )
        assert np.exp(found.x) == pytest.approx(n, rel=1e-3)


CLOSED = sorted(name for name, fit in PUBLISHED.items() if fit.definition.optimum is not None)


@settings(max_examples=40, deadline=None)
@given(flops=st.floats(1e17, 1e26), experts=st.sampled_from([1, 2, 8, 32]), name=st.sampled_from(CLOSED))
def test_closed_form_optimum_equals_search(flops, experts, name):
    fit = published(name)
    n, d = fit.definition.optimum(fit.params, flops, experts)
    assert 6 * n * d == pytest.approx(flops, rel=1e-12)

    def loss(log_n):
        size = np.exp(log_n)
        law_size = {fit.definition.n_column: size}
        return float(fit.loss({**law_size, "tokens": flops / 6 / size, "n_experts": experts}))

    found = minimize_scalar(loss, bounds=(np.log(n) - 3, np.log(n) + 3), method="bounded", options={"xatol": 1e-9})
    assert np.exp(found.x) == pytest.approx(n, rel=1e-4)
    assert loss(np.log(n)) <= found.fun + 1e-14


@pytest.mark.parametrize("name", LAWS)
def test_a_law_declares_itself_whole(name):
    definition = law_named(name)
    assert definition.n_column in (*definition.columns, "")
    assert definition.divides_compute == (name not in ("clark", "leverage"))
    assert "arXiv" in definition.source
    for p in definition.parameters:
        assert p.bounds[0] <= p.start[0] < p.start[1] <= p.bounds[1], p.name
        assert (p.pin is None) == (not p.pin_source), p.name


@pytest.mark.parametrize("fit", PUBLISHED.values(), ids=PUBLISHED)
def test_a_published_fit_has_every_parameter_and_a_source(fit):
    assert set(fit.params) == set(fit.definition.names)
    assert "arXiv" in fit.source
    assert fit.status == "published"


def test_unknown_names_list_what_there_is():
    with pytest.raises(
        InputError, match="kaplan, hoffmann, coupled, clark, fine-grained, joint-moe, coupled-moe, sparsity"
    ):
        law_named("chinchila")
    with pytest.raises(InputError, match="chinchilla-epoch"):
        published("epoch")
    with pytest.raises(InputError, match="needs the column tokens"):
        law_named("hoffmann").log_loss(MODERATE["hoffmann"], {"n_active": 1e9})
    with pytest.raises(InputError, match="needs the parameter beta"):
        law_named("hoffmann").log_loss(dict.fromkeys(("E", "A", "alpha", "B"), 1.0), {"n_active": 1e9, "tokens": 1e9})
    with pytest.raises(InputError, match="has no parameter 'gamma'"):
        law_named("hoffmann").parameter("gamma")
