"""The answer of `scaling isoflop` as tables for a person at a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scaling.cli.console import PlainTable, Terminal

if TYPE_CHECKING:
    from analysis.isoflop.answer import IsoFlopAnswer
    from analysis.isoflop.bias import Bias
    from analysis.isoflop.envelope import Envelope
    from analysis.isoflop.frontier import Frontier
    from analysis.isoflop.power_law import PowerLaw


def show_isoflop(answer: IsoFlopAnswer) -> None:
    """Every E: its valleys with their flags, exponents with intervals, the prediction, the envelope and the bias."""
    terminal = Terminal(width_in_file=160)
    for e in answer.valleys.experts:
        if len(answer.valleys.experts) > 1:
            terminal.print(f"E = {e}", style="bold")
        table = PlainTable("C", "runs", "N*", "95 %", "D*", "loss", "width", "flags")
        for valley in answer.valleys.of(e).valleys:
            table.add_row(
                f"{valley.train_flops:.3g}",
                str(valley.n_points),
                _number(valley.n_opt),
                "-" if valley.n_interval is None else "{:.3g} to {:.3g}".format(*valley.n_interval),
                _number(valley.d_opt),
                _number(valley.loss, ".4f"),
                f"x{valley.width:.2g}",
                "; ".join(valley.flags) or "-",
            )
        terminal.print(table)
        if e in answer.frontiers:
            _show_frontier(terminal, answer.frontiers[e], answer.train_flops)
        if e in answer.envelopes:
            _show_envelope(terminal, answer.envelopes[e])
        if e in answer.biases:
            _show_bias(terminal, answer.biases[e])


def _show_frontier(terminal: Terminal, line: Frontier, budget: float | None) -> None:
    terminal.print(
        f"N* = {_power(line.n_opt)} times {math.exp(line.n_opt.log_coefficient):.4g}; D* goes with "
        f"{_power(line.d_opt)}; {len(line.used)} valleys",
        style="bold",
    )
    if budget is not None:
        size, tokens = line.at(budget)
        terminal.print(
            f"At {budget:.4g} FLOPs: N {size.mean[0]:.4g} ({size.low[0]:.3g} to {size.high[0]:.3g}), "
            f"D {tokens.mean[0]:.4g} ({tokens.low[0]:.3g} to {tokens.high[0]:.3g})"
        )


def _power(law: PowerLaw) -> str:
    low, high = law.exponent_interval
    return f"C^{law.exponent:.4f} ({low:.3f} to {high:.3f})"


def _show_envelope(terminal: Terminal, hull: Envelope) -> None:
    interval = "no interval" if hull.exponent_interval is None else "{:.3f} to {:.3f}".format(*hull.exponent_interval)
    terminal.print(
        f"Envelope: N* goes with C^{hull.n_law.exponent:.4f} ({interval}), over {hull.n_models} models; "
        f"{hull.edge.mean():.0%} of the compute range left out, where the lowest run is the smallest or largest model. "
        "The interval holds the scatter, not the method's own bias: in simulation it covered 8 times in 10"
    )


def _show_bias(terminal: Terminal, bias: Bias) -> None:
    terminal.print(
        f"On that surface the method puts N* at {min(bias.vertex_over_true):.4f} to {max(bias.vertex_over_true):.4f} "
        f"of the truth, its exponent at {bias.exponent:.4f} for {bias.true_exponent:.4f}, and N* at "
        f"{bias.train_flops:.4g} FLOPs at {bias.line_over_true:.3f} of the truth"
    )


def _number(value: float, form: str = ".3g") -> str:
    return f"{value:{form}}" if math.isfinite(value) else "none"
