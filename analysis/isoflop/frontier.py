"""The frontier: optimal size and tokens as power laws of compute, and the loss of optimal models, by minima."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from analysis.isoflop.loss_frontier import LossFrontier, loss_frontier
from analysis.isoflop.power_law import FEWEST, Band, Kind, PowerLaw, power_law
from analysis.isoflop.valleys import Valley, Valleys
from scaling.errors import InputError


class Minimum(Protocol):
    """A compute-optimal model: the minimum of a `Valley`, or one that others report (`ReportedOptimum`).

    `loss_deviation` is the standard error of `loss`, NaN where it is not known.
    """

    @property
    def n_experts(self) -> int: ...
    @property
    def train_flops(self) -> float: ...
    @property
    def n_opt(self) -> float: ...
    @property
    def d_opt(self) -> float: ...
    @property
    def loss(self) -> float: ...
    @property
    def loss_deviation(self) -> float: ...
    @property
    def flags(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, eq=False)
class Frontier:
    """N* and D* as power laws of C for one E, N* = c C^a, and the loss L(C) = E + A C^-g of these models.

    `loss` is None where the minima do not give one (`no_loss` says why).
    """

    n_experts: int
    n_opt: PowerLaw
    d_opt: PowerLaw
    loss: LossFrontier | None
    used: tuple[Minimum, ...]
    no_loss: str = ""

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
    used = usable_valleys(chosen, include_flagged)
    return frontier_through(used, chosen.valleys, valleys.table.source, kind=kind)


def frontier_through(
    used: Sequence[Minimum], all_minima: Sequence[Minimum], source: str, *, kind: Kind = "ols"
) -> Frontier:
    """The frontier through the minima of one E. Raises InputError for too few, with the flags of all of them."""
    e = all_minima[0].n_experts
    if len(used) < FEWEST[kind]:
        flags = dict.fromkeys(flag for minimum in all_minima for flag in minimum.flags)
        budgets = {flag: [f"{m.train_flops:.3g}" for m in all_minima if flag in m.flags] for flag in flags}
        failed = "; ".join(f"{flag} at {', '.join(named)} FLOPs" for flag, named in budgets.items())
        raise InputError(
            f"{source}: a frontier by {kind} needs {FEWEST[kind]} usable valleys; n_experts = {e} has "
            f"{len(used)} ({failed or 'no other budget'}): add budgets, widen or shift the sizes of flagged ones, or "
            "include these"
        )
    spent = [minimum.train_flops for minimum in used]
    n_law, d_law = (power_law(spent, y, kind) for y in ([m.n_opt for m in used], [m.d_opt for m in used]))
    known = [minimum for minimum in used if np.isfinite(minimum.loss)]
    loss, why = None, "no losses are reported"
    if known:
        try:
            loss = loss_frontier(*zip(*((m.train_flops, m.loss, m.loss_deviation) for m in known), strict=True))
        except InputError as error:
            why = str(error)
    return Frontier(e, n_law, d_law, loss, tuple(used), "" if loss is not None else why)


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
