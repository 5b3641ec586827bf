"""The fine-grained law in the expansion: its three published fits as one law, between those it was fitted to.

Krajewski et al. (arXiv 2402.07871) fit dense models and expansion rates of 16 and 64 apart, with one floor:
L = c + A/N_active^alpha + b/D^beta with A = (g/G^gamma + a) (N_active/N)^alpha. Between them alpha, beta and the logs
of A, b and c are taken to be linear in ln of the expansion, as in the joint law of the same group (arXiv 2502.05172);
beyond 64 nothing is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from analysis.fitting.discrepancy import Discrepancy
from analysis.fitting.fit import Fit
from analysis.fitting.published import published
from analysis.fitting.published_draws import PRIOR_SHARE, SHORTFALL, refits, spread_evenly
from analysis.fitting.published_error import ASSUMED_RUNS, error_of
from analysis.laws import HOFFMANN, Law, Parameter
from analysis.laws.autodiff import log, log_sum_exp
from analysis.laws.moe_shape import FINE_GRAINED
from scaling.arrays import Array
from scaling.columns import TOKENS

EXPANSION = "expansion"
LARGEST = 64.0
_NAMES = {1: "fine-grained-2024-dense", 16: "fine-grained-2024-e16", 64: "fine-grained-2024"}
_FLOOR, _FLOOR_16 = published(_NAMES[64]).params["c"], published(_NAMES[16]).params["c"]
_LOGS = np.log(16.0), np.log(64.0)
_POINTS = 32  # runs that stand for those of one of the fits


def share_of_active(rate: float) -> float:
    """N_total/N_active without embeddings and routers: (8E + 4)/12 (section 5 of the paper, 1 for a dense model)."""
    return (8.0 * rate + 4.0) / 12.0


def _parameters() -> tuple[Parameter, ...]:
    parts: list[Parameter] = [FINE_GRAINED.parameter("c")]
    parts += [replace(p, name=f"dense_{p.name}") for p in HOFFMANN.parameters if p.name != "E"]
    for rate in (16, 64):
        parts += [replace(p, name=f"e{rate}_{p.name}") for p in FINE_GRAINED.parameters if p.name != "c"]
    return tuple(parts)


def _terms(rate: int, p: Mapping[str, Any], x: Mapping[str, Any]) -> tuple[Any, ...]:
    """Of one rate that was fitted: ln of the floor, ln A and alpha of the term in N_active, ln b and beta."""
    if rate == 1:
        return log(p["c"]), log(p["dense_A"]), p["dense_alpha"], log(p["dense_B"]), p["dense_beta"]
    g, gamma, a, alpha, b, beta = (p[f"e{rate}_{name}"] for name in ("g", "gamma", "a", "alpha", "b", "beta"))
    factor = log_sum_exp(log(g) - gamma * np.log(x["granularity"]), log(a)) - alpha * np.log(share_of_active(rate))
    floor = log(p["c"]) + np.log(_FLOOR_16 / _FLOOR if rate == 16 else 1.0)  # one floor, which rounding tells apart
    return floor, factor, alpha, log(b), beta


def _formula(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    log_rate = np.log(x[EXPANSION])
    dense = np.clip(1.0 - log_rate / _LOGS[0], 0.0, 1.0)
    widest = np.clip((log_rate - _LOGS[0]) / (_LOGS[1] - _LOGS[0]), 0.0, 1.0)
    shares = {1: dense, 16: 1.0 - dense - widest, 64: widest}
    known = [(share, _terms(rate, p, x)) for rate, share in shares.items() if np.any(share)]
    floor, size, alpha, data, beta = (_weighed([(share, terms[i]) for share, terms in known]) for i in range(5))
    return log_sum_exp(floor, size - alpha * np.log(x["n_active_nonembed"]), data - beta * log(x[TOKENS]))


def _weighed(terms: Sequence[tuple[Any, Any]]) -> Any:
    first, *others = (value * share for share, value in terms)
    return sum(others, start=first)


BY_EXPANSION = Law(
    name="fine-grained-by-expansion",
    formula="L = c + A/N^alpha + b/D^beta, linear in ln(E/k) between dense models, E/k = 16 and E/k = 64",
    typst="L = c + A \\/ N^alpha + b \\/ D^beta",
    n_column="n_active_nonembed",
    parameters=_parameters(),
    log_formula=_formula,
    source=FINE_GRAINED.source,
    domain=FINE_GRAINED.domain,
    columns=("n_active_nonembed", TOKENS, EXPANSION, "granularity"),
)


@cache
def fine_grained() -> Fit:
    """The law of all three published fits, with draws by the rule of published fits, of their runs together."""
    fits = {rate: published(name) for rate, name in _NAMES.items()}
    params = {"c": _FLOOR}
    params |= {f"dense_{name}": value for name, value in fits[1].params.items() if name != "E"}
    params |= {f"e{r}_{name}": value for r in (16, 64) for name, value in fits[r].params.items() if name != "c"}
    bare = replace(fits[64], law=BY_EXPANSION.name, own_law=BY_EXPANSION, params=params, family=None, experts=())
    columns = _runs(fits)
    rmse = float(error_of(_NAMES[64]).rmse or 0.0) / float(np.exp(np.log(bare.loss(columns)).mean()))
    n_runs = sum(error_of(name).n_runs or ASSUMED_RUNS for name in _NAMES.values())
    draws = refits(bare, columns, SHORTFALL * rmse, n_runs, np.random.default_rng(0))
    largest = float(6.0 * np.max(columns["n_active_nonembed"] * columns[TOKENS]))
    return replace(
        bare,
        draws={name: tuple(values.tolist()) for name, values in draws.items()},
        rmse_log=rmse,
        n_runs=n_runs,
        warnings=(
            "between dense models and expansions of 16 and 64 its exponents and the logs of its factors are taken to "
            f"be linear in ln(E/k); not printed, and assumed: {ASSUMED_RUNS} runs each of dense models and of "
            "expansion 16, and the sizes of dense ones",
        ),
        domain={name: (float(values.min()), float(values.max())) for name, values in columns.items()},
        discrepancy=Discrepancy(PRIOR_SHARE * rmse, PRIOR_SHARE * rmse, largest),
    )


def _runs(fits: Mapping[int, Fit]) -> dict[str, Array]:
    """Runs such as those of the three fits. The sizes of dense models are not printed: those of E = 16 are assumed."""
    parts = []
    for rate, fit in fits.items():
        sizes = fits[16 if rate == 1 else rate].domain["n_total_nonembed"]
        active = tuple(end / share_of_active(16 if rate == 1 else rate) for end in sizes)
        ranges = {"n_active_nonembed": (active[0], active[1]), TOKENS: fit.domain[TOKENS], "granularity": (1.0, 16.0)}
        found = spread_evenly(ranges, count=_POINTS)
        parts.append({**found, EXPANSION: np.full(len(found[TOKENS]), float(rate))})
    return {name: np.concatenate([part[name] for part in parts]) for name in BY_EXPANSION.columns}
