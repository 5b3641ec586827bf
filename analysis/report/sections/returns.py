"""Arms against each other: the comparisons of a study's returns, and the reward programs that its runs learnt from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

import pandas as pd

from analysis.report import blocks
from analysis.report.blocks import Block, bullets, code, heading, picture, text
from analysis.returns.comparison import ReturnsComparison
from analysis.returns.question import ReturnsQuestion
from analysis.returns.tables import arms_table, by_game_table, contrasts_table, costs_table, games_table
from scaling.formatting import plural, sentence

TITLE = "Arms against each other"
PROGRAMS = "What was learnt from"
PROGRAM = "reward_program"
_REWARD, _OWN, _GAMES = "reward", "own", ("game", "games")
_REWARDS = {
    "own": "the reward of the environment alone",
    "potential": "with gamma Phi(s') - Phi(s), which changes no optimal policy (Ng, Harada and Russell, ICML 1999)",
    "adaptive": "with such a difference of a Phi that follows the learner's advantages (after arXiv 2402.07019)",
    "bonus": "with a bonus of states that were rarely seen (after ExploRS, NeurIPS 2022)",
    "program": "with a dense reward that is written as text (after Text2Reward, arXiv 2309.11489)",
}
_CAPTION = (
    "Arms by interquartile mean with 95% intervals, and by the probability that a run scores more than one of the "
    "baseline; coloured where that differs by more than chance, the baseline hollow."
)
_FRONT = "Interquartile means with 95% intervals, and the probability that a run scores more than one of the baseline."


def section(found: Mapping[str, ReturnsComparison]) -> list[Block]:
    """The finding, the figure, the tables and the doubts of each comparison, by name.

    A number before the name, which orders the files, is not shown.
    """
    return [block for name, returns in found.items() for block in _of_file(name, returns)]


def in_short(found: Mapping[str, ReturnsComparison]) -> list[str]:
    """What each comparison found, in sentences for the first page: every pair that was asked for, then the arms; of
    several comparisons with the name of each."""
    return [
        f"{_titled(name)}, {said}" if len(found) > 1 else said
        for name, returns in found.items()
        for said in (*(one.said for one in returns.contrasts), returns.told_apart)
    ]


def front_figure(found: Mapping[str, ReturnsComparison]) -> list[Block]:
    """The figure of the first page."""
    return [picture(overview_name(name), _FRONT) for name in [*found][:1]]


def figure_name(name: str) -> str:
    """What the figure of a comparison is called in a report."""
    return f"returns_{name}"


def panels_name(name: str) -> str:
    """What the figure of its profiles, curves and costs is called."""
    return f"returns_panels_{name}"


def overview_name(name: str) -> str:
    """What the figure of a comparison is called on the first page."""
    return f"returns_overview_{name}"


def programs(runs: pd.DataFrame) -> list[Block]:
    """The rewards that runs learnt from, where any is not the environment's own: each kind with its meaning, and every
    potential and program as it was written, with its game."""
    if _REWARD not in runs or set(runs[_REWARD].dropna()) <= {_OWN}:
        return []
    kinds = runs[_REWARD].value_counts(sort=False)
    found: list[Block] = [
        bullets(f"{kind}: {_REWARDS.get(str(kind), 'a reward of another version')}; {plural(int(count), 'run')}"
                for kind, count in kinds.items())
    ]  # fmt: skip
    beside = [name for name in (_REWARD, *_GAMES) if name in runs]
    texts = runs[PROGRAM].fillna("").astype(str) if PROGRAM in runs else pd.Series("", index=runs.index)
    for values, rows in runs.assign(**{PROGRAM: texts})[texts.str.strip() != ""].groupby([*beside, PROGRAM]):
        *settings, program = values
        found += [
            text(sentence(f"{', '.join(map(str, settings))}: {plural(len(rows), 'run')}")),
            code(str(program).strip("\n")),
        ]
    return found


def _titled(name: str) -> str:
    """The name of a file as a title, without the number that orders it."""
    return re.sub(r"^\d+-", "", name).replace("-", " ").capitalize()


def _of_file(name: str, found: ReturnsComparison) -> list[Block]:
    tables = [arms_table(found), games_table(found)]
    tables = [contrasts_table(found), *tables] if found.contrasts else tables
    tables += [by_game] if (by_game := by_game_table(found)).rows else []
    tables += [costs_table(found)] if any(arm.measures for arm in found.arms) else []
    doubts = [*found.warnings, *found.notes]
    return [
        heading(_titled(name)),
        text(sentence(found.headline)),
        *([text(sentence(found.told_apart))] if found.contrasts else []),
        picture(figure_name(name), _CAPTION),
        picture(panels_name(name), _panels_caption(found)),
        *(blocks.values(table, table.title) for table in tables),
        *([bullets(doubts)] if doubts else []),
    ]


def _panels_caption(found: ReturnsComparison) -> str:
    """What the panels of `analysis.figures.returns.panels_figure` show."""
    curves = ", and learning curves," if found.curves is not None else ""
    costs = "; interquartile means against what an arm costs" if found.costs else ""
    return f"Share of runs above each score{curves} with pointwise 95% intervals over runs{costs}."


def commands(found: Mapping[str, ReturnsComparison], folder: str) -> list[str]:
    """The command that asks each comparison again, with every option that its numbers depend on."""
    return [_command(name, returns.question, folder) for name, returns in found.items()]


def _command(name: str, asked: ReturnsQuestion, folder: str) -> str:
    words = ["scaling", "returns", folder, "--baseline", asked.baseline, "--metric", str(asked.metric)]
    words += [word for column in asked.by or () for word in ("--by", column)]
    single = {
        "--strata": asked.strata,
        "--reference": asked.reference,
        "--random": asked.random,
        "--where": asked.where,
    }
    words += [word for option, value in single.items() if value is not None for word in (option, value)]
    words += ["--normalise" if asked.normalise else "--no-normalise", *(["--replicates"] if asked.replicates else [])]
    words += [word for text_ in asked.contrasts for word in ("--contrast", text_)]
    words += ["--bootstrap", str(asked.draws), "--seed", str(asked.seed), "--out", f"{folder}/returns/{name}.json"]
    return shlex.join(words)
