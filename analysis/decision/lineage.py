"""Models that are built as a published lineage: the counts that a law reads, and where the two are unlike."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.laws.expert_shape import shape_of_architecture
from analysis.laws.model_family import Family, Sizes
from scaling.arrays import Array
from scaling.serving.families import ArchitectureFamily


def sizes_of_lineage(lineage: ArchitectureFamily, n_active: Array, n_experts: int) -> Sizes:
    """The counts of models that are built as a published lineage, for a fit that has no family of its own."""
    model = lineage.architecture(n_active, n_experts)
    counts = {part: np.asarray(count, dtype=float) for part, count in model.parameters().items()}
    outside = counts["embedding"] + counts["head"]
    n_total = np.asarray(model.n_total) - counts["router"]
    return Sizes(
        n_experts=n_experts,
        top_k=min(lineage.k, n_experts),
        n_active=n_active,
        n_total=n_total,
        n_active_nonembed=n_active - outside,
        n_total_nonembed=n_total - outside,
        n_dense_nonembed=n_active - outside,
        n_layers=np.asarray(model.n_layers, dtype=float),
        d_model=np.asarray(model.d_model, dtype=float),
        n_router=counts["router"],
        kv_elements_per_token=np.asarray(model.cache_elements_per_token, dtype=float),
        n_routing=counts["router"],
        **shape_of_architecture(model),
    )


def as_built(lineage: ArchitectureFamily | None, sizes: Sizes) -> Sizes:
    """The counts of models as they are priced: of the lineage, or of the fit's own."""
    return sizes if lineage is None else sizes_of_lineage(lineage, sizes.n_active, sizes.n_experts)


def shape_built(sizes: Sizes) -> dict[str, Any]:
    """`granularity`, `d_expert` and `n_shared` (shared experts, as wide as the routed ones) of the first model; None
    where unknown, and of a dense model."""
    shared = None
    if sizes.active_experts is not None and sizes.shared_share is not None:
        shared = sizes.active_experts * sizes.shared_share
    found = {"granularity": sizes.granularity, "d_expert": sizes.d_expert, "n_shared": shared}
    dense = sizes.n_experts == 1
    return {name: None if dense or value is None else float(np.ravel(value)[0]) for name, value in found.items()}


def unlike_the_runs(lineage: ArchitectureFamily | None, studied: Family | None, n_experts: int) -> list[str]:
    """How the models priced differ from those that the law was fitted to in what E means."""
    if lineage is None or n_experts == 1:
        return []
    k = min(lineage.k, n_experts)
    of_runs = None if studied is None else studied.top_k
    if of_runs is None or of_runs == k:
        return []
    return [
        f"the law knows E = {n_experts} at k = {of_runs}, and models are priced at k = {k}, whose experts are as wide "
        f"together: `top_k` {of_runs} prices what the law knows"
    ]
