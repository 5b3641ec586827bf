"""Checkpoints of a trunk: a killed run resumes from the last one and ends with bit-identical weights."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from scaling.config.run_row import code_version


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


class Checkpoints:
    """The latest checkpoint of one trunk in a folder, written at most every `minutes`; none without a folder.

    Orbax writes the states. A checkpoint's folder gets its final name only when it is complete.
    """

    def __init__(self, folder: Path | None, minutes: float) -> None:
        self._folder = folder.resolve() if folder and minutes > 0 else None
        self._interval_s, self._last = minutes * 60, time.monotonic()

    @property
    def due(self) -> bool:
        return self._folder is not None and time.monotonic() - self._last >= self._interval_s

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and remove the previous one."""
        import orbax.checkpoint as ocp  # takes a second to import, which short cells never need

        assert self._folder is not None
        number = max((int(path.name) for path in self._complete()), default=0) + 1
        working = self._folder / f".{number}.tmp"
        shutil.rmtree(working, ignore_errors=True)
        working.mkdir(parents=True)
        runs = {"trunk": checkpoint.trunk} | ({"branch": checkpoint.branch} if checkpoint.branch else {})
        states = {name: run.state for name, run in runs.items() if run.state is not None}
        with ocp.StandardCheckpointer() as writer:
            writer.save(working / "states", states)
        reported: dict[str, Any] = {name: np.asarray(run.metrics) for name, run in runs.items()}
        about: dict[str, Any] = {"steps": checkpoint.steps, "states": sorted(states), "code_version": code_version()}
        for name, run in runs.items():
            reported |= {f"{name}_probe_{step}": choices for step, choices in run.probes.items()}
            about[name] = {"at": run.at, "seconds": run.seconds, "left": run.left}
        np.savez_compressed(working / "reported.npz", **reported)
        (working / "about.json").write_text(json.dumps(about))
        os.replace(working, self._folder / str(number))
        for path in self._complete()[:-1]:
            shutil.rmtree(path, ignore_errors=True)
        self._last = time.monotonic()

    def load(self, shape: Any, sharding: Any) -> Checkpoint | None:
        """The latest checkpoint with arrays placed by `sharding`; None if there is none or other code wrote it."""
        folder = next(reversed(self._complete()), None)
        if folder is None:
            return None
        about = json.loads((folder / "about.json").read_text())
        if about["code_version"] != code_version():
            return None
        import orbax.checkpoint as ocp

        if isinstance(sharding, jax.sharding.Sharding):  # one for all leaves
            sharding = jax.tree.map(lambda _: sharding, shape)
        state = jax.tree.map(lambda s, placed: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=placed), shape, sharding)
        with ocp.StandardCheckpointer() as reader:
            states = reader.restore(folder / "states", dict.fromkeys(about["states"], state))
        with np.load(folder / "reported.npz") as reported:
            runs = {
                name: TrainingState(
                    states.get(name),
                    about[name]["at"],
                    list(reported[name]),
                    _probes(reported, f"{name}_probe_"),
                    about[name]["seconds"],
                    tuple(about[name]["left"]),
                )
                for name in ("trunk", "branch")
                if name in about
            }
        return Checkpoint(runs["trunk"], runs.get("branch"), about["steps"])

    def remove(self) -> None:
        """Remove the checkpoints of a finished trunk."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _complete(self) -> list[Path]:
        """Folders of complete checkpoints, the latest last."""
        folders = self._folder.glob("[0-9]*") if self._folder is not None else ()
        return sorted(folders, key=lambda path: int(path.name))


def _probes(reported: Any, prefix: str) -> dict[int, NDArray[np.bool_]]:
    return {int(key.removeprefix(prefix)): reported[key] for key in reported if key.startswith(prefix)}
