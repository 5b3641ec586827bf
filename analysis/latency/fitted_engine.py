"""An engine's speed from anybody's end-to-end table, shrunk to the published one, as a file and with its errors."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.latency.end_to_end import COLUMNS, EndToEnd, end_to_end, is_end_to_end
from analysis.latency.engines import EngineFit, HeldOutErrors, errors_of, fit_engines
from analysis.latency.speed_file import speed_document
from analysis.tables.expressions import where_selected
from analysis.tables.mapping import mapped
from analysis.tables.readers import read_table
from analysis.tables.reading_log import ReadingLog
from scaling.errors import InputError
from scaling.formatting import listed, plural
from scaling.serving.engine_speed import EngineSpeed
from scaling.serving.published_speeds import default_speed, published_speed

_ANY = "published:vllm-h100"  # what rows of a device without a published speed shrink to


@dataclass(frozen=True, eq=False)
class EngineTable:
    """A table of end-to-end measurements: its rows, where it came from, and what reading it noted."""

    frame: pd.DataFrame
    origin: str
    log: ReadingLog
    digest: str


@dataclass(frozen=True, eq=False)
class FittedEngine:
    """A speed, the fit behind it, the rows, and the errors of the published speed on them."""

    speed: EngineSpeed
    fit: EngineFit
    rows: EndToEnd
    published: EngineSpeed
    before: HeldOutErrors
    table: EngineTable

    @property
    def dropped(self) -> tuple[tuple[str, int], ...]:
        """Why rows were left out, with counts."""
        return (*self.table.log.dropped, *self.rows.left_out)

    def modelled(self) -> pd.DataFrame:
        """The rows with `tpot_ms`, `modelled_ms` and `error`."""
        modelled = self.fit.seconds(self.rows.iterations)
        return self.rows.frame.assign(
            tpot_ms=1e3 * self.rows.tpot_s, modelled_ms=1e3 * modelled, error=modelled / self.rows.tpot_s - 1
        )

    def document(self) -> dict[str, Any]:
        """The content of the speed's file: the speed, the errors, and the digest of the table."""
        return {
            **speed_document(self.speed),
            "interval": list(self.fit.interval),
            "models_left_out": [asdict(error) for error in self.fit.models_left_out],
            "devices_left_out": [asdict(error) for error in self.fit.devices_left_out],
            "in_sample": asdict(self.fit.in_sample),
            "published": {"name": self.published.name, **asdict(self.before)},
            "made_from": self.table.digest,
        }


def read_engine_table(
    source: str | Path, mapping: Mapping[str, str] | None = None, where: str | None = None
) -> EngineTable | None:
    """The table in a file if it has the columns of end-to-end measurements, perhaps by way of `mapping`; else None."""
    path, log = Path(source), ReadingLog()
    if not path.is_file():
        return None
    frame, names = read_table(path), [name for spellings in COLUMNS.values() for name in spellings]
    if mapping and not {*mapping, *mapping.values()}.isdisjoint(names):
        frame, _ = mapped(frame, mapping, str(source), log, names)
    if not is_end_to_end(frame):
        return None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return EngineTable(where_selected(frame, where, log), str(source), log, digest)


def fit_engine_table(table: EngineTable, configs: str | Path | None, device: str | None = None) -> FittedEngine:
    """The speed that the rows of a table give, of one `device` where it is named.

    Raises InputError where no row is left, a model has no configuration, and for a cell that is no number, by row.
    """
    rows = end_to_end(table.frame, table.origin, configs)
    if device is not None:
        rows = rows.only((rows.frame["device"] == device).to_numpy(dtype=bool))
    if not len(rows.frame):
        reasons = listed(f"{plural(count, 'row')}: {why}" for why, count in (*table.log.dropped, *rows.left_out))
        of_device = f" on {device}" if device else ""
        raise InputError(f"{table.origin}: no end-to-end row{of_device} is left{f' ({reasons})' if reasons else ''}")
    devices = list(dict.fromkeys(rows.frame["device"]))
    published = default_speed(str(devices[0])) or published_speed(_ANY)
    fit = fit_engines(rows, published)
    before = rows.iterations @ np.asarray(published.coefficients)
    spread = float(np.exp(1.96 * published.scatter))
    speed = fit.speed(f"fitted:{Path(table.origin).name}", _source(rows, table, published), str(datetime.date.today()))
    return FittedEngine(
        speed, fit, rows, published, errors_of("published", before, rows.tpot_s, (1 / spread, spread)), table
    )


def _source(rows: EndToEnd, table: EngineTable, published: EngineSpeed) -> str:
    models, devices, engines = (
        listed(dict.fromkeys(rows.frame[name][rows.frame[name] != ""])) for name in ("model", "device", "engine")
    )
    with_engine = f" with {engines}" if engines else ""
    return (
        f"{plural(len(rows.frame), 'row')} of {models} on {devices}{with_engine} ({Path(table.origin).name}), shrunk "
        f"to {published.name}"
    )
