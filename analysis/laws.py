"""The laws: what each predicts, in what parameters, from which columns, and where it was established.

A law is one declaration: its parameters, its formula for the natural log of the loss (nats per token), and, where one
exists, its closed-form optimum. Gradients follow from the formula (`analysis.dual`). Parameters keep their paper's
letters, so `E` is hoffmann's irreducible loss while the column `n_experts` is the number of experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from analysis.dual import Array, Dual, exp, log, log_sum_exp
from scaling.errors import InputError

Role = Literal["size", "data", "expert", "saturation", "interaction", "floor"]
TOKENS, EXPERTS = "tokens", "n_experts"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a law.

    `start` is the range that starts are drawn from, `bounds` the range allowed. `scale="log"` means that it is
    positive and moves by ratios. `linear` marks the factor of one term of a sum: given the others it follows by linear
    least squares, so starts need not search for it. `pin` is the published value (with `pin_source`) that stands in
    where a grid cannot identify the parameter.
    """

    name: str
    role: Role
    meaning: str
    start: tuple[float, float]
    bounds: tuple[float, float]
    scale: Literal["log", "linear"] = "linear"
    linear: bool = False
    pin: float | None = None
    pin_source: str = ""


@dataclass(frozen=True)
class Law:
    """A named formula for the loss. `n_column` says which parameter count its N is; see the module's first lines."""

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

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def uses_experts(self) -> bool:
        return EXPERTS in self.columns

    def parameter(self, name: str) -> Parameter:
        """The parameter of that name. Raises InputError listing the names there are."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise InputError(f"law {self.name} has no parameter {name!r}; it has {', '.join(self.names)}")

    def log_loss(self, params: Mapping[str, Any], columns: Mapping[str, Any]) -> Array:
        """ln of the loss in nats per token; parameters and columns broadcast against each other.

        Raises InputError naming a parameter or column that is missing.
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
        """ln loss and its derivative by ln D, for solving for the tokens that reach a loss."""
        tokens = np.asarray(columns[TOKENS], dtype=float)
        result = self.log_formula(params, {**columns, TOKENS: Dual(tokens, {TOKENS: tokens})})
        return result.value, np.asarray(result.partials[TOKENS])

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
        shape = (theta.shape[0], np.shape(columns[TOKENS])[0])
        jacobian = np.empty((shape[0], len(free), shape[1]))
        for index, name in enumerate(free):
            jacobian[:, index, :] = result.partials[name]
        value = result.value if isinstance(result, Dual) else result  # with nothing free there is nothing to derive by
        return np.broadcast_to(value, shape), jacobian

    def to_coordinates(self, name: str, value: Any) -> Any:
        return np.log(value) if self.parameter(name).scale == "log" else value

    def from_coordinates(self, name: str, value: Any) -> Any:
        return np.exp(value) if self.parameter(name).scale == "log" else value


def saturated_experts(n_experts: Any, e_start: Any, e_max: Any) -> Any:
    """E_hat: 1/E_hat = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max, so E_hat(1) = E_start and E_hat(inf) = E_max.

    Clark et al., arXiv 2202.01169; reused by 2404.02852 and 2502.05172. E_start < E_max.
    """
    return 1.0 / (1.0 / (n_experts - 1.0 + 1.0 / (1.0 / e_start - 1.0 / e_max)) + 1.0 / e_max)


def _two_term_optimum(m: Any, mu: Any, n: Any, nu: Any, train_flops: Any) -> tuple[Any, Any]:
    """argmin of m N^-mu + n D^-nu on 6 N D = C: N = G (C/6)^(nu/(mu+nu)), G = (mu m/(nu n))^(1/(mu+nu))."""
    size = (mu * m / (nu * n)) ** (1.0 / (mu + nu)) * (np.asarray(train_flops) / 6.0) ** (nu / (mu + nu))
    return size, train_flops / (6.0 * size)


def _coefficient(name: str, role: Role, meaning: str, upper: float = 1e15) -> Parameter:
    return Parameter(name, role, meaning, (1.0, 1e4), (1e-12, upper), scale="log", linear=True)


def _floor(name: str) -> Parameter:
    # Not by its logarithm: where the runs show no floor, that would run off along an ever flatter slope.
    return Parameter(name, "floor", "irreducible loss, nats per token", (0.5, 2.0), (1e-6, 1e3), linear=True)


# Ludziejewski et al. are preferred to Clark: they fit a D term too, so their E_hat means the same in all laws here.
_LUDZIEJEWSKI = "Ludziejewski et al. 2025, arXiv 2502.05172"
_SATURATION = (
    Parameter(
        "E_start",
        "saturation",
        "saturated expert count at E = 1",
        (1.2, 8.0),
        (1.0 + 1e-6, 30.0),
        scale="log",
        pin=2.0732,
        pin_source=_LUDZIEJEWSKI,
    ),
    Parameter(
        "E_max",
        "saturation",
        "saturated expert count at E = infinity",
        (60.0, 1200.0),
        (32.0, 1e6),
        scale="log",
        pin=290.4521,
        pin_source=_LUDZIEJEWSKI,
    ),
)


def _hoffmann(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    return log_sum_exp(
        log(p["E"]),
        log(p["A"]) - p["alpha"] * np.log(x["n_active"]),
        log(p["B"]) - p["beta"] * log(x[TOKENS]),
    )


HOFFMANN = Law(
    name="hoffmann",
    formula="L = E + A/N^alpha + B/D^beta",
    typst="L = E + A / N^alpha + B / D^beta",
    n_column="n_active",
    parameters=(
        _floor("E"),
        _coefficient("A", "size", "size of the term in N"),
        Parameter("alpha", "size", "exponent of N", (0.05, 1.2), (1e-3, 4.0)),
        _coefficient("B", "data", "size of the term in D"),
        Parameter("beta", "data", "exponent of D", (0.05, 1.2), (1e-3, 4.0)),
    ),
    log_formula=_hoffmann,
    source="Hoffmann et al. 2022, arXiv 2203.15556, eq. 2 (approach 3)",
    domain="dense models, N 70M to 16B with embeddings, D 5B to 500B tokens",
    columns=("n_active", TOKENS),
    optimum=lambda p, train_flops, _: _two_term_optimum(p["A"], p["alpha"], p["B"], p["beta"], train_flops),
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
        _coefficient("A", "size", "size of the term in N"),
        Parameter("alpha", "size", "exponent of N", (0.05, 1.2), (1e-3, 4.0)),
        _coefficient("B", "expert", "size of the term in E_hat", upper=1e6),
        Parameter("beta", "expert", "exponent of E_hat", (0.05, 1.2), (1e-3, 4.0)),
        _coefficient("C", "data", "size of the term in D"),
        Parameter("gamma", "data", "exponent of D", (0.05, 1.2), (1e-3, 4.0)),
        _floor("F"),
        Parameter(
            "d",
            "interaction",
            "interaction of ln N and ln E_hat",
            (-0.01, 0.01),
            (-0.2, 0.2),
            pin=0.0,
            pin_source="no interaction (Yun's constants are unpublished, arXiv 2404.02852)",
        ),
        *_SATURATION,
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
    return _two_term_optimum(m, mu, n, nu, train_flops)


JOINT_MOE = Law(
    name="joint-moe",
    formula="L = a E_hat^delta N^(alpha + gamma ln E_hat) + b E_hat^omega D^(beta + zeta ln E_hat) + c",
    typst="L = a hat(E)^delta N^(alpha + gamma ln hat(E)) + b hat(E)^omega D^(beta + zeta ln hat(E)) + c",
    n_column="n_active",
    parameters=(
        _coefficient("a", "size", "size of the term in N"),
        Parameter("alpha", "size", "exponent of N at E_hat = 1 (negative)", (-1.2, -0.05), (-4.0, -1e-3)),
        Parameter(
            "delta",
            "expert",
            "exponent of E_hat in the term in N",
            (-0.8, 0.4),
            (-6.0, 6.0),
            pin=-0.2285,
            pin_source=_LUDZIEJEWSKI,
        ),
        Parameter(
            "gamma",
            "interaction",
            "change of N's exponent with ln E_hat",
            (-0.05, 0.05),
            (-1.0, 1.0),
            pin=0.0098,
            pin_source=_LUDZIEJEWSKI,
        ),
        _coefficient("b", "data", "size of the term in D"),
        Parameter("beta", "data", "exponent of D at E_hat = 1 (negative)", (-1.2, -0.05), (-4.0, -1e-3)),
        Parameter(
            "omega",
            "expert",
            "exponent of E_hat in the term in D",
            (-0.4, 0.8),
            (-6.0, 6.0),
            pin=0.5529,
            pin_source=_LUDZIEJEWSKI,
        ),
        Parameter(
            "zeta",
            "interaction",
            "change of D's exponent with ln E_hat",
            (-0.05, 0.05),
            (-1.0, 1.0),
            pin=-0.0259,
            pin_source=_LUDZIEJEWSKI,
        ),
        _floor("c"),
        *_SATURATION,
    ),
    log_formula=_joint_moe,
    source="Ludziejewski et al. 2025, arXiv 2502.05172, joint MoE law (natural logs, signs as printed)",
    domain="top-1 MoE in every layer, N_active 79M to 2.7B with embeddings, E 1 to 32, D 0.5B to 80B",
    columns=("n_active", TOKENS, EXPERTS),
    optimum=_joint_moe_optimum,
)

LAWS: dict[str, Law] = {law.name: law for law in (HOFFMANN, YUN, JOINT_MOE)}


def law(name: str) -> Law:
    """The law of that name. Raises InputError listing the names there are."""
    if name not in LAWS:
        raise InputError(f"no law is called {name!r}; the laws are {', '.join(LAWS)}")
    return LAWS[name]
