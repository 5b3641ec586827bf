"""What a logger is, and the loggers there are."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from scaling.distribution import require_installed
from scaling.errors import InputError
from scaling.formatting import listed

FOLDER = "log"
"""The folder in a study's own where loggers keep what they write there."""


@dataclass(frozen=True)
class LoggedRun:
    """A cell as loggers name it: by its label, in the group of its study, with all its settings, by dotted names."""

    run_id: str
    name: str
    study: str
    settings: Mapping[str, Any]


class Logger(Protocol):
    """Takes the values of runs. All calls come from one thread."""

    def begin(self, run: LoggedRun, handle: str, after: int) -> str:
        """Open a run, or the one that was given this handle earlier, whose values up to the step `after` are known;
        returns its handle."""

    def log(self, run_id: str, step: int, tokens: int, values: Mapping[str, float]) -> None:
        """Values at a step of an open run; all are finite."""

    def end(self, run_id: str, status: str, results: Mapping[str, float]) -> None:
        """Close a run that has a row, with the status and the results in it."""

    def close(self) -> None:
        """Close everything; runs without a row may go on later."""


@dataclass(frozen=True)
class _Kind:
    value: str
    needs: tuple[str, ...]


_KINDS = {
    "tensorboard": _Kind("sweeps.loggers.tensorboard:TensorBoard", ("tensorboardX",)),
    "wandb": _Kind("sweeps.loggers.wandb:WeightsAndBiases", ("wandb",)),
    "mlflow": _Kind("sweeps.loggers.mlflow:MLflow", ("mlflow", "sqlalchemy")),
}
LOGGERS = (*_KINDS,)


def require_loggers(names: Sequence[str]) -> None:
    """Raise InputError for a name that is none, and for a package that is not installed, naming the extra."""
    for name in names:
        if name not in _KINDS:
            raise InputError(f"`log`: no logger {name!r}; there are {listed(LOGGERS)}")
        require_installed(f"`log` {name}", *_KINDS[name].needs)


def logger_named(name: str, study: Path) -> Logger:
    """The logger of this name for a study's folder.

    Raises InputError as `require_loggers` does, and for a service without a login.
    """
    require_loggers((name,))
    made: Logger = pkgutil.resolve_name(_KINDS[name].value)(study)
    return made
