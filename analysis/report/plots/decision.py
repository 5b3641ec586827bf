"""The figures of the decision beyond its first picture: regret, what would change it, and price against load."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from analysis import figures
from analysis.decision.recommendation import REGRET_LIMIT
from analysis.figures import Figure, Palette, Panel, titled
from analysis.report.plots.study import palette_of
from analysis.report.study import Study, choices

_LONGEST = 36  # characters of a case's name


def drawn(study: Study) -> list[Callable[[Study], Figure]]:
    """The figures that this study has."""
    if not study.answers:
        return []
    there = {
        regret: bool(study.decision["probability_best"]),
        what_would_change: study.curves.plane is not None or len(shown_cases(study)) > 0,
        cost_against_load: len(study.curves.prices) > 0,
        measured_modelled: len(study.modelled) > 0,
    }
    return [draw for draw, has_data in there.items() if has_data]


def regret(study: Study) -> Figure:
    """Expected regret of every E beside its limit."""
    regrets = {int(choice["n_experts"]): choice["regret"] for choice in choices(study.decision)}
    chances = {int(e): share for e, share in study.decision["probability_best"].items()}
    draw = partial(figures.regret_bars, regrets, chances, palette_of(study), limit=REGRET_LIMIT)
    return figures.figure(draw, height=1.8, width=4.6)


def what_would_change(study: Study) -> Figure:
    """The cases that were tried, and the best E over budgets and volumes."""
    rows, plane, palette = shown_cases(study), study.curves.plane, palette_of(study)
    panels: list[Panel] = []
    if len(rows):
        panels.append(titled(partial(figures.what_if_cases, rows), "If one thing were different"))
    if plane is not None and study.curves.asked is not None:
        draw = partial(figures.best_experts, plane.budgets, plane.volumes, plane.best, palette)
        draw = partial(draw, asked=study.curves.asked, most_budget=study.curves.most_budget)
        panels.append(titled(draw, "Best E over budget and volume"))
    height = max(2.6 if plane is not None else 0.0, 0.65 + 0.125 * len(rows))
    return figures.figure(*panels, height=height, legend=None if plane is None else palette)


def cost_against_load(study: Study) -> Figure:
    """The price of a million tokens at every load, by E."""
    prices = study.curves.prices
    load = study.decision["question"].get("requests_per_month")
    palette = _of(prices["n_experts"], palette_of(study))
    draw = partial(figures.cost_against_load, prices, study.curves.overtakings, palette, asked=load)
    return figures.figure(draw, height=2.6, width=5.4, legend=palette)


def measured_modelled(study: Study) -> Figure:
    """Measured times against those of the latency law by phase, and its errors against the batch."""
    rows = study.modelled
    palette = _of(rows["n_experts"], figures.colours(rows["n_experts"].astype(int)))
    panels: list[Panel] = [
        titled(partial(figures.measured_modelled, rows[rows["phase"] == phase], palette), phase.capitalize())
        for phase in ("prefill", "decode")
        if (rows["phase"] == phase).any()
    ]
    errors = partial(figures.time_errors, rows, "batch", "sequences in the batch", palette)
    return figures.figure(*panels, titled(errors, "Errors"), height=2.5, legend=palette)


def _of(experts: pd.Series[Any], palette: Palette) -> Palette:
    """The colours of these E alone."""
    shown = {int(e) for e in experts}
    return {e: tint for e, tint in palette.items() if e in shown}


def shown_cases(study: Study) -> pd.DataFrame:
    """The cases of `analysis.decision.what_if` as the figure takes them; empty where the answer was stored without."""
    answer = study.decision
    cases: list[dict[str, Any]] = (answer.get("what_if") or {}).get("cases", [])
    cost = answer["recommendation"]["cost"]["total"]
    rows = [
        {
            "case": f"{case['what']}: {case['value'].split(',')[0]}"[:_LONGEST],
            "n_experts": float("nan") if case["n_experts"] is None else case["n_experts"],
            "times": float("nan") if case["cost"] is None else case["cost"] / cost,
            "changes": case["changes"],
        }
        for case in cases
    ]
    return pd.DataFrame(rows, columns=["case", "n_experts", "times", "changes"])
