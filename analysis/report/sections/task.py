"""The pages of a study of another task: what it is, what its cells measured, what was run and how to run it again."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.report import blocks
from analysis.report.blocks import Block, Cell, Tile, bullets, code, field, heading, picture, table, text
from analysis.report.sections import rates, returns
from analysis.report.sections.runs import distinct
from analysis.report.task_study import TaskStudy
from scaling.formatting import first_line, flops, number, plural, sentence, si
from scaling.tasks.columns import error_of
from scaling.tasks.task import Metric

_MOST_ROWS, _MOST_FAILED, _MOST_ERROR = 60, 12, 160
_MOST_FAMILIES = 6  # panels of the figure of a first page
_PROVENANCE = ("code_version", "versions", "platform", "device_kind", "executor", "schema_version")


def front_page(study: TaskStudy) -> dict[str, Any]:
    """What was found, of which task, and in which units."""
    task, found = study.task, [*returns.in_short(study.returns), *rates.in_short(study.rates)]
    primary = task.primary
    asked = "rates" if primary.better == "lower" else "returns"
    source = f" ({task.source})" if task.source else ""
    return blocks.front_page(
        found[0] if found else f"{plural(len(study.runs), 'cell')} measured; no {asked} were asked for yet",
        f"Task {task.name}: {task.title}{source}. Its primary metric is {_named(primary)}.",
        "Measured" if found else "Cells alone",
        decided=bool(found),
        tiles=_tiles(study),
        summary=[
            *_front_figure(study),
            *([bullets(found[1:])] if found[1:] else []),
        ],
    )


def sections(study: TaskStudy) -> list[tuple[str, list[Block]]]:
    """The pages after the first."""
    compared = [(returns.TITLE, returns.section(study.returns))] if study.returns else []
    learnt = [(rates.TITLE, rates.section(study.rates))] if study.rates else []
    programs = returns.programs(study.runs)
    return [
        *compared,
        *learnt,
        *([(returns.PROGRAMS, programs)] if programs else []),
        ("What was measured", _measured(study)),
        ("What was run", _evidence(study)),
        ("How to reproduce this", _reproduction(study)),
    ]


def _front_figure(study: TaskStudy) -> list[Block]:
    """The figure of the first page: that of the first comparison of returns, else of the first rates, if they fill no
    more than two rows of panels."""
    if study.returns:
        return returns.front_figure(study.returns)
    return [
        picture(
            rates.figure_name(name),
            f"{found.question.quantity} against {found.question.axis}, with the line and the slope of each arm.",
            0.8,
        )
        for name, found in [*study.rates.items()][:1]
        if len(found.families) <= _MOST_FAMILIES
    ]


def _named(metric: Metric) -> str:
    unit = f" in {metric.unit}" if metric.unit else ""
    return f"`{metric.name}`{unit}, where {metric.better} is better"


def _tiles(study: TaskStudy) -> list[Tile]:
    runs, budget = study.runs, study.task.budget
    amounts = runs[budget.name]
    ends = " – ".join(dict.fromkeys(map(si, (amounts.min(), amounts.max()))))
    seconds = float(runs["wall_s"].sum())
    taken = f"{seconds / 3600:.2g} h" if seconds >= 3600 else f"{max(1, round(seconds))} s"
    replicates = runs["replicates"] if "replicates" in runs else pd.Series([1])
    return [
        ("Cells", str(len(runs)), f"{plural(len(study.failed), 'cell')} failed"),
        (budget.name.capitalize(), ends, plural(amounts.nunique(), "level")),
        ("Replicates of each", distinct(replicates), f"{plural(runs['seed'].nunique(), 'seed')}"),
        ("Compute", flops(runs["train_flops"].sum()), f"FLOP, {study.task.flops_are}"),
        ("Time", taken, "of all cells, one after another"),
    ]


def _measured(study: TaskStudy) -> list[Block]:
    """The primary metric of every configuration against the budget: means over seeds, with the standard error."""
    task, runs = study.task, study.runs
    name, by, budget = task.primary.name, [*study.varied], task.budget.name
    levels = sorted(runs[budget].unique())
    rows = []
    for key, group in runs.groupby(by, sort=False, dropna=False) if by else [((), runs)]:
        cells = {level: _cell(group[group[budget] == level], name) for level in levels}
        rows.append(dict(zip(by, key, strict=True)) | cells)
    columns: dict[str, Cell] = {one: field(one, _setting) for one in by}
    columns |= {f"{budget} = {si(level)}": field(level) for level in levels}
    unit = f" ({task.primary.unit})" if task.primary.unit else ""
    more = f" The first {_MOST_ROWS} of {len(rows)} configurations." if len(rows) > _MOST_ROWS else ""
    caption = (
        f"{name}{unit} by configuration and {budget}: mean over seeds, ± the standard error over the replicates of a "
        f"seed, or over seeds without these. {task.primary.better.capitalize()} is better.{more}"
    )
    metrics: dict[str, Cell] = {
        "metric": lambda one: one.name,
        "unit": lambda one: one.unit or None,
        "better": lambda one: one.better,
        "what it is": lambda one: one.meaning,
    }
    named = "What the task measures, by the names that tables, answers and commands use."
    return [
        table(rows[:_MOST_ROWS], columns, caption),
        table(task.metrics, metrics, named, wide="what it is"),
    ]


def _cell(rows: pd.DataFrame, name: str) -> str | None:
    values = rows[name].dropna()
    if values.empty:
        return None
    errors = rows[error_of(name)].dropna()
    if len(errors):
        error = float((errors**2).sum() ** 0.5 / len(errors))
    else:
        error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
    spread = f" ± {number(error, '.1g')}" if error == error else ""
    return f"{number(float(values.mean()), '.3g')}{spread}"


def _setting(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _evidence(study: TaskStudy) -> list[Block]:
    """Which cells there are, what all have in common, and which failed."""
    task, runs, failed = study.task, study.runs, study.failed
    settings = task.settings.model_fields if task.settings else ()
    fixed = [one for one in settings if one in runs and one not in study.varied]
    said = [text(f"{plural(len(runs), 'cell')} of {len(runs) + len(failed)} are ok. They differ in {_several(study)}.")]
    if fixed:
        said.append(text("All have " + ", ".join(f"{one} = {_setting(runs[one].iloc[0])}" for one in fixed) + "."))
    if len(failed):
        columns: dict[str, Cell] = {"run": field("run_id"), task.budget.name: field(task.budget.name, si)}
        columns |= {"status": field("status")}
        columns |= {"error": lambda run: first_line(run["error"] or "")[:_MOST_ERROR] or None}
        more = f" The first {_MOST_FAILED} of {len(failed)}." if len(failed) > _MOST_FAILED else ""
        caption = f"Failed cells; none of them carries a metric.{more}"
        said.append(table(failed.head(_MOST_FAILED), columns, caption, wide="error"))
    return said


def _several(study: TaskStudy) -> str:
    names = [*study.varied, study.task.budget.name, "seed"]
    return "; ".join(f"{name}: {_values(name, study.runs[name])}" for name in names)


def _values(name: str, values: pd.Series) -> str:
    """The values of a setting; of reward programs, which stand in a section of their own, the number of texts."""
    if name == returns.PROGRAM:
        return plural(values[values.fillna("").str.strip() != ""].nunique(), "text")
    return distinct(values)


def _reproduction(study: TaskStudy) -> list[Block]:
    """Commands, versions and the grid."""
    folder, runs = study.path.name, study.runs
    commands = [f"scaling sweep run {folder}/grid.yaml --out {folder}"] if study.grid else []
    commands += returns.commands(study.returns, folder)
    recorded = {name: distinct(runs[name]) for name in _PROVENANCE if name in runs and runs[name].notna().any()}
    columns: dict[str, Cell] = {"what": str, "value": recorded.__getitem__}
    caption = "What this was made with; several values mean that cells differ."
    made = [code("\n".join([*commands, f"scaling report {folder} --out report.pdf"]))]
    made += [text(sentence(note)) for note in study.notes]
    made.append(table(recorded, columns, caption, wide="value"))
    grid = study.grid.strip()
    return [*made, heading("The grid, as resolved"), code(grid)] if grid else made
