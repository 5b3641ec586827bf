"""A study as its report shows it: everything that the folder holds, read once, with what it lacks made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from analysis import laws
from analysis.decision.answer import Answer, read_answer
from analysis.decision.answer import answer as answer_of
from analysis.decision.cost_curves import SERVED_PER_TRAINED
from analysis.decision.lifetime_cost import unknown_columns
from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommend import recommend
from analysis.fitting.bootstrap import bootstrap
from analysis.fitting.fit import Fit, fit
from analysis.fitting.fit_file import load_fit
from analysis.latency.law import LatencyLaw, load_latency_law, modelled
from analysis.latency.table import read_latency, with_shapes
from analysis.methods.comparison import MethodComparison, compare_methods
from analysis.methods.dense_twins import PairedEffects, paired_effects
from analysis.report.measured import with_doubts
from analysis.report.subject import Subject, fit_behind, fit_name, with_curves
from analysis.tables.method_kinds import kinds_of_method
from analysis.tables.runs import RunTable, read_runs
from analysis.tables.study import left_out, table_rows
from analysis.validation.checks import Checks, check
from scaling.errors import InputError
from scaling.files import require_file
from scaling.formatting import listed
from scaling.schema import TABLES

T = TypeVar("T")
DRAWS, SEED = 400, 0
LATENCY_LAW = "latency.json"
_NEEDED = ("n_active", "tokens", "train_flops")


@dataclass(frozen=True, kw_only=True)
class ReportStudy(Subject):
    """A study folder as read: runs that carry a loss, those that do not, latency, paired effects, fits and answers.

    `latency_law` is the one that `scaling latency` left in the folder as latency.json, if any, and `modelled` are the
    latency rows in its domain with its predictions; `latency` are all rows, each with a `doubt`
    (`analysis.report.measured`). `comparisons` are those of its methods, the largest first, where it has several. Where
    they are all that can be reported, `without_law` says why, and there are neither fits nor answers. `given` are the
    answer and the fit that the report was asked for, by option; `elsewhere` is the file of the fit behind that answer
    where it is none of the folder's. `best_experts` is the E that each of several fits recommends for the question of
    the decision, as text; `checks` are those of the fit behind the decision.
    """

    path: Path
    table: RunTable
    failed: pd.DataFrame
    latency: pd.DataFrame
    latency_law: LatencyLaw | None
    modelled: pd.DataFrame
    effects: PairedEffects
    comparisons: tuple[MethodComparison, ...]
    without_law: str
    grid: str
    best_experts: Mapping[str, str]
    given: Mapping[str, str] = field(default_factory=dict)
    elsewhere: str = ""
    checks: Checks | None = None


def load_report_study(path: Path, answer_file: Path | None = None, fit_source: str | Path | None = None) -> ReportStudy:
    """Read a study folder; make with the defaults the fits and the answer that it lacks.

    With `answer_file` that answer is the decision, and `fit_source` the fit behind it where that is not in the folder
    and not the one that the answer names. Raises InputError where there is no usable run, or a fit or recommendation
    cannot be read.
    """
    notes: list[str] = []
    table = _complete(read_runs(path), notes)
    cells, latency = table_rows(path, "runs"), table_rows(path, "latency")
    if len(latency):
        latency = with_shapes(latency, cells).dropna(subset=["n_experts", "n_active"]).astype({"n_experts": int})
    notes += [f"{name}: {note}." for name in TABLES if name != "runs" for note in left_out(path, name)]
    stored = readable(path / "fits", lambda file: load_fit(str(file)), notes)
    fits, elsewhere = {name: fit for name, fit in stored.items() if fit.params}, ""
    if answer_file is None:
        answers = readable(path / "recommendations", read_answer, notes)
    else:
        answers = {answer_file.stem: read_answer(answer_file)}
        (answer,) = answers.values()
        if not answer.fit_hash or not any(answer.rests_on(fit) for fit in fits.values()):
            behind = fit_behind(answer, answer_file, fit_source)
            elsewhere = str(fit_source or answer.law_file)
            fits = {Path(fit_name(answer, behind)).stem: behind, **fits}
    comparisons = _comparisons(path, table)
    without_law = _without_law(table) if comparisons and not fits and not answers else ""
    if without_law:
        notes.append(f"No law was fitted: {without_law}.")
    else:
        fits = fits or _fit_with_defaults(table, notes)
        answers = answers or _answer_with_defaults(table, fits, notes)
    grid, law_file = path / "grid.yaml", path / LATENCY_LAW
    # The latency law is not fitted here: a CPU would be measured anew.
    latency_law = readable(path, load_latency_law, notes, LATENCY_LAW).get(law_file.stem)
    # A law may rest on a benchmark of its own, beside a study whose models were not timed.
    predicted = pd.DataFrame()
    if latency_law is not None and len(latency):
        # A law of this folder may be of some of its rows alone: of one device, one number format.
        where = None if Path(latency_law.source).suffix else latency_law.selection.where
        predicted = modelled(read_latency(path, where=where), latency_law)
    study = ReportStudy(
        path=path,
        name=str(table.frame["study"].iloc[0]) if "study" in table.frame else path.name,
        made=_last_start(table),
        table=table,
        failed=cells[cells["status"] != "ok"],
        latency=with_doubts(latency, predicted, latency_law),
        latency_law=latency_law,
        modelled=predicted,
        effects=paired_effects(path, table.frame),
        fits=fits,
        answers=answers,
        comparisons=comparisons,
        without_law=without_law,
        grid=text_of(grid, notes),
        best_experts={},
        given={name: str(given) for name, given in {"answer": answer_file, "fit": fit_source}.items() if given},
        elsewhere=elsewhere,
        notes=tuple(notes),
    )
    return study if without_law else _with_checks(study)


def readable(folder: Path, read: Callable[[Path], T], notes: list[str], names: str = "*.json") -> dict[str, T]:
    """What the files of a folder hold, by name; those that cannot be read are left out, with a note."""
    found = {}
    for file in sorted(folder.glob(names)):
        try:
            require_file(file)
            found[file.stem] = read(file)
        except (InputError, OSError) as error:
            notes.append(f"Left out: {error}.")
    return found


def text_of(file: Path, notes: list[str]) -> str:
    """The text of a file, if there is one; empty, with a note, where it cannot be read."""
    try:
        if not file.exists():
            return ""
        require_file(file)
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        notes.append(f"Left out: {file} ({error}).")
        return ""


def _last_start(table: RunTable) -> datetime | None:
    """When the last run started: the report's date, so that the same study gives the same file."""
    started = table.frame["started_at"].dropna()
    return datetime.fromisoformat(started.max()) if len(started) else None


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


def _comparisons(path: Path, table: RunTable) -> tuple[MethodComparison, ...]:
    """The comparisons of methods of a study that has several and can compare them; else none."""
    if len(kinds_of_method(table.frame)) < 2:
        return ()
    try:
        return compare_methods(path, np.random.default_rng(SEED))
    except InputError:  # no two of them at one size and token budget
        return ()


def _without_law(table: RunTable) -> str:
    """Why a study of several methods is given no law by default."""
    reason = f"the runs are of {len(kinds_of_method(table.frame))} methods, which a law over E would pool"
    return reason + (", and one token budget determines no law" if len(table.frame["tokens"].unique()) == 1 else "")


def _fit_with_defaults(table: RunTable, notes: list[str]) -> dict[str, Fit]:
    names = ("joint-moe", "yun") if len(table.frame["n_experts"].unique()) > 1 else ("hoffmann",)
    fits = {}
    for name in names:
        law = laws.law_named(name)
        usable = replace(table, frame=table.frame.dropna(subset=list(law.columns)))
        fits[name] = bootstrap(fit(usable, law, seed=SEED), usable, DRAWS, np.random.default_rng(SEED))
    determined = {name: fitted for name, fitted in fits.items() if fitted.params}
    if not determined:
        reason = fits[names[0]].warnings[-1]
        raise InputError(f"{table.source}: these runs do not determine a law ({', '.join(names)}): {reason}")
    notes.append(
        f"The folder has no fits: {' and '.join(determined)} fitted for this report, with defaults and {DRAWS} "
        "resamples."
    )
    return determined


def _answer_with_defaults(table: RunTable, fits: Mapping[str, Fit], notes: list[str]) -> dict[str, Answer]:
    budget, tokens = table.column("train_flops"), table.column("tokens")
    served = SERVED_PER_TRAINED * float(tokens[budget.argmax()])
    question = Question(train_flops=float(budget.max()), serve_tokens=served)
    name = next((name for name, fit in fits.items() if fit.definition.uses_experts), next(iter(fits)))
    found = answer_of(fits[name], question, law_file=name)
    notes.append(
        "The folder has no recommendation: this report asks for the training budget of its largest run and "
        f"{SERVED_PER_TRAINED:g} times that run's tokens to be served, in FLOPs, as no device is named: "
        f"{_how_to_price(fits[name], found)}."
    )
    return {name: found}


def _how_to_price(fit: Fit, found: Answer) -> str:
    """What counts money instead of FLOPs, with the columns that the runs lack for it."""
    best = found.best
    lacking = unknown_columns(SizeOptimiser(fit, found.question).sizes(best.n_experts, best.n_active))
    missing = f"; the runs lack {listed(lacking)} for it (one top_k for each E)" if lacking else ""
    return f"`scaling recommend` with a `device` counts money{missing}"


def _with_checks(study: ReportStudy) -> ReportStudy:
    """The study with what follows from its decision and the fit behind it.

    The fit is checked at the budget that was asked about, else at the compute of the recommended model.
    """
    answer, fit = study.decision, study.law_fit
    budget = answer.question.train_flops or answer.best.train_flops
    several = study.fits if len(study.fits) > 1 else {}
    first = next(iter(study.answers))
    return replace(
        study,
        answers={**study.answers, first: with_curves(answer, fit)},
        best_experts={name: _best_experts(other, answer.question) for name, other in several.items()},
        checks=check(fit, study.table, budget),
    )


def _best_experts(fit: Fit, question: Question) -> str:
    """The E that a fit recommends for a question, at its estimate; a dash where it cannot answer."""
    try:
        chosen = recommend(replace(fit, draws={}), question).recommendation
    except InputError:
        return "–"
    return str(chosen.n_experts) if fit.definition.uses_experts else "– (no E in it)"
