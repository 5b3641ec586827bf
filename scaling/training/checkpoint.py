"""Checkpoints of a trunk: a killed run resumes from the last one and ends with bit-identical weights.

A checkpoint that is damaged is set aside, with a warning in the log, until its trunk is done; the trunk goes on from
an older one, or from its beginning.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from scaling.config.run_row import code_version
from scaling.errors import InputError
from scaling.files import sync_folder, write_json
from scaling.formatting import first_line
from scaling.values import plain, read_value

_LOG = logging.getLogger(__name__)
_ABOUT, _REPORTED, _STATES = "about.json", "reported.npz", "states"
_DAMAGED = (InputError, OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


@dataclass
class TrainingState:
    """A running training: the state after `at` steps, the metrics of each step [M, metrics], the choices of the router
    at some steps [M, L, T, E], and the seconds spent.

    left: steps and seconds of a trunk at which its last finished branch left it.
    """

    state: Any
    at: int
    metrics: list[NDArray[np.float32]]
    probes: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    seconds: float = 0.0
    left: tuple[int, float] = (0, 0.0)


@dataclass(frozen=True)
class Checkpoint:
    """The trunk (without a state once its last budget is in the cooldown), the branch that is cooling down, and the
    steps of its budget."""

    trunk: TrainingState
    branch: TrainingState | None
    steps: int


@dataclass(frozen=True)
class _Stage:
    """Where trunk or branch stood."""

    at: int
    seconds: float
    left: tuple[int, float]


@dataclass(frozen=True)
class _About:
    """What about.json says. `arrays` are the shapes of a state; `digest` is that of all else in the checkpoint."""

    steps: int
    states: tuple[str, ...]
    arrays: str
    code_version: str
    stages: dict[str, _Stage]
    digest: str = ""


class Checkpoints:
    """The latest checkpoint of one trunk in a folder, written at most every `minutes`; none without a folder.

    Orbax writes the states. A checkpoint's folder gets its final name only when it is complete and on disk.
    """

    def __init__(self, folder: Path | None, minutes: float) -> None:
        self._folder = folder.resolve() if folder and minutes > 0 else None
        self._interval_s, self._last = minutes * 60, time.monotonic()

    @property
    def possible(self) -> bool:
        """Whether there is a folder to write to."""
        return self._folder is not None

    @property
    def due(self) -> bool:
        return self._folder is not None and time.monotonic() - self._last >= self._interval_s

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and remove the previous one. One that cannot be written is a warning: training goes on."""
        assert self._folder is not None
        number = max((int(path.name) for path in self._complete()), default=0) + 1
        working = self._folder / f".{number}.tmp"
        try:
            shutil.rmtree(working, ignore_errors=True)
            working.mkdir(parents=True)
            self._write(checkpoint, working)
            os.replace(working, self._folder / str(number))
            sync_folder(self._folder)
            for path in self._complete()[:-1]:
                shutil.rmtree(path, ignore_errors=True)
        except Exception as error:  # Orbax and its storage have no common type for a full disk
            shutil.rmtree(working, ignore_errors=True)
            _LOG.warning("%s: no checkpoint was written (%s); training goes on", self._folder, first_line(error))
        self._last = time.monotonic()

    def _write(self, checkpoint: Checkpoint, folder: Path) -> None:
        import orbax.checkpoint as ocp  # takes a second to import, which short cells never need

        runs = {"trunk": checkpoint.trunk} | ({"branch": checkpoint.branch} if checkpoint.branch else {})
        states = {name: run.state for name, run in runs.items() if run.state is not None}
        with ocp.StandardCheckpointer() as writer:
            writer.save(folder / _STATES, states)
        reported: dict[str, Any] = {name: np.asarray(run.metrics) for name, run in runs.items()}
        for name, run in runs.items():
            reported |= {f"{name}_probe_{step}": choices for step, choices in run.probes.items()}
        np.savez_compressed(folder / _REPORTED, **reported)
        stages = {name: _Stage(run.at, run.seconds, run.left) for name, run in runs.items()}
        arrays = _arrays(next(iter(states.values())))
        about = _About(checkpoint.steps, tuple(sorted(states)), arrays, code_version(), stages)
        write_json(folder / _ABOUT, plain(replace(about, digest=_digest(folder, about))))
        for path in folder.rglob("*"):
            sync_folder(path)  # files as well

    def load(self, shape: Any, sharding: Any) -> Checkpoint | None:
        """The latest usable checkpoint with arrays placed by `sharding`; None if there is none of this code."""
        for folder in reversed(self._complete()):
            try:
                about = read_value(_About, folder / _ABOUT)
                if about.code_version != code_version():
                    _LOG.warning("%s: made by other code (%s), not used", folder, about.code_version)
                    continue
                if about.digest != _digest(folder, replace(about, digest="")):
                    raise ValueError("its content is not what was written")
                if about.arrays != _arrays(shape):  # Orbax, asked for others, leaves its threads behind
                    raise ValueError("its arrays are those of another model")
                return _read(folder, about, shape, sharding)
            except _DAMAGED as error:
                aside = folder.with_name(f"unusable-{folder.name}")
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(folder, aside)
                reason = f"{first_line(error) or type(error).__name__}"
                _LOG.warning("the checkpoint %s is damaged (%s): set aside as %s", folder, reason, aside.name)
        return None

    def remove(self) -> None:
        """Remove the checkpoints of a finished trunk."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _complete(self) -> list[Path]:
        """Folders of complete checkpoints, the latest last."""
        folders = self._folder.glob("[0-9]*") if self._folder is not None else ()
        return sorted((path for path in folders if path.name.isdecimal()), key=lambda path: int(path.name))


def _read(folder: Path, about: _About, shape: Any, sharding: Any) -> Checkpoint:
    """The checkpoint in a folder. Raises one of `_DAMAGED` where its parts do not fit together."""
    import orbax.checkpoint as ocp

    if isinstance(sharding, jax.sharding.Sharding):  # one for all leaves
        sharding = jax.tree.map(lambda _: sharding, shape)
    state = jax.tree.map(lambda s, placed: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=placed), shape, sharding)
    with ocp.StandardCheckpointer() as reader:
        states = reader.restore(folder / _STATES, dict.fromkeys(about.states, state))
    runs = {}
    with np.load(folder / _REPORTED) as reported:
        for name, stage in about.stages.items():
            metrics, probes = list(reported[name]), _probes(reported, f"{name}_probe_")
            if len(metrics) != stage.at:
                raise ValueError(f"it has {len(metrics)} steps of the {name} where {stage.at} were taken")
            runs[name] = TrainingState(states.get(name), stage.at, metrics, probes, stage.seconds, stage.left)
    return Checkpoint(runs["trunk"], runs.get("branch"), about.steps)


def _arrays(state: Any) -> str:
    """The shapes and types of a state, in short."""
    shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(state)]
    return hashlib.blake2b(repr(shapes).encode(), digest_size=8).hexdigest()


def _digest(folder: Path, about: _About) -> str:
    """A hash of a checkpoint: what about.json says, and the names and contents of all other files."""
    whole = hashlib.blake2b(repr(about).encode(), digest_size=16)
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _ABOUT):
        with path.open("rb") as content:
            inside = hashlib.file_digest(content, "blake2b").digest()
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0" + inside)
    return whole.hexdigest()


def _probes(reported: Any, prefix: str) -> dict[int, NDArray[np.bool_]]:
    return {int(key.removeprefix(prefix)): reported[key] for key in reported if key.startswith(prefix)}
