"""The figures of how a law was checked; each is drawn only where its check found something to draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import numpy as np
import pandas as pd

from analysis import figures
from analysis.figures import Figure, Panel, titled
from analysis.report.plots.study import palette_of
from analysis.report.study import Study
from analysis.validation.checks import Checks
from scaling.columns import COMPUTE, EXPERTS, TOKENS

LEAST_WEIGHT = 0.005  # of a law's bar; lighter ones beyond the first few stand in the table alone
_FIRST = 3
_LABELS = {TOKENS: "training tokens D", EXPERTS: "experts per layer E", COMPUTE: "training FLOPs C"}
_LONGEST = 34  # characters of a bar's name
_MOST_VALLEYS = 3


def drawn(study: Study) -> list[Callable[[Study], Figure]]:
    """The figures that this study has, in the order of the section."""
    checks = study.checks
    if checks is None or checks.refused:
        return []
    there = {
        unseen_runs: bool(_tried(checks).size) or len(_weighed(checks)) > 1,
        left_over: checks.residuals is not None,
        influence: bool(_moved(checks).size),
        profiles: bool(checks.profiles),
        isoflop: bool(checks.isoflop),
    }
    return [draw for draw, something in there.items() if something]


def unseen_runs(study: Study) -> Figure:
    """Dearer runs against what the law fitted below them predicted, and the weight of evidence of every law."""
    checks, palette = _of(study), palette_of(study)
    tried, weighed, panels = _tried(checks), _weighed(checks), []
    if len(tried):
        panels.append(titled(partial(figures.roll_out_errors, tried, palette), "Runs held out by compute"))
    if len(weighed) > 1:
        panels.append(titled(partial(figures.evidence, weighed), "Which law"))
    return figures.figure(*panels, height=2.5, legend=palette if len(tried) else None, ratios=[1.35, 1][: len(panels)])


def left_over(study: Study) -> Figure:
    """What the law leaves over against every column that varies."""
    table, fit, palette = _of(study).table, study.law_fit, palette_of(study)
    law = fit.definition
    residuals = np.log(table.column(law.target)) - np.log(fit.loss(table.columns(law.columns)))
    experts = table.column(EXPERTS)
    panels: list[Panel] = []
    for name in dict.fromkeys((law.n_column or "n_active", TOKENS, EXPERTS, COMPUTE)):
        values = table.column(name) if name in table.frame else np.zeros(len(table))
        if (np.isfinite(values) & (values > 0)).all() and np.ptp(values) > 0:
            label = _LABELS.get(name, "model size N")
            told = partial(figures.residuals_against, values, residuals, experts, palette)
            panels.append(partial(told, label=label, flops=name == COMPUTE))
    return figures.figure(*panels, height=2.1, legend=palette)


def influence(study: Study) -> Figure:
    """What moves when runs are left out."""
    moved = _moved(_of(study))
    bars = min(len(moved), 12)
    return figures.figure(partial(figures.influence, moved), height=0.6 + 0.18 * bars)


def profiles(study: Study) -> Figure:
    """Profiles of the exponents and the floor, over clouds of bootstrap draws of each pair of them."""
    fit, found = study.law_fit, _of(study).profiles
    names = [one.name for one in found]
    rows: list[list[Panel]] = [[partial(figures.profile_curve, one, fit.params[one.name]) for one in found]]
    pairs = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    if pairs:
        draws = {name: np.array(fit.draws[name]) for name in names}
        at = fit.params
        rows.append([partial(figures.cloud, draws[a], draws[b], (at[a], at[b]), (a, b)) for a, b in pairs])
    return figures.pages(*rows, heights=[2.4, 2.0][: len(rows)], legend={})


def isoflop(study: Study) -> Figure:
    """Valleys of equal compute, and the frontier through their minima, of the first few E."""
    rows: list[list[Panel]] = []
    for one in _of(study).isoflop[:_MOST_VALLEYS]:
        name = "dense" if one.n_experts == 1 else f"E = {one.n_experts}"
        row = [titled(partial(figures.isoflop_valleys, one.valleys), f"Valleys, {name}")]
        if one.line is not None:
            row.append(titled(partial(figures.isoflop_frontier, one.valleys, one.line), f"Frontier, {name}"))
        rows.append(row)
    return figures.pages(*rows, heights=[2.3] * len(rows), legend={})


def _of(study: Study) -> Checks:
    if study.checks is None:
        raise ValueError("a study without a law has no checks to draw")
    return study.checks


def _tried(checks: Checks) -> pd.DataFrame:
    """Predictions of dearer runs that have an interval."""
    return checks.roll_out.frame() if checks.roll_out is not None else pd.DataFrame()


def _weighed(checks: Checks) -> pd.DataFrame:
    """The first few laws, and all whose weight can be seen."""
    contenders = checks.comparison.contenders if checks.comparison is not None else ()
    return pd.DataFrame([asdict(c) for i, c in enumerate(contenders) if c.weight >= LEAST_WEIGHT or i < _FIRST])


def _moved(checks: Checks) -> pd.DataFrame:
    """Runs left out and what they move, with names that leave room for the bars."""
    moved = checks.sensitivity.frame() if checks.sensitivity is not None else pd.DataFrame()
    if moved.empty:
        return moved
    short = [label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…" for label in moved["label"]]
    return moved.assign(label=short)
