"""A training-speed law as a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scaling.cli.show.page import Page
from scaling.cli.show.tables import text_table
from scaling.formatting import listed, plural
from scaling.serving.training_work import TERMS

if TYPE_CHECKING:
    import pandas as pd

    from analysis.training_speed.law import FittedTrainingLaw
    from scaling.table import Table

PLACE = ("n_experts", "top_k", "d_model", "n_layers", "batch_tokens")
_TITLES = {"n_experts": "E", "top_k": "k", "d_model": "width", "n_layers": "layers", "batch_tokens": "batch"}


def training_speed_page(
    fitted: FittedTrainingLaw, rows: pd.DataFrame, worst: pd.DataFrame, read: Sequence[str]
) -> Page:
    """How well speed is predicted, the share of the peak by E, the errors on levels left out; the terms as details."""
    law, error = fitted.law, fitted.held_out.get("all", fitted.after)
    what = "on levels left out" if "all" in fitted.held_out else "on the rows fitted"
    notes = []
    if fitted.at_bound:
        notes.append(f"at its bound (a cost of 0, or the peak): {listed(fitted.at_bound)}")
    if law.absent:
        notes.append(f"absent from these rows and taken as 0: {listed(law.absent)}")
    title = law.name if law.device is None else law.device.title
    return Page(
        f"{title}: training time predicted within {error.median:.0%} (median) {what}",
        why=(
            f"Fitted to {law.source}. The speed assumed without a measurement is {fitted.assumed.median:.0%} off. A "
            f"configuration that was not measured scatters by {law.scatter:.0%}.",
        ),
        tables=(_shares(rows), _errors(fitted)),
        notes=tuple(notes),
        read=tuple(read),
        warnings=fitted.doubts,
        details=("device-seconds a token = sum of coefficient x term", _coefficients(fitted), _worst(worst)),
    )


def _shares(rows: pd.DataFrame) -> Table:
    """The share of the peak that rows of each E reach, by 6 N_active FLOPs a token: measured, and modelled."""
    of_e = rows.groupby("n_experts")[["mfu", "modelled_mfu"]].median()
    cells = [
        [f"{n_experts:g}", f"{measured:.1%}", f"{modelled:.1%}"] for n_experts, measured, modelled in of_e.itertuples()
    ]
    return text_table("Share of the peak, median of the rows", ("E", "measured", "by the law"), cells)


def _errors(fitted: FittedTrainingLaw) -> Table:
    by_what = {**fitted.held_out, "none, speed assumed": fitted.assumed, "none, this law": fitted.after}
    cells = [
        [name, f"{error.median:.1%}", f"{error.p90:.1%}", str(error.rows), listed(error.levels, empty="")]
        for name, error in by_what.items()
    ]
    headings = ("left out", "median error", "90th percentile", "rows", "levels")
    return text_table("", headings, cells, ("left out", "levels"))


def _coefficients(fitted: FittedTrainingLaw) -> Table:
    cells = []
    for (name, meaning), value in zip(TERMS.items(), fitted.law.coefficients, strict=True):
        if name not in fitted.law.absent:
            ends = " to ".join(f"{end:.3g}" for end in fitted.intervals.get(name, ()))
            cells.append([name, f"{value:.3g}", ends, meaning])
    headings = ("coefficient", "value", "95 % interval", "meaning")
    return text_table(plural(len(cells), "term"), headings, cells, ("coefficient", "meaning"))


def _worst(worst: pd.DataFrame) -> Table:
    cells = [
        [*(f"{row[name]:g}" for name in PLACE), f"{1e6 * row['seconds']:.3g}", f"{1e6 * row['modelled_seconds']:.3g}",
         f"{row['error']:+.0%}"]
        for row in worst.to_dict("records")
    ]  # fmt: skip
    headings = [*(_TITLES[name] for name in PLACE), "measured us/token", "modelled us/token", "error"]
    return text_table("Largest errors", headings, cells)
