"""How published fits differ: in exponents, and in the shares of the loss that their terms have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.fitting.fit import Fit
from analysis.fitting.prior import Prior
from analysis.fitting.published import PUBLISHED
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS

_EXPONENTS: dict[str, tuple[str, str, float]] = {
    "chinchilla-tex": ("alpha", "beta", 1.0),
    "chinchilla-epoch": ("alpha", "beta", 1.0),
    "sardana-2024-all": ("alpha", "beta", 1.0),
    "joint-moe-2025": ("alpha", "beta", 1.0),
    "fine-grained-2024": ("alpha", "beta", 1.0),
    "sparsity-2025": ("alpha", "beta", 1.0),
    "tencent-2025": ("alpha", "beta", 1.0),
    "overtraining-2024": ("eta", "eta", 2.0),
}
"""Fits of papers, one of each, whose loss is a sum of powers of N and D: their exponents, and what eta counts for."""
FITS = tuple(_EXPONENTS)
NOISE, NOISE_FREEDOM = 0.006, 4.0
"""Rmse of ln loss of published laws on their own runs, .004 to .008; worth four runs."""
QUANTITIES = ("size exponent", "data exponent", "size", "data", "floor")
_SATURATED = ("clark-2022-s-base", "clark-2022-rl-r", "clark-2022-hash", "joint-moe-2025")
_INFINITE = 1e60
_STEP = 1e-4  # of ln N, for exponents
# A dense model as each law reads it; the 64 experts of fine-grained are 43 times the active size (arXiv 2402.07871).
_DENSE = {EXPERTS: 1.0, "top_k": 1.0, "granularity": 8.0, "active_experts": 7.0, "shared_share": 0.31}
_SIZES = {"n_active": 1.0, "n_total": 1.0, "n_total_nonembed": (8 * 64 + 4) / 12}


def published_spread() -> Prior:
    """Mean and standard deviation of the ln of exponents of N and of D over published fits."""
    sizes, datas = [], []
    for name, (size, data, factor) in _EXPONENTS.items():
        params = PUBLISHED[name].params
        sizes.append(np.log(abs(factor * params[size])))
        datas.append(np.log(abs(factor * params[data])))
    logs = {"alpha": sizes, "beta": datas}
    ends = {name: (float(np.mean(values)), float(np.std(values, ddof=1))) for name, values in logs.items()}
    return Prior(ends, NOISE, len(_EXPONENTS))


def terms(fit: Fit, n_active: float, tokens: float) -> Array:
    """ln of `QUANTITIES` of a fit's dense models: the exponents of N and D at that point, and there what the loss falls
    with unlimited size, with unlimited tokens, and with both what stays."""
    law = fit.definition

    def loss(size: float, data: float) -> float:
        columns = {name: factor * size for name, factor in _SIZES.items()}
        return float(fit.loss({name: {**columns, **_DENSE, TOKENS: data}[name] for name in law.columns}))

    def of_size(size: float) -> float:
        return loss(size, tokens) - loss(_INFINITE, tokens)

    def of_data(data: float) -> float:
        return loss(n_active, data) - loss(n_active, _INFINITE)

    exponents = [
        (np.log(term(at)) - np.log(term(at * np.exp(_STEP)))) / _STEP
        for term, at in ((of_size, n_active), (of_data, tokens))
    ]
    return np.log([*exponents, of_size(n_active), of_data(tokens), loss(_INFINITE, _INFINITE)])


def spread_of_terms(n_active: float, tokens: float, names: Sequence[str] = FITS) -> Array:
    """Covariance (5, 5) of the ln of `QUANTITIES` over published fits, all at the same N and D.

    Few papers say little of correlations, so those are shrunk: the diagonal counts as if as many more papers as there
    are quantities had shown these variances and no correlation.
    """
    found = np.array([terms(PUBLISHED[name], n_active, tokens) for name in names])
    covariance = np.cov(found, rowvar=False)
    kept = (len(names) - 1) / (len(names) - 1 + len(QUANTITIES))
    return kept * covariance + (1.0 - kept) * np.diag(np.diag(covariance))


def spread_of_saturation() -> dict[str, float]:
    """Standard deviation of ln E_start and of ln E_max over the published laws with saturation."""
    values = {name: [np.log(PUBLISHED[fit].params[name]) for fit in _SATURATED] for name in ("E_start", "E_max")}
    return {name: float(np.std(logs, ddof=1)) for name, logs in values.items()}
