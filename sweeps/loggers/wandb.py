"""Weights & Biases: one run for each cell, in the group of its study.

The variables of wandb count: WANDB_PROJECT (default: the study), WANDB_ENTITY, WANDB_MODE=offline.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling.errors import InputError
from scaling.files import require_no_links
from scaling.formatting import first_line
from sweeps.loggers.logger import FOLDER, LoggedRun

_NO_LOGIN = ("offline", "disabled", "dryrun")
_MOST_OF_ID = 64


class WeightsAndBiases:
    """Keeps one run of wandb open for each cell that trains. The handle of a run is its id."""

    def __init__(self, study: Path) -> None:
        import wandb

        self._wandb: Any = wandb
        self._study, self._folder = study, study / FOLDER
        self._open: dict[str, Any] = {}
        if os.environ.get("WANDB_MODE", "online") not in _NO_LOGIN:
            try:
                known = wandb.login()
            except wandb.errors.Error as error:
                raise InputError(f"`log` wandb: {first_line(error)}; log in, or set WANDB_MODE=offline") from error
            if not known:
                raise InputError("`log` wandb: nobody is logged in; `wandb login` does that, or set WANDB_MODE=offline")

    def begin(self, run: LoggedRun, handle: str, after: int) -> str:
        require_no_links(self._folder, self._study)
        self._folder.mkdir(parents=True, exist_ok=True)
        handle = handle or f"{run.run_id}-{re.sub('[^A-Za-z0-9_-]', '-', run.study)}"[:_MOST_OF_ID]
        self._open[run.run_id] = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT") or run.study,
            group=run.study,
            name=run.name,
            id=handle,
            resume="allow",
            config=dict(run.settings),
            dir=str(self._folder),
            reinit="create_new",
            settings=self._wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                disable_code=True,
                x_disable_stats=True,
                x_disable_meta=True,
            ),
        )
        return handle

    def log(self, run_id: str, step: int, tokens: int, values: Mapping[str, float]) -> None:
        self._open[run_id].log({**values, "train/tokens": tokens}, step=step)

    def end(self, run_id: str, status: str, results: Mapping[str, float]) -> None:
        run = self._open.pop(run_id)
        run.summary.update({**results, "status": status})
        run.finish(exit_code=0 if status == "ok" else 1)

    def close(self) -> None:
        for run in self._open.values():
            run.finish(exit_code=1)
        self._open.clear()
