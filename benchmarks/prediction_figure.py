"""The figure of a check: losses predicted and measured at more compute, and what each E costs under a load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.decision.answer import Answer
from analysis.figures import check, style
from benchmarks.prediction_check import CheckedDecision, CheckedRun
from scaling.formatting import si


def check_figure(
    runs: Sequence[CheckedRun], decisions: Sequence[CheckedDecision], answers: Mapping[str, Answer]
) -> Figure:
    """Losses of the check's runs, then a panel of costs for each load."""
    experts = {choice.n_experts for answer in answers.values() for choice in answer.choices}
    palette = style.colours(experts)
    names = ("n_experts", "train_flops", "predicted", "low", "high", "measured")
    losses = pd.DataFrame([{name: getattr(run, name) for name in names} for run in runs])
    panels = [style.titled(partial(check.losses, losses, palette), "Loss at more compute")]
    for decision in decisions:
        answer = answers[decision.load]
        title = f"Cost, {si(answer.question.served)} tokens served"
        panels.append(style.titled(partial(check.costs, _costs(decision, answer), palette), title))
    shown = {e: palette[e] for e in sorted(experts)}
    return style.figure(*panels, height=2.6, legend=shown, ratios=[1.15] + [1.0] * len(decisions))


def _costs(decision: CheckedDecision, answer: Answer) -> pd.DataFrame:
    """What each E of an answer costs, predicted with its interval, and measured where the check has it."""
    measured = {cost.n_experts: cost.total for cost in decision.costs if np.isfinite(cost.total)}
    rows = []
    for choice in sorted(answer.choices, key=lambda choice: choice.n_experts):
        cost = choice.cost.total
        low, high = choice.cost_interval or (cost, cost)
        row = {"n_experts": choice.n_experts, "predicted": cost, "low": low, "high": high}
        rows.append({**row, "measured": measured.get(choice.n_experts, np.nan)})
    return pd.DataFrame(rows)
