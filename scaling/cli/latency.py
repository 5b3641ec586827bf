"""`scaling latency`: the latency law of measured times, with its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scaling.cli import options
from scaling.cli.output import note, note_table, print_json, save_figure

if TYPE_CHECKING:
    import pandas as pd

    from analysis.latency.law import LatencyLaw


_WORST = 5
_FORMULA = (
    "seconds = overhead + layers + prompts + experts + activations + bytes / (share x bandwidth) + rereads + "
    "FLOPs / (share x peak)"
)
_UNITS = {
    "overhead_s": ("µs a step", 1e6),
    "layer_s": ("µs a layer", 1e6),
    "prompt_s": ("µs a layer more in a prefill", 1e6),
    "expert_s": ("µs an activated expert", 1e6),
    "activation_s": ("ns an element written", 1e9),
    "reread": ("of bytes / bandwidth", 1.0),
    "bandwidth_share": ("of the bytes/s", 1.0),
    "flops_share": ("of the peak FLOP/s", 1.0),
}
_PLACE = ("phase", "batch", "context", "n_experts", "top_k", "d_model", "n_layers")


def latency(
    table: Annotated[
        str, typer.Argument(metavar="STUDY|TABLE", help="A study folder, or a file of `scaling bench --out`.")
    ],
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Device that was measured; else what the rows say.")
    ] = None,
    resamples: Annotated[int, typer.Option(metavar="N", min=200, help="Bootstrap samples of the shapes.")] = 400,
    seed: options.Seed = 0,
    maps: options.Maps = None,
    where: options.Where = None,
    out: options.Document = None,
    figure: options.Figure = None,
    as_json: options.Json = False,
) -> None:
    """Fit what a device reaches of its data sheet, and its fixed costs, to measured prefill and decode times.

    Prints the coefficients with 95 % intervals, the errors on levels of batch, context, width and E that were left out,
    the error before and after, and the rows that are modelled worst.
    """
    import numpy as np

    from analysis.latency.law import fit_latency, latency_document, modelled
    from analysis.latency.table import device_of, read_latency

    measured = read_latency(table, options.pairs(maps, "--map"), where)
    note_table(measured.dropped, [])
    law = fit_latency(measured, device_of(measured, device), np.random.default_rng(seed), resamples)
    rows = modelled(measured, law)
    worst = rows.iloc[rows["error"].abs().argsort()[::-1][:_WORST]]
    for warning in law.warnings:
        note(warning)
    if out is not None:
        from scaling.files import write_json

        write_json(out, latency_document(law))
    if figure is not None:
        from analysis.figures.sheets import latency_sheet

        save_figure(latency_sheet(rows), figure)
    if as_json:
        columns = [*_PLACE, "time_ms", "modelled_ms", "error"]
        print_json(latency_document(law) | {"worst": worst[columns].to_dict("records")})
    else:
        _show(law, worst)


def _show(law: LatencyLaw, worst: pd.DataFrame) -> None:
    """The law for a person: coefficients in units that can be read, errors level by level, the rows modelled worst."""
    from rich.table import Table

    from scaling.cli.console import Terminal

    terminal = Terminal(width=110, soft_wrap=False)
    device = law.device
    terminal.print(
        f"{device.title}, {law.dtype}: {law.n_rows} rows of {law.n_shapes} shapes; peak {device.peak_flops / 1e9:.4g} "
        f"GFLOP/s, {device.bandwidth / 1e9:.4g} GB/s"
        + "".join(f", {s / 1e9:.4g} GB/s up to {b / 2**20:.3g} MiB" for b, s in device.levels)
    )
    terminal.print(_FORMULA)
    coefficients = Table("coefficient", "value", "95 % interval", "unit")
    for name, ends in law.intervals.items():
        unit, factor = _UNITS[name]
        value, low, high = (f"{factor * seconds:.3g}" for seconds in (getattr(law.efficiency, name), *ends))
        coefficients.add_row(name, value, f"{low} to {high}", unit)
    terminal.print(coefficients)
    if law.at_bound:
        terminal.print(f"at its bound (a cost of 0, or a share of 1): {', '.join(law.at_bound)}")
    if law.absent:
        terminal.print(f"not in these rows, and taken for 0: {', '.join(law.absent)}")
    errors = Table("left out, level by level", "median error", "90th percentile", "rows", "levels")
    by_what = {**law.held_out, "none: assumed shares": law.before, "none: this law": law.after}
    for left_out, error in by_what.items():
        levels = ", ".join(f"{level:g}" for level in error.levels)
        errors.add_row(left_out, f"{error.median:.1%}", f"{error.p90:.1%}", str(error.rows), levels)
    terminal.print(errors)
    rows = Table(*_PLACE, "measured ms", "modelled ms", "error", title="modelled worst", title_justify="left")
    for row in worst.to_dict("records"):
        place = (f"{row[name]:g}" if name != "phase" else str(row[name]) for name in _PLACE)
        rows.add_row(*place, f"{row['time_ms']:.3g}", f"{row['modelled_ms']:.3g}", f"{row['error']:+.0%}")
    terminal.print(rows)
