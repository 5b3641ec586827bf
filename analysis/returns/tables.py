"""Returns as tables of values: arms with their intervals, scores by game, contrasts, and what an arm costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from analysis.returns.bootstrap import Interval
from analysis.returns.comparison import ReturnsComparison
from analysis.returns.question import GAME
from scaling.formatting import number, si
from scaling.table import Column, Table

_LABELS: dict[str, tuple[str, Callable[[float], str]]] = {
    "n_parameters": ("parameters", si),
    "n_active": ("active parameters", si),
    "n_total": ("parameters", si),
    "forward_flops": ("FLOPs a forward pass", si),
    "train_flops": ("training FLOPs", si),
    "decision_s": ("µs a decision", lambda seconds: number(1e6 * seconds, ".0f")),
    "dormant_frac": ("dormant", partial(number, form=".3f")),
    "dormant_frac_worst": ("of the worst expert", partial(number, form=".3f")),
    "effective_rank": ("effective rank", partial(number, form=".1f")),
    "dropped_frac": ("dropped tokens", partial(number, form=".3f")),
}


def interval_text(found: Interval, form: str = ".3f") -> str:
    """`0.912 (0.850 to 0.974)`."""
    return found.text(form)


_signed = partial(interval_text, form="+.3f")


def arms_table(found: ReturnsComparison) -> Table:
    """One row an arm, the best first: its interquartile mean, and the differences to the baseline."""
    columns = (
        Column("name", "arm", text=True), Column("runs", "runs"), Column("iqm", "IQM", interval_text),
        Column("gap", "optimality gap", interval_text), Column("difference", "IQM − baseline", _signed),
        Column("improvement", "P(better)", interval_text),
    )  # fmt: skip
    rows = [(arm.name, arm.runs, arm.iqm, arm.gap, arm.difference, arm.improvement) for arm in found.arms]
    title = f"{found.question.metric} against {found.question.baseline}"
    return Table(title, columns, tuple(rows), how_to_read(found)).without_empty_columns()


def costs_table(found: ReturnsComparison) -> Table:
    """One row an arm: what it costs, and what became of its network; means over its runs."""
    measures = [name for name in _LABELS if any(name in arm.measures for arm in found.arms)]
    columns = (Column("name", "arm", text=True), *(Column(name, *_LABELS[name]) for name in measures))
    rows = [(arm.name, *map(arm.measures.get, measures)) for arm in found.arms]
    return Table("Cost and network, means over runs", columns, tuple(rows))


def games_table(found: ReturnsComparison) -> Table:
    """The mean raw score of each arm in each game, and that of random actions."""
    games = [(game, found.question.in_words(game)) for game in found.games]
    form = partial(number, form=".3g")
    columns = (Column("name", "arm", text=True), *(Column(game, label, form) for game, label in games))
    rows = [(arm.name, *arm.by_game) for arm in found.arms]
    rows += [("random actions", *found.random)] if found.random else []
    unit = f" ({found.unit})" if found.unit else ""
    by = f" by {found.question.strata or GAME}" if len(games) > 1 else ""
    return Table(f"Mean {found.question.metric}{unit}{by}", columns, tuple(rows))


def contrasts_table(found: ReturnsComparison) -> Table:
    """One row a contrast that was asked for."""
    columns = (
        Column("name", "question", text=True), Column("pair", "arms", text=True),
        Column("difference", "difference of IQM", _signed), Column("improvement", "P(better)", interval_text),
        Column("verdict", "it lies", text=True),
    )  # fmt: skip
    rows = [(one.name, f"{one.ours} − {one.theirs}", one.difference, one.improvement, one.verdict)
            for one in found.contrasts]  # fmt: skip
    return Table("Pairs of arms", columns, tuple(rows))


def by_game_table(found: ReturnsComparison) -> Table:
    """The difference of interquartile means of each pair that was asked for and of each arm to the baseline, in each
    game alone; no rows of one game."""
    games = [found.question.in_words(game) for game in found.games]
    columns = (Column("pair", "arms", text=True), *(Column(game, game, _signed) for game in games))
    pairs = {f"{one.ours} − {one.theirs}": one.by_game for one in found.contrasts}
    arms = {f"{arm.name} − {found.question.baseline}": arm.difference_by_game for arm in found.arms}
    rows = [(pair, *map(by_game.get, games)) for pair, by_game in {**pairs, **arms}.items() if by_game]
    return Table(f"Differences of IQM in each {found.question.stratum}", columns, tuple(rows))


def how_to_read(found: ReturnsComparison) -> tuple[str, ...]:
    """What a score is, and what the intervals are."""
    asked = found.question
    within = f" within each {asked.stratum}" if len(found.games) > 1 else ""
    notes = [
        f"IQM: the mean of the middle half of all runs; intervals: 95 %, {asked.draws:,} bootstrap resamples of the "
        f"runs{within}",
        f"P(better): that a run scores more than one of {asked.baseline}",
    ]
    if found.random:
        notes.insert(0, f"scores are counted from random actions, 0, to the mean of {asked.reference}, 1, in each game")
    return tuple(notes)
