"""Laws, fits and speeds for the tests of what experts are worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import ndtri

from analysis.fitting.fit import Fit
from analysis.fitting.identifiability import Pin
from analysis.laws import HOFFMANN, Law, Parameter
from analysis.laws.autodiff import log, log_sum_exp
from scaling.columns import EXPERTS, TOKENS
from scaling.serving.training_speed import MfuByExperts
from tests.support.planted import HOFFMANN_2022

SPLIT = 0.3  # of the factor, which acts on the size; the rest acts on tokens


def _multiplied(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    experts = np.asarray(x[EXPERTS], dtype=float)
    compute = log(x["n_active"]) + log(x[TOKENS]) - np.log(1e18)
    factor = p["power"] * np.log(experts) + p["growth"] * (experts > 1) * compute
    size, data = log(x["n_active"]) + SPLIT * factor, log(x[TOKENS]) + (1 - SPLIT) * factor
    return log_sum_exp(log(p["E"]), log(p["A"]) - p["alpha"] * size, log(p["B"]) - p["beta"] * data)


MULTIPLIED = Law(
    name="multiplied",
    formula="L(N, D, E) = L_dense(f^s N, f^(1-s) D), f = E^power (N D/1e18)^growth",
    typst="",
    n_column="n_active",
    parameters=(
        *HOFFMANN.parameters,
        Parameter("power", "expert", "planted", (0.0, 1.0), (-9.0, 9.0)),
        Parameter("growth", "expert", "planted", (0.0, 1.0), (-9.0, 9.0)),
    ),
    log_formula=_multiplied,
    source="a test",
    domain="a test",
    columns=("n_active", TOKENS, EXPERTS),
)
"""A law in which E multiplies compute by E^power, which is what E is worth: the least of L_dense(f^s N, f^(1-s) D) over
6 N D = C is that of a dense model with f C. With growth the factor is that times (C/6e18)^growth for E > 1."""


def multiplied(power: float = 0.5, growth: float = 0.0, **more: Any) -> Fit:
    """The estimate of that law, without draws."""
    params = {**HOFFMANN_2022, "power": power, "growth": growth}
    given = {"experts": (1, 4, 16), "family": None, **more}
    return Fit(law=MULTIPLIED.name, own_law=MULTIPLIED, params=params, **given)


def with_draws(fit: Fit, spread: float, name: str = "power", count: int = 200, seed: int = 0) -> Fit:
    """The fit with draws of one parameter, quantiles of a normal in random order; all others are pinned."""
    held = {each: Pin(value, "planted") for each, value in fit.params.items() if each != name}
    normal = np.random.default_rng(seed).permutation(ndtri((np.arange(count) + 0.5) / count))
    return replace(fit, pinned=held, draws={name: tuple((fit.params[name] + spread * normal).tolist())})


def falling(slope: float = 0.2, spread: float = 0.0) -> MfuByExperts:
    """An MFU that falls as E^-slope, the slope known to within a spread."""
    return MfuByExperts("planted", 0.5, slope, "planted", slope_spread=spread)
