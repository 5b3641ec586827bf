"""Model families: parameter counts, depth and width as functions of a continuous N_active and an expert count E.

A law uses one parameter count; memory and serving also need N_total, depth, width and cache size. In a family every
model follows from one size variable: the width d of a grid, or the number of blocks of a published family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache

import numpy as np

from analysis.laws.expert_shape import shape_columns
from scaling.arrays import Array
from scaling.errors import InputError

Polynomial = tuple[tuple[int, float], ...]
"""((degree, coefficient), ...) in the size variable."""

COUNTS = ("n_active", "n_active_nonembed", "n_dense_nonembed")


@dataclass(frozen=True)
class Sizes:
    """The counts of models of one E, as arrays over models; None where unknown.

    `kv_elements_per_token`: keys and values of one cached token over all layers. None: those of multi-head attention,
    2 n_layers d_model, where both are known. `granularity` to `activation_ratio`: `analysis.laws.expert_shape`.
    `d_expert`: hidden units of an expert. `n_routing`: what choosing experts computes, as so many parameters that a
    token passes through; None: not counted.
    """

    n_experts: int
    top_k: int | None
    n_active: Array
    n_total: Array | None = None
    n_active_nonembed: Array | None = None
    n_total_nonembed: Array | None = None
    n_dense_nonembed: Array | None = None
    n_layers: Array | None = None
    d_model: Array | None = None
    n_router: Array | None = None
    kv_elements_per_token: Array | None = None
    granularity: Array | None = None
    active_experts: Array | None = None
    shared_share: Array | None = None
    activation_ratio: Array | None = None
    d_expert: Array | None = None
    n_routing: Array | None = None

    def __post_init__(self) -> None:
        if self.kv_elements_per_token is None and self.n_layers is not None and self.d_model is not None:
            object.__setattr__(self, "kv_elements_per_token", 2.0 * self.n_layers * self.d_model)

    @property
    def n_computed(self) -> Array:
        """Parameters whose products a token computes, 6 FLOPs each to train: n_active, and routing where counted."""
        return self.n_active if self.n_routing is None else self.n_active + self.n_routing

    def column(self, name: str) -> Array:
        """One column by name, such as the N of a law. Raises InputError where it is unknown."""
        value = getattr(self, name, None)
        if value is None:
            raise InputError(
                f"{name} does not follow from n_active at E = {self.n_experts} in this fit; `set` {name}, or fit "
                f"a table with both columns, n_active and {name}"
            )
        return np.asarray(value, dtype=float)


SIZE_COLUMNS = tuple(f.name for f in fields(Sizes) if f.name not in ("n_experts", "n_active", "n_routing"))
"""The columns of a law that may follow from n_active and E."""


@dataclass(frozen=True)
class PolynomialFamily:
    """Counts that are polynomials in one size variable: exact for models of one shape scaled in width.

    `dense` and `routed` give the counts of models with E = 1 and E > 1. N_total = N_active + (E - k) x `expert` for
    E > 1 and N_active for E = 1, which also covers E that were not studied. Routers, outside these counts, have
    E x `router` parameters; empty where unknown. `cache`: keys and values of a cached token; empty for multi-head
    attention. `shape` and `dense_shape`: what all routed, or all dense, models agree in
    (`analysis.laws.expert_shape`). `d_expert`: hidden units of an expert; empty where unknown. `routing`: what routing
    computes for each parameter of the routers, in parameters; 0: not counted.
    """

    top_k: int
    routed: Mapping[str, Polynomial]
    dense: Mapping[str, Polynomial]
    expert: Polynomial
    n_layers: Polynomial
    d_model: Polynomial
    source: str
    router: Polynomial = ()
    cache: Polynomial = ()
    shape: Mapping[str, float] = field(default_factory=dict)
    dense_shape: Mapping[str, float] = field(default_factory=dict)
    d_expert: Polynomial = ()
    routing: float = 0.0
    kind: str = field(default="polynomial", init=False)

    def divided(self, parts: int) -> PolynomialFamily:
        """The same models with every expert divided into so many, of which a token takes all that it took before.

        What was a layer of E experts has then E x `parts`, and k is as many times larger; N_active and N_total stay.
        """
        shape = {n: v * (parts if n in ("granularity", "active_experts") else 1) for n, v in self.shape.items()}
        expert, width = (tuple((power, c / parts) for power, c in each) for each in (self.expert, self.d_expert))
        return replace(self, top_k=self.top_k * parts, expert=expert, d_expert=width, shape=shape)

    def sizes(self, n_active: Array, n_experts: int) -> Sizes:
        """The models of `n_experts` experts with these `n_active`. Raises InputError for an E below k."""
        dense = n_experts == 1
        if not dense and not self.routed:
            raise InputError(f"n_experts={n_experts}: no expert size is known, as only dense models were studied")
        if not dense and n_experts < self.top_k:
            raise InputError(f"n_experts={n_experts} is below top_k={self.top_k} of the studied models")
        counts = self.dense if dense else self.routed
        n_active = np.asarray(n_active, dtype=float)
        size = _invert(counts["n_active"], n_active)
        spare = 0.0 if dense else (n_experts - self.top_k) * _evaluate(self.expert, size)
        values = {name: _evaluate(counts[name], size) if name in counts else None for name in COUNTS[1:]}
        nonembed = values["n_active_nonembed"]
        routers = _evaluate(self.router, size) * n_experts if self.router and not dense else None
        return Sizes(
            n_experts=n_experts,
            top_k=self.top_k,
            n_active=n_active,
            n_total=n_active + spare,
            n_active_nonembed=nonembed,
            n_total_nonembed=None if nonembed is None else nonembed + spare,
            n_dense_nonembed=values["n_dense_nonembed"],
            n_layers=_evaluate(self.n_layers, size) if self.n_layers else None,
            d_model=_evaluate(self.d_model, size) if self.d_model else None,
            n_router=routers,
            kv_elements_per_token=_evaluate(self.cache, size) if self.cache else None,
            **shape_columns(self.dense_shape if dense else self.shape, n_experts, n_active),
            d_expert=_evaluate(self.d_expert, size) if self.d_expert and not dense else None,
            n_routing=self.routing * routers if self.routing and routers is not None else None,
        )


@dataclass(frozen=True)
class TableFamily:
    """Counts interpolated between the studied models of each E, linear in logarithms, extrapolated with the end slopes.

    For tables without widths, or whose shapes do not scale as one family. It covers only the studied E, and E = 1,
    where N_total is N_active. `top_k_of` is k by E where it is not one for all; k of a dense model means nothing.
    `shape_of`: what all models of an E agree in (`analysis.laws.expert_shape`).
    """

    rows: Mapping[int, Mapping[str, tuple[float, ...]]]
    top_k: int | None
    source: str
    kind: str = field(default="table", init=False)
    top_k_of: Mapping[int, int] = field(default_factory=dict)
    shape_of: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    def k(self, n_experts: int) -> int | None:
        """k of models of this E; None where it is not known."""
        return self.top_k_of.get(n_experts, self.top_k or (1 if n_experts == 1 else None))

    def sizes(self, n_active: Array, n_experts: int) -> Sizes:
        """The models of `n_experts` experts with these `n_active`. Raises InputError for an E that was not studied."""
        if n_experts == 1 and 1 not in self.rows:  # everything is active in a dense model
            return Sizes(n_experts=1, top_k=self.k(1), n_active=n_active, n_total=n_active)
        if n_experts not in self.rows:
            raise InputError(
                f"n_experts={n_experts} was not studied, and this table does not determine its total size; "
                f"studied: {', '.join(map(str, sorted(self.rows)))}"
            )
        table = self.rows[n_experts]
        n_active = np.asarray(n_active, dtype=float)
        values = {
            name: np.exp(_interpolate(np.log(n_active), np.log(table["n_active"]), np.log(column)))
            for name, column in table.items()
            if name != "n_active"
        }
        shape = shape_columns(self.shape_of.get(n_experts, {}), n_experts, n_active)
        return Sizes(n_experts=n_experts, top_k=self.k(n_experts), n_active=n_active, **(shape | values))


Family = PolynomialFamily | TableFamily


VOCABULARY_2025 = 50257
_COUNTS_2025: dict[str, Polynomial] = {
    "n_active": ((1, 128.0 * VOCABULARY_2025), (3, 13.0 * 64**2)),
    "n_active_nonembed": ((3, 13.0 * 64**2),),
    "n_dense_nonembed": ((3, 13.0 * 64**2),),
}
JOINT_MOE_2025 = PolynomialFamily(
    top_k=1,
    routed=_COUNTS_2025,
    dense=_COUNTS_2025,
    expert=((3, 9.0 * 64**2),),
    n_layers=((1, 1.0),),
    d_model=((1, 64.0),),
    source="Ludziejewski et al. 2025, arXiv 2502.05172: n_blk blocks of width 64 n_blk, N_total = 2 d V + (4 + 9 E) "
    "n_blk d^2, N_active = 2 d V + 13 n_blk d^2, V = 50257, continuous n_blk; it does not count routers",
)

WITHOUT_EMBEDDINGS = PolynomialFamily(
    top_k=1,
    routed={},
    dense=dict.fromkeys(COUNTS, ((1, 1.0),)),
    expert=(),
    n_layers=(),
    d_model=(),
    source="sizes are counted without embeddings throughout, N_active and cost too",
)

_COUNTS_2024: dict[str, Polynomial] = {"n_active": ((3, 12.0 * 64**2),), "n_active_nonembed": ((3, 12.0 * 64**2),)}
FINE_GRAINED_2024 = PolynomialFamily(
    top_k=1,
    routed=_COUNTS_2024,
    dense=_COUNTS_2024,
    expert=((3, 8.0 * 64**2),),
    n_layers=((1, 1.0),),
    d_model=((1, 64.0),),
    source="Krajewski et al. 2024, arXiv 2402.07871: n blocks of width 64 n, N = (8 E + 4) n d^2, N_active = 12 n "
    "d^2, without embeddings and routers; E is the expansion rate: a layer has E G experts of 8 d^2/G parameters, of "
    "which a token takes G; a parameter of a router takes 14 FLOPs of training (section 6: 6 to 20)",
    router=((2, 64.0),),
    d_expert=((1, 256.0),),
    routing=14.0 / 6.0,
    shape={"granularity": 1.0, "active_experts": 1.0, "shared_share": 0.0},
    dense_shape={"granularity": 1.0, "active_experts": 1.0, "shared_share": 0.0},
)


def _evaluate(polynomial: Polynomial, size: Array) -> Array:
    return np.asarray(sum(c * size**power for power, c in polynomial), dtype=float) + 0.0 * size


def _invert(polynomial: Polynomial, count: Array) -> Array:
    """The size at which an increasing polynomial reaches `count`: table look-up, then Newton steps on logarithms."""
    x: Array = np.exp(np.interp(np.log(count), *_table(polynomial)))
    for _ in range(4):
        value = _evaluate(polynomial, x)
        slope = _evaluate(tuple((power, power * c) for power, c in polynomial), x) / value
        x = x * (count / value) ** (1.0 / slope)
    return x


@cache
def _table(polynomial: Polynomial) -> tuple[Array, Array]:
    """ln of the count and of the size, over 15 decades of sizes."""
    grid = np.geomspace(1e-6, 1e9, 2001)
    return np.log(_evaluate(polynomial, grid)), np.log(grid)


def _interpolate(x: Array, knots: Array, values: Array) -> Array:
    """Piecewise linear between knots, extrapolated with the end slopes; a single knot keeps its ratio."""
    if len(knots) == 1:
        return np.asarray(x - knots[0] + values[0], dtype=float)
    index = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    slope = (values[index + 1] - values[index]) / (knots[index + 1] - knots[index])
    return np.asarray(values[index] + slope * (x - knots[index]), dtype=float)
