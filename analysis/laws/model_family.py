"""Model families: parameter counts, depth and width as functions of a continuous N_active and an expert count E.

A law uses one parameter count; memory and serving also need N_total, depth, width and cache size. In a family every
model follows from one size variable: the width d of a grid, or the number of blocks of a published family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache

import numpy as np

from analysis.laws.expert_shape import common_shape, shape_columns
from scaling.arrays import Array
from scaling.errors import InputError

Polynomial = tuple[tuple[int, float], ...]
"""((degree, coefficient), ...) in the size variable."""

COUNTS = ("n_active", "n_active_nonembed", "n_dense_nonembed")
_CACHE = "kv_elements_per_token"
_OF_CACHE = ((0,), (1,), (0, 1), (1, 2))  # a constant number of groups or a constant share of the heads, and a depth
_MOST_SIZES = 1_000  # of one E in a table
_EXACT = 1e-3  # relative error above which a polynomial does not describe the family


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


def from_rows(columns: Mapping[str, Array]) -> Family | None:
    """The family of the studied models; None without `n_active` or where rows contradict each other (`contradiction`).

    `columns`: n_active and, where known, n_experts, n_total, the other counts, top_k, d_model and n_layers of each row.
    A polynomial family must reproduce every row to 1e-3; otherwise counts are interpolated.
    """
    if "n_active" not in columns:
        return None
    complete, experts = _complete(columns)
    if contradiction(columns):
        return None
    return _polynomial_family(complete, experts) or _table_family(complete, experts)


def contradiction(columns: Mapping[str, Array]) -> str | None:
    """Models of one E and one n_active with different n_total, or of one width with different caches a layer, which no
    family describes; None without any.

    They differ in k, in the size of an expert, or in the number of heads that share keys and values.
    """
    if "n_active" not in columns:
        return None
    complete, experts = _complete(columns)
    if "n_total" in complete:
        for e in np.unique(experts[experts > 1]):
            ambiguous = _ambiguous(complete["n_active"][experts == e], complete["n_total"][experts == e])
            if ambiguous:
                active, low, high = ambiguous
                return f"E = {e:g}: models of n_active = {active:.6g} have n_total from {low:.6g} to {high:.6g}"
    if {_CACHE, "d_model", "n_layers"} <= set(complete):
        ambiguous = _ambiguous(complete["d_model"], complete[_CACHE] / complete["n_layers"])
        if ambiguous:
            width, low, high = ambiguous
            return f"models of d_model = {width:g} cache {low:g} to {high:g} elements a token and layer (n_kv_heads)"
    return None


def _complete(columns: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
    """The columns without missing values, k of dense models apart, and the E of every row."""
    arrays = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
    experts = arrays.get("n_experts", np.full(len(arrays["n_active"]), np.nan))
    experts = experts if np.isfinite(experts).all() else np.ones(len(experts))
    if "top_k" in arrays:
        k = arrays["top_k"]
        arrays["top_k"] = np.where((experts == 1) & ~(k >= 1), 1.0, k)
    return {name: values for name, values in arrays.items() if np.isfinite(values).all()}, experts


def _ambiguous(active: Array, count: Array) -> tuple[float, float, float] | None:
    """The first n_active with more than one count, and the smallest and largest of these counts."""
    order = np.argsort(active)
    sizes, starts = np.unique(active[order], return_index=True)
    low, high = (extreme.reduceat(count[order], starts) for extreme in (np.minimum, np.maximum))
    unlike = np.flatnonzero(high > low * (1 + _EXACT))
    return (float(sizes[unlike[0]]), float(low[unlike[0]]), float(high[unlike[0]])) if unlike.size else None


def _polynomial_family(columns: Mapping[str, Array], experts: Array) -> PolynomialFamily | None:
    """Polynomials in the width that reproduce every row; None where a count is not such a polynomial."""
    if not {"d_model", "n_layers", "n_total", "top_k"} <= set(columns):
        return None
    width, routed = columns["d_model"], experts > 1
    top_k = int(columns["top_k"][routed].max()) if routed.any() else int(columns["top_k"].max())
    if routed.any() and columns["top_k"][routed].min() != top_k:
        return None
    if np.any(columns["n_total"][~routed] != columns["n_active"][~routed]):
        return None
    named = [name for name in COUNTS if name in columns]
    routed_counts, dense_counts = (
        {name: _fit(width[rows], columns[name][rows]) for name in named} if rows.any() else {}
        for rows in (routed, ~routed)
    )
    depth = _fit(width, columns["n_layers"], degrees=((0,), (0, 1)))
    spare = routed & (experts > top_k)
    expert = _per_expert(width[spare], (columns["n_total"] - columns["n_active"])[spare], (experts - top_k)[spare])
    routing = columns["n_router"][routed] if "n_router" in columns else np.array([])
    router = _per_expert(width[routed], routing, experts[routed]) if np.all(routing > 0) else ()
    cache = _fit(width, columns[_CACHE], degrees=_OF_CACHE) if _CACHE in columns else ()
    of_expert = columns["d_expert"][routed] if "d_expert" in columns else np.array([])
    hidden = _fit(width[routed], of_expert, degrees=((1,), (0,))) if of_expert.size else ()
    if None in (depth, expert, router, cache, *routed_counts.values(), *dense_counts.values()) or (
        routed.any() and not expert
    ):
        return None
    if not dense_counts:  # E = 1 was not studied: its MLP is as wide as the k experts of a token
        dense_counts = {name: routed_counts[name] for name in COUNTS[:2] if name in routed_counts}
        if "n_active_nonembed" in dense_counts:
            dense_counts["n_dense_nonembed"] = dense_counts["n_active_nonembed"]
    return PolynomialFamily(
        top_k=top_k,
        routed={name: polynomial for name, polynomial in routed_counts.items() if polynomial},
        dense={name: polynomial for name, polynomial in dense_counts.items() if polynomial},
        expert=expert or (),
        n_layers=depth or (),
        d_model=((1, 1.0),),
        source=f"{len(width)} studied models of width {width.min():g} to {width.max():g}, polynomials in the width",
        router=router or (),
        cache=cache or (),
        shape=common_shape(columns, routed),
        dense_shape=common_shape(columns, ~routed),
        d_expert=hidden or (),
    )


def _per_expert(width: Array, count: Array, experts: Array) -> Polynomial | None:
    """The polynomial of a count per expert; () where no row has that count."""
    return _fit(width, count / experts) if count.size else ()


def _table_family(columns: Mapping[str, Array], experts: Array) -> TableFamily:
    """The counts by E, without columns that n_active does not determine, such as the depth of models of two shapes."""
    rows_of = {int(e): experts == e for e in np.unique(experts)}
    active = columns["n_active"]
    names = [
        name
        for name in (*COUNTS[1:], "n_total", "n_total_nonembed", "n_layers", "d_model", "n_router", _CACHE)
        if name in columns and not any(_ambiguous(active[rows], columns[name][rows]) for rows in rows_of.values())
    ]
    tables: dict[int, dict[str, tuple[float, ...]]] = {}
    for e, rows in rows_of.items():
        sizes, first = np.unique(active[rows], return_index=True)
        if len(sizes) > _MOST_SIZES:  # an even selection suffices for interpolation
            chosen = np.linspace(0, len(sizes) - 1, _MOST_SIZES).round().astype(int)
            sizes, first = sizes[chosen], first[chosen]
        values = {name: columns[name][rows][first] for name in names}
        positive = {name: tuple(value.tolist()) for name, value in values.items() if np.all(value > 0)}
        tables[e] = {"n_active": tuple(sizes.tolist())} | positive
        if e == 1:
            tables[1]["n_total"] = tables[1]["n_active"]
    top_k_of = {}
    for e, rows in rows_of.items():
        several = np.unique(columns["top_k"][rows]) if "top_k" in columns else np.array([])
        if len(several) == 1:
            top_k_of[e] = int(several[0])
    routed = {top_k_of.get(e) for e in rows_of if e > 1 or len(rows_of) == 1}
    single = routed.pop() if len(routed) == 1 else None
    return TableFamily(
        tables,
        single,
        source=f"{len(experts)} rows, interpolated between the studied sizes of each E",
        top_k_of=top_k_of if single is None else {},
        shape_of={e: shape for e, rows in rows_of.items() if (shape := common_shape(columns, rows))},
    )


def _fit(size: Array, count: Array, degrees: tuple[tuple[int, ...], ...] = ((1, 2), (1, 2, 3))) -> Polynomial | None:
    """The first polynomial with these degrees that reproduces every row to `_EXACT` and increases with size."""
    for powers in degrees:
        basis = np.stack([size**power for power in powers], axis=1) / count[:, None]
        if len(np.unique(size)) < len(powers):
            continue
        scale = np.linalg.norm(basis, axis=0)
        coefficients = np.linalg.lstsq(basis / scale, np.ones(len(size)), rcond=None)[0] / scale
        coefficients = np.where(np.abs(coefficients) * scale < 1e-9, 0.0, coefficients)
        if np.abs(basis @ coefficients - 1.0).max() < _EXACT and np.all(coefficients >= 0):
            return tuple((power, float(c)) for power, c in zip(powers, coefficients, strict=True) if c)
    return None


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
