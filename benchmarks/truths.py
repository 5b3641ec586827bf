"""Laws that may be true in a simulated study of experts: one that is fitted, and others that are not.

Each is drawn around published constants or, where there are none, around losses like those of the joint law that the
study would have had: the term in N at 2e8 parameters, the one in D at 1e10 tokens. Effects of experts go from none to
somewhat beyond the published ones, so that the best E differs from truth to truth. All read the columns of one grid of
MoE runs with k = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.fitting.fit import Fit
from analysis.fitting.published import published
from analysis.laws import COUPLED_MOE, JOINT_MOE, LAWS, YUN, Law, Parameter
from analysis.laws.autodiff import log, log_sum_exp
from analysis.laws.model_family import JOINT_MOE_2025
from analysis.laws.moe import saturated_experts
from analysis.laws.moe_shape import SPARSITY
from scaling.columns import EXPERTS, TOKENS

_SIZE, _TOKENS = np.log(2e8), np.log(1e10)  # where the terms have the size of the joint law's
_BEYOND = 1.25  # times the published effect of experts
_ROUTERS = ("clark-2022-s-base", "clark-2022-rl-r", "clark-2022-hash")


@dataclass(frozen=True)
class Truth:
    """A law and its parameters."""

    law: Law
    params: Mapping[str, float]

    @property
    def exact(self) -> Fit:
        """The truth, as a fit without draws."""
        own = None if LAWS.get(self.law.name) is self.law else self.law
        return Fit(law=self.law.name, own_law=own, params=self.params, family=JOINT_MOE_2025)


def drawn(names: Sequence[str], joint: Mapping[str, float], rng: np.random.Generator) -> Truth:
    """The truth of one study: one of the laws named, each as likely; `joint` are the parameters of the joint law."""
    return TRUTHS[names[int(rng.integers(len(names)))]](joint, rng)


def _joint(joint: Mapping[str, float], rng: np.random.Generator) -> Truth:
    return Truth(JOINT_MOE, joint)


def _coupled(joint: Mapping[str, float], rng: np.random.Generator) -> Truth:
    """The joint law with its terms coupled, by an exponent that is off 1 by a quarter at least, either way."""
    kappa = float(np.exp(rng.uniform(*np.log((1.25, 2.5))) * rng.choice((-1, 1))))
    return Truth(COUPLED_MOE, {**joint, "kappa": kappa})


def _doubling_formula(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    log_n, log_e = np.log(x["n_active"]), log(saturated_experts(x[EXPERTS], p["E_start"], p["E_max"]))
    bilinear = p["a"] * log_n + p["b"] * log_e + p["c"] * (log_n * log_e)
    return log_sum_exp(log(p["A"]) + bilinear, log(p["B"]) - p["beta"] * log(x[TOKENS]))


def _own(name: str, formula: str, log_formula: Callable[..., Any], names: Sequence[str]) -> Law:
    """A law that is true in simulations alone, and never fitted."""
    parameters = tuple(Parameter(each, "size", "planted", (0.0, 1.0), (-1e9, 1e9)) for each in names)
    return Law(
        name=name,
        formula=formula,
        typst="",
        n_column="n_active",
        parameters=parameters,
        log_formula=log_formula,
        source="simulation",
        domain="simulation",
        columns=("n_active", TOKENS, EXPERTS),
    )


DOUBLING = _own(
    "doubling",
    "L = A N^a E_hat^(b + c ln N) + B/D^beta",
    _doubling_formula,
    ("A", "a", "b", "c", "B", "beta", "E_start", "E_max"),
)
YUN_IN_ACTIVE = replace(
    YUN,
    name="yun-in-n_active",
    n_column="n_active",
    log_formula=lambda p, x: YUN.log_formula(p, {**x, "n_dense_nonembed": x["n_active"]}),
    columns=("n_active", TOKENS, EXPERTS),
)


def _data_term(joint: Mapping[str, float]) -> tuple[float, float]:
    """The term in D of a dense model by the joint law: its size at 1e10 tokens, and its exponent, positive."""
    log_e = float(np.log(joint["E_start"]))
    exponent = joint["beta"] + joint["zeta"] * log_e
    return float(joint["b"] * np.exp(joint["omega"] * log_e + exponent * _TOKENS)), -exponent


def _doubling(joint: Mapping[str, float], rng: np.random.Generator) -> Truth:
    """A constant effect per doubling: Clark's bilinear law of one router, each constant within a quarter of the
    published one but for the effect of E, with a term in D; it has no floor and no effect of E on the term in D."""
    clark = dict(published(str(rng.choice(_ROUTERS))).params)
    clark = {name: value * rng.uniform(0.75, 1.25) for name, value in clark.items()}
    effect = rng.uniform(0.0, _BEYOND)
    data, beta = _data_term(joint)
    params = {
        "A": np.exp(np.log(rng.uniform(2.0, 3.0)) - clark["a"] * _SIZE),  # of a dense model with E_hat 1
        "a": clark["a"],
        "b": effect * clark["b"],
        "c": effect * clark["c"] / np.log(10.0),
        "B": data * np.exp(beta * _TOKENS),
        "beta": beta,
        "E_start": clark["E_start"],
        "E_max": clark["E_max"],
    }
    return Truth(DOUBLING, {name: float(value) for name, value in params.items()})


def _yun(joint: Mapping[str, float], rng: np.random.Generator) -> Truth:
    """Yun's law with N as active parameters. Its constants are unpublished: the term in E is at most half a nat of
    a dense model, and the interaction moves the effect of E by .2 nats at most."""
    data, gamma = _data_term(joint)
    alpha, beta = rng.uniform(0.13, 0.36), rng.uniform(0.2, 1.0)
    params = {
        "A": np.exp(np.log(0.9) + 0.3 * rng.standard_normal() + alpha * _SIZE),
        "alpha": alpha,
        "B": rng.uniform(0.0, 0.5) * joint["E_start"] ** beta,
        "beta": beta,
        "C": data * np.exp(gamma * _TOKENS),
        "gamma": gamma,
        "F": rng.uniform(1.0, 2.0),
        "d": rng.uniform(-1e-3, 1e-3),
        "E_start": joint["E_start"],
        "E_max": joint["E_max"],
    }
    return Truth(YUN_IN_ACTIVE, {name: float(value) for name, value in params.items()})


def _sparsity(joint: Mapping[str, float], rng: np.random.Generator) -> Truth:
    """The law in total size and sparsity: factors around the published ones, exponents within a fifth of them but
    for that of sparsity."""
    params = dict(published("sparsity-2025").params)
    for name in ("alpha", "beta", "delta", "gamma"):
        params[name] *= rng.uniform(0.8, 1.2)
    params["lambda"] *= rng.uniform(0.0, _BEYOND)
    centre = published("sparsity-2025").params
    for name, exponent, at in (("a", "alpha", _SIZE), ("b", "beta", _TOKENS), ("d", "gamma", _SIZE)):
        params[name] *= np.exp((params[exponent] - centre[exponent]) * at + 0.2 * rng.standard_normal())
    for name in ("c", "e"):
        params[name] *= np.exp(0.2 * rng.standard_normal())
    return Truth(SPARSITY, {name: float(value) for name, value in params.items()})


TRUTHS: Mapping[str, Callable[[Mapping[str, float], np.random.Generator], Truth]] = {
    "joint-moe": _joint,
    "coupled-moe": _coupled,
    "doubling": _doubling,
    "yun": _yun,
    "sparsity": _sparsity,
}
