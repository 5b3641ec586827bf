"""Checkpoints of a training: a killed one goes on from the last and ends with the same bits.

One file, replaced as a whole: the arrays of the learner, the records of its rounds, and the evaluations after its
phases. One that is damaged or of other code is not used, and the training begins anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError, WorkError
from scaling.files import write_atomically
from scaling.formatting import first_line
from scaling.tasks.rows import code_version

_LOG = logging.getLogger(__name__)
_FILE, _ABOUT, _CURVE = "training.npz", "about", "curve"


@dataclass
class Saved:
    """A training as it is written.

    after: the return of every game after each complete phase.   seconds: of training.
    """

    learner: Any
    rounds: int
    curve: NDArray[np.float64]
    after: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0


class Checkpoint:
    """The checkpoint of one training in a folder, written at most every `minutes`; none without a folder."""

    def __init__(self, folder: Path | None, minutes: float) -> None:
        self._path = folder / _FILE if folder is not None and minutes > 0 else None
        self._interval_s, self._last = minutes * 60, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to write one."""
        return self._path is not None and time.monotonic() - self._last >= self._interval_s

    def save(self, saved: Saved) -> None:
        """Write it. One that cannot be written is a warning: training goes on."""
        if self._path is None:
            return
        leaves = {f"leaf_{number}": _plain(leaf) for number, leaf in enumerate(jax.tree.leaves(saved.learner))}
        arrays = leaves | {_CURVE: saved.curve}
        about = {
            "rounds": saved.rounds, "after": saved.after, "seconds": saved.seconds, "leaves": len(leaves),
            "code_version": code_version("policy-rl"), "digest": _digest(arrays),
        }  # fmt: skip
        content = io.BytesIO()
        written: dict[str, Any] = {**arrays, _ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8)}
        np.savez(content, **written)
        try:
            write_atomically(self._path, content.getbuffer())
        except (WorkError, InputError) as error:
            _LOG.warning("%s; no checkpoint was written, and training goes on", first_line(error))
        self._last = time.monotonic()

    def load(self, like: Callable[[int], Any], most_rounds: int) -> Saved | None:
        """The checkpoint, if there is one of this code and of at most so many rounds.

        like: a learner of the same structure as that after so many rounds.
        """
        if self._path is None or not self._path.exists():
            return None
        try:
            with np.load(io.BytesIO(self._path.read_bytes())) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(arrays.pop(_ABOUT).tobytes())
            if about["code_version"] != code_version("policy-rl"):
                _LOG.warning("%s: made by other code (%s), not used", self._path, about["code_version"])
                return None
            if about["digest"] != _digest(arrays):
                raise ValueError("its content is not what was written")
            if about["rounds"] > most_rounds:  # the row of a shorter cell was lost
                return None
            learner = _filled(like(about["rounds"]), [arrays[f"leaf_{number}"] for number in range(about["leaves"])])
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            _LOG.warning("the checkpoint %s is damaged (%s): training begins anew", self._path, first_line(error))
            return None
        return Saved(learner, about["rounds"], arrays[_CURVE], about["after"], about["seconds"])

    def remove(self) -> None:
        """Remove that of a finished training."""
        if self._path is not None:
            shutil.rmtree(self._path.parent, ignore_errors=True)


def _plain(leaf: Any) -> NDArray[Any]:
    """An array as NumPy has it; of a random key its numbers."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _filled(like: Any, arrays: list[NDArray[Any]]) -> Any:
    """The arrays in the structure of `like`. Raises ValueError where they do not fit."""
    leaves, structure = jax.tree.flatten(like)
    if len(leaves) != len(arrays):
        raise ValueError(f"it has {len(arrays)} arrays, and {len(leaves)} are needed")
    filled = []
    for leaf, array in zip(leaves, arrays, strict=True):
        own = _plain(leaf)
        if (own.shape, own.dtype) != (array.shape, array.dtype):
            raise ValueError(f"an array is {array.dtype} {array.shape}, and {own.dtype} {own.shape} is needed")
        filled.append(jax.random.wrap_key_data(jax.numpy.asarray(array)) if _is_key(leaf) else jax.numpy.asarray(array))
    return jax.tree.unflatten(structure, filled)


def _is_key(leaf: Any) -> bool:
    return bool(jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _digest(arrays: dict[str, NDArray[Any]]) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        whole.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()
