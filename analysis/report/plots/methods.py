"""The figures of a comparison of methods: differences in loss, router metrics beside chance, saturation of routing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd

from analysis import figures
from analysis.figures import Figure, titled
from analysis.methods import router_metrics
from analysis.methods.comparison import MethodComparison
from analysis.report.study import ReportStudy

_METRICS = ("load_cv", "distinct_8", "saturation_50", "specialisation")


def drawn(study: ReportStudy) -> list[Callable[[ReportStudy], Figure]]:
    """The figures that this study has."""
    if not study.comparisons:
        return []
    there = {
        methods: True,
        router_metrics_beside_chance: len(shown_metrics(study)) > 0,
        saturation: len(shown_saturation(study)) > 0,
    }
    return [draw for draw, has_data in there.items() if has_data]


def methods(study: ReportStudy) -> Figure:
    """Differences of the methods to their reference, and beside them decode times where they were measured."""
    comparison = study.comparisons[0]
    names = list(comparison.rows["method"])
    times = router_metrics.decode_times(study.path, comparison).dropna(subset="times")
    panels: list[figures.Panel] = [partial(figures.method_differences, comparison.rows, comparison.reference)]
    if len(times):
        panels.append(partial(figures.method_times, times, names))
    return figures.figure(*panels, height=0.6 + 0.17 * len(names), ratios=[2, 1][: len(panels)])


def router_metrics_beside_chance(study: ReportStudy) -> Figure:
    """The metrics of `shown_metrics`, side by side, by method."""
    rows = shown_metrics(study)
    names = [name for name in study.comparisons[0].rows["method"] if name in set(rows["method"])]
    metrics = [metric for metric in _METRICS if metric in set(rows["metric"])]
    panels = []
    for index, metric in enumerate(metrics):
        draw = partial(figures.metric_beside_chance, rows[rows["metric"] == metric], names, named=not index)
        panels.append(titled(draw, metric.replace("_", " ")))
    return figures.figure(*panels, height=0.6 + 0.16 * len(names))


def saturation(study: ReportStudy) -> Figure:
    """How early each method's routing settles."""
    curves = shown_saturation(study)
    colours = figures.method_colours(list(study.comparisons[0].rows["method"]))
    legend = {name: tint for name, tint in colours.items() if name in set(curves["method"])}
    rows = -(-len(legend) // figures.legend_columns(legend)) if legend else 0
    return figures.figure(partial(figures.saturation, curves, colours), height=2.0 + 0.14 * rows, legend=legend)


def shown_metrics(study: ReportStudy) -> pd.DataFrame:
    """The most informative router metrics of the methods that route; empty where there are none."""
    rows = _of_routed(router_metrics.router_metrics(study.comparisons[0]), study.comparisons[0])
    return rows[rows["metric"].isin(_METRICS)]


def shown_saturation(study: ReportStudy) -> pd.DataFrame:
    """Saturation of the methods that route; empty where it was not probed."""
    return _of_routed(router_metrics.saturation(study.path, study.comparisons[0]), study.comparisons[0])


def _of_routed(frame: pd.DataFrame, comparison: MethodComparison) -> pd.DataFrame:
    return frame[frame["method"].isin(comparison.rows.loc[comparison.rows["n_experts"] > 1, "method"])]
