"""The figures of a report, drawn from a study: which slices are shown, with the law through them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from analysis import figures
from analysis.figures import Curve, Figure, Palette, titled
from analysis.fitting.fit import Fit
from analysis.methods.comparison import MethodComparison
from analysis.methods.router_metrics import decode_times, router_metrics
from analysis.methods.router_metrics import saturation as saturation_of
from analysis.report.study import Study
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS
from scaling.formatting import si

_METRICS = ("load_cv", "distinct_8", "saturation_50", "specialisation")
_SAME_SIZE = 0.02
_POINTS = 60


def palette_of(study: Study) -> Palette:
    """One colour for each E that was studied, failed or compared, ascending."""
    answer = study.decision
    compared = [choice["n_experts"] for choice in (answer["recommendation"], *answer["alternatives"])]
    compared += answer["unreachable"]  # they may be the best elsewhere in the plane
    met = {*study.table.frame[EXPERTS].astype(int), *study.failed[EXPERTS].dropna().astype(int), *compared}
    palette = figures.colours(met)
    return {e: palette[e] for e in sorted(met)}


def sizes_of(frame: pd.DataFrame) -> pd.Series:
    """Active parameters with values that agree within 2% made equal, so that models of one size share a slice."""
    values = np.sort(frame["n_active"].unique())
    starts = np.concatenate([[True], np.diff(np.log(values)) > _SAME_SIZE])
    first = dict(zip(values, values[starts][np.cumsum(starts) - 1], strict=True))
    return frame["n_active"].map(first)


def law_curve(fit: Fit, n_experts: Array, n_active: Array, tokens: Array, x: Array) -> Curve:
    """The law along x with the 95% band of its draws; the first E gives the colour."""
    definition = fit.definition
    size = n_active
    if definition.n_column != "n_active" and fit.family is not None:
        family = fit.family
        models = zip(n_active, n_experts, strict=True)
        size = np.array([family.sizes(np.array([n]), int(e)).column(definition.n_column)[0] for n, e in models])
    columns = {definition.n_column: size, TOKENS: tokens, EXPERTS: n_experts}
    band = fit.loss_interval(columns)
    return Curve(int(n_experts[0]), x, fit.loss(columns), *(band or (None, None)))


def hero(study: Study) -> Figure:
    """The answer in one picture: what loss each E offers at what lifetime cost, how often each E is best, and, where it
    was measured, what serving each E took."""
    palette, answer = palette_of(study), study.decision
    chosen, front = answer["recommendation"], pd.DataFrame(answer["front"])
    if len(front):
        note = "recommended" if answer["decided"] else "leads, not decided"
        offer = partial(
            figures.pareto, front, (chosen["cost"]["total"], chosen["loss"]), palette, unit=chosen["cost"]["unit"],
            note=note, bound=answer["question"]["target_loss"], cost_interval=chosen["cost_interval"],
            loss_interval=chosen["loss_interval"],
        )  # fmt: skip
        panels = [titled(offer, "Loss against lifetime cost")]
    else:
        choices = sorted((chosen, *answer["alternatives"]), key=lambda choice: int(choice["n_experts"]))
        losses = {c["n_experts"]: c["loss"] for c in choices}
        intervals = {c["n_experts"]: c["loss_interval"] for c in choices if c["loss_interval"]}
        offer = partial(figures.losses_of_choices, losses, intervals, chosen["n_experts"], palette)
        panels = [titled(offer, "Least loss at the training budget")]
    if answer["probability_best"]:
        shares = {int(e): p for e, p in answer["probability_best"].items()}
        panels.append(titled(partial(figures.probability_best, dict(sorted(shares.items())), palette), "How sure"))
    timed = measured_decode(study)
    if len(timed):
        panels.append(titled(partial(figures.decode_times, timed, palette), "What serving it measured"))
    return figures.figure(*panels, height=2.6, legend=palette, ratios=[1.5, 0.85, 1.3][: len(panels)])


def coverage(study: Study) -> Figure:
    """Which cells were run."""
    palette = palette_of(study)
    failed = study.failed.dropna(subset=["n_active", TOKENS, EXPERTS])
    draw = partial(figures.coverage, study.table.frame, failed, palette)
    return figures.figure(draw, height=1.8, legend=palette, width=5.0)


def sliced(study: Study) -> bool:
    """Whether some size was trained on several token budgets, so that a slice through the runs shows them."""
    frame = study.table.frame
    return int(frame.assign(size=sizes_of(frame)).groupby("size")[TOKENS].nunique().max()) > 1


def loss_against_size_and_tokens(study: Study) -> Figure:
    """Loss against tokens at the smallest and the largest size, and against size at the budget with most sizes.

    Where no size has two budgets, the law along its axes with every run brought there (`figures.along`).
    """
    fit, palette = study.law_fit, palette_of(study)
    if not sliced(study):
        names = [name for name in (fit.definition.n_column, TOKENS) if name]
        ways = [partial(figures.along, name, fit, study.table, palette) for name in names]
        return figures.figure(*ways, height=2.5, legend=palette)
    frame = study.table.frame.assign(size=sizes_of(study.table.frame))
    budgets = frame.groupby("size")[TOKENS].nunique()
    several = budgets[budgets > 1].index
    panels = []
    for size in sorted({several.min(), several.max()}):
        points = frame[frame["size"] == size]
        along = _between(points[TOKENS])
        same = np.ones_like(along)
        curves = [law_curve(fit, e * same, size * same, along, along) for e in _studied(points)]
        panel = partial(figures.loss_against, TOKENS, points, curves, palette, label="training tokens D")
        panels.append(titled(_near(points, panel), f"{si(size)} active parameters"))
    widest = frame.groupby(TOKENS)["size"].nunique()
    if widest.max() == 1:
        return figures.figure(*panels, height=2.5, legend=palette)
    budget = widest[widest == widest.max()].index.max()
    points = frame[frame[TOKENS] == budget]
    along = _between(points["n_active"])
    same = np.ones_like(along)
    curves = [law_curve(fit, e * same, along, budget * same, along) for e in _studied(points)]
    panel = partial(figures.loss_against, "n_active", points, curves, palette, label="active parameters")
    last = titled(_near(points, panel), f"{si(budget, 2)} training tokens")
    return figures.figure(*panels, last, height=2.5, legend=palette)


def loss_against_experts(study: Study) -> Figure:
    """Loss against E at the corners of the grid, with what the law leaves over beside it."""
    fit, palette = study.law_fit, palette_of(study)
    frame = study.table.frame.assign(size=sizes_of(study.table.frame))
    varied = frame.groupby(["size", TOKENS])[EXPERTS].nunique()
    cells = list(varied[varied > 1].index) or list(varied.index)
    first, last = min(cells)[0], max(cells)[0]
    corners = [end(cell for cell in cells if cell[0] == size) for size in (first, last) for end in (min, max)]
    along = np.unique(np.geomspace(1, frame[EXPERTS].max(), _POINTS).round())
    same = np.ones_like(along)
    curves, points = [], []
    for size, budget in dict.fromkeys(corners):
        name = f"{si(size)}, {si(budget, 2)}"
        curves.append((name, law_curve(fit, along, size * same, budget * same, along)))
        points.append(frame[(frame["size"] == size) & (frame[TOKENS] == budget)].assign(slice=name))
    shown = pd.concat(points)
    effect = titled(_near(shown, partial(figures.loss_against_experts, shown, curves)), "By active parameters, tokens")
    columns = study.table.columns(fit.definition.columns)
    predicted, observed = fit.loss(columns), study.table.column("loss_val")
    experts = study.table.column(EXPERTS)
    agree = partial(figures.observed_predicted, observed, predicted, experts, palette)
    over = partial(figures.residuals, study.table.column(TOKENS), np.log(observed / predicted), experts, palette)
    panels = [effect, titled(agree, "Law against measurement"), titled(over, "Residuals")]
    if len(palette) == 1:
        return figures.figure(*panels[1:], height=2.5)
    return figures.figure(*panels, height=2.5, legend=palette, ratios=[1.35, 1, 1])


def paired(study: Study) -> Figure:
    """Every routed run against its dense twin."""
    palette = palette_of(study)
    rows = study.effects.rows.assign(n_active=sizes_of(study.effects.rows))
    return figures.figure(partial(figures.paired_differences, rows, palette), height=2.2, legend=palette)


def parameters(study: Study) -> Figure:
    """Intervals of the fitted parameters."""
    fit = study.law_fit
    draw = partial(figures.parameter_intervals, dict(fit.params), dict(fit.intervals))
    return figures.figure(draw, height=0.5 + 0.16 * len(fit.params), width=4.6)


def latency(study: Study) -> Figure:
    """Measured prefill and decode of the largest size, one context, by E."""
    rows, palette = shown_latency(study), palette_of(study)
    panels = []
    for phase in ("prefill", "decode"):
        mine = rows[rows["phase"] == phase]
        if len(mine):
            what = "Prefill of" if phase == "prefill" else "One decode step at"
            title = f"{what} {si(mine['context'].iloc[0])} tokens"
            panels.append(titled(partial(figures.step_times, mine, palette), title))
    return figures.figure(*panels, height=2.5, legend=palette)


def methods(study: Study) -> Figure:
    """Differences of the methods to their reference, and what decoding takes beside it where it was measured."""
    made = study.comparisons[0]
    names, times = list(made.rows["method"]), decode_times(study.path, made).dropna(subset="times")
    panels: list[figures.Panel] = [partial(figures.method_differences, made.rows, made.reference)]
    if len(times):
        panels.append(partial(figures.method_times, times, names))
    return figures.figure(*panels, height=0.6 + 0.17 * len(names), ratios=[2, 1][: len(panels)])


def router_metrics_beside_chance(study: Study) -> Figure:
    """The metrics of `shown_metrics`, side by side, by method."""
    rows = shown_metrics(study)
    names = [name for name in study.comparisons[0].rows["method"] if name in set(rows["method"])]
    told = [metric for metric in _METRICS if metric in set(rows["metric"])]
    panels = [
        titled(
            partial(figures.metric_beside_chance, rows[rows["metric"] == metric], names, named=not index),
            metric.replace("_", " "),
        )
        for index, metric in enumerate(told)
    ]
    return figures.figure(*panels, height=0.6 + 0.16 * len(names))


def saturation(study: Study) -> Figure:
    """How early each method's routing settles."""
    curves = shown_saturation(study)
    colours = figures.method_colours(list(study.comparisons[0].rows["method"]))
    legend = {name: tint for name, tint in colours.items() if name in set(curves["method"])}
    rows = -(-len(legend) // figures.legend_columns(legend)) if legend else 0
    return figures.figure(partial(figures.saturation, curves, colours), height=2.0 + 0.14 * rows, legend=legend)


def shown_metrics(study: Study) -> pd.DataFrame:
    """Router metrics of the methods that route, a few that say most; empty where there are none."""
    made = study.comparisons[0]
    rows = router_metrics(made)
    kept: pd.DataFrame = rows[rows["metric"].isin(_METRICS) & rows["method"].isin(_routed(made))]
    return kept


def shown_saturation(study: Study) -> pd.DataFrame:
    """Saturation of the methods that route; empty where it was not probed."""
    made = study.comparisons[0]
    curves = saturation_of(study.path, made)
    kept: pd.DataFrame = curves[curves["method"].isin(_routed(made))]
    return kept


def _routed(made: MethodComparison) -> list[str]:
    return list(made.rows.loc[made.rows["n_experts"] > 1, "method"])


def shown_latency(study: Study) -> pd.DataFrame:
    """Latency rows of the largest size that has most E, at its longest context, one row per E, phase and batch."""
    rows = study.latency.assign(size=sizes_of(study.latency))
    by_size = rows.groupby("size")[EXPERTS].nunique()
    largest = by_size[by_size == by_size.max()].index.max()
    kept: pd.DataFrame = rows[(rows["size"] == largest) & (rows["context"] == rows["context"].max())]
    return kept.drop_duplicates([EXPERTS, "phase", "batch"]).sort_values([EXPERTS, "phase", "batch"])


def measured_decode(study: Study) -> pd.DataFrame:
    """The decode rows of `shown_latency` at the largest batch that most E were measured at; empty without any."""
    if study.latency.empty:
        return study.latency
    rows = shown_latency(study)
    rows = rows[rows["phase"] == "decode"]
    by_batch = rows.groupby("batch")[EXPERTS].nunique()
    kept: pd.DataFrame = rows[rows["batch"] == by_batch[by_batch == by_batch.max()].index.max()] if len(rows) else rows
    return kept


def _near(points: pd.DataFrame, panel: figures.Panel) -> figures.Panel:
    """The panel with its losses no further than twice the spread of the measured ones beyond them: a band that the runs
    leave open, say at a size that few of them have, would flatten all else; it goes on beyond the edge.
    """

    def drawn(ax: Any) -> Any:
        panel(ax)
        low, high = points["loss_val"].min(), points["loss_val"].max()
        spare = 2 * max(high - low, 0.02 * high)
        bottom, top = ax.get_ylim()
        ax.set_ylim(max(bottom, low - spare), min(top, high + spare))
        return ax

    return drawn


def _between(values: pd.Series) -> Array:
    return np.geomspace(float(values.min()), float(values.max()), _POINTS)


def _studied(points: pd.DataFrame) -> list[int]:
    return sorted(set(points[EXPERTS].astype(int)))
