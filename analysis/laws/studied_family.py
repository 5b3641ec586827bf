"""The family of studied models: polynomials in the width that reproduce every row of a table, else interpolation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analysis.laws.expert_shape import common_shape
from analysis.laws.model_family import COUNTS, Family, Polynomial, PolynomialFamily, TableFamily
from scaling.arrays import Array

_CACHE = "kv_elements_per_token"
_OF_CACHE = ((0,), (1,), (0, 1), (1, 2))  # a constant number of groups or a constant share of the heads, and a depth
_MOST_SIZES = 1_000  # of one E in a table
_EXACT = 1e-3  # relative error above which a polynomial does not describe the family


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
