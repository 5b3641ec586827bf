"""A fit and a prediction as pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scaling.cli.show.page import Page
from scaling.cli.show.recommendation import headline
from scaling.formatting import between, flops, plural, sentence
from scaling.table import Column, Table

if TYPE_CHECKING:
    from analysis.decision.answer import Answer
    from analysis.fitting.fit import Fit
    from analysis.fitting.profile import Profile


def fit_page(fitted: Fit, read: Sequence[str], profiles: Sequence[Profile] = (), optimum: Answer | None = None) -> Page:
    """A fit's parameters with intervals, what they rest on, and the optimum at a budget where one was asked for."""
    from analysis.fitting.fit_tables import parameter_table
    from analysis.mixture.mixture import Mixture

    if not fitted.params:
        return Page(
            f"{fitted.law}: not fitted to {plural(fitted.n_runs, 'run')}: {fitted.status}", warnings=fitted.warnings
        )
    law, warnings = fitted.definition, list(fitted.warnings)
    by_profile = {profile.name: profile.interval for profile in profiles}
    table = parameter_table(law, fitted.params, fitted.intervals, fitted.pinned, by_profile)
    notes: list[str] = []
    if optimum is not None:
        chosen = optimum.best
        at, loss = f"optimum at {flops(chosen.train_flops)} FLOPs", f"; loss {_loss(chosen)}"
        notes.insert(0, f"{at}: {headline(optimum)}{'' if optimum.recommendation.refused else loss}")
        warnings += [text for text in optimum.recommendation.warnings if not text.startswith("the fit: ")]
    if isinstance(fitted, Mixture):
        return Page(
            f"a mixture of {plural(len(fitted.members), 'law')} fits {plural(fitted.n_runs, 'run')} with an rmse of "
            f"{fitted.rmse_log:.3g} in ln loss",
            why=tuple(sentence(text) for text in fitted.evidence()),
            tables=(replace(fitted.member_table(), title=""),),
            notes=tuple(notes),
            read=tuple(read),
            warnings=tuple(warnings),
            details=(replace(table, title=f"parameters: {law.formula}"), f"source: {law.source}"),
            more="parameters with intervals",
        )
    return Page(
        f"{fitted.law} fits {plural(fitted.n_runs, 'run')} with an rmse of {fitted.rmse_log:.3g} in ln loss: "
        f"{fitted.status}",
        why=(" ".join(_evidence(fitted)),),
        tables=(replace(table, title=""), *_shrunk(fitted)),
        notes=tuple(notes),
        read=tuple(read),
        warnings=tuple(warnings),
        details=(f"{fitted.law}: {law.formula}", f"source: {law.source}", *_numbers(fitted)),
    )


def _shrunk(fitted: Fit) -> Iterator[Table]:
    """Of a recalibrated fit, what was shrunk by how much, and what the runs made of it."""
    if fitted.prior is None or not fitted.prior.shrunk:
        return
    columns = (
        Column("quantity", "at the runs' centre", text=True),
        Column("moved", "moved", text=True),
        Column("deviation", "prior spread", text=True),
        Column("data_weight", "weight of the runs", "{:.0%}".format),
    )
    rows = tuple(
        (
            name,
            f"x {math.exp(each.moved):.3g}" if each.factor else f"{each.moved:+.3g}",
            f"x/ {math.exp(each.deviation):.2f}" if each.factor else f"+- {each.deviation:.2g}",
            each.data_weight,
        )
        for name, each in fitted.prior.shrunk.items()
    )
    note = "exponents as they are; factors by the share of the loss that their term has; level is the loss"
    yield Table("", columns, rows, (note,))


def _loss(chosen: Any) -> str:
    interval = "" if chosen.loss_interval is None else f" ({between(chosen.loss_interval, _four)})"
    return f"{chosen.loss:.4f}{interval}"


def _four(value: float) -> str:
    return f"{value:.4f}"


def _evidence(fitted: Fit) -> Iterator[str]:
    """On what a fit rests: starts, trunks, resamples, pins; or the fit that was recalibrated."""
    if fitted.prior is not None and fitted.prior.start:
        yield (
            f"Recalibrated from {fitted.prior.start} by {plural(fitted.n_trunks, 'trunk')}; intervals are 95 %, from "
            f"{plural(fitted.n_draws, 'draw')} of both together."
        )
        return
    yield (
        f"{fitted.n_starts_at_minimum} of {plural(fitted.n_starts, 'start')} reached the minimum; "
        f"{plural(len(fitted.free), 'parameter')} estimated from {plural(fitted.n_trunks, 'trunk')}, "
        f"{len(fitted.pinned)} fixed."
    )
    if fitted.n_draws:
        yield (
            f"Intervals are 95 %, from {plural(fitted.n_draws, 'resample')} of the trunks, and of this law alone: they "
            "hold if it does; without --law, a mixture's allow for that."
        )


def _numbers(fitted: Fit) -> Iterator[str]:
    """The objective and the condition number."""
    if fitted.objective is not None:
        corner = "" if fitted.objective_kind in ("lad", "least-squares") else f"({fitted.delta:g})"
        condition = "" if fitted.condition is None else f"; condition number {fitted.condition:.0f}"
        yield (
            f"objective: the sum of {fitted.objective_kind}{corner} over {fitted.residual} residuals is "
            f"{fitted.objective:.9g}{condition}"
        )


Ends = Sequence[float] | None


def prediction_page(
    fitted: Fit, name: str, value: float, intervals: tuple[Ends, Ends, Ends], refused: str, warnings: Sequence[str]
) -> Page:
    """A predicted loss, or ratio of compute, with the intervals of law and run, and that with the discrepancy of a law
    that stands alone; or that it is no answer, and why (`refused`)."""
    unit = " nats per token" if name == "loss" else ""
    interval, of_run, beyond = intervals
    if refused:
        spread = "" if of_run is None else f" ({between(of_run, _four)} of a new run)"
        gives = f"The formula gives {name} {value:.4f}{unit}{spread}: not to be used."
        return Page(f"no answer: {refused}", why=(gives,), warnings=tuple(warnings))
    if interval is None:
        return Page(
            f"{name} {value:.4f}{unit}",
            why=("No interval: the fit has no bootstrap draws.",),
            warnings=tuple(warnings),
        )
    alone = fitted.of_one_law is fitted
    why = f"95 % interval of the law{' alone' * alone} {between(interval, _four)}"
    why += "." if of_run is None else f", of a new run {between(of_run, _four)}."
    why = why if alone else why.replace("of the law", "of the mixture", 1)
    parts = [why]
    if alone and beyond is not None:
        known = fitted.discrepancy is not None and fitted.discrepancy.n_cuts > 0
        source = "what larger runs missed this law by in roll-out" if known else "a discrepancy assumed beyond its runs"
        parts.append(f"With {source}, of a new run {between(beyond, _four)}.")
    return Page(f"{name} {value:.4f}{unit}", why=tuple(parts), warnings=tuple(warnings))
