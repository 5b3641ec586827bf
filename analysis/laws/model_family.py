"""Families: how the counts of the studied models hang together, so that a continuous N_active and an E give the rest.

A law sees one parameter count; memory and serving need N_total, depth, width and the cache as well. In a family every
model follows from one size variable: the width d of a grid, or the number of blocks of a published family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from scaling.arrays import Array
from scaling.errors import InputError

Polynomial = tuple[tuple[int, float], ...]
"""((degree, coefficient), ...) in the size variable."""

COUNTS = ("n_active", "n_active_nonembed", "n_dense_nonembed")
_MOST_SIZES = 1_000  # of one E in a table
_EXACT = 1e-3  # relative: a polynomial that misses a row by more does not describe the family


@dataclass(frozen=True)
class Sizes:
    """The counts of models of one E, as arrays over models; None where the family does not know one."""

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

    @property
    def kv_elements_per_token(self) -> Array | None:
        """Keys and values of one cached token over all layers: 2 n_layers d_model (every head has its own)."""
        return None if self.n_layers is None or self.d_model is None else 2.0 * self.n_layers * self.d_model

    def column(self, name: str) -> Array:
        """One column by name, such as the count that a law calls N. Raises InputError where the family does not know
        it."""
        value = getattr(self, name, None)
        if value is None:
            raise InputError(
                f"this fit does not know how {name} follows from n_active at E = {self.n_experts}; "
                f"give it with --set {name}=VALUE, or fit a table that has both columns, n_active and {name}"
            )
        return np.asarray(value, dtype=float)


SIZE_COLUMNS = tuple(f.name for f in fields(Sizes) if f.name not in ("n_experts", "n_active"))
"""The columns of a law that follow from n_active and E."""


@dataclass(frozen=True)
class PolynomialFamily:
    """Counts that are polynomials in one size variable: exact for models of one shape that are scaled in width.

    `dense` and `routed` give the counts of models with E = 1 and E > 1; N_total = N_active + (E - k) x `expert` for
    E > 1 and N_active for E = 1, so it is linear in E and an E that was not studied follows. Routers, in none of
    these counts, have E x `router` parameters; empty where unknown.
    """

    top_k: int
    routed: Mapping[str, Polynomial]
    dense: Mapping[str, Polynomial]
    expert: Polynomial
    n_layers: Polynomial
    d_model: Polynomial
    source: str
    router: Polynomial = ()
    kind: str = field(default="polynomial", init=False)

    def sizes(self, n_active: Array, n_experts: int) -> Sizes:
        """The models of `n_experts` experts with these `n_active`. Raises InputError for an E below k."""
        dense = n_experts == 1
        if not dense and not self.routed:
            raise InputError(f"n_experts={n_experts}: only dense models were studied, an expert's size is unknown")
        if not dense and n_experts < self.top_k:
            raise InputError(f"n_experts={n_experts} is below top_k={self.top_k} of the studied models")
        counts = self.dense if dense else self.routed
        n_active = np.asarray(n_active, dtype=float)
        size = _invert(counts["n_active"], n_active)
        spare = 0.0 if dense else (n_experts - self.top_k) * _evaluate(self.expert, size)
        values = {name: _evaluate(counts[name], size) if name in counts else None for name in COUNTS[1:]}
        nonembed = values["n_active_nonembed"]
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
            n_router=_evaluate(self.router, size) * n_experts if self.router and not dense else None,
        )


@dataclass(frozen=True)
class TableFamily:
    """Counts interpolated between the studied models of each E, linear in logarithms; beyond them the end slope holds.

    For tables without widths, or whose shapes do not scale as one family. Of an E that was not studied it knows
    nothing, but for E = 1, where N_total is N_active.
    """

    rows: Mapping[int, Mapping[str, tuple[float, ...]]]
    top_k: int | None
    source: str
    kind: str = field(default="table", init=False)

    def sizes(self, n_active: Array, n_experts: int) -> Sizes:
        """The models of `n_experts` experts with these `n_active`. Raises InputError for an E that was not studied."""
        if n_experts == 1 and 1 not in self.rows:  # everything is active in a dense model
            return Sizes(n_experts=1, top_k=self.top_k, n_active=n_active, n_total=n_active)
        if n_experts not in self.rows:
            raise InputError(
                f"n_experts={n_experts} was not studied and its total size cannot be derived from this table; "
                f"studied: {', '.join(map(str, sorted(self.rows)))}"
            )
        table = self.rows[n_experts]
        n_active = np.asarray(n_active, dtype=float)
        values = {
            name: np.exp(_interpolate(np.log(n_active), np.log(table["n_active"]), np.log(column)))
            for name, column in table.items()
            if name != "n_active"
        }
        return Sizes(n_experts=n_experts, top_k=self.top_k, n_active=n_active, **values)


Family = PolynomialFamily | TableFamily

VOCABULARY_2025 = 50257
JOINT_MOE_2025 = PolynomialFamily(
    top_k=1,
    routed={
        "n_active": ((1, 128.0 * VOCABULARY_2025), (3, 13.0 * 64**2)),
        "n_active_nonembed": ((3, 13.0 * 64**2),),
        "n_dense_nonembed": ((3, 13.0 * 64**2),),
    },
    dense={
        "n_active": ((1, 128.0 * VOCABULARY_2025), (3, 13.0 * 64**2)),
        "n_active_nonembed": ((3, 13.0 * 64**2),),
        "n_dense_nonembed": ((3, 13.0 * 64**2),),
    },
    expert=((3, 9.0 * 64**2),),
    n_layers=((1, 1.0),),
    d_model=((1, 64.0),),
    source="Ludziejewski et al. 2025, arXiv 2502.05172: n_blk blocks of width 64 n_blk, N_total = 2 d V + (4 + 9 E) "
    "n_blk d^2, N_active = 2 d V + 13 n_blk d^2, V = 50257, continuous n_blk; it does not count routers",
)


WITHOUT_EMBEDDINGS = PolynomialFamily(
    top_k=1,
    routed={},
    dense={"n_active": ((1, 1.0),), "n_active_nonembed": ((1, 1.0),), "n_dense_nonembed": ((1, 1.0),)},
    expert=(),
    n_layers=(),
    d_model=(),
    source="sizes are counted without embeddings throughout, N_active and cost too",
)
FINE_GRAINED_2024 = PolynomialFamily(
    top_k=1,
    routed={"n_active": ((3, 12.0 * 64**2),), "n_active_nonembed": ((3, 12.0 * 64**2),)},
    dense={"n_active": ((3, 12.0 * 64**2),), "n_active_nonembed": ((3, 12.0 * 64**2),)},
    expert=((3, 8.0 * 64**2),),
    n_layers=((1, 1.0),),
    d_model=((1, 64.0),),
    source="Krajewski et al. 2024, arXiv 2402.07871: n blocks of width 64 n, N = (8 E + 4) n d^2, N_active = 12 n d^2, without "
    "embeddings and routers; E is the expansion rate: a layer has E G experts of 8 d^2/G parameters, of which a token "
    "takes G",
)


def from_rows(columns: Mapping[str, Array]) -> Family | None:
    """The family of the studied models, or None where the table has no `n_active`.

    `columns`: n_active and, where known, n_experts, n_total, the other counts, top_k, d_model and n_layers, row by row.
    A polynomial family is accepted if it reproduces every row to 1e-3; otherwise counts are interpolated, unless the
    rows contradict each other (`contradiction`): None then.
    """
    if "n_active" not in columns:
        return None
    known, experts = _known(columns)
    if contradiction(columns):
        return None
    return _polynomial_family(known, experts) or _table_family(known, experts)


def contradiction(columns: Mapping[str, Array]) -> str | None:
    """What speaks against any family: models of one E and one n_active whose n_total differ; None where nothing does.

    They differ in k or in the size of an expert, and which of them is meant cannot be told from N_active.
    """
    if "n_active" not in columns:
        return None
    known, experts = _known(columns)
    if "n_total" in known:
        for e in np.unique(experts):
            found = _ambiguous(known["n_active"][experts == e], known["n_total"][experts == e])
            if found and e > 1:
                active, low, high = found
                return f"E = {e:g}: models of n_active = {active:.6g} have n_total from {low:.6g} to {high:.6g}"
    return None


def _known(columns: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
    """The columns without gaps, and the E of every row."""
    known = {name: np.asarray(values, dtype=float) for name, values in columns.items() if np.isfinite(values).all()}
    return known, known.get("n_experts", np.ones(len(columns["n_active"])))


def _ambiguous(active: Array, count: Array) -> tuple[float, float, float] | None:
    """The first n_active to which more than one count belongs, with the least and the largest of them."""
    order = np.argsort(active)
    sizes, starts = np.unique(active[order], return_index=True)
    low, high = (extreme.reduceat(count[order], starts) for extreme in (np.minimum, np.maximum))
    unlike = np.flatnonzero(high > low * (1 + _EXACT))
    return (float(sizes[unlike[0]]), float(low[unlike[0]]), float(high[unlike[0]])) if unlike.size else None


def to_json(family: Family | None) -> dict[str, Any] | None:
    return None if family is None else asdict(family)


def from_json(data: Mapping[str, Any] | None) -> Family | None:
    """The family that `to_json` wrote."""
    if data is None:
        return None
    if data["kind"] == "table":
        rows = {int(e): {name: tuple(values) for name, values in table.items()} for e, table in data["rows"].items()}
        return TableFamily(rows, data["top_k"], data["source"])

    def polynomial(pairs: Any) -> Polynomial:
        return tuple((int(degree), float(coefficient)) for degree, coefficient in pairs)

    return PolynomialFamily(
        top_k=data["top_k"],
        routed={name: polynomial(pairs) for name, pairs in data["routed"].items()},
        dense={name: polynomial(pairs) for name, pairs in data["dense"].items()},
        expert=polynomial(data["expert"]),
        n_layers=polynomial(data["n_layers"]),
        d_model=polynomial(data["d_model"]),
        source=data["source"],
        router=polynomial(data.get("router", ())),
    )


def _polynomial_family(known: Mapping[str, Array], experts: Array) -> PolynomialFamily | None:
    if not {"d_model", "n_layers", "n_total", "top_k"} <= set(known):
        return None
    width, routed = known["d_model"], experts > 1
    top_k = int(known["top_k"][routed].max()) if routed.any() else int(known["top_k"].max())
    if routed.any() and known["top_k"][routed].min() != top_k:
        return None
    groups: dict[bool, dict[str, Polynomial]] = {}
    for group in (True, False):
        rows = routed == group
        counts = {name: _fit(width[rows], known[name][rows]) for name in COUNTS if name in known} if rows.any() else {}
        if any(polynomial is None for polynomial in counts.values()):
            return None
        groups[group] = {name: polynomial for name, polynomial in counts.items() if polynomial}
    depth = _fit(width, known["n_layers"], degrees=((0,), (0, 1)))
    spare = experts - top_k
    each = (known["n_total"] - known["n_active"])[routed & (spare > 0)] / spare[routed & (spare > 0)]
    expert = _fit(width[routed & (spare > 0)], each) if each.size else ()
    if depth is None or expert is None or (routed.any() and not expert):
        return None
    routing = known["n_router"][routed] if "n_router" in known else np.array([])
    router = _fit(width[routed], routing / experts[routed]) if routing.size and np.all(routing > 0) else ()
    if router is None:
        return None
    if np.any(known["n_total"][~routed] != known["n_active"][~routed]):
        return None
    if not groups[False]:  # E = 1 was not studied: its one MLP is as wide as the k experts of a token
        active = {name: groups[True][name] for name in COUNTS[:2] if name in groups[True]}
        backbone = {"n_dense_nonembed": active["n_active_nonembed"]} if "n_active_nonembed" in active else {}
        groups[False] = active | backbone
    return PolynomialFamily(
        top_k=top_k,
        routed=groups[True],
        dense=groups[False],
        expert=expert,
        n_layers=depth,
        d_model=((1, 1.0),),
        source=f"{len(width)} studied models of width {width.min():g} to {width.max():g}, polynomials in the width",
        router=router,
    )


def _table_family(known: Mapping[str, Array], experts: Array) -> TableFamily:
    """A column that n_active does not determine, such as the depth of models of two shapes, is left out: unknown."""
    kinds = [experts == e for e in np.unique(experts)]
    names = [
        name
        for name in (*COUNTS, "n_total", "n_total_nonembed", "n_layers", "d_model", "n_router")
        if name in known and not any(_ambiguous(known["n_active"][kind], known[name][kind]) for kind in kinds)
    ]
    rows: dict[int, dict[str, tuple[float, ...]]] = {}
    for e, kind in zip(np.unique(experts), kinds, strict=True):
        active, first = np.unique(known["n_active"][kind], return_index=True)
        if len(active) > _MOST_SIZES:  # evenly among them: interpolation needs no more
            kept = np.linspace(0, len(active) - 1, _MOST_SIZES).round().astype(int)
            active, first = active[kept], first[kept]
        table = {name: known[name][kind][first] for name in names}
        rows[int(e)] = {name: tuple(values.tolist()) for name, values in table.items() if np.all(values > 0)}
        rows[int(e)]["n_active"] = tuple(active.tolist())
        if e == 1:
            rows[1]["n_total"] = rows[1]["n_active"]
    k = known["top_k"] if "top_k" in known else np.array([])
    return TableFamily(
        rows,
        int(k[0]) if k.size and k.min() == k.max() else None,
        source=f"{len(experts)} rows, interpolated between the studied sizes of each E",
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
    """The size at which an increasing polynomial reaches `count`: table look-up, then Newton steps in logarithms."""
    grid = np.geomspace(1e-6, 1e9, 2001)
    x: Array = np.exp(np.interp(np.log(count), np.log(_evaluate(polynomial, grid)), np.log(grid)))
    for _ in range(4):
        value = _evaluate(polynomial, x)
        slope = _evaluate(tuple((power, power * c) for power, c in polynomial), x) / value
        x = x * (count / value) ** (1.0 / slope)
    return x


def _interpolate(x: Array, known_x: Array, known_y: Array) -> Array:
    """Piecewise linear, continued with the slope at either end; a single known point keeps its ratio."""
    if len(known_x) == 1:
        return np.asarray(x - known_x[0] + known_y[0], dtype=float)
    index = np.clip(np.searchsorted(known_x, x) - 1, 0, len(known_x) - 2)
    slope = (known_y[index + 1] - known_y[index]) / (known_x[index + 1] - known_x[index])
    return np.asarray(known_y[index] + slope * (x - known_x[index]), dtype=float)
