"""Shrinkage: how a law may differ from a published fit of it, as deviations of known spread around the runs' centre.

Published fits differ in what their terms are made of and agree in what they predict: at 1e9 parameters and 2e10 tokens
eight of them have floors from .5 to 1.9 nats and exponents from .12 to .35, and losses within 5 % of each other. So
deviations are those of the quantities that papers have in common, at one point, with their covariance over papers: the
exponents of size and data there, and what size, data and the floor contribute to the loss there. Factors of terms
follow. A scale of the whole loss comes on top, nearly free, since nats per token depend on the tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.fitting.fit import Fit
from analysis.fitting.prior import LEVEL, Shrunk
from analysis.fitting.published_spread import FITS, QUANTITIES, spread_of_saturation, spread_of_terms
from analysis.laws import JOINT_MOE, Law, saturated_experts
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS
from scaling.errors import InputError

SCALE_SPREAD = 1.5
"""Standard deviation of the ln of the common scale of a loss: a token of a vocabulary of 50k has some 4.5 bytes, so
that between that and bytes a loss per token differs by a factor of 4.5, e^1.5; corpora differ by less."""
EXPERT_SPREAD = 0.025
"""Standard deviation of an exponent of E_hat in one term, at the runs' N or D: joint-moe-2025 has -.026 and -.061
there, at 1e9 parameters and 2e10 tokens; none lies two deviations from their mean square."""
TERMS = slice(1, 1 + len(QUANTITIES))
_BETWEEN_TWO = 2.0  # two papers differ by twice the variance over papers
_HALF = 0.5  # of an interaction, or of another exponent in E, k or granularity: none lies two deviations off
_LEAST = 1e-3  # of a parameter that is 0, such as an interaction
_TINY = 1e-300
# Parameters that multiply the ln of two columns: with them, those that multiply the ln of one of them alone.
_PRODUCTS = {JOINT_MOE.name: {"gamma": ("alpha", "delta"), "zeta": ("beta", "omega")}}


def shrinkable(law: Law) -> bool:
    """Whether the loss of a law is a sum of terms in size, data and a floor, each with a factor."""
    factors = {parameter.role for parameter in law.parameters if parameter.linear == "loss"}
    return law.divides_compute and law.extends is None and {"size", "data", "floor"} <= factors


@dataclass(frozen=True, eq=False)
class Shrinkage:
    """Deviations x (B, Q) from a published fit, their prior covariance (Q, Q), and the parameters that they give.

    The start is one paper and the user's law would be another, so `TERMS` have twice the covariance over papers, as the
    scale of a Student's t: of `freedom` degrees, one fewer than papers, since so few tell how far a paper may lie off.

    `names` are, in this order, the common scale, the five of `published_spread.QUANTITIES`, other factors of terms,
    and parameters in E, k and granularity. `centre` holds the runs' mean of every column of the law, geometric.
    """

    start: Fit
    centre: Mapping[str, float]
    names: tuple[str, ...]
    covariance: Array
    freedom: float

    @classmethod
    def around(cls, start: Fit, columns: Mapping[str, Array], papers: Sequence[str] = FITS) -> Shrinkage:
        """The deviations from a fit at the centre of the runs with these columns, spread as `papers` are.

        Raises InputError where the law is no sum of terms.
        """
        law = start.definition
        if not shrinkable(law):
            raise InputError(
                f"law {law.name} cannot be recalibrated: its loss is no sum of terms in size, data and a floor; start "
                "from one such as published:joint-moe-2025, or fit it to the runs alone"
            )
        centre = {name: float(np.exp(np.mean(np.log(columns[name])))) for name in law.columns}
        others = {
            parameter.name: _other_spread(law, parameter.name, start.params[parameter.name])
            for parameter in law.parameters
            if parameter.role not in ("size", "data", "floor")
        }
        of_terms = spread_of_terms(centre[law.n_column], centre[TOKENS], papers)
        variances = [SCALE_SPREAD**2, *np.zeros(len(QUANTITIES)), *(np.square(list(others.values())))]
        covariance = np.diag(np.array(variances, dtype=float))
        covariance[TERMS, TERMS] = _BETWEEN_TWO * of_terms
        return cls(start, centre, ("scale", *QUANTITIES, *others), covariance, len(papers) - 1.0)

    def drawn(self, count: int, rng: np.random.Generator) -> Array:
        """Deviations (count, Q) from the prior."""
        found = rng.multivariate_normal(np.zeros(len(self.names)), self.covariance, count)
        found[:, TERMS] *= np.sqrt(self.freedom / rng.chisquare(self.freedom, count))[:, None]
        return found

    @property
    def law(self) -> Law:
        return self.start.definition

    def deviations(self, coordinates: Array) -> Array:
        """Deviations (B, Q) of coordinates (B, Q), whose first is the change of ln loss at the centre.

        Runs know that change, and not which term or scale makes it: in these coordinates a posterior is nearly normal.
        """
        found = coordinates.copy()
        found[:, 0] = 0.0
        at_centre = self.log_loss(found, self._at_centre)[:, 0] - self._level
        found[:, 0] = coordinates[:, 0] - at_centre
        return found

    def parameters(self, deviations: Array) -> dict[str, Array]:
        """The law's parameters, each (B, 1), within their bounds."""
        law, given = self.law, self.start.params
        moved = dict(zip(self.names, deviations.T[..., None], strict=True))
        params: dict[str, Any] = {}
        for parameter in (each for each in law.parameters if each.linear != "loss"):
            name, value = parameter.name, given[parameter.name]
            if parameter.role in ("size", "data"):
                params[name] = self._slope(name) * np.exp(moved[f"{parameter.role} exponent"])
            elif parameter.role == "saturation":
                params[name] = value * np.exp(moved[name])
            else:
                params[name] = value + moved[name]
        params = self._unpivoted(params)
        params = {name: np.clip(value, *law.parameter(name).bounds) for name, value in params.items()}
        factors = [each for each in law.parameters if each.linear == "loss"]
        for parameter in factors:
            by = moved[parameter.role if parameter.role in ("size", "data", "floor") else parameter.name]
            before = self._basis(given, parameter.name)
            ratio = before / self._basis({**given, **params}, parameter.name)
            value = given[parameter.name] * ratio * np.exp(by + moved["scale"])
            params[parameter.name] = np.clip(value, *parameter.bounds)
        return {name: params[name] for name in law.names}

    def log_loss(self, deviations: Array, columns: Mapping[str, Array]) -> Array:
        """ln loss (B, n) of runs."""
        return self.law.log_loss(self.parameters(deviations), columns)

    def quantities(self, deviations: Array) -> dict[str, tuple[Array, bool]]:
        """What is shrunk (`prior.Shrunk`), each (B,), as its change from the fit, and whether that is a factor."""
        law, moved = self.law, dict(zip(self.names, deviations.T, strict=True))
        params, given = self.parameters(deviations), self.start.params
        level = self.log_loss(deviations, self._at_centre)[:, 0] - self._level
        found: dict[str, tuple[Array, bool]] = {LEVEL: (level, True)}
        for parameter in law.parameters:
            name = parameter.name
            if parameter.linear == "loss":
                term = params[name] * self._basis(params, name) / (given[name] * self._basis(given, name))
                found[name] = (np.log(term[:, 0]) - level, True)
            elif parameter.role in ("size", "data"):
                found[name] = (moved[f"{parameter.role} exponent"], True)
            else:
                found[name] = (moved[name], parameter.role == "saturation")
        return found

    def shrunk(self, prior: Array, posterior: Array) -> dict[str, Shrunk]:
        """How far runs moved every quantity, from deviations drawn from the prior and from the posterior."""
        before, after = self.quantities(prior), self.quantities(posterior)
        return {
            name: Shrunk(
                deviation=_deviation(values),
                factor=factor,
                moved=float(np.median(after[name][0])),
                data_weight=float(np.clip(1.0 - (_deviation(after[name][0]) / _deviation(values)) ** 2, 0.0, 1.0)),
            )
            for name, (values, factor) in before.items()
        }

    @property
    def _level(self) -> float:
        return float(self.law.log_loss(self.start.params, self._at_centre)[0])

    @property
    def _at_centre(self) -> dict[str, Array]:
        return {name: np.array([value]) for name, value in self.centre.items()}

    def _basis(self, params: Mapping[str, Any], name: str) -> Any:
        """The loss at the centre for one unit of a factor, (B, 1) or a number, without the other terms."""
        factors = {each.name: _TINY for each in self.law.parameters if each.linear == "loss"}
        loss = np.exp(self.law.log_loss({**params, **factors, name: 1.0}, self._at_centre))
        return loss if loss.ndim == 2 else float(loss[0])

    def _slope(self, name: str) -> float:
        """The exponent of N or D at the centre's E."""
        for product, (exponent, _) in _PRODUCTS.get(self.law.name, {}).items():
            if exponent == name:
                return self.start.params[name] + self.start.params[product] * self._log_experts(self.start.params)
        return self.start.params[name]

    def _unpivoted(self, params: dict[str, Any]) -> dict[str, Any]:
        """Parameters at N = D = E_hat = 1 from those at the centre, where exponents change with E."""
        for product, (exponent, of_experts) in _PRODUCTS.get(self.law.name, {}).items():
            column = self.law.n_column if self.law.parameter(exponent).role == "size" else TOKENS
            change = params[product] - self.start.params[product]
            params[exponent] = params[exponent] - params[product] * self._log_experts(params)
            params[of_experts] = params[of_experts] - change * np.log(self.centre[column])
        return params

    def _log_experts(self, params: Mapping[str, Any]) -> Any:
        return np.log(saturated_experts(self.centre[EXPERTS], params["E_start"], params["E_max"]))


def _deviation(values: Array) -> float:
    """Half of the width that holds the middle two thirds: a standard deviation that tails do not rule."""
    low, high = np.quantile(values, (0.1587, 0.8413))
    return float(0.5 * (high - low))


def _other_spread(law: Law, name: str, value: float) -> float:
    """The spread of a parameter that is none of the size, data or floor."""
    parameter, products = law.parameter(name), _PRODUCTS.get(law.name, {})
    if parameter.role == "saturation":
        return spread_of_saturation()[name]
    if any(name == of_experts for _, of_experts in products.values()):
        return EXPERT_SPREAD
    return _HALF if parameter.linear == "loss" else max(_HALF * abs(value), _LEAST)
