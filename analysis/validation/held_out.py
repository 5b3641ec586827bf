"""Validation on held-out expert counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis.fitting.objective import HUBER, Objective
from analysis.fitting.roll_out import ErrorSummary, Fitted, HeldOutRuns, HoldOut, Kind, of_law, summarise
from analysis.laws import Law
from analysis.tables.runs import RunTable
from scaling.columns import EXPERTS
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.progress import Progress, silent


@dataclass(frozen=True)
class ExpertsLeftOut:
    """Every expert count predicted from the others; the smallest and the largest are extrapolations."""

    law: str
    parts: tuple[HeldOutRuns, ...]

    def summary(self, kind: Kind) -> ErrorSummary | None:
        """The summary of all predictions of one kind."""
        return summarise(kind, [run for part in self.parts if part.kind == kind for run in part.runs])

    def verdict(self) -> str:
        """One sentence."""
        summaries = [self.summary("interpolation"), self.summary("extrapolation")]
        parts = [f"{each.label} {each.describe(with_ratio=False)}" for each in summaries if each is not None]
        refused = [part.label for part in self.parts if part.reason]
        parts += [f"no fit without {', '.join(refused)}"] if refused else []
        return f"one expert count left out: {'; '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """Plain values, the verdict among them."""
        return asdict(self) | {"verdict": self.verdict()}


def leave_one_expert_count_out(
    table: RunTable,
    law: Law,
    *,
    rng: np.random.Generator,
    resamples: int = 200,
    objective: Objective = HUBER,
    pin: Mapping[str, float] | None = None,
    fitted: Fitted | None = None,
    progress: Progress = silent,
) -> ExpertsLeftOut:
    """For each E: fit the runs of the others, predict those of this E.

    An E between two others is interpolation, the smallest and the largest are extrapolation. `pinned` are the
    parameters pinned without that E; a part without a fit has the reason. `fitted` says how runs are fitted, where not
    by `law` alone with `objective` and `pin`. Raises InputError for a law without experts
    and for a table with fewer than two E.
    """
    if not law.uses_experts:
        raise InputError(f"law {law.name} has no term in experts, so no expert count can be left out")
    experts = table.column(EXPERTS)
    counts = np.unique(experts[np.isfinite(experts)])
    if len(counts) < 2:
        raise InputError(f"{table.source}: leaving one expert count out needs two or more, found {listed(counts)}")
    hold_out = HoldOut(table, rng, resamples, fitted or of_law(law, objective, pin))
    parts = []
    for number, count in enumerate(counts):
        progress(number / len(counts))
        kind: Kind = "extrapolation" if count in (counts[0], counts[-1]) else "interpolation"
        parts.append(hold_out.evaluate(f"E = {count:g}", kind, experts != count, experts == count))
    return ExpertsLeftOut(law.name, tuple(parts))
