"""`scaling latency`: the latency law of measured times, with its errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling.cli.options import PICTURES, Json, Maps, Where, pairs
from scaling.cli.output import note, note_table, print_json, write_json

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
    "expert_s": ("µs an expert touched", 1e6),
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
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    maps: Maps = None,
    where: Where = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="File for the law.")] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw measured against modelled: .png, .svg or .pdf.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit what a device reaches of its data sheet, and its fixed costs, to measured prefill and decode times.

    Prints the coefficients with 95 % intervals, the errors on levels of batch, context, width and E that were left out,
    the error before and after, and the rows that are modelled worst.
    """
    import numpy as np

    from analysis.latency import law as law_of
    from analysis.latency.table import device_of, read_latency
    from scaling.errors import InputError

    if figure is not None and figure.suffix not in PICTURES:
        raise InputError(f"--figure {figure}: expected a name that ends in {', '.join(PICTURES)}")
    measured = read_latency(table, pairs(maps, "--map"), where)
    note_table(measured.dropped, [])
    law = law_of.fit_latency(measured, device_of(measured, device), np.random.default_rng(seed), resamples)
    rows = law_of.modelled(measured, law)
    worst = rows.iloc[rows["error"].abs().argsort()[::-1][:_WORST]]
    for told in law.warnings:
        note(told)
    if out is not None:
        write_json(out, law.to_json())
    if figure is not None:
        _draw(figure, rows)
    if as_json:
        shown = [*_PLACE, "time_ms", "modelled_ms", "error"]
        print_json(
            law.to_json() | {"worst": [dict(zip(shown, row, strict=True)) for row in worst[shown].to_numpy().tolist()]}
        )
    else:
        _show(law, worst)


def _show(law: LatencyLaw, worst: pd.DataFrame) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, width=110)
    on = law.device
    console.print(
        f"{on.title}, {law.dtype}: {law.n_rows} rows of {law.n_shapes} shapes; peak {on.peak_flops / 1e9:.4g} GFLOP/s, "
        f"{on.bandwidth / 1e9:.4g} GB/s"
        + "".join(f", {s / 1e9:.4g} GB/s up to {b / 2**20:.3g} MiB" for b, s in on.levels)
    )
    console.print(_FORMULA)
    table = Table("coefficient", "value", "95 % interval", "unit", title_justify="left")
    for name, (low, high) in law.intervals.items():
        unit, factor = _UNITS[name]
        table.add_row(
            name, f"{factor * getattr(law.efficiency, name):.3g}", f"{factor * low:.3g} to {factor * high:.3g}", unit
        )
    console.print(table)
    if law.at_bound:
        console.print(f"at its bound (a cost of 0, or a share of 1): {', '.join(law.at_bound)}")
    if law.absent:
        console.print(f"not in these rows, and taken for 0: {', '.join(law.absent)}")
    errors = Table("left out, level by level", "median error", "90th percentile", "rows", "levels")
    for axis, one in law.held_out.items():
        levels = ", ".join(f"{level:g}" for level in one.levels)
        errors.add_row(axis, f"{one.median:.1%}", f"{one.p90:.1%}", str(one.rows), levels)
    for title, one in (("none: assumed shares", law.before), ("none: this law", law.after)):
        errors.add_row(title, f"{one.median:.1%}", f"{one.p90:.1%}", str(one.rows), "")
    console.print(errors)
    rows = Table(*_PLACE, "measured ms", "modelled ms", "error", title="modelled worst", title_justify="left")
    for row in worst.to_dict("records"):
        place = (f"{row[name]:g}" if name != "phase" else str(row[name]) for name in _PLACE)
        rows.add_row(*place, f"{row['time_ms']:.3g}", f"{row['modelled_ms']:.3g}", f"{row['error']:+.0%}")
    console.print(rows)


def _draw(path: Path, rows: pd.DataFrame) -> None:
    """Measured against modelled by phase, over errors against batch and E."""
    from functools import partial

    from analysis import figures

    palette = figures.colours(rows["n_experts"].astype(int))
    palette = {e: colour for e, colour in palette.items() if (rows["n_experts"] == e).any()}
    top: list[Any] = [
        figures.titled(partial(figures.measured_modelled, rows[rows["phase"] == phase], palette), phase.capitalize())
        for phase in ("prefill", "decode")
        if (rows["phase"] == phase).any()
    ]
    bottom = [
        partial(figures.time_errors, rows, by, label, palette)
        for by, label in (("batch", "sequences in the batch"), ("n_experts", "experts per layer E"))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    figures.save(figures.pages(top, bottom, heights=[3.0, 2.1], legend=palette), path)
