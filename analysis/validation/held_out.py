"""Validation on runs that a fit has not seen: dearer runs (roll-out), and expert counts left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis.fitting.objective import Objective
from analysis.fitting.roll_out import ErrorSummary, HeldOutRuns, HoldOut, Kind, summarise
from analysis.laws import Law
from analysis.tables.runs import RunTable
from scaling.columns import EXPERTS
from scaling.errors import InputError


@dataclass(frozen=True)
class ExpertsLeftOut:
    """Every expert count in turn predicted from the others; the smallest and the largest are extrapolated to."""

    law: str
    parts: tuple[HeldOutRuns, ...]

    def summary(self, kind: Kind) -> ErrorSummary | None:
        """All predictions of one kind together."""
        return summarise(kind, [run for part in self.parts if part.kind == kind for run in part.runs])

    def verdict(self) -> str:
        """One sentence."""
        told = [
            f"{found.label} {found.describe(with_ratio=False)}"
            for found in (self.summary("interpolation"), self.summary("extrapolation"))
            if found is not None
        ]
        refused = [part.label for part in self.parts if part.reason]
        told += [f"{', '.join(refused)} could not be judged"] if refused else []
        return f"one expert count left out: {'; '.join(told)}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, the verdict among them."""
        return asdict(self) | {"verdict": self.verdict()}


def leave_one_expert_count_out(
    table: RunTable,
    law: Law,
    *,
    rng: np.random.Generator,
    resamples: int = 200,
    objective: Objective | None = None,
    pin: Mapping[str, float] | None = None,
) -> ExpertsLeftOut:
    """For each E: fit the runs of the others, predict those of this E.

    An E between two others is interpolation, the smallest and the largest are extrapolation. What the fit without an
    E had to pin is in `pinned`; where it cannot be determined at all, the part holds the reason. Raises InputError
    for a law without experts and for a table with fewer than two E.
    """
    if not law.uses_experts:
        raise InputError(f"law {law.name} says nothing about experts, so no expert count can be left out")
    experts = table.column(EXPERTS)
    counts = np.unique(experts[np.isfinite(experts)])
    if len(counts) < 2:
        raise InputError(f"{table.source}: leaving an expert count out takes at least two, found {_listed(counts)}")
    judge = HoldOut(table, law, rng, resamples, objective or Objective(), dict(pin or {}))
    return ExpertsLeftOut(
        law.name,
        tuple(
            judge.evaluate(
                f"E = {count:g}",
                "extrapolation" if count in (counts[0], counts[-1]) else "interpolation",
                experts != count,
                experts == count,
            )
            for count in counts
        ),
    )


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers) or "none"
