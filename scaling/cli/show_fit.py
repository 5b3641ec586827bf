"""A fit as a table for a person at a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from scaling.cli.console import Terminal

if TYPE_CHECKING:
    from analysis.fitting.fit import Fit
    from analysis.fitting.profile import Profile


def show_fit(fitted: Fit, profiles: Sequence[Profile] = ()) -> None:
    """A fit's parameters with intervals, profile intervals where made, and what they rest on."""
    shapes = {profile.name: profile for profile in profiles}
    headings = ("parameter", "value", "95 % interval", *(["by profile"] if shapes else []), "meaning")
    table = Table(*headings, title=f"{fitted.law}: {fitted.definition.formula}", title_justify="left")
    for name in fitted.definition.names:
        if name in fitted.pinned:
            interval = f"pinned ({fitted.pinned[name].source})"
        else:
            interval = _within(fitted, name) if name in fitted.intervals else "-"
        value = f"{fitted.params[name]:.6g}" if name in fitted.params else "-"
        ends = [_open_ended(*shapes[name].interval) if name in shapes else "-"] if shapes else []
        table.add_row(name, value, interval, *ends, fitted.definition.parameter(name).meaning)
    terminal = Terminal()
    terminal.print(table)
    if fitted.objective is not None:
        corner = "" if fitted.objective_kind in ("lad", "least-squares") else f"({fitted.delta:g})"
        terminal.print(
            f"sum of {fitted.objective_kind}{corner} over {fitted.residual} residuals {fitted.objective:.9g}; "
            f"rmse of ln loss {fitted.rmse_log:.3g}; {fitted.n_runs} runs in {fitted.n_trunks} trunks; "
            f"{fitted.n_starts_at_minimum} of {fitted.n_starts} starts at the minimum; "
            f"condition {fitted.condition:.0f}; {fitted.n_draws} resamples; status {fitted.status}",
        )


def _within(fitted: Fit, name: str) -> str:
    """An interval, an end at the parameter's bound marked as such: the runs do not say how far it goes."""
    ends, bounds = fitted.intervals[name], fitted.definition.parameter(name).bounds
    near = [math.isclose(end, bound, rel_tol=1e-4, abs_tol=1e-9) for end, bound in zip(ends, bounds, strict=True)]
    return " to ".join(f"{end:.5g}{' (its bound)' if at else ''}" for end, at in zip(ends, near, strict=True))


def _open_ended(low: float | None, high: float | None) -> str:
    """An interval whose missing ends the runs do not bound."""
    return f"{'unbounded' if low is None else f'{low:.5g}'} to {'unbounded' if high is None else f'{high:.5g}'}"
