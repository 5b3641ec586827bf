"""The answer of `scaling isoflop` as a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.isoflop.valleys import Valley
from scaling.cli.show.page import Page
from scaling.cli.show.tables import text_table
from scaling.formatting import flops, percent, plural, si

if TYPE_CHECKING:
    from analysis.isoflop.answer import IsoFlopAnswer
    from analysis.isoflop.bias import Bias
    from analysis.isoflop.envelope import Envelope
    from analysis.isoflop.frontier import Frontier, Minimum
    from analysis.isoflop.power_law import PowerLaw
    from scaling.table import Table


def isoflop_page(answer: IsoFlopAnswer, read: Sequence[str]) -> Page:
    """The exponents, the valleys of every E with their flags, the prediction, the envelope and the bias."""
    frontiers, several = answer.frontiers, len(answer.minima) > 1
    sentences = [_frontier(e, line, several=several) for e, line in frontiers.items()]
    predicted = [_prediction(e, line, answer.train_flops) for e, line in frontiers.items() if answer.train_flops]
    notes = [_envelope(e, hull) for e, hull in answer.envelopes.items()]
    notes += [_bias(e, bias) for e, bias in answer.biases.items()]
    table, flags = _valleys(answer)
    used, n_valleys = sum(len(line.used) for line in frontiers.values()), len(table.rows)
    first, *others = [*predicted, *sentences] or ["No power law: fewer than three usable minima"]
    return Page(
        first,
        why=(*others, f"{used} of {n_valleys} minima used."),
        tables=(table,),
        notes=(*notes, *flags),
        read=tuple(read),
        warnings=answer.warnings,
        details=(
            "each valley is a parabola of loss in ln N at one compute budget; N* and D* are powers of C through the "
            "minima (approach 2 of arXiv 2203.15556)",
            "the loss of optimal models is E + A C^-g through the losses of the minima; g has a prior about the "
            "published exponents",
            "the envelope's interval holds the scatter, not the bias of the method: in simulation it covered 8 "
            "times in 10",
        ),
    )


def _frontier(e: int, line: Frontier, *, several: bool) -> str:
    where = f"E = {e}: " if several else ""
    n, d = _power(line.n_opt), _power(line.d_opt)
    return f"{where}N* grows as {n}, D* as {d}"


def _power(law: PowerLaw) -> str:
    low, high = law.exponent_interval
    return f"C^{law.exponent:.3f} ({low:.3f} to {high:.3f})"


def _valleys(answer: IsoFlopAnswer) -> tuple[Table, list[str]]:
    """The valleys of every E in one table, and what their flags mean, each once."""
    flags: dict[str, str] = {}
    rows = []
    for e, minima in answer.minima.items():
        for valley in minima:
            marks = [flags.setdefault(flag, chr(ord("a") + len(flags))) for flag in valley.flags]
            rows.append([
                str(e), flops(valley.train_flops), *_of_runs(valley), _size(valley.d_opt),
                f"{valley.loss:.4f}" if math.isfinite(valley.loss) else "none",
                f"x{valley.width:.2g}" if isinstance(valley, Valley) else "–", " ".join(marks),
            ])  # fmt: skip
    headings = ["E", "C (FLOPs)", "runs", "N*", "95 % interval", "D*", "loss", "width", "flags"]
    kept = [i for i in range(len(headings)) if i or len(answer.minima) > 1]
    table = text_table("", [headings[i] for i in kept], [[row[i] for i in kept] for row in rows], ("flags",))
    absent = [] if flags else ["flags"]
    if not any(isinstance(minimum, Valley) for minima in answer.minima.values() for minimum in minima):
        absent += ["runs", "95 % interval", "width"]
    for heading in absent:
        table = table.without(heading)
    return table, [f"flag {mark}: {flag}" for flag, mark in flags.items()]


def _prediction(e: int, line: Frontier, budget: float) -> str:
    size, tokens = line.at(budget)
    n, d = (f"{si(one.mean[0])} ({si(one.low[0])} to {si(one.high[0])})" for one in (size, tokens))
    told = f"At {flops(budget)} FLOPs, E = {e}: N* = {n}, D* = {d}"
    if line.loss is None:
        return told
    loss = line.loss.predict(budget)
    return f"{told}, loss = {loss.mean[0]:.4f} ({loss.low[0]:.4f} to {loss.high[0]:.4f}) nats per token"


def _of_runs(minimum: Minimum) -> tuple[str, str, str]:
    """The runs of a valley, N* and its interval; of a reported optimum, N* alone."""
    runs = str(minimum.n_points) if isinstance(minimum, Valley) else "–"
    interval = minimum.n_interval if isinstance(minimum, Valley) else None
    return runs, _size(minimum.n_opt), "–" if interval is None else " to ".join(map(si, interval))


def _envelope(e: int, hull: Envelope) -> str:
    interval = "no interval" if hull.exponent_interval is None else "{:.3f} to {:.3f}".format(*hull.exponent_interval)
    return (
        f"envelope at E = {e}: N* grows as C^{hull.n_law.exponent:.3f} ({interval}), over "
        f"{plural(hull.n_models, 'model')}; {percent(float(hull.edge.mean()))} of the compute range left out, where "
        "the smallest or largest model is lowest"
    )


def _bias(e: int, bias: Bias) -> str:
    return (
        f"bias on the fitted surface, E = {e}: N* of the valleys {min(bias.vertex_over_true):.4f} to "
        f"{max(bias.vertex_over_true):.4f} of the truth, exponent {bias.exponent:.4f} for {bias.true_exponent:.4f}, "
        f"N* at {flops(bias.train_flops)} FLOPs {bias.line_over_true:.3f} of the truth"
    )


def _size(value: float) -> str:
    return si(value) if math.isfinite(value) else "none"
