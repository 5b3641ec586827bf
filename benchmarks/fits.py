"""How good and how fast fits are: against the lowest minima known, certified answers, published errors, and other
fitters.

    python -m benchmarks.fits [--json] [part ...]

All parts take about three minutes of one core. Times are CPU seconds of one thread: on a busy machine they hold where
wall time does not. What needs a public table or a peer that is not here says so and is left out. Of the peers,
chinchilla alone can be had from the package registry.
"""

from __future__ import annotations

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy: its threads wait for work by spinning, which CPU time counts

import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from analysis import laws
from analysis.fitting.bootstrap import bootstrap, resample_weights
from analysis.fitting.fit import Fit, fit
from analysis.fitting.objective import Kind, Objective
from analysis.fitting.problem import Problem
from analysis.fitting.search import draw_starts
from analysis.tables.runs import RunTable
from benchmarks import nist
from benchmarks.command import asked
from benchmarks.peer import Peer
from benchmarks.public import (
    BOOTSTRAP_CPU_S,
    CLARK_CPU_S,
    CLARK_GOALS,
    CLARK_NOTEBOOK,
    EPOCH_CPU_S,
    EPOCH_ERRORS,
    EPOCH_MINIMUM,
    EPOCH_OBJECTIVES,
    Absent,
    clark_table,
    epoch_table,
)

REPEATS = 5
RESAMPLES = 4_000
JUDGED, FRESH_STARTS = 200, 64  # resamples whose minimum is looked for again, and the starts of each search
SAME = 1e-6  # relative difference of objectives that are one minimum
HUBER_DELTA = 1e-3

CHINCHILLA_VERSION = "0.2.0"
CHINCHILLA_SETTINGS = {"3^5 starts": (3, False), "3^5 starts, summed": (3, True), "5^5 starts": (5, False)}
INSTALL = f"pip install chinchilla=={CHINCHILLA_VERSION}, or name an interpreter that has it in BENCH_PYTHON"


@dataclass(frozen=True)
class Figure:
    """One number of ours, what it should be, what others printed, and what others gave in this run (None: not run)."""

    what: str
    ours: float
    at_most: float | None = None
    at_least: float | None = None
    published: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is no goal."""
        if self.at_most is None and self.at_least is None:
            return None
        above = self.at_least is None or self.ours >= self.at_least
        return above and (self.at_most is None or self.ours <= self.at_most)


Figures = dict[str, Figure]


def say(text: str) -> None:
    """Progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------------ parts


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What some work returns, and its CPU seconds."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def huber_sum(params: Mapping[str, float], table: RunTable) -> float:
    """Sum of Huber(1e-3) of log residuals at anybody's parameters of L = E + A/N^alpha + B/D^beta; no code of a
    fitter."""
    n, d, loss = (table.column(name) for name in ("n_active", "tokens", "loss_val"))
    predicted = params["E"] + params["A"] / n ** params["alpha"] + params["B"] / d ** params["beta"]
    size = np.abs(np.log(predicted / loss))
    return float(np.sum(np.where(size <= HUBER_DELTA, size**2 / 2, HUBER_DELTA * (size - HUBER_DELTA / 2))))


def epoch() -> Figures:
    """The default fit of Epoch's points."""
    table = epoch_table()
    calls = [timed(lambda: fit(table, laws.HOFFMANN)) for _ in range(1 + REPEATS)]
    found: Fit = calls[0][0]
    seconds = [taken for _, taken in calls]
    return {
        "epoch.objective": Figure(
            "sum of Huber(1e-3) of log residuals, n = 240",
            huber_sum(found.params, table),
            at_most=1.0182741e-3,
            published=EPOCH_OBJECTIVES,
        ),
        **{
            f"epoch.{name}": Figure(
                f"relative distance of {name} from {value}", abs(found.params[name] / value - 1), at_most=1e-4
            )
            for name, value in EPOCH_MINIMUM.items()
        },
        "epoch.cpu_s_first": Figure("CPU s of the first fit", seconds[0], at_most=0.5, published=EPOCH_CPU_S),
        "epoch.cpu_s_best": Figure(
            f"CPU s, best of {REPEATS} more fits", min(seconds[1:]), at_most=0.5, published=EPOCH_CPU_S
        ),
        "epoch.starts_at_minimum": Figure(
            f"share of {found.n_starts} starts that end within .01 % of the lowest objective",
            found.n_starts_at_minimum / found.n_starts,
            published={"analyzing-chinchilla notebook, 4,500 starts": 0.086},
        ),
    }


def _resampled(kind: Kind) -> tuple[Fit, float]:
    table = epoch_table()
    found = fit(table, laws.HOFFMANN, objective=Objective(kind))
    say(f"  {RESAMPLES} resamples, {kind}")
    drawn, seconds = timed(lambda: bootstrap(found, table, RESAMPLES, np.random.default_rng(42)))
    return drawn, seconds


def resamples() -> Figures:
    """The bootstrap of Epoch's points, every resample fitted globally; LAD is what Epoch's published fit is in
    effect."""
    huber, lad = _resampled("huber"), _resampled("lad")
    figures = {
        "bootstrap.cpu_s_huber": Figure(
            f"CPU s of {RESAMPLES} resamples fitted globally, Huber(1e-3)",
            huber[1],
            at_most=5.0,
            published=BOOTSTRAP_CPU_S,
            note=f"{huber[0].draws_failed} did not converge",
        ),
        "bootstrap.cpu_s_lad": Figure(
            f"CPU s of {RESAMPLES} resamples fitted globally, LAD",
            lad[1],
            published=BOOTSTRAP_CPU_S,
            note=f"{lad[0].draws_failed} did not converge",
        ),
    }
    for name, theirs in EPOCH_ERRORS.items():
        figures[f"bootstrap.se_{name}_lad"] = Figure(
            f"standard error of {name}, LAD (goal: within 10 % of the published)",
            float(np.std(lad[0].draws[name])),
            at_least=0.9 * theirs,
            at_most=1.1 * theirs,
            published={"arXiv 2404.10102": theirs},
        )
    return figures


def global_minima() -> Figures:
    """Whether the bootstrap's resamples end in their lowest minima: each is looked for again from fresh starts."""
    table = epoch_table()
    found = bootstrap(fit(table, laws.HOFFMANN), table, JUDGED, np.random.default_rng(1))
    weights = resample_weights(table, JUDGED, np.random.default_rng(1))  # the same draws
    if found.draws_failed:
        raise RuntimeError(f"{found.draws_failed} of {JUDGED} resamples did not converge, so none can be matched")
    task, rng = Problem.of(table, laws.HOFFMANN, {}, Objective()), np.random.default_rng(2)
    draws = [laws.HOFFMANN.to_coordinates(name, np.array(found.draws[name])) for name in task.free]
    residuals = task.model(np.stack(draws, axis=-1))[0] - task.observed
    ours = np.sum(weights * task.objective.penalty(residuals), axis=1)
    say(f"  {JUDGED} x {FRESH_STARTS} searches")
    searches = (task.minimise(draw_starts(task, FRESH_STARTS, rng), np.tile(w, (FRESH_STARTS, 1))) for w in weights)
    fresh = np.array([search.objective.min() for search in searches])
    return {
        "global.share": Figure(
            f"share of {JUDGED} resamples within 1e-6 of the lowest objective of {FRESH_STARTS} fresh starts",
            float(np.mean(ours <= fresh * (1 + SAME))),
            at_least=0.99,
            note=f"worst excess {np.max(ours / fresh - 1):.1e}; the fresh search is the higher one in "
            f"{int(np.sum(fresh > ours * (1 + SAME)))}",
        )
    }


def clark() -> Figures:
    """The bilinear law of Clark et al. for each router."""
    law, figures, total = laws.law_named("clark"), {}, 0.0
    for router, goal in CLARK_GOALS.items():
        table = clark_table(router)
        found, seconds = timed(functools.partial(fit, table, law, objective=Objective("least-squares")))
        total += seconds
        figures[f"clark.mse_{router}"] = Figure(
            f"mean squared error of log10 loss, {router}, n = {len(table)}",
            float(found.objective / len(table) / np.log(10) ** 2),
            at_most=goal,
            published={"the authors' notebook, 500 starts": CLARK_NOTEBOOK[router]},
        )
    figures["clark.cpu_s"] = Figure("CPU s of all three fits", total, at_most=3.0, published=CLARK_CPU_S)
    return figures


def peers() -> Figures:
    """Other fitters on Epoch's points, in this run."""
    table = epoch_table()
    columns = zip(("n", "d", "loss"), ("n_active", "tokens", "loss_val"), strict=True)
    points = {short: table.column(name).tolist() for short, name in columns}
    objectives: dict[str, float] = {}
    seconds: dict[str, float] = {}
    with Peer(1, module="benchmarks.fit_peers") as child:
        version = child.ask(versions=True)["chinchilla"]
        if version is None:
            raise Absent(f"the peer chinchilla is not installed: {INSTALL}")
        for setting, (levels, summed) in CHINCHILLA_SETTINGS.items():
            say(f"  chinchilla {version}, {setting}")
            answer = child.ask(levels=levels, summed=summed, **points)
            name = f"kyo-takano/chinchilla {version}, {setting}"
            objectives[name], seconds[name] = huber_sum(answer["params"], table), answer["cpu_s"]
    found, ours = timed(lambda: fit(table, laws.HOFFMANN))
    return {
        "peers.objective": Figure(
            "sum of Huber(1e-3), by one function for all (goal: no higher than the lowest peer's)",
            huber_sum(found.params, table),
            at_most=min(objectives.values()) * (1 + 1e-9),  # both are known to rounding alone
            measured=objectives,
        ),
        "peers.cpu_ratio": Figure(
            "CPU s of the quickest peer over ours",
            min(seconds.values()) / ours,
            at_least=10.0,
            measured={name: taken / ours for name, taken in seconds.items()},
            note=f"ours {ours:.3f} s; " + ", ".join(f"{name} {taken:.1f} s" for name, taken in seconds.items()),
        ),
    }


def certified() -> Figures:
    """NIST's certified problems: the largest relative error of any parameter and of any standard deviation."""
    figures: Figures = {}
    for case in (nist.DANWOOD, nist.BENNETT5):
        (found, errors), seconds = timed(case.fitted)
        note = f"{found.n_starts_at_minimum} of {found.n_starts} starts at the minimum, {seconds:.2f} CPU s"
        for what, ours, theirs in (("params", found.params, case.params), ("deviations", errors, case.deviations)):
            figures[f"nist.{case.law.name}_{what}"] = Figure(
                f"largest relative error of {case.law.name}'s {what}",
                max(abs(ours[name] / value - 1) for name, value in theirs.items()),
                at_most=1e-5,
                note=note,
            )
    return figures


PARTS: dict[str, tuple[Callable[[], Figures], str]] = {
    "epoch": (epoch, "the default fit of Epoch's 240 points: objective, parameters, CPU s, starts"),
    "bootstrap": (resamples, "4,000 resamples fitted globally: CPU s, standard errors under LAD"),
    "global": (global_minima, "resamples whose minimum a fresh search does not undercut"),
    "clark": (clark, "Clark's law for three routers: mean squared error, CPU s"),
    "nist": (certified, "NIST's DanWood and Bennett5: parameters and standard deviations"),
    "peers": (peers, "chinchilla on Epoch's points: objective, CPU s (about two minutes)"),
}


# --------------------------------------------------------------------------------------------------------- printing


def measure(parts: list[str]) -> tuple[Figures, dict[str, str]]:
    """The figures of some parts, in the order of PARTS, and why a part was left out. Raises what a child could not
    do."""
    figures: Figures = {}
    left_out: dict[str, str] = {}
    for part in PARTS:
        if part in parts:
            say(part)
            try:
                figures |= PARTS[part][0]()
            except Absent as absent:
                left_out[part] = str(absent)
                say(f"  left out: {absent}")
    return figures, left_out


def document(figures: Figures, left_out: Mapping[str, str]) -> dict[str, Any]:
    """What --json prints; numbers to ten digits."""

    def rounded(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: rounded(one) for name, one in value.items()}
        return float(f"{value:.10g}") if isinstance(value, float) else value

    return {
        "load": rounded(os.getloadavg()[0]),
        "figures": {name: rounded(asdict(figure) | {"met": figure.met}) for name, figure in figures.items()},
        "left_out": dict(left_out),
    }


def table(figures: Figures, left_out: Mapping[str, str]) -> str:
    """One line a figure, with the others' below it."""
    lines = []
    for name, figure in figures.items():
        ends = (("at least", figure.at_least), ("at most", figure.at_most))
        goal = " and ".join(f"{word} {value:.10g}" for word, value in ends if value is not None)
        verdict = {True: "met", False: "MISSED", None: "no goal"}[figure.met]
        lines.append(f"{name:26} {figure.ours:.10g}  ({goal + ': ' if goal else ''}{verdict})  {figure.what}")
        lines += [f"    published  {value:<16.10g} {who}" for who, value in figure.published.items()]
        lines += [f"    this run   {value:<16.10g} {who}" for who, value in (figure.measured or {}).items()]
        lines += [f"    {figure.note}"] if figure.note else []
    return "\n".join([*lines, *(f"{part}: left out, {why}" for part, why in left_out.items())])


def main(arguments: list[str] | None = None) -> None:
    parts, as_json = asked(
        "fits",
        "Quality and CPU time of fits, one thread.",
        {part: meaning for part, (_, meaning) in PARTS.items()},
        arguments,
    )
    try:
        found = measure(parts)
    except RuntimeError as error:
        raise SystemExit(f"failed: {error}") from error
    print(json.dumps(document(*found)) if as_json else table(*found))


if __name__ == "__main__":
    main()
