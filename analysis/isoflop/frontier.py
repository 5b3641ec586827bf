"""The frontier: power laws of optimal size and tokens in compute through the valleys."""

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
        """N* and D* at these budgets, with the 95 % bands of their lines."""
        return self.n_opt.predict(train_flops), self.d_opt.predict(train_flops)


def frontier(
    valleys: Valleys, n_experts: int | None = None, *, kind: Kind = "ols", include_flagged: bool = False
) -> Frontier:
    """The regression of ln N* and of ln D* on ln C over the valleys of one E (arXiv 2203.15556, section 3.2).

    Valleys without a minimum are left out, and flagged ones unless `include_flagged`. The intervals treat each valley
    as one observation: they ignore its own uncertainty and the common bias (`bias`). Raises InputError for fewer than 3
    usable valleys, with the flags of the others, and for several E of which none is named.
    """
    chosen = only_experts(valleys, n_experts)
    e = chosen.experts[0]
    used = usable_valleys(chosen, include_flagged)
    if len(used) < FEWEST[kind]:
        flags = dict.fromkeys(flag for valley in chosen.valleys for flag in valley.flags)
        budgets = {flag: [f"{v.train_flops:.3g}" for v in chosen.valleys if flag in v.flags] for flag in flags}
        failed = "; ".join(f"{flag} at {', '.join(named)} FLOPs" for flag, named in budgets.items())
        raise InputError(
            f"{valleys.table.source}: a frontier by {kind} needs {FEWEST[kind]} usable valleys; n_experts = {e} has "
            f"{len(used)} ({failed or 'no other budget'}): add budgets, widen or shift the sizes of flagged ones, or "
            "include these"
        )
    spent = [valley.train_flops for valley in used]
    n_law, d_law = (power_law(spent, y, kind) for y in ([v.n_opt for v in used], [v.d_opt for v in used]))
    return Frontier(e, n_law, d_law, used)


def only_experts(valleys: Valleys, n_experts: int | None) -> Valleys:
    """The valleys of one E. Raises InputError for several E of which none is named."""
    if n_experts is None and len(valleys.experts) > 1:
        raise InputError(
            f"{valleys.table.source}: valleys of n_experts = {', '.join(map(str, valleys.experts))}: name one of them"
        )
    return valleys.of(valleys.experts[0] if n_experts is None else n_experts)


def usable_valleys(valleys: Valleys, include_flagged: bool) -> tuple[Valley, ...]:
    """The valleys with a minimum, without flagged ones unless these are included."""
    return tuple(v for v in valleys.valleys if np.isfinite(v.n_opt) and (include_flagged or not v.flags))
