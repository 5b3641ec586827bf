"""A law: named parameters with their ranges, a formula for the log of its prediction, and its columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from analysis.laws.autodiff import Dual, exp
from scaling.arrays import Array
from scaling.columns import EXPERTS, LOSS, TOKENS
from scaling.errors import InputError
from scaling.summary import Settings, Summarised, summary_table
from scaling.table import Table

AlongTokens = Callable[[Array], tuple[Array, Array]]
"""ln D -> ln loss, and its derivative by ln D."""
Role = Literal["size", "data", "expert", "saturation", "interaction", "floor", "mixture"]


@dataclass(frozen=True, repr=False)
class Parameter(Settings):
    """One parameter of a law.

    `start` is the range of starting values, `bounds` the range allowed. `scale="log"` marks positive parameters, which
    are fitted by their logarithm. `linear` says that the loss ("loss") or its logarithm ("log") is linear in the
    parameter, so starts take its value from linear least squares. `unit` is "" for a pure number. `pin` is the
    published value (from `pin_source`) used where a grid cannot identify the parameter.
    """

    name: str
    role: Role
    meaning: str
    start: tuple[float, float]
    bounds: tuple[float, float]
    scale: Literal["log", "linear"] = "linear"
    linear: Literal["", "loss", "log"] = ""
    unit: str = ""
    pin: float | None = None
    pin_source: str = ""


@dataclass(frozen=True)
class Extension:
    """How a law grows out of a `simpler` one by one more parameter, which is 1 in the simpler law.

    `params(simpler, value)` are the parameters of the law at the simpler law's and a value of the new one. Starts of
    the law are those of the simpler law, whose factors are linear, carried over.
    """

    simpler: Law
    parameter: str
    params: Callable[[Mapping[str, Any], Any], dict[str, Any]]


@dataclass(frozen=True, repr=False)
class Law(Summarised):
    """A named formula for the loss, in nats per token, or for another positive `target` column.

    `formula` and `typst` are for display; `log_formula(params, columns)` computes the natural log of the formula, and
    gradients follow from it. `n_column` is the parameter count meant by N ("" without N). `optimum(params, C, E)` gives
    N and D of least loss on 6 N D = C, where a closed form exists. `domain` describes the runs behind the law,
    `columns` its inputs. `needs(columns)` says what a design lacks for the law to be fitted ("" for nothing). `extends`
    names the simpler law that it grows out of. `along` is a quicker way to what `along_tokens` gives.
    """

    name: str
    formula: str
    typst: str
    n_column: str
    parameters: tuple[Parameter, ...]
    log_formula: Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
    source: str
    domain: str
    columns: tuple[str, ...]
    optimum: Callable[[Mapping[str, Any], Any, Any], tuple[Any, Any]] | None = None
    target: str = LOSS
    needs: Callable[[Mapping[str, Array]], str] | None = None
    extends: Extension | None = None
    along: Callable[[Mapping[str, Any], Mapping[str, Any]], AlongTokens] | None = None

    def summary(self) -> Table:
        """The formula and its parameters, where it was established, and what it reads."""
        rows = [(parameter.name, parameter.meaning, parameter.unit or "-") for parameter in self.parameters]
        reads = f"reads {', '.join(self.columns)} and predicts {self.target}"
        notes = [note for note in (reads, self.source, self.domain) if note]
        return summary_table(f"{self.name}: {self.formula}", ("parameter", "meaning", "unit"), rows, notes)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def uses_experts(self) -> bool:
        return EXPERTS in self.columns

    @property
    def divides_compute(self) -> bool:
        """Whether it predicts a loss from size and tokens, so that a compute budget can be split between them."""
        return self.target == LOSS and bool(self.n_column) and TOKENS in self.columns

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name. Raises InputError listing the names for an unknown one."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise InputError(f"law {self.name} has no parameter {name!r}; it has {', '.join(self.names)}")

    def log_loss(self, params: Mapping[str, Any], columns: Mapping[str, Any]) -> Array:
        """ln of the loss in nats per token (or of `target`); parameters and columns broadcast together.

        Raises InputError for a missing parameter or column.
        """
        for kind, wanted, given in (("parameter", self.names, params), ("column", self.columns, columns)):
            missing = [name for name in wanted if name not in given]
            if missing:
                raise InputError(f"law {self.name} needs the {kind} {', '.join(missing)}; found {', '.join(given)}")
        arrays = {name: np.asarray(columns[name], dtype=float) for name in self.columns}
        return np.asarray(self.log_formula(params, arrays), dtype=float)

    def loss(self, params: Mapping[str, Any], columns: Mapping[str, Any]) -> Array:
        """The loss in nats per token."""
        return np.exp(self.log_loss(params, columns))

    def log_loss_by_tokens(self, params: Mapping[str, Any], columns: Mapping[str, Any]) -> tuple[Array, Array]:
        """ln loss and its derivative by ln D."""
        tokens = np.asarray(columns[TOKENS], dtype=float)
        result = self.log_formula(params, {**columns, TOKENS: Dual(tokens, {TOKENS: tokens})})
        return result.value, np.asarray(result.partials[TOKENS])

    def along_tokens(self, params: Mapping[str, Any], columns: Mapping[str, Any]) -> AlongTokens:
        """ln loss of models and its derivative, as a function of ln D; `columns` are theirs, with any tokens."""
        if self.along is not None:
            return self.along(params, columns)
        return lambda log_tokens: self.log_loss_by_tokens(params, {**columns, TOKENS: np.exp(log_tokens)})

    def log_loss_gradient(
        self, theta: Array, free: tuple[str, ...], pinned: Mapping[str, float], columns: Mapping[str, Array]
    ) -> tuple[Array, Array]:
        """ln loss of shape (B, n) and its derivatives (B, P, n) by the free parameters' coordinates.

        `theta` (B, P) holds ln of a parameter whose scale is "log" and the parameter itself otherwise.
        """
        params: dict[str, Any] = dict(pinned)
        for index, name in enumerate(free):
            coordinate = Dual(theta[:, index, None], {name: 1.0})
            params[name] = exp(coordinate) if self.parameter(name).scale == "log" else coordinate
        result = self.log_formula(params, columns)
        shape = (theta.shape[0], np.shape(columns[self.columns[0]])[0])
        jacobian = np.empty((shape[0], len(free), shape[1]))
        for index, name in enumerate(free):
            jacobian[:, index, :] = result.partials[name]
        value = result.value if isinstance(result, Dual) else result  # no free parameter, no derivative
        return np.broadcast_to(value, shape), jacobian

    def to_coordinates(self, name: str, value: Any) -> Any:
        return np.log(value) if self.parameter(name).scale == "log" else value

    def from_coordinates(self, name: str, value: Any) -> Any:
        return np.exp(value) if self.parameter(name).scale == "log" else value


def coefficient(name: str, role: Role, meaning: str, unit: str, upper: float = 1e15) -> Parameter:
    """The positive factor of a term of the loss."""
    return Parameter(name, role, meaning, (1.0, 1e4), (1e-12, upper), scale="log", linear="loss", unit=unit)


def exponent(name: str, role: Role, meaning: str, *, sign: int = 1) -> Parameter:
    """The exponent of a term: positive, or with sign -1 negative, as some papers print it."""
    start, bounds = sorted((sign * 0.05, sign * 1.2)), sorted((sign * 1e-3, sign * 4.0))
    return Parameter(name, role, meaning, (start[0], start[1]), (bounds[0], bounds[1]))


def floor(name: str) -> Parameter:
    """The irreducible loss."""
    # On a log scale it would drift to minus infinity where the runs show no floor.
    meaning = "irreducible loss"
    return Parameter(name, "floor", meaning, (0.5, 2.0), (1e-6, 1e3), linear="loss", unit="nats per token")


def coupling(name: str) -> Parameter:
    """The exponent that couples the terms in size and data: 1 adds them, towards 0 the larger of them counts alone."""
    # Beyond a factor of five either way the law hardly changes any more.
    meaning = "coupling of size and data: 1 adds their terms, towards 0 the larger counts alone"
    return Parameter(name, "interaction", meaning, (0.3, 3.0), (0.2, 5.0), "log")


def two_term_optimum(m: Any, mu: Any, n: Any, nu: Any, train_flops: Any) -> tuple[Any, Any]:
    """argmin of m N^-mu + n D^-nu on 6 N D = C: N = G (C/6)^(nu/(mu+nu)), G = (mu m/(nu n))^(1/(mu+nu)).

    Hoffmann et al. 2022, arXiv 2203.15556, eq. 4. `train_flops` is C; returns N and D in the units of the law.
    """
    size = (mu * m / (nu * n)) ** (1.0 / (mu + nu)) * (np.asarray(train_flops) / 6.0) ** (nu / (mu + nu))
    return size, train_flops / (6.0 * size)
