"""The whole validation of a fit: one verdict of every part, as one document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.fitting.fit import Fit
from analysis.fitting.objective import Objective
from analysis.fitting.roll_out import RollOut, roll_out
from analysis.laws import Law
from analysis.tables.runs import RunTable
from analysis.validation.held_out import ExpertsLeftOut, leave_one_expert_count_out
from analysis.validation.influence import Sensitivity, sensitivity
from analysis.validation.law_comparison import LawComparison, compare_laws
from analysis.validation.residuals import Diagnostics, diagnose
from scaling.errors import InputError

_WITH_VERDICT = ("roll_out", "experts_left_out", "comparison", "sensitivity")


@dataclass(frozen=True)
class ValidationAccount:
    """What runs that a law has not seen say of it. A part that the runs do not allow is None; `verdict` says why."""

    fit: Fit
    verdict: tuple[str, ...]
    roll_out: RollOut | None
    experts_left_out: ExpertsLeftOut | None
    comparison: LawComparison | None
    sensitivity: Sensitivity | None
    residuals: Diagnostics | None

    def to_json(self) -> dict[str, Any]:
        """Plain values, a part that was not allowed left out."""
        parts = {name: getattr(self, name) for name in _WITH_VERDICT}
        return {
            "law": self.fit.law,
            "n_runs": self.fit.n_runs,
            "n_trunks": self.fit.n_trunks,
            "verdict": list(self.verdict),
            **{name: part.to_json() for name, part in parts.items() if part is not None},
            **({} if self.residuals is None else {"residuals": asdict(self.residuals)}),
            "warnings": list(self.fit.warnings),
        }

    def frames(self) -> dict[str, pd.DataFrame]:
        """Predictions, weights of laws and exclusions, as `figures.sheets.validation_sheet` draws them."""
        contenders = () if self.comparison is None else self.comparison.contenders
        return {
            "roll_out": pd.DataFrame() if self.roll_out is None else self.roll_out.frame(),
            "weights": pd.DataFrame([asdict(contender) for contender in contenders]),
            "exclusions": pd.DataFrame() if self.sensitivity is None else self.sensitivity.frame(),
        }


def validate_fit(
    fit: Fit,
    table: RunTable,
    laws: Sequence[Law],
    *,
    rng: np.random.Generator,
    resamples: int,
    keep_trunks: bool,
    objective: Objective,
    pin: Mapping[str, float],
    train_flops: float | None,
) -> ValidationAccount:
    """Judge a fit by larger runs, expert counts left out, other `laws`, runs left out and its own residuals.

    `resamples` are behind every interval; `objective` and `pin` those of the fit, which its refits take over;
    `train_flops` is the compute that advice is compared at (None: 10 times the largest run's).
    """
    refit: dict[str, Any] = {"rng": rng, "resamples": resamples, "objective": objective, "pin": pin}
    law = fit.definition
    work: dict[str, tuple[str, Callable[[], Any]]] = {
        "roll_out": ("roll-out", lambda: roll_out(table, law, keep_trunks=keep_trunks, **refit)),
        "experts_left_out": ("one expert count left out", lambda: leave_one_expert_count_out(table, law, **refit)),
        "comparison": (
            "laws",
            lambda: compare_laws(table, laws, rng=rng, train_flops=train_flops, objective=objective),
        ),
        "sensitivity": ("sensitivity", lambda: sensitivity(fit, table, rng, train_flops=train_flops)),
        "residuals": ("residuals", lambda: diagnose(fit, table)),
    }
    parts: dict[str, Any] = {}
    verdict = []
    for name, (title, part) in work.items():
        parts[name] = None
        try:
            parts[name] = part()
            verdict.append(_faults(parts[name]) if name == "residuals" else parts[name].verdict())
        except InputError as error:  # a part that these runs do not allow does not keep the others from being judged
            verdict.append(f"{title}: {error}")
    return ValidationAccount(fit, tuple(verdict), **parts)


def _faults(diagnostics: Diagnostics) -> str:
    faults = "; ".join(fault.sentence for fault in diagnostics.faults)
    return f"residuals: {faults or 'no trend, unequal spread, heavy tails or outlier stands out'}"
