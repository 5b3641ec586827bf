"""Laws in the shape of an MoE and its size: granularity, sparsity, shared experts, activation ratio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.laws.autodiff import exp, log, log_sum_exp
from analysis.laws.law import Law, Parameter, coefficient, exponent, floor
from scaling.columns import EXPERTS, TOKENS

_LN2, _LN10 = np.log(2.0), np.log(10.0)


def _fine_grained(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    size = -(p["alpha"] * np.log(x["n_total_nonembed"]))
    return log_sum_exp(
        log(p["c"]),
        log(p["g"]) - p["gamma"] * np.log(x["granularity"]) + size,
        log(p["a"]) + size,
        log(p["b"]) - p["beta"] * log(x[TOKENS]),
    )


FINE_GRAINED = Law(
    name="fine-grained",
    formula="L = c + (g/G^gamma + a)/N^alpha + b/D^beta",
    typst="L = c + (g / G^gamma + a) / N^alpha + b / D^beta",
    n_column="n_total_nonembed",
    parameters=(
        floor("c"),
        coefficient("g", "interaction", "what G = 1 adds to the term in N", "nats x parameters^alpha"),
        exponent("gamma", "interaction", "exponent of granularity G"),
        coefficient("a", "size", "size of the term in N at G = infinity", "nats x parameters^alpha"),
        exponent("alpha", "size", "exponent of N"),
        coefficient("b", "data", "size of the term in D", "nats x tokens^beta"),
        exponent("beta", "data", "exponent of D"),
    ),
    log_formula=_fine_grained,
    source="Krajewski et al. 2024, arXiv 2402.07871 (of one expansion rate E; routers are not in N)",
    domain="expert-choice MoE in every layer, N_total 129M to 3.7B without embeddings, G 1 to 16, D 16B to 130B",
    columns=("n_total_nonembed", TOKENS, "granularity"),
)


def _active_share(x: Mapping[str, Any]) -> Any:
    """1 - S = k/E; 1 for a dense model, whatever its `top_k`."""
    return np.where(x[EXPERTS] == 1, 1.0, x["top_k"] / x[EXPERTS])


def _sparsity(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    log_n, log_share = np.log(x["n_total"]), np.log(_active_share(x))
    return log_sum_exp(
        log(p["a"]) - p["alpha"] * log_n,
        log(p["b"]) - p["beta"] * log(x[TOKENS]),
        log(p["c"]) - p["lambda"] * log_share,
        log(p["d"]) - p["delta"] * log_share - p["gamma"] * log_n,
        log(p["e"]),
    )


SPARSITY = Law(
    name="sparsity",
    formula="L = a/N^alpha + b/D^beta + c/(1-S)^lambda + d/((1-S)^delta N^gamma) + e with 1-S = k/E",
    typst="L = a / N^alpha + b / D^beta + c / (1-S)^lambda + d / ((1-S)^delta N^gamma) + e",
    n_column="n_total",
    parameters=(
        coefficient("a", "size", "size of the term in N", "nats x parameters^alpha"),
        exponent("alpha", "size", "exponent of N"),
        coefficient("b", "data", "size of the term in D", "nats x tokens^beta"),
        exponent("beta", "data", "exponent of D"),
        coefficient("c", "expert", "size of the term in sparsity", "nats", upper=1e6),
        Parameter("lambda", "expert", "exponent of 1 - S (negative: the term falls with S)", (-0.6, 0.3), (-4.0, 4.0)),
        coefficient("d", "interaction", "size of the term in sparsity and N", "nats x parameters^gamma"),
        Parameter("delta", "interaction", "exponent of 1 - S in that term", (-0.1, 0.6), (-4.0, 4.0)),
        Parameter("gamma", "interaction", "exponent of N in that term", (0.05, 0.6), (1e-3, 4.0)),
        floor("e"),
    ),
    log_formula=_sparsity,
    source="Abnar et al. 2025, arXiv 2501.12370 (R2 68 % off its grid: it extrapolates poorly in S)",
    domain="MoE with N_total up to some 10B, S 0 to .98",
    columns=("n_total", TOKENS, EXPERTS, "top_k"),
)


def _tencent(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    count, shared = x["active_experts"], x["shared_share"]
    log_total, log_active = np.log(x["n_total"]), np.log(x["n_active"])
    by_total, by_active = exp(-(p["alpha"] * log_total)), exp(-(p["alpha"] * log_active))
    mixture = p["e"] * count + p["f"] / count + p["m"] * shared**2 + p["n"] * shared
    size = by_total + p["k"] * by_active + p["h"] * (x["n_active"] / x["n_total"])
    rest = p["a"] * by_total + p["b"] * exp(-(p["beta"] * log(x[TOKENS]))) + p["c"] * by_active + p["eps"]
    return log(mixture * size + rest)


TENCENT = Law(
    name="tencent",
    formula="L = (e G + f/G + m S^2 + n S)(1/N^alpha + k/Na^alpha + h Na/N) + a/N^alpha + b/D^beta + c/Na^alpha + eps",
    typst="L = (e G + f / G + m S^2 + n S)(1 / N^alpha + k / N_a^alpha + h N_a / N) + a / N^alpha + b / D^beta "
    "+ c / N_a^alpha + epsilon",
    n_column="n_total",
    parameters=(
        Parameter("e", "expert", "cost of more active experts G", (0.01, 1.0), (0.0, 1e3), linear="loss"),
        Parameter("f", "expert", "cost of fewer active experts", (0.1, 20.0), (0.0, 1e4), linear="loss"),
        Parameter("m", "expert", "curvature in the share of shared experts S", (0.0, 10.0), (-1e3, 1e3), linear="loss"),
        Parameter("n", "expert", "slope in S (negative)", (-10.0, 0.0), (-1e3, 1e3), linear="loss"),
        Parameter("k", "interaction", "weight of the mixture's part in Na", (1e-4, 0.1), (1e-9, 1e3), "log"),
        Parameter("h", "interaction", "weight of the mixture's part in Na/N", (1e-3, 0.3), (1e-9, 1e3), "log"),
        coefficient("a", "size", "size of the term in N", "nats x parameters^alpha"),
        exponent("alpha", "size", "exponent of N and of Na"),
        coefficient("b", "data", "size of the term in D", "nats x tokens^beta"),
        exponent("beta", "data", "exponent of D"),
        coefficient("c", "size", "size of the term in Na", "nats x parameters^alpha"),
        floor("eps"),
    ),
    log_formula=_tencent,
    source="Zhao et al. 2025, arXiv 2509.23678 (its optimum of Na/N is at fixed N and D, whatever the compute)",
    domain="446 MoE runs; G active experts including shared ones, of which a share S is shared",
    columns=("n_total", "n_active", TOKENS, "active_experts", "shared_share"),
)


def _leverage(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    active, log_g = x["activation_ratio"], np.log(x["granularity"]) / _LN2
    offset = 1.0 / (1.0 / p["A_start"] - 1.0 / p["A_max"])
    saturated = -log(1.0 / (active + offset) + 1.0 / p["A_max"])
    power = p["a"] + p["d"] * (log(x["train_flops"]) / _LN10) + p["gamma"] * log_g**2 + p["beta"] * log_g
    return saturated * power


LEVERAGE = Law(
    name="leverage",
    formula="EL = A_hat^(a + d log10 C + gamma (log2 G)^2 + beta log2 G): compute of a dense model of that loss over C",
    typst="E L = hat(A)^(a + d log_10 C + gamma (log_2 G)^2 + beta log_2 G)",
    n_column="",
    parameters=(
        Parameter(
            "a", "size", "exponent of the activation ratio at C = G = 1", (0.0, 3.0), (-20.0, 20.0), linear="log"
        ),
        Parameter("d", "size", "change of that exponent with log10 C", (-0.2, 0.0), (-2.0, 2.0), linear="log"),
        Parameter("gamma", "expert", "curvature of that exponent in log2 G", (0.0, 0.05), (-1.0, 1.0), linear="log"),
        Parameter("beta", "expert", "slope of that exponent in log2 G", (-0.3, 0.0), (-2.0, 2.0), linear="log"),
        Parameter("A_start", "saturation", "saturated activation ratio at 0", (1e-3, 0.1), (1e-8, 0.9), "log"),
        Parameter("A_max", "saturation", "saturated activation ratio, limit", (1.1, 1e17), (1.0 + 1e-6, 1e18), "log"),
    ),
    log_formula=_leverage,
    source="Ling team 2025, arXiv 2507.17702 (log10 C, log2 G: the only bases that reproduce the paper's claims)",
    domain="activation ratio A .8 to 100 %, G 2 to 16, C 1e18 to 3e20, G = 2 d_model/d_expert",
    columns=("activation_ratio", "granularity", "train_flops"),
    target="compute_leverage",
)
