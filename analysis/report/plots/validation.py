"""The figures of how a law was checked; each is drawn only where its check has something to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd

from analysis import figures
from analysis.figures import Figure, Panel, titled
from analysis.report.plots.decision import palette_of
from analysis.report.study import ReportStudy
from analysis.validation.checks import Checks

LEAST_WEIGHT = 0.005  # of a law's bar; lighter ones beyond the first few stand in the table alone
_FIRST = 3
_LONGEST = 34  # characters of a bar's name
_MOST_VALLEYS = 3


def drawn(study: ReportStudy) -> list[Callable[[ReportStudy], Figure]]:
    """The figures that this study has, in the order of the section."""
    checks = study.checks
    if checks is None or checks.refused:
        return []
    there = {
        unseen_runs: bool(predictions(checks).size) or len(_weighed(checks)) > 1,
        residuals: checks.residuals is not None,
        influence: bool(_exclusions(checks).size),
        profiles: bool(checks.profiles),
        isoflop: bool(checks.isoflop),
    }
    return [draw for draw, has_data in there.items() if has_data]


def unseen_runs(study: ReportStudy) -> Figure:
    """Larger-compute runs against the predictions of the law fitted below them, and the weight of evidence of every
    law."""
    checks, palette = _of(study), palette_of(study)
    held_out, weighed, panels = predictions(checks), _weighed(checks), []
    if len(held_out):
        panels.append(titled(partial(figures.roll_out_errors, held_out, palette), "Runs held out by compute"))
    if len(weighed) > 1:
        panels.append(titled(partial(figures.evidence, weighed), "Which law"))
    legend = palette if len(held_out) else None
    return figures.figure(*panels, height=2.5, legend=legend, ratios=[1.35, 1][: len(panels)])


def residuals(study: ReportStudy) -> Figure:
    """Residuals of the law against every column that varies."""
    palette = palette_of(study)
    panels = figures.residual_panels(study.law_fit.of_one_law, _of(study).table, palette)
    return figures.figure(*panels, height=2.1, legend=palette)


def influence(study: ReportStudy) -> Figure:
    """What moves when runs are left out."""
    exclusions = _exclusions(_of(study))
    return figures.figure(partial(figures.influence, exclusions), height=0.6 + 0.18 * min(len(exclusions), 12))


def profiles(study: ReportStudy) -> Figure:
    """Profiles of the exponents and the floor, over clouds of bootstrap draws of each pair of them."""
    fit, found = study.law_fit.of_one_law, _of(study).profiles
    at, names = fit.params, [profile.name for profile in found]
    rows: list[list[Panel]] = [[partial(figures.profile_curve, profile, at[profile.name]) for profile in found]]
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    if pairs:
        draws = {name: np.array(fit.draws[name]) for name in names}
        rows.append([partial(figures.cloud, draws[a], draws[b], (at[a], at[b]), (a, b)) for a, b in pairs])
    return figures.pages(*rows, heights=[2.4, 2.0][: len(rows)], legend={})


def isoflop(study: ReportStudy) -> Figure:
    """Valleys of equal compute, and the frontier through their minima, of the first few E."""
    rows: list[list[Panel]] = []
    for of_e in _of(study).isoflop[:_MOST_VALLEYS]:
        name = "dense" if of_e.n_experts == 1 else f"E = {of_e.n_experts}"
        row = [titled(partial(figures.isoflop_valleys, of_e.valleys), f"Valleys, {name}")]
        if of_e.line is not None:
            row.append(titled(partial(figures.isoflop_frontier, of_e.valleys, of_e.line), f"Frontier, {name}"))
        rows.append(row)
    return figures.pages(*rows, heights=[2.3] * len(rows), legend={})


def _of(study: ReportStudy) -> Checks:
    if study.checks is None:
        raise ValueError("a study without a law has no checks to draw")
    return study.checks


def predictions(checks: Checks) -> pd.DataFrame:
    """Predictions of larger-compute runs that have an interval."""
    return checks.roll_out.frame() if checks.roll_out is not None else pd.DataFrame()


def _weighed(checks: Checks) -> pd.DataFrame:
    """The first few laws, and all whose weight can be seen."""
    contenders = checks.comparison.contenders if checks.comparison is not None else ()
    return pd.DataFrame([asdict(c) for i, c in enumerate(contenders) if c.weight >= LEAST_WEIGHT or i < _FIRST])


def _exclusions(checks: Checks) -> pd.DataFrame:
    """Runs left out and what that moves, with names that leave room for the bars."""
    rows = checks.sensitivity.frame() if checks.sensitivity is not None else pd.DataFrame()
    if rows.empty:
        return rows
    short = [label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…" for label in rows["label"]]
    return rows.assign(label=short)
