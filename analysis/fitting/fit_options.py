"""The choices behind a fit that its numbers do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from analysis.tables.runs import RunTable


@dataclass(frozen=True)
class FitOptions:
    """With the runs in `Fit.source` and the law, objective and pins of the fit, all that makes it again.

    `bootstrap` is the number of resamples or draws asked for; `start_from` names the fit that was recalibrated, "" for
    none. `mapping`, `where` and `drop_highest_loss` say which rows were read, and how
    (`analysis.tables.reading_log.Selection`).
    """

    bootstrap: int
    seed: int = 0
    starts: int = 64
    auto_pin: bool = True
    start_from: str = ""
    mapping: Mapping[str, str] = field(default_factory=dict)
    where: str | None = None
    drop_highest_loss: int = 0

    @classmethod
    def of(
        cls,
        table: RunTable,
        bootstrap: int,
        *,
        seed: int,
        starts: int = 64,
        auto_pin: bool = True,
        start_from: str = "",
    ) -> FitOptions:
        """The choices of a fit to a table."""
        read = table.selection
        return cls(
            bootstrap, seed, starts, auto_pin, start_from, dict(read.mapping), read.where, read.drop_highest_loss
        )
