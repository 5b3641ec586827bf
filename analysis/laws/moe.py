"""Laws in the number of experts, size and tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.laws.autodiff import log, log_sum_exp
from analysis.laws.law import Extension, Law, Parameter, Role, coefficient, coupling, exponent, floor, two_term_optimum
from scaling.columns import EXPERTS, TOKENS


def saturated_experts(n_experts: Any, e_start: Any, e_max: Any) -> Any:
    """E_hat: 1/E_hat = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max, so E_hat(1) = E_start and E_hat(inf) = E_max.

    Clark et al., arXiv 2202.01169; reused by 2404.02852 and 2502.05172. E_start < E_max.
    """
    return 1.0 / (1.0 / (n_experts - 1.0 + 1.0 / (1.0 / e_start - 1.0 / e_max)) + 1.0 / e_max)


_LN10 = np.log(10.0)
# Source of pins in all laws but Clark's: Ludziejewski et al. also fit a term in D, as these laws do.
_LUDZIEJEWSKI = "Ludziejewski et al. 2025, arXiv 2502.05172"
Range = tuple[float, float]


def _saturation(e_start: float, e_max: float, source: str) -> tuple[Parameter, Parameter]:
    """E_start and E_max, with published values for grids with too few E."""
    first, last = "saturated expert count at E = 1", "saturated expert count at E = infinity"
    return (
        Parameter("E_start", "saturation", first, (1.2, 8.0), (1.0 + 1e-6, 30.0), "log", "", "", e_start, source),
        Parameter("E_max", "saturation", last, (60.0, 1200.0), (32.0, 1e6), "log", "", "", e_max, source),
    )


def _pinnable(name: str, role: Role, meaning: str, start: Range, bounds: Range, pin: float) -> Parameter:
    """A parameter of the effect of E, with the value of Ludziejewski et al. for grids that cannot identify it."""
    return Parameter(name, role, meaning, start, bounds, pin=pin, pin_source=_LUDZIEJEWSKI)


def _clark(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    log_n, log_e = np.log(x["n_dense_nonembed"]), log(saturated_experts(x[EXPERTS], p["E_start"], p["E_max"]))
    return p["a"] * log_n + p["b"] * log_e + p["c"] * (log_n * log_e / _LN10) + p["d"] * _LN10


CLARK = Law(
    name="clark",
    formula="log10 L = a log10 N + b log10 E_hat + c log10 N log10 E_hat + d",
    typst="log L = a log N + b log hat(E) + c log N log hat(E) + d",
    n_column="n_dense_nonembed",
    parameters=(
        Parameter("a", "size", "exponent of N at E_hat = 1 (negative)", (-0.6, -0.02), (-4.0, 4.0), linear="log"),
        Parameter("b", "expert", "exponent of E_hat at N = 1 (negative)", (-0.4, 0.0), (-4.0, 4.0), linear="log"),
        Parameter("c", "interaction", "change of a with log10 E_hat", (-0.03, 0.03), (-1.0, 1.0), linear="log"),
        Parameter("d", "size", "log10 of the loss at N = 1, E_hat = 1", (0.5, 2.0), (-10.0, 10.0), linear="log"),
        *_saturation(1.847, 314.478, "Clark et al. 2022, arXiv 2202.01169, S-BASE"),
    ),
    log_formula=_clark,
    source="Clark et al. 2022, arXiv 2202.01169, bilinear with saturation (log10; all runs on 130B tokens: no D)",
    domain="top-1 MoE in every second layer, dense backbone 16M to 1.3B, E 1 to 512, 130B tokens",
    columns=("n_dense_nonembed", EXPERTS),
)


def _yun(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    log_n, log_e = np.log(x["n_dense_nonembed"]), log(saturated_experts(x[EXPERTS], p["E_start"], p["E_max"]))
    terms = log_sum_exp(
        log(p["A"]) - p["alpha"] * log_n,
        log(p["B"]) - p["beta"] * log_e,
        log(p["C"]) - p["gamma"] * log(x[TOKENS]),
        log(p["F"]),
    )
    return terms + p["d"] * (log_n * log_e)


YUN = Law(
    name="yun",
    formula="ln L = ln(A/N^alpha + B/E_hat^beta + C/D^gamma + F) + d ln N ln E_hat",
    typst="ln L = ln(A / N^alpha + B / hat(E)^beta + C / D^gamma + F) + d ln N ln hat(E)",
    n_column="n_dense_nonembed",
    parameters=(
        coefficient("A", "size", "size of the term in N", "nats x parameters^alpha"),
        exponent("alpha", "size", "exponent of N"),
        coefficient("B", "expert", "size of the term in E_hat", "nats", upper=1e6),
        exponent("beta", "expert", "exponent of E_hat"),
        coefficient("C", "data", "size of the term in D", "nats x tokens^gamma"),
        exponent("gamma", "data", "exponent of D"),
        floor("F"),
        Parameter(
            "d",
            "interaction",
            "interaction of ln N and ln E_hat",
            (-0.01, 0.01),
            (-0.2, 0.2),
            pin=0.0,
            pin_source="no interaction (Yun's constants are unpublished, arXiv 2404.02852)",
        ),
        *_saturation(2.0732, 290.4521, _LUDZIEJEWSKI),
    ),
    log_formula=_yun,
    source="Yun et al. 2024, arXiv 2404.02852, eq. 4 (natural logs; its constants are unpublished)",
    domain="MoE in every second layer, dense backbone 100M to 730M without embeddings, E 1 to 32, D 2.5B to 20B, top-2",
    columns=("n_dense_nonembed", TOKENS, EXPERTS),
)


def _joint_moe(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    log_e = log(saturated_experts(x[EXPERTS], p["E_start"], p["E_max"]))
    return log_sum_exp(
        log(p["a"]) + p["delta"] * log_e + (p["alpha"] + p["gamma"] * log_e) * np.log(x["n_active"]),
        log(p["b"]) + p["omega"] * log_e + (p["beta"] + p["zeta"] * log_e) * log(x[TOKENS]),
        log(p["c"]),
    )


def _joint_moe_optimum(p: Mapping[str, Any], train_flops: Any, n_experts: Any) -> tuple[Any, Any]:
    log_e = np.log(saturated_experts(np.asarray(n_experts, dtype=float), p["E_start"], p["E_max"]))
    m, mu = p["a"] * np.exp(p["delta"] * log_e), -(p["alpha"] + p["gamma"] * log_e)
    n, nu = p["b"] * np.exp(p["omega"] * log_e), -(p["beta"] + p["zeta"] * log_e)
    return two_term_optimum(m, mu, n, nu, train_flops)


JOINT_MOE = Law(
    name="joint-moe",
    formula="L = a E_hat^delta N^(alpha + gamma ln E_hat) + b E_hat^omega D^(beta + zeta ln E_hat) + c",
    typst="L = a hat(E)^delta N^(alpha + gamma ln hat(E)) + b hat(E)^omega D^(beta + zeta ln hat(E)) + c",
    n_column="n_active",
    parameters=(
        coefficient("a", "size", "size of the term in N", "nats x parameters^-alpha"),
        exponent("alpha", "size", "exponent of N at E_hat = 1 (negative)", sign=-1),
        _pinnable("delta", "expert", "exponent of E_hat in the term in N", (-0.8, 0.4), (-6.0, 6.0), -0.2285),
        _pinnable("gamma", "interaction", "change of N's exponent with ln E_hat", (-0.05, 0.05), (-1.0, 1.0), 0.0098),
        coefficient("b", "data", "size of the term in D", "nats x tokens^-beta"),
        exponent("beta", "data", "exponent of D at E_hat = 1 (negative)", sign=-1),
        _pinnable("omega", "expert", "exponent of E_hat in the term in D", (-0.4, 0.8), (-6.0, 6.0), 0.5529),
        _pinnable("zeta", "interaction", "change of D's exponent with ln E_hat", (-0.05, 0.05), (-1.0, 1.0), -0.0259),
        floor("c"),
        *_saturation(2.0732, 290.4521, _LUDZIEJEWSKI),
    ),
    log_formula=_joint_moe,
    source="Ludziejewski et al. 2025, arXiv 2502.05172, joint MoE law (natural logs, signs as printed)",
    domain="top-1 MoE in every layer, N_active 79M to 2.7B with embeddings, E 1 to 32, D 0.5B to 80B",
    columns=("n_active", TOKENS, EXPERTS),
    optimum=_joint_moe_optimum,
)


def _coupled_moe(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    log_e = log(saturated_experts(x[EXPERTS], p["E_start"], p["E_max"]))
    size = log(p["a"]) + p["delta"] * log_e + (p["alpha"] + p["gamma"] * log_e) * np.log(x["n_active"])
    data = log(p["b"]) + p["omega"] * log_e + (p["beta"] + p["zeta"] * log_e) * log(x[TOKENS])
    sharpness = 1.0 / p["kappa"]
    return log_sum_exp(p["kappa"] * log_sum_exp(sharpness * size, sharpness * data), log(p["c"]))


def _coupled_moe_optimum(p: Mapping[str, Any], train_flops: Any, n_experts: Any) -> tuple[Any, Any]:
    log_e = np.log(saturated_experts(np.asarray(n_experts, dtype=float), p["E_start"], p["E_max"]))
    sharpness = 1.0 / p["kappa"]
    m, mu = (p["a"] * np.exp(p["delta"] * log_e)) ** sharpness, -sharpness * (p["alpha"] + p["gamma"] * log_e)
    n, nu = (p["b"] * np.exp(p["omega"] * log_e)) ** sharpness, -sharpness * (p["beta"] + p["zeta"] * log_e)
    return two_term_optimum(m, mu, n, nu, train_flops)


COUPLED_MOE = Law(
    name="coupled-moe",
    formula="L = (T_N^(1/kappa) + T_D^(1/kappa))^kappa + c with the terms T_N, T_D of joint-moe",
    typst="L = (T_N^(1 \\/ kappa) + T_D^(1 \\/ kappa))^kappa + c",
    n_column="n_active",
    parameters=(*JOINT_MOE.parameters, coupling("kappa")),
    log_formula=_coupled_moe,
    source="joint-moe (arXiv 2502.05172) with its two terms coupled, as in the law coupled: kappa = 1 is joint-moe",
    domain="as joint-moe",
    columns=JOINT_MOE.columns,
    optimum=_coupled_moe_optimum,
    extends=Extension(JOINT_MOE, "kappa", lambda p, kappa: {**p, "kappa": kappa}),
)
