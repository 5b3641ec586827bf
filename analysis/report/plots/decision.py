"""The figures of the decision: the answer in one picture, what would change it, and price against load."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from analysis import figures
from analysis.decision.answer import Answer
from analysis.figures import Figure, Palette, Panel, titled
from analysis.figures.answer import answer_panels
from analysis.figures.shapes import shapes_figure
from analysis.figures.worth import worth_panels
from analysis.report.measured import measured_decode
from analysis.report.study import ReportStudy
from analysis.report.subject import Subject
from scaling.columns import EXPERTS

_LONGEST = 36  # characters of a case's name


def drawn(subject: Subject) -> list[Callable[[Any], Figure]]:
    """The figures that this subject has."""
    if not subject.answers:
        return []
    there: dict[Callable[[Any], Figure], bool] = {
        hero: True,
        what_would_change: subject.curves.plane is not None or len(shown_cases(subject.decision)) > 0,
        expert_worth: subject.worth is not None,
        expert_shapes: subject.decision.shapes is not None,
        cost_against_load: len(subject.curves.prices) > 0,
        measured_modelled: isinstance(subject, ReportStudy) and len(subject.modelled) > 0,
    }
    return [draw for draw, has_data in there.items() if has_data]


def palette_of(subject: Subject) -> Palette:
    """One colour for each E that was studied, failed or compared, ascending."""
    answer = subject.decision
    experts = {*(choice.n_experts for choice in answer.choices)}
    experts |= {*answer.recommendation.unreachable}  # they may be the best elsewhere in the plane
    if isinstance(subject, ReportStudy):
        experts |= {*subject.table.frame[EXPERTS].astype(int), *subject.failed[EXPERTS].dropna().astype(int)}
    palette = figures.colours(experts)
    return {e: palette[e] for e in sorted(experts)}


def hero(subject: Subject) -> Figure:
    """The answer in one picture (`analysis.figures.answer`), and measured decode times where there are any."""
    palette = palette_of(subject)
    panels = answer_panels(subject.decision, palette)
    times = measured_decode(subject.latency) if isinstance(subject, ReportStudy) else pd.DataFrame()
    if len(times):
        panels.append(titled(partial(figures.decode_times, times, palette), "Measured decode time"))
    return figures.figure(*panels, height=2.5, legend=palette, ratios=[1.5, 0.85, 1.3][: len(panels)])


def what_would_change(subject: Subject) -> Figure:
    """The cases that were tried, and the best E over budgets and volumes."""
    rows, plane, palette = shown_cases(subject.decision), subject.curves.plane, palette_of(subject)
    panels: list[Panel] = []
    if len(rows):
        panels.append(titled(partial(figures.what_if_cases, rows), "If one thing were different"))
    if plane is not None and subject.curves.asked is not None:
        draw = partial(figures.best_experts, plane.budgets, plane.volumes, plane.best, palette)
        draw = partial(draw, asked=subject.curves.asked, most_budget=subject.curves.most_budget)
        draw = partial(draw, unit=subject.decision.question.budget_unit)
        panels.append(titled(draw, "Best E over budget and volume"))
    height = max(2.6 if plane is not None else 0.0, 0.65 + 0.125 * len(rows))
    return figures.figure(*panels, height=height, legend=None if plane is None else palette)


def expert_worth(subject: Subject) -> Figure:
    """Speedup over dense models against compute by E, in compute and in device time."""
    if subject.worth is None:
        raise TypeError("nothing was compared with dense models")
    compared = {one.n_experts for one in subject.worth.worth}
    palette = {e: tint for e, tint in palette_of(subject).items() if e in compared}
    return figures.figure(*worth_panels(subject.worth, palette), height=2.5, legend=palette)


def expert_shapes(subject: Subject) -> Figure:
    """The front of cost against loss over all shapes of experts, and a tile for each (E, k)."""
    return shapes_figure(subject.decision)


def cost_against_load(subject: Subject) -> Figure:
    """The price of a million tokens at every load, by E."""
    prices = subject.curves.prices
    palette = _of(prices[EXPERTS], palette_of(subject))
    load = subject.decision.question.requests_per_month
    draw = partial(figures.cost_against_load, prices, subject.curves.overtakings, palette, asked=load)
    return figures.figure(draw, height=2.3, width=5.4, legend=palette)


def measured_modelled(study: ReportStudy) -> Figure:
    """Measured times against those of the latency law by phase, and its errors against the batch."""
    rows = study.modelled
    palette = _of(rows[EXPERTS], figures.colours(rows[EXPERTS].astype(int)))
    panels: list[Panel] = [
        titled(partial(figures.measured_modelled, rows[rows["phase"] == phase], palette), phase.capitalize())
        for phase in ("prefill", "decode")
        if (rows["phase"] == phase).any()
    ]
    errors = partial(figures.time_errors, rows, "batch", "sequences in the batch", palette)
    return figures.figure(*panels, titled(errors, "Errors"), height=2.3, legend=palette)


def _of(experts: pd.Series[Any], palette: Palette) -> Palette:
    """The colours of these E alone."""
    shown = {int(e) for e in experts}
    return {e: tint for e, tint in palette.items() if e in shown}


def shown_cases(answer: Answer) -> pd.DataFrame:
    """The cases of `analysis.decision.what_if` as the figure takes them; empty where the answer was stored without."""
    cases = () if answer.what_if is None else answer.what_if.cases
    rows = [
        {
            "case": f"{case.what}: {case.value.split(',')[0]}"[:_LONGEST],
            "n_experts": float("nan") if case.n_experts is None else case.n_experts,
            "times": float("nan") if case.cost is None else case.cost / answer.best.cost.total,
            "changes": case.changes,
        }
        for case in cases
    ]
    return pd.DataFrame(rows, columns=["case", "n_experts", "times", "changes"])
