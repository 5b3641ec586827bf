"""The speed of an engine, fitted to end-to-end measurements, as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaling.cli.show.page import Page, of_reading
from scaling.cli.show.tables import text_table
from scaling.formatting import listed, plural
from scaling.serving.engine_speed import MEANINGS, TERMS

if TYPE_CHECKING:
    import pandas as pd

    from analysis.latency.fitted_engine import FittedEngine
    from scaling.table import Table

_IN_US = ("layers", "routed layers", "sequences")
_ROW = ("row", "model", "engine", "device", "precision", "devices", "concurrency")


def engine_page(fitted: FittedEngine, worst: pd.DataFrame) -> Page:
    """How well times per token are predicted, the coefficients beside the published ones, errors on what was left
    out."""
    fit, speed = fitted.fit, fitted.speed
    models = len(fit.models_left_out)
    low, high = fit.interval
    only = (
        "its rows alone decide what the published speed leaves open" if models == 1 else "each model left out in turn"
    )
    return Page(
        f"{listed(dict.fromkeys(fitted.rows.frame['device']))}: time per token predicted within {speed.error:.0%} "
        f"(median) of {'a model' if models == 1 else 'models'} left out",
        why=(
            f"Fitted to {speed.source}; {only}. In sample {fit.in_sample.median:.0%}; the published speed is "
            f"{fitted.before.median:.0%} off these rows.",
            f"95 % of times lie between {low:.2f} and {high:.2f} times the prediction.",
        ),
        tables=(_coefficients(fitted), _errors(fitted)),
        read=of_reading(fitted.dropped, fitted.table.log.notes),
        details=(
            "seconds of an iteration = sum of coefficient x term; a coefficient of 1 is the peak of the data sheet",
            _worst(worst),
        ),
    )


def _coefficients(fitted: FittedEngine) -> Table:
    rows = []
    for name, value, before in zip(TERMS, fitted.speed.coefficients, fitted.published.coefficients, strict=True):
        factor, unit = (1e6, "µs ") if name in _IN_US else (1.0, "")
        meaning = MEANINGS[name].removeprefix("seconds ")
        rows.append([name, f"{factor * value:.3g}", f"{factor * before:.3g}", unit + meaning])
    return text_table("", ("term", "value", "published", "of what"), rows, ("term", "of what"))


def _errors(fitted: FittedEngine) -> Table:
    fit = fitted.fit
    several = (*fit.models_left_out, *(fit.devices_left_out if len(fit.devices_left_out) > 1 else ()))
    rows = [
        [
            error.group,
            f"{error.median:.1%}",
            f"{error.p90:.1%}",
            f"{error.ratio:.2f}",
            f"{error.inside} of {error.rows}",
        ]
        for error in (*several, fit.in_sample)
    ]
    headings = ("left out", "median error", "90th percentile", "predicted/measured", "inside 95 %")
    return text_table("", headings, rows, ("left out",))


def _worst(worst: pd.DataFrame) -> Table:
    rows = [
        [*(f"{row[name]:g}" if isinstance(row[name], float) else str(row[name]) for name in _ROW),
         f"{row['tpot_ms']:.3g}", f"{row['modelled_ms']:.3g}", f"{row['error']:+.0%}"]
        for row in worst.to_dict("records")
    ]  # fmt: skip
    headings = [*_ROW, "measured ms", "modelled ms", "error"]
    return text_table(f"Largest errors ({plural(len(rows), 'row')})", headings, rows, _ROW[1:5])
