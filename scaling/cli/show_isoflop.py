"""The answer of `scaling isoflop` as tables for a person at a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from analysis.isoflop.bias import Bias
    from analysis.isoflop.envelope import Envelope
    from analysis.isoflop.frontier import Frontier
    from analysis.isoflop.valleys import Valleys


def show_isoflop(
    found: Valleys,
    lines: Mapping[int, Frontier],
    envelopes: Mapping[int, Envelope],
    biases: Mapping[int, Bias],
    budget: float | None,
) -> None:
    """Every E: its valleys with their flags, exponents with intervals, the prediction, the envelope and the bias."""
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:  # in a file or a pipe nothing needs to be narrow
        console.width = max(console.width, 160)
    for e in found.experts:
        table = Table(
            "C", "runs", "N*", "95 %", "D*", "loss", "width", "flags", box=None, pad_edge=False, padding=(0, 2, 0, 0)
        )
        if len(found.experts) > 1:
            console.print(f"E = {e}", style="bold")
        for valley in found.of(e).found:
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
        console.print(table, soft_wrap=False)
        if e in lines:
            _show_frontier(console, lines[e], budget)
        if e in envelopes:
            _show_envelope(console, envelopes[e])
        if e in biases:
            _show_bias(console, biases[e])


def _show_frontier(console: Console, line: Frontier, budget: float | None) -> None:
    console.print(
        f"N* = C^{line.n_opt.exponent:.4f} ({line.n_opt.exponent_interval[0]:.3f} to "
        f"{line.n_opt.exponent_interval[1]:.3f}) times {math.exp(line.n_opt.log_coefficient):.4g}; D* goes with "
        f"C^{line.d_opt.exponent:.4f} ({line.d_opt.exponent_interval[0]:.3f} to "
        f"{line.d_opt.exponent_interval[1]:.3f}); {len(line.used)} valleys",
        style="bold",
    )
    if budget is not None:
        size, tokens = line.at(budget)
        console.print(
            f"At {budget:.4g} FLOPs: N {size.mean[0]:.4g} ({size.low[0]:.3g} to {size.high[0]:.3g}), "
            f"D {tokens.mean[0]:.4g} ({tokens.low[0]:.3g} to {tokens.high[0]:.3g})"
        )


def _show_envelope(console: Console, hull: Envelope) -> None:
    ends = hull.exponent_interval
    told = "no interval" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
    console.print(
        f"Envelope: N* goes with C^{hull.n_law.exponent:.4f} ({told}), over {hull.n_models} models; "
        f"{hull.edge.mean():.0%} of the compute range left out, where the lowest run is the smallest or largest model. "
        "The interval holds the scatter, not the method's own bias: in simulation it covered 8 times in 10"
    )


def _show_bias(console: Console, made: Bias) -> None:
    console.print(
        f"On that surface the method puts N* at {min(made.vertex_over_true):.4f} to {max(made.vertex_over_true):.4f} "
        f"of the truth, its exponent at {made.exponent:.4f} for {made.true_exponent:.4f}, and N* at "
        f"{made.train_flops:.4g} FLOPs at {made.line_over_true:.3f} of the truth"
    )


def _number(value: float, form: str = ".3g") -> str:
    return f"{value:{form}}" if math.isfinite(value) else "none"
