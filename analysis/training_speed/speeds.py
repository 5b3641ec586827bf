"""Training speeds by name or file: what prices a training token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scaling.errors import InputError
from scaling.serving.published_training import (
    ASSUMED,
    CONSTANT,
    PREFIX,
    assumed_training_speed,
    constant_training_speed,
    published_training_speed,
)
from scaling.serving.training_speed import MfuByExperts, TrainingLaw, TrainingSpeed
from scaling.values import TRAINING_LAW


def training_speed(speed: TrainingSpeed | str | Path | None = None, mfu: float | None = None) -> TrainingSpeed:
    """The speed that is meant: one itself, `assumed` (None), `constant`, `published:NAME`, or a file of one.

    `mfu` replaces the share of the peak at E = 1; the fall with E stays. Raises InputError for an unknown name, for a
    file that is none, and where a law, which has no such share, is given with `mfu`.
    """
    if speed is None or speed == ASSUMED:
        return assumed_training_speed(mfu)
    if speed == CONSTANT:
        return constant_training_speed(mfu)
    if isinstance(speed, str) and (speed.startswith(PREFIX) or not (Path(speed).suffix or Path(speed).exists())):
        speed = published_training_speed(speed)
    elif isinstance(speed, str | Path):
        speed = load_training_law(speed)
    if mfu is None:
        return speed
    if isinstance(speed, TrainingLaw):
        raise InputError(f"`mfu` and the measured training speed {speed.name} exclude each other: give one of them")
    return with_mfu(speed, mfu)


def with_mfu(speed: MfuByExperts, mfu: float) -> MfuByExperts:
    """The same with this share of the peak at E = 1."""
    for assumed in (assumed_training_speed, constant_training_speed):
        if speed == assumed():
            return assumed(mfu)
    source = f"{speed.source}; MFU at E = 1 as given, {mfu:g}"
    return replace(speed, mfu=mfu, at=1.0, mfu_spread=0.0, error=None, source=source)


def load_training_law(path: str | Path) -> TrainingLaw:
    """The law in a file that `scaling training-speed` wrote.

    Raises InputError naming file and field where it is missing, of another kind, damaged, or impossible.
    """
    return TRAINING_LAW.value(TrainingLaw, TRAINING_LAW.read(path), str(path))
