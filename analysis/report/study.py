"""What a report is made from: everything that a study folder holds, read once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import laws
from analysis.decision.cost_curves import CostCurves, explored
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.decision.size_search import columns_of_model
from analysis.decision.what_if import explore
from analysis.fitting import bootstrap, fit_file
from analysis.fitting import fit as fits
from analysis.fitting.fit import Fit
from analysis.latency import law as latencies
from analysis.latency.law import LatencyLaw
from analysis.latency.table import read_latency, with_shapes
from analysis.methods.comparison import MethodComparison, compare_methods
from analysis.methods.dense_twins import PairedEffects, paired_effects
from analysis.tables import method_kinds, runs, study
from analysis.tables.runs import RunTable
from analysis.validation.checks import Checks, check
from scaling.errors import InputError

DRAWS, SEED = 400, 0
_NEEDED = ("n_active", "tokens", "train_flops")
SERVED_PER_TRAINED = 10
LATENCY_LAW = "latency.json"


@dataclass(frozen=True)
class Study:
    """A study folder as read: runs that carry a loss, those that do not, latency, paired effects, fits and answers.

    `latency_law` is the one that `scaling latency` left in the folder as latency.json, if any, and `modelled` are the
    latency rows that it can model, with what it says of them.
    `answers` are recommendations as their JSON documents; the first one is the decision. `implied` is the E that each
    fit recommends for its question. `new_run` is the 95 % prediction interval of the loss that training the recommended
    model would measure, None where the fit behind it cannot say. `checks` say how far to believe that fit, `explored`
    what it says around the answer. `notes` say what the report had to make itself because the folder lacked it.
    `comparisons` are those of its methods, the largest first, where it has several. Where they are all that can be
    said, there are no fits, answers and checks, nothing is explored, and `without_law` says why.
    """

    path: Path
    name: str
    table: RunTable
    failed: pd.DataFrame
    latency: pd.DataFrame
    latency_law: LatencyLaw | None
    modelled: pd.DataFrame
    effects: PairedEffects
    fits: Mapping[str, Fit]
    answers: Mapping[str, Mapping[str, Any]]
    implied: Mapping[str, str]
    new_run: tuple[float, float] | None
    checks: Checks | None
    explored: CostCurves
    comparisons: tuple[MethodComparison, ...]
    without_law: str
    grid: str
    notes: tuple[str, ...]

    @property
    def decision(self) -> Mapping[str, Any]:
        return next(iter(self.answers.values()))

    @property
    def law_fit(self) -> Fit:
        """The fit that the decision rests on: the first of its law."""
        return _behind(self.decision, self.fits)


def load_report_study(path: Path) -> Study:
    """Read a study folder; fit and ask with the defaults what it lacks.

    Raises InputError where there is no usable run, or a fit or recommendation in it cannot be read.
    """
    notes: list[str] = []
    table = _complete(runs.read_runs(path), notes)
    everything, latency = study.rows(path, "runs"), study.rows(path, "latency")
    if len(latency):
        latency = with_shapes(latency, everything).dropna(subset=["n_experts", "n_active"])
    found = {file.stem: fit_file.load_fit(str(file)) for file in sorted((path / "fits").glob("*.json"))}
    found = {name: fit for name, fit in found.items() if fit.params}
    answers = {file.stem: _document(file) for file in sorted((path / "recommendations").glob("*.json"))}
    comparisons = _comparisons(path, table)
    without_law = _without_law(table) if comparisons and not found and not answers else ""
    if without_law:
        notes.append(f"No law was fitted: {without_law}.")
    else:
        found = found or _fitted(table, notes)
        answers = answers or _asked(table, found, notes)
    grid = path / "grid.yaml"
    law, modelled = _latency_law(path)
    return Study(
        path=path,
        name=str(table.frame["study"].iloc[0]) if "study" in table.frame else path.name,
        table=table,
        failed=everything[everything["status"] != "ok"],
        latency=latency,
        latency_law=law,
        modelled=modelled,
        effects=paired_effects(path, table.frame),
        fits=found,
        answers=answers,
        implied=_all_implied(found, answers),
        new_run=_new_run(found, answers) if answers else None,
        checks=_checked(table, found, answers) if answers else None,
        explored=_explored(found, answers) if answers else CostCurves(),
        comparisons=comparisons,
        without_law=without_law,
        grid=grid.read_text(encoding="utf-8") if grid.is_file() else "",
        notes=tuple(notes),
    )


def _complete(table: RunTable, notes: list[str]) -> RunTable:
    """The table with what every figure needs; runs without an expert count are taken for dense ones, with a note."""
    frame = table.frame
    missing = [name for name in _NEEDED if name not in frame or frame[name].isna().any()]
    if missing:
        raise InputError(f"{table.source}: a report needs {', '.join(missing)} in every run")
    if "n_experts" in frame and frame["n_experts"].notna().all():
        return table
    notes.append("Runs without n_experts are shown as dense ones.")
    return replace(table, frame=frame.assign(n_experts=frame["n_experts"].fillna(1) if "n_experts" in frame else 1))


def _latency_law(path: Path) -> tuple[LatencyLaw | None, pd.DataFrame]:
    """The latency law in a study's folder and its rows; it is not fitted here, because a CPU would be measured anew."""
    file = path / LATENCY_LAW
    if not file.is_file():
        return None, pd.DataFrame()
    law = latencies.load_latency_law(file)
    return law, latencies.modelled(read_latency(path), law)


def _comparisons(path: Path, table: RunTable) -> tuple[MethodComparison, ...]:
    """The comparisons of methods of a study that has several and can compare them; else none."""
    if len(method_kinds.kinds_of_method(table.frame)) < 2:
        return ()
    try:
        return compare_methods(path, np.random.default_rng(SEED))
    except InputError:  # no two of them at one size and token budget
        return ()


def _without_law(table: RunTable) -> str:
    """Why a study of several methods is given no law of its own accord."""
    kinds, budgets = len(method_kinds.kinds_of_method(table.frame)), table.frame["tokens"].unique()
    told = f"the runs are of {kinds} methods, which a law over E would take for one"
    return told + (", and of one token budget, which determines none" if len(budgets) == 1 else "")


def _document(file: Path) -> Mapping[str, Any]:
    try:
        answer = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not JSON ({error})") from error
    missing = [key for key in ("recommendation", "law", "question", "decided") if key not in answer]
    if missing:
        lacking = ", ".join(missing)
        raise InputError(f"{file}: not a recommendation: no {lacking}; write it with `scaling recommend --out`")
    return dict(answer)


def _fitted(table: RunTable, notes: list[str]) -> dict[str, Fit]:
    names = ("joint-moe", "yun") if len(table.frame["n_experts"].unique()) > 1 else ("hoffmann",)
    made = {}
    for name in names:
        definition = laws.law_named(name)
        rows = replace(table, frame=table.frame.dropna(subset=list(definition.columns)))
        fitted = fits.fit(rows, definition, seed=SEED)
        made[name] = bootstrap.bootstrap(fitted, rows, DRAWS, np.random.default_rng(SEED))
    usable = {name: fit for name, fit in made.items() if fit.params}
    if not usable:
        reason = made[names[0]].warnings[-1]
        raise InputError(f"{table.source}: these runs do not determine a law ({', '.join(names)}): {reason}")
    made_here = " and ".join(usable)
    notes.append(f"The folder has no fits: {made_here} fitted for this report, with defaults and {DRAWS} resamples.")
    return usable


def _asked(table: RunTable, found: Mapping[str, Fit], notes: list[str]) -> dict[str, Mapping[str, Any]]:
    budget, tokens = table.column("train_flops"), table.column("tokens")
    served = SERVED_PER_TRAINED * float(tokens[budget.argmax()])
    question = Question(train_flops=float(budget.max()), serve_tokens=served)
    name = next((name for name, fit in found.items() if fit.definition.uses_experts), next(iter(found)))
    notes.append(
        "The folder has no recommendation: this report asks for the training budget of its largest run and "
        f"{SERVED_PER_TRAINED} times that run's tokens to be served."
    )
    answer = recommend(found[name], question)
    return {name: answer.to_json() | {"what_if": explore(found[name], question, answer).to_json()}}


def _behind(answer: Mapping[str, Any], found: Mapping[str, Fit]) -> Fit:
    """The fit that an answer rests on."""
    of_its_law = (fit for fit in found.values() if fit.law == answer["law"])
    return next(of_its_law, next(iter(found.values())))


def _checked(table: RunTable, found: Mapping[str, Fit], answers: Mapping[str, Mapping[str, Any]]) -> Checks:
    """The fit behind the decision, checked at the budget that was asked about, else at what the answer trains with."""
    answer = next(iter(answers.values()))
    budget = answer["question"]["train_flops"] or answer["recommendation"]["train_flops"]
    return check(_behind(answer, found), table, float(budget))


def _explored(found: Mapping[str, Fit], answers: Mapping[str, Mapping[str, Any]]) -> CostCurves:
    answer = next(iter(answers.values()))
    return explored(_behind(answer, found), answer, SERVED_PER_TRAINED)


def _new_run(found: Mapping[str, Fit], answers: Mapping[str, Mapping[str, Any]]) -> tuple[float, float] | None:
    answer = next(iter(answers.values()))
    fit, chosen = _behind(answer, found), answer["recommendation"]
    settings = answer["question"].get("settings", {})
    try:
        columns = columns_of_model(fit, chosen["n_active"], chosen["tokens"], chosen["n_experts"], settings)
    except InputError:  # the law's size does not follow from the active parameters
        return None
    ends = fit.prediction_interval(columns)
    return None if ends is None else (float(ends[0][0]), float(ends[1][0]))


def _all_implied(found: Mapping[str, Fit], answers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What each of several fits recommends for the question of the decision."""
    if len(found) < 2:
        return {}
    question = next(iter(answers.values()))["question"]
    return {name: _implied(fit, question) for name, fit in found.items()}


def _implied(fit: Fit, question: Mapping[str, Any]) -> str:
    """The E that a fit recommends for a question, with a dash where it cannot answer."""
    try:
        chosen = recommend(replace(fit, draws={}), Question.from_json(question)).recommendation
    except InputError:
        return "–"
    return str(chosen.n_experts) if fit.definition.uses_experts else "– (no E in it)"
