"""Laws of dense models: in size and tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.laws.autodiff import exp, log, log_sum_exp
from analysis.laws.law import Extension, Law, Parameter, coefficient, coupling, exponent, floor, two_term_optimum
from scaling.columns import TOKENS

_NATS_N, _NATS_D = "nats x parameters^alpha", "nats x tokens^beta"


def _kaplan(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    ratio = p["alpha_N"] / p["alpha_D"]
    size = ratio * (log(p["N_c"]) - log(x["n_active_nonembed"]))
    return p["alpha_D"] * log_sum_exp(size, log(p["D_c"]) - log(x[TOKENS]))


def _kaplan_optimum(p: Mapping[str, Any], train_flops: Any, _: Any) -> tuple[Any, Any]:
    ratio = p["alpha_N"] / p["alpha_D"]
    return two_term_optimum(p["N_c"] ** ratio, ratio, p["D_c"], 1.0, train_flops)


KAPLAN = Law(
    name="kaplan",
    formula="L = ((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D",
    typst="L = ((N_c / N)^(alpha_N \\/ alpha_D) + D_c / D)^(alpha_D)",
    n_column="n_active_nonembed",
    parameters=(
        Parameter("N_c", "size", "N at which the term in N is 1", (1e5, 1e18), (1e-6, 1e40), "log", unit="parameters"),
        Parameter("alpha_N", "size", "exponent of N with unlimited tokens", (0.03, 0.6), (1e-4, 4.0)),
        Parameter("D_c", "data", "D at which the term in D is 1", (1e5, 1e18), (1e-6, 1e40), "log", unit="tokens"),
        Parameter("alpha_D", "data", "exponent of D with unlimited size", (0.03, 0.6), (1e-4, 4.0)),
    ),
    log_formula=_kaplan,
    source="Kaplan et al. 2020, arXiv 2001.08361, eq. 1.5 (no irreducible loss)",
    domain="dense models, N 768 to 1.5B without embeddings, D 22M to 23B tokens",
    columns=("n_active_nonembed", TOKENS),
    optimum=_kaplan_optimum,
)


def _hoffmann(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    return log_sum_exp(
        log(p["E"]),
        log(p["A"]) - p["alpha"] * log(x["n_active"]),
        log(p["B"]) - p["beta"] * log(x[TOKENS]),
    )


HOFFMANN = Law(
    name="hoffmann",
    formula="L = E + A/N^alpha + B/D^beta",
    typst="L = E + A / N^alpha + B / D^beta",
    n_column="n_active",
    parameters=(
        floor("E"),
        coefficient("A", "size", "size of the term in N", _NATS_N),
        exponent("alpha", "size", "exponent of N"),
        coefficient("B", "data", "size of the term in D", _NATS_D),
        exponent("beta", "data", "exponent of D"),
    ),
    log_formula=_hoffmann,
    source="Hoffmann et al. 2022, arXiv 2203.15556, eq. 2 (approach 3)",
    domain="dense models, N 70M to 16B with embeddings, D 5B to 500B tokens",
    columns=("n_active", TOKENS),
    optimum=lambda p, train_flops, _: two_term_optimum(p["A"], p["alpha"], p["B"], p["beta"], train_flops),
)


def _coupled(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    terms = log_sum_exp(
        log(p["A"]) - p["alpha"] * log(x["n_active"]),
        log(p["B"]) - p["beta"] * log(x[TOKENS]),
    )
    return log_sum_exp(log(p["E"]), p["gamma"] * terms)


def _coupled_from_hoffmann(p: Mapping[str, Any], gamma: Any) -> dict[str, Any]:
    """The law whose limits of unlimited tokens, and of unlimited size, are those of a hoffmann law."""
    powers = {name: p[name] ** (1.0 / gamma) for name in ("A", "B")}
    return {"E": p["E"], **powers, "alpha": p["alpha"] / gamma, "beta": p["beta"] / gamma, "gamma": gamma}


# Factors and exponents are powers 1/gamma of hoffmann's, so their bounds are wider.
_COUPLED_EXPONENT, _COUPLED_FACTOR = (1e-3, 20.0), (1e-30, 1e60)

COUPLED = Law(
    name="coupled",
    formula="L = E + (A/N^alpha + B/D^beta)^gamma",
    typst="L = E + (A / N^alpha + B / D^beta)^gamma",
    n_column="n_active",
    parameters=(
        floor("E"),
        Parameter("A", "size", "size of the term in N", (1.0, 1e4), _COUPLED_FACTOR, "log", unit="nats^(1/gamma)"),
        Parameter("alpha", "size", "exponent of N within the sum", (0.05, 1.2), _COUPLED_EXPONENT),
        Parameter("B", "data", "size of the term in D", (1.0, 1e4), _COUPLED_FACTOR, "log", unit="nats^(1/gamma)"),
        Parameter("beta", "data", "exponent of D within the sum", (0.05, 1.2), _COUPLED_EXPONENT),
        coupling("gamma"),
    ),
    log_formula=_coupled,
    source="hoffmann with its two terms coupled: gamma = 1 is hoffmann (arXiv 2203.15556), E = 0 with beta = 1 is "
    "kaplan (arXiv 2001.08361)",
    domain="dense models, as hoffmann; needs sizes and tokens that vary apart",
    columns=("n_active", TOKENS),
    optimum=lambda p, train_flops, _: two_term_optimum(p["A"], p["alpha"], p["B"], p["beta"], train_flops),
    extends=Extension(HOFFMANN, "gamma", _coupled_from_hoffmann),
)


def _overtraining(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    # With M = D/N and C = 6 N D: M^eta C^-eta = 6^-eta N^-2eta and M^-eta C^-eta = 6^-eta D^-2eta.
    shared = p["eta"] * np.log(6.0)
    return log_sum_exp(
        log(p["E"]),
        log(p["a"]) - shared - p["eta"] * (2.0 * log(x["n_active"])),
        log(p["b"]) - shared - p["eta"] * (2.0 * log(x[TOKENS])),
    )


def _overtraining_optimum(p: Mapping[str, Any], train_flops: Any, _: Any) -> tuple[Any, Any]:
    exponents = 2.0 * p["eta"]
    return two_term_optimum(p["a"], exponents, p["b"], exponents, train_flops)


OVERTRAINING = Law(
    name="overtraining",
    formula="L = E + (a M^eta + b M^-eta) C^-eta with M = D/N, C = 6 N D",
    typst="L = E + (a M^eta + b M^(-eta)) C^(-eta)",
    n_column="n_active",
    parameters=(
        floor("E"),
        coefficient("a", "size", "size of the term that grows with tokens per parameter", "nats x FLOP^eta"),
        coefficient("b", "data", "size of the term that falls with tokens per parameter", "nats x FLOP^eta"),
        Parameter("eta", "size", "exponent of compute, half that of N and of D", (0.03, 0.6), (5e-4, 2.0)),
    ),
    log_formula=_overtraining,
    source="Gadre et al. 2024, arXiv 2403.08540: hoffmann with alpha = beta = 2 eta",
    domain="dense models, N 11M to 6.9B with embeddings, 5 to 640 tokens per parameter",
    columns=("n_active", TOKENS),
    optimum=_overtraining_optimum,
)


def _farseer(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    log_n = log(x["n_active"])
    floor_of_n = p["a3"] * exp(p["gamma"] * log_n) + p["b3"]
    factor = p["a2"] * exp(p["beta"] * log_n) + p["b2"]
    steepness = exp(p["a1"] * exp(p["alpha"] * log_n) + p["b1"])
    return log_sum_exp(floor_of_n, factor - steepness * log(x[TOKENS]))


def _farseer_needs(columns: Mapping[str, Any]) -> str:
    """Its exponent and factor of D both vary with N, so each N needs several D (nine parameters)."""
    sizes = np.round(np.log(columns["n_active"]), 2)
    full = sum(len(np.unique(np.round(np.log(columns[TOKENS][sizes == size]), 2))) >= 3 for size in np.unique(sizes))
    return (
        ""
        if full >= 4
        else f"farseer needs at least three D at each of four N; {full} N have them: add token budgets at each N"
    )


_SMALL = (-0.3, 0.3)

FARSEER = Law(
    name="farseer",
    formula="L = exp(a3 N^gamma + b3) + exp(a2 N^beta + b2) D^-exp(a1 N^alpha + b1)",
    typst="L = exp(a_3 N^gamma + b_3) + exp(a_2 N^beta + b_2) D^(-exp(a_1 N^alpha + b_1))",
    n_column="n_active",
    parameters=(
        Parameter("a3", "size", "change with N of ln loss at D = infinity", (0.0, 20.0), (-1e3, 1e3)),
        Parameter("gamma", "size", "exponent of N in the loss at D = infinity", (-0.6, -0.02), (-2.0, 1.0)),
        Parameter("b3", "floor", "ln loss at D = infinity, part without N", (-0.5, 1.0), (-20.0, 20.0)),
        Parameter("a2", "data", "change with N of the ln factor of the term in D", (-2.0, 2.0), (-1e3, 1e3)),
        Parameter("beta", "data", "exponent of N in that factor", _SMALL, (-1.0, 1.0)),
        Parameter("b2", "data", "ln factor of the term in D, part without N", (0.0, 10.0), (-1e3, 1e3)),
        Parameter("a1", "interaction", "change with N of the ln exponent of D", (-0.2, 0.2), (-1e2, 1e2)),
        Parameter("alpha", "interaction", "exponent of N in the exponent of D", _SMALL, (-1.0, 1.0)),
        Parameter("b1", "data", "ln exponent of D, part without N", (-2.0, 0.0), (-20.0, 20.0)),
    ),
    log_formula=_farseer,
    source="Farseer, arXiv 2506.10972 (constants unpublished; exponents may have either sign)",
    domain="dense models; needs at least three D at each of four N",
    columns=("n_active", TOKENS),
    needs=_farseer_needs,
)
