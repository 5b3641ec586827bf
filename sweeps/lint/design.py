"""Weaknesses in the design of a grid that limit what its analysis can estimate."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable

from scaling.config.counts import parameters
from scaling.config.registry import EXPERTS, ROUTERS
from scaling.config.run import RunConfig
from scaling.formatting import si
from sweeps.grid import AXES, Grid

SAME_SIZE = 0.02  # relative difference in n_active up to which two models have the same size


def of_design(cells: Iterable[RunConfig]) -> list[str]:
    """Weaknesses in the design of a grid, each with a remedy; none of them stops a sweep."""
    cells = list(cells)
    sizes = {cell: parameters(cell.model, cell.data.vocab_size).n_active for cell in cells}
    messages = []
    budgets = {cell.tokens for cell in cells}
    ratios = [cell.tokens / sizes[cell] for cell in cells]
    if len(budgets) == 1:
        messages.append(f"one token budget ({si(min(budgets))}): the exponent of D cannot be estimated; sweep `tokens`")
    if len({cell.model.d_model for cell in cells}) == 1 and len({cell.model.n_layers for cell in cells}) == 1:
        messages.append("one width and depth: the exponent of N cannot be estimated; sweep `d_model`")
    if len(cells) > 2 and len(budgets) > 1 and max(ratios) <= min(ratios) * 1.1:
        messages.append(
            f"tokens per parameter is constant ({statistics.mean(ratios):.3g}): the exponents of N and D cannot "
            "be distinguished; cross `d_model` with `tokens`"
        )
    experts = {cell.model.n_experts for cell in cells}
    if len(experts) == 1:
        messages.append(f"one expert count (E = {min(experts)}): nothing can be said about E; sweep `n_experts`")
    else:
        messages += _confounded(cells, sizes)
        if 1 not in experts:
            messages.append("no dense model (E = 1): the effect of experts has no reference; add 1 to `n_experts`")
    replicates: dict[str, set[int]] = defaultdict(set)
    for cell in cells:
        replicates[cell.model_copy(update={"seed": 0}).run_id("")].add(cell.seed)
    if max(map(len, replicates.values())) == 1:
        messages.append("one seed per configuration: run-to-run noise is not estimated; give a few cells several seeds")
    return messages


def unread(grid: Grid) -> list[str]:
    """Fields of the model that the grid sets but no cell uses, probably by mistake."""
    given = {name for name in grid.given if AXES.get(name) == "model"}
    read = set().union(*(cell.model.read for cell in grid.models))
    reads = {name: router.options for name, router in ROUTERS.items()}
    reads |= {name: form.options for name, form in EXPERTS.items()}
    messages = []
    for name in sorted(given - read):
        users = [method for method, options in reads.items() if name in options]
        hint = f"; it applies to {', '.join(users)}" if users else ""
        messages.append(f"`{name}` is set but no cell uses it{hint}; remove it or change the method")
    return messages


def _confounded(cells: list[RunConfig], sizes: dict[RunConfig, int]) -> list[str]:
    """E must vary at fixed N_active: each E needs a cell whose size, within 2 %, is that of a cell with another E."""
    by_experts: dict[int, set[int]] = defaultdict(set)
    for cell in cells:
        by_experts[cell.model.n_experts].add(sizes[cell])

    def matched(n_experts: int) -> bool:
        others = [size for other, group in by_experts.items() if other != n_experts for size in group]
        return any(abs(size - other) <= SAME_SIZE * other for size in by_experts[n_experts] for other in others)

    alone = sorted(n_experts for n_experts in by_experts if not matched(n_experts))
    if not alone:
        return []
    return [
        f"E is confounded with size: no other E has a cell whose n_active is within {SAME_SIZE:.0%} of one of "
        f"E = {', '.join(map(str, alone))}; keep d_model, depth and `top_k * d_expert` the same across `n_experts`"
    ]
