"""The driver's eye on its running cells: shows how far they are, and hands their curves on to loggers."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType

from scaling.config.cell import Cell
from scaling.live import Tail
from sweeps.loggers.forwarder import Forwarder
from sweeps.loggers.logger import logger_named
from sweeps.progress import Progress
from sweeps.running import cells_of, how_far
from sweeps.store import Store

_LOOK_S = 2.0
_LAST_LOOK_S = 20.0  # that loggers may take after an interruption


class Following:
    """While the context lasts, a thread looks at the live files of a study every two seconds.

    cells, labels: of the grid, by run_id.   corpora: hash of the text of each.   log: names of loggers, to which all
    cells with a row are told as well, once.   Raises InputError for a logger that cannot be used.
    """

    def __init__(
        self,
        store: Store,
        cells: Mapping[str, Cell],
        labels: Mapping[str, str],
        corpora: Mapping[str, str],
        progress: Progress,
        log: Sequence[str] = (),
    ) -> None:
        self._store, self._labels, self._progress = store, labels, progress
        self._tail, self._told = Tail(store.out), set[str]()
        self._forwarders = [
            Forwarder(name, logger_named(name, store.out), store, cells, labels, corpora, progress.note) for name in log
        ]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="following", daemon=True)

    def __enter__(self) -> Following:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join(None if kind is None else _LAST_LOOK_S)
        self._progress.cells_run(())

    def _follow(self) -> None:
        while not self._end.wait(_LOOK_S):
            self._look()
        self._look()
        for forwarder in self._forwarders:
            forwarder.close()

    def _look(self) -> None:
        seen, told = self._tail.look(), self._with_rows()
        for forwarder in self._forwarders:
            forwarder.look(seen, told - self._told)
        self._told = told
        running = [cell for one in seen for cell in cells_of(one.call, self._labels, told.__contains__, one.silent_s)]
        self._progress.cells_run([how_far(cell) for cell in sorted(running, key=lambda cell: cell.cell)])

    def _with_rows(self) -> set[str]:
        """The runs that have a part, by the names of these alone."""
        try:
            names = os.listdir(self._store.out / "runs")
        except OSError:
            return self._told
        return {name.removesuffix(".parquet") for name in names if name.endswith(".parquet")}
