"""TensorBoard: one folder of event files for each run, in the study's `log/tensorboard`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling.files import require_no_links
from sweeps.loggers.logger import FOLDER, LoggedRun


class TensorBoard:
    """Writes event files. The handle of a run is the name of its folder: label and run_id."""

    def __init__(self, study: Path) -> None:
        self._study = study
        self._open: dict[str, tuple[Any, LoggedRun]] = {}

    def begin(self, run: LoggedRun, handle: str, after: int) -> str:
        from tensorboardX import SummaryWriter

        handle = handle or f"{run.name.replace(' ', ',').replace('/', '-')}-{run.run_id[:8]}"
        folder = self._study / FOLDER / "tensorboard" / handle
        require_no_links(folder, self._study)
        # What an earlier process wrote beyond the step that it remembered is not shown twice. Files of the same second
        # would have the same name.
        ending = f".{uuid.uuid4().hex[:8]}"
        after_that = after + 1 if after else None
        writer = SummaryWriter(str(folder), purge_step=after_that, flush_secs=5, filename_suffix=ending)
        if not after:
            writer.add_text("configuration", f"```\n{json.dumps(dict(run.settings), indent=1)}\n```")
        self._open[run.run_id] = (writer, run)
        return handle

    def log(self, run_id: str, step: int, tokens: int, values: Mapping[str, float]) -> None:
        writer, _ = self._open[run_id]
        for name, value in values.items():
            writer.add_scalar(name, value, step)

    def end(self, run_id: str, status: str, results: Mapping[str, float]) -> None:
        from tensorboardX.summary import hparams

        writer, run = self._open.pop(run_id)
        settings = {name: value for name, value in run.settings.items() if isinstance(value, bool | int | float | str)}
        for summary in hparams(settings | {"status": status}, dict(results)):
            writer.file_writer.add_summary(summary)
        for name, value in results.items():
            writer.add_scalar(name, value, 0)
        writer.close()

    def close(self) -> None:
        for writer, _ in self._open.values():
            writer.close()
        self._open.clear()
