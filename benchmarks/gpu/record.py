"""The rows of a part, on disk as they come: what was measured before is not measured again, and a failure is a row."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scaling.schema import write_parquet

Row = dict[str, Any]
RUNNING, OK, ERROR, SKIPPED = "running", "ok", "error", "skipped"
_CHARACTERS = 600  # of an error
_STOPS = 2


@dataclass
class Record:
    """The cases of a part, each a row with `case`, `status`, `error` and the columns that its function returns.

    A row says `running` while its case does, so that the case in which a part was killed is known: it is tried once
    more, and left out as failed when that ends in the same way. Cases that ended are not repeated, those skipped for
    lack of time are.

    ends: when the time of the part is over, in seconds of `time.monotonic`.
    """

    path: Path
    ends: float
    say: Callable[[str], None] = lambda _: None
    rows: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path, seconds: float, say: Callable[[str], None] = lambda _: None) -> Record:
        """The record in a file, empty where there is none, with so many seconds to go."""
        rows = {row["case"]: row for row in read(path)}
        for row in rows.values():
            if row["status"] == RUNNING:
                stops = row.get("stops", 0) + 1
                status = SKIPPED if stops < _STOPS else ERROR
                row |= {"status": status, "error": "the part was stopped while this case ran", "stops": stops}
        return cls(path, time.monotonic() + seconds, say, rows)

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.ends - time.monotonic()

    def owes(self, case: str) -> bool:
        """Whether a case has not ended yet."""
        return self.rows.get(case, {}).get("status") in (None, SKIPPED)

    def case(self, name: str, measure: Callable[[], Mapping[str, Any]], needs: float = 0.0) -> Row:
        """Measure a case unless it has ended, or less time is left than it needs; its row."""
        if not self.owes(name):
            return self.rows[name]
        if self.left < needs:
            return self._put(name, SKIPPED, f"{self.left:.0f} s were left, it needs about {needs:.0f}")
        started = time.monotonic()
        self._put(name, RUNNING, columns={"stops": self.rows.get(name, {}).get("stops", 0)})
        try:
            columns = dict(measure())
        except Exception as error:  # of a library, of any type: the other cases go on
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error}"[:_CHARACTERS]
            return self._put(name, ERROR, f"{text} ({Path(where.filename).name}:{where.lineno})")
        assert not {"case", "status", "error"} & {*columns}, "columns of the record itself"
        return self._put(name, OK, "", columns | {"took_s": time.monotonic() - started})

    def _put(self, name: str, status: str, error: str = "", columns: Mapping[str, Any] | None = None) -> Row:
        self.rows[name] = {"case": name, "status": status, "error": error, **(columns or {})}
        write(self.path, list(self.rows.values()))
        if status != RUNNING:
            shown = ", ".join(f"{key} {_short(value)}" for key, value in (columns or {}).items())
            self.say(f"{name}: {status} {error or shown}")
        return self.rows[name]


def read(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file, or where it is damaged."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        return []
    return [{key: value for key, value in row.items() if value is not None} for row in table.to_pylist()]


def write(path: Path, rows: list[Row]) -> None:
    """The rows as a table, in the order of their first columns; written to a temporary name, then renamed."""
    names = dict.fromkeys(name for row in rows for name in row)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_parquet(path, pa.table({name: _column([row.get(name) for row in rows]) for name in names}))


def _column(values: list[Any]) -> pa.Array:
    """Values of one column, as text where they are of several kinds: a wrong kind must not end a part."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
