"""The frontier: optimal size and tokens against compute, a power law through the valleys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.isoflop.power_law import FEWEST, Band, Kind, PowerLaw, power_law
from analysis.isoflop.valleys import Valley, Valleys
from scaling.errors import InputError


@dataclass(frozen=True, eq=False)
class Frontier:
    """N* and D* as power laws of C for one E: N* = c C^a."""

    n_experts: int
    n_opt: PowerLaw
    d_opt: PowerLaw
    used: tuple[Valley, ...]

    def at(self, train_flops: npt.ArrayLike) -> tuple[Band, Band]:
        """N* and D* at these budgets, each with the 95 % band of its line."""
        return self.n_opt.predict(train_flops), self.d_opt.predict(train_flops)


def frontier(
    valleys: Valleys, n_experts: int | None = None, *, kind: Kind = "ols", include_flagged: bool = False
) -> Frontier:
    """The regression of ln N* and of ln D* on ln C over the valleys of one E (arXiv 2203.15556, section 3.2).

    Flagged valleys are left out unless `include_flagged`; those without a minimum always. The intervals take each
    valley for one observation: they do not know how sure each is, nor of the bias that all share (`bias`).
    Raises InputError for fewer than 3 valleys to use, naming those that failed and why, and where several E
    are there and none is named.
    """
    chosen = only_experts(valleys, n_experts)
    e = chosen.experts[0]
    used = usable_valleys(chosen, include_flagged)
    if len(used) < FEWEST[kind]:
        failed = "; ".join(f"{v.train_flops:.3g} FLOPs: {', '.join(v.flags)}" for v in chosen.valleys if v.flags)
        raise InputError(
            f"{valleys.table.source}: a frontier by {kind} needs {FEWEST[kind]} usable valleys, n_experts = {e} has "
            f"{len(used)} ({failed or 'no other budget'}): add budgets, widen or shift the sizes of those that failed, "
            "or keep them"
        )
    budgets = [valley.train_flops for valley in used]
    n_law, d_law = (power_law(budgets, y, kind) for y in ([v.n_opt for v in used], [v.d_opt for v in used]))
    return Frontier(e, n_law, d_law, used)


def only_experts(valleys: Valleys, n_experts: int | None) -> Valleys:
    """The valleys of one E. Raises InputError where several are there and none is named."""
    if n_experts is None and len(valleys.experts) > 1:
        raise InputError(
            f"{valleys.table.source}: valleys of n_experts = {', '.join(map(str, valleys.experts))}: name one of them"
        )
    return valleys.of(valleys.experts[0] if n_experts is None else n_experts)


def usable_valleys(valleys: Valleys, include_flagged: bool) -> tuple[Valley, ...]:
    """Those with a minimum, and without flags unless they are included."""
    return tuple(v for v in valleys.valleys if np.isfinite(v.n_opt) and (include_flagged or not v.flags))
