"""The figure of an answer: what each expert count offers, and how sure the choice is."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from analysis.decision.answer import Answer
from analysis.figures.decision import losses_of_choices, pareto, probability_best
from analysis.figures.style import Palette, Panel, colours, figure, titled


def answer_figure(answer: Answer) -> Figure:
    """The panels of an answer side by side."""
    every = colours([*(choice.n_experts for choice in answer.choices), *answer.recommendation.unreachable])
    palette = {choice.n_experts: every[choice.n_experts] for choice in answer.choices}
    return figure(*answer_panels(answer, every), height=2.6, legend=palette)


def answer_panels(answer: Answer, palette: Palette) -> list[Panel]:
    """Loss against lifetime cost by E, or at a training budget alone the least loss of every E; beside it the share of
    the draws in which each E is best, where there are draws."""
    found, best = answer.recommendation, answer.best
    if found.front:
        offer: Panel = partial(
            pareto,
            pd.DataFrame([asdict(point) for point in found.front]),
            (best.cost.total, best.loss),
            palette,
            unit=best.cost.unit,
            note="recommended" if found.decided else "leads, not decided",
            bound=answer.question.target_loss,
            cost_interval=best.cost_interval,
            loss_interval=best.loss_interval,
        )
        panels = [titled(offer, "Loss against lifetime cost")]
    else:
        losses = {choice.n_experts: choice.loss for choice in answer.choices}
        intervals = {c.n_experts: c.loss_interval for c in answer.choices if c.loss_interval is not None}
        offer = partial(losses_of_choices, losses, intervals, best.n_experts, palette)
        panels = [titled(offer, "Least loss at the training budget")]
    if found.probability_best:
        shares = dict(sorted(found.probability_best.items()))
        panels.append(titled(partial(probability_best, shares, palette), "How sure"))
    return panels
