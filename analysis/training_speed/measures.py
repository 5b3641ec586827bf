"""Measured training speeds as people write them: device-seconds a token from rates, step times, hours and MFU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.latency.cells import not_measured, refuse
from analysis.latency.reported_names import measure_of, plain_name
from analysis.latency.time_units import with_milliseconds
from analysis.tables.numbers import numbers
from analysis.tables.reading_log import ReadingLog
from analysis.tables.rows import floats, ratio
from scaling.arrays import Array, Booleans
from scaling.columns import TOKENS
from scaling.errors import InputError
from scaling.formatting import listed

RATE, STEP, TRAIN, HOURS, MFU, WALL = "tokens_per_s", "step_time_ms", "train_s", "gpu_hours", "mfu", "wall_s"
MEASURES = (RATE, STEP, TRAIN, HOURS, MFU, WALL)
"""What says how fast a run trained, the most direct first."""
_NEEDS: Mapping[str, tuple[str, ...]] = {
    RATE: (),
    STEP: ("batch_tokens",),
    TRAIN: (TOKENS,),
    HOURS: (TOKENS,),
    MFU: (),
    WALL: (TOKENS,),
}
_STEPS = ("step_time", "time_per_step", "iteration_time", "iter_time", "time_per_iteration", "seconds_per_step")
_HOURS = ("gpu_hours", "device_hours", "chip_hours", "accelerator_hours", "tpu_hours", "h100_hours", "a100_hours")
_MFU = ("mfu", "model_flops_utilization", "model_flops_utilisation")
_PERCENT = ("_percent", "_pct", "_perc")
_PER_DEVICE = "tokens_per_s_per_device"
_APART, _MFU_APART = 1.1, 1.5  # of two measures of one row; MFU is counted with and without attention
_WHOLE_RUN = (HOURS, WALL)  # start-up and evaluation may be in them


def with_measures(frame: pd.DataFrame, source: str, log: ReadingLog) -> pd.DataFrame:
    """The frame with the columns of `MEASURES` that it has, as numbers in our units, and rates of a single device.

    A measurement that is a word (OOM) is none. Raises InputError where a column does not say its unit, where shares and
    percentages of a peak cannot be told apart, and where nothing says how fast the runs were.
    """
    frame = with_milliseconds(frame, STEP, _STEPS, source, log) if not {RATE, _PER_DEVICE} & {*frame} else frame
    plain = {plain_name(str(name)): str(name) for name in reversed(frame.columns)}
    renamed = {}
    for ours, theirs in ((HOURS, _HOURS), (MFU, (*_MFU, *(m + end for m in _MFU for end in _PERCENT)))):
        found = [plain[name] for name in theirs if name in plain]
        if len(found) > 1:
            raise InputError(f"{source}: {listed(found)} could each be `{ours}`: say which with `map` {ours}=NAME")
        if found and ours not in frame:
            renamed[found[0]] = ours
    for name in frame:
        measure = measure_of(str(name))
        if measure is not None and measure.kind == "generic" and measure.by != "user":
            renamed.setdefault(str(name), _PER_DEVICE if measure.by else RATE)
    percent = any(ours == MFU and theirs.rstrip(")").endswith("%") for theirs, ours in renamed.items())
    percent |= any(ours == MFU and plain_name(theirs).endswith(_PERCENT) for theirs, ours in renamed.items())
    frame = frame.rename(columns={theirs: ours for theirs, ours in renamed.items() if ours not in frame})
    there = [name for name in (*MEASURES, _PER_DEVICE) if name in frame]
    if not there:
        raise InputError(
            f"{source}: nothing says how fast the runs trained: a column {listed(MEASURES)} is needed; it has "
            f"{listed(frame.columns, most=40)}. Rename with `map` {RATE}=NAME"
        )
    columns = {}
    for name in there:
        not_measured(frame, name, source, log)
        columns[name] = np.where((read := numbers(frame[name]).floats) > 0, read, np.nan)
    frame = frame.assign(**columns)
    return _with_share(frame, source, percent, log) if MFU in frame else frame


def _with_share(frame: pd.DataFrame, source: str, percent: bool, log: ReadingLog) -> pd.DataFrame:
    """The frame with `mfu` as a share. Raises InputError where it may be a share or a percentage, or is above all."""
    values = floats(frame, MFU)
    known = values[~np.isnan(values)]
    if not percent and len(known) and (known > 1).any():
        small = np.nan_to_num(values, nan=2.0) <= 1
        why = "may be a share or percent, where others are above 1"
        refuse(frame, small, MFU, why, source, "write all as shares, or name the column mfu_percent")
        percent = True
        log.notes.append(f"{MFU} is above 1 in every row: taken as percent")
    if percent:
        values = values / 100
    refuse(frame, np.nan_to_num(values) > 1, MFU, "is more than the peak of the device", source)
    return frame.assign(**{MFU: values})


def device_seconds(
    frame: pd.DataFrame, devices: Array, peak_flops: float, source: str, log: ReadingLog
) -> tuple[Array, pd.Series[str]]:
    """Device-seconds a token of each row, and the column that says so: the first of `MEASURES` that the row has.

    `devices`: how many work on a row. Raises InputError naming rows whose columns contradict each other.
    """
    of = {name: floats(frame, name) for name in (*MEASURES, _PER_DEVICE, TOKENS, "batch_tokens", "n_active")}
    compile_s = np.nan_to_num(floats(frame, "compile_s"))
    own = np.where(np.isnan(own := floats(frame, "tokens_own")), of[TOKENS], own)
    per_token = {
        RATE: np.where(np.isnan(of[_PER_DEVICE]), ratio(devices, of[RATE]), ratio(1.0, of[_PER_DEVICE])),
        STEP: ratio(devices * of[STEP] / 1e3, of["batch_tokens"]),
        TRAIN: ratio(devices * of[TRAIN], of[TOKENS]),
        HOURS: ratio(3600 * of[HOURS], of[TOKENS]),
        MFU: ratio(6 * of["n_active"] / peak_flops, of[MFU]),
        WALL: ratio(devices * (of[WALL] - compile_s), own),
    }
    per_token = {name: np.where(values > 0, values, np.nan) for name, values in per_token.items()}
    _refuse_contradictions(frame, per_token, source)
    seconds = np.full(len(frame), np.nan)
    told = pd.Series("", index=frame.index, dtype=object)
    for name, values in per_token.items():
        taken = np.isnan(seconds) & np.isfinite(values)
        seconds, told = np.where(taken, values, seconds), told.mask(taken, name)
    for name in dict.fromkeys(told):
        if name in (WALL, HOURS):
            log.notes.append(f"speed from {name}: start-up and evaluation are in it")
        if name == MFU:
            log.notes.append(f"speed from {MFU}, taken as 6 n_active FLOPs a token over the device's peak")
    return seconds, told


def lacking(frame: pd.DataFrame) -> str:
    """What the measures that there are would need besides; "" where nothing."""
    needs = {
        need: name for name in MEASURES if name in frame for need in _NEEDS[name] if np.isnan(floats(frame, need)).all()
    }
    return "; ".join(f"{name} needs {need}" for need, name in needs.items())


def _refuse_contradictions(frame: pd.DataFrame, per_token: Mapping[str, Array], source: str) -> None:
    """Raises InputError where two columns of a row give different speeds; those of the whole run may be slower."""
    names = [name for name, values in per_token.items() if not np.isnan(values).all()]
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            least = _MFU_APART if MFU in (first, second) else _APART
            slower = ratio(per_token[second], per_token[first])
            wrong: Booleans = np.nan_to_num(slower, nan=1.0) < 1 / least
            if second not in _WHOLE_RUN:
                wrong = wrong | (np.nan_to_num(slower, nan=1.0) > least)
            if second == WALL:  # of the cell's own part of a trunk, evaluated apart
                continue
            worst = float(np.nanmax(np.maximum(slower, 1 / slower)[wrong])) if wrong.any() else 1.0
            why = f"and `{first}` contradict each other, by a factor of {worst:.3g} at most,"
            refuse(frame, wrong, second, why, source, "check units, tokens and the number of devices")
