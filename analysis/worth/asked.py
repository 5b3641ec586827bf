"""What is asked: where the law or the cells come from, and what time and money cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.decision.answer import study_fit
from analysis.decision.question import Question
from analysis.fitting.fit import Fit
from analysis.fitting.fit_file import load_fit
from analysis.tables.runs import RunTable, read_runs
from analysis.training_speed.speeds import training_speed
from analysis.worth.prices import ANY_DEVICE
from scaling.bounds import MOST_FLOPS, outside
from scaling.errors import InputError
from scaling.json_text import read_json
from scaling.serving.training_speed import MfuByExperts, TrainingSpeed
from scaling.values import FIT

MOST_BUDGETS = 20


@dataclass(frozen=True)
class Source:
    """A fit by name, a table of runs, or both of a study."""

    fit: Fit | None
    table: RunTable | None
    name: str

    @property
    def runs(self) -> RunTable:
        """The table. Raises InputError where a fit alone was named."""
        if self.table is None:
            raise InputError(f"{self.name} has no runs")
        return self.table


def read_source(
    of: str | Path,
    *,
    by_law: bool,
    fit: str | Path | None = None,
    mapping: Mapping[str, str] | None = None,
    where: str | None = None,
) -> Source:
    """The fit and the runs behind a name: a fit's file or `published:NAME`, a study folder, or a table of runs.

    `by_law` says that a law is needed: of a study the `fit`, or the one under its fits/. Raises InputError where it is
    lacking, and where nothing can be read.
    """
    path = Path(of)
    if str(of).startswith("published:") or _is_fit(path):
        if fit is not None:
            raise InputError(f"{of} is a fit already: leave out `fit`")
        if not by_law:
            raise InputError(f"{of} is a law: give the training budget to compare at with `train_flops`")
        return Source(load_fit(str(of)), None, str(of))
    if not path.exists():
        raise InputError(f"{of}: no such fit, study folder or table of runs")
    table = read_runs(path, mapping, where)
    if not by_law:
        return Source(None, table, str(of))
    if fit is None and not path.is_dir():
        raise InputError(
            f"{of} is a table of runs, and `train_flops` asks a law: give its `fit`, which `scaling fit {of} --out` "
            "writes, or leave out `train_flops` to compare its cells alone"
        )
    named = str(study_fit(path) if fit is None else fit)
    return Source(load_fit(named), table, named)


def _is_fit(path: Path) -> bool:
    """Whether a file holds a fit; a table of runs may be JSON, too."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        return FIT.is_kind_of(read_json(path))
    except InputError:
        return False


def checked_budgets(train_flops: Sequence[float]) -> tuple[float, ...]:
    """Budgets in FLOPs, each once. Raises InputError for one that is no positive number, and for too many."""
    for budget in train_flops:
        if wrong := outside(budget, MOST_FLOPS):
            raise InputError(f"`train_flops` {wrong}")
    if len(train_flops) > MOST_BUDGETS:
        raise InputError(f"`train_flops` takes at most {MOST_BUDGETS} budgets, found {len(train_flops)}")
    return tuple(dict.fromkeys(map(float, train_flops)))


def question_of(
    budgets: Sequence[float],
    *,
    device: str | None = None,
    speed: TrainingSpeed | str | Path | None = None,
    mfu: float | None = None,
    **given: Any,
) -> Question:
    """The question whose models, prices and settings a speedup is of; `given` are other fields of `Question`.

    A training speed that is a share of the peak needs no device: the ratio of times is the same on all. Raises
    InputError for a measured law without one.
    """
    trained = training_speed(speed, mfu)
    if device is None and (speed is not None or mfu is not None):
        if not isinstance(trained, MfuByExperts):
            raise InputError(f"the training speed {trained.name} was measured on a device: name it with `device`")
        if given.get("serve_tokens"):
            raise InputError("`serve_tokens` needs `device`: what an E is worth in money takes its price")
        device = ANY_DEVICE
    anything = 1e20  # a question has a budget; where the runs of a method have none, it is not read
    chosen = trained if device is not None else None
    budget = budgets[0] if budgets else anything
    return Question(train_flops=budget, device=device, training_speed=chosen, **given)
