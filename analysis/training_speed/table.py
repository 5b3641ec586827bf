"""Measured training speed as a table: one row a configuration, with its shape and device-seconds a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.latency.cells import (
    numeric,
    refuse,
    refuse_contradictions,
    refuse_other_devices,
    usable,
    with_dense_rows,
)
from analysis.latency.reported_names import DEVICES, NAMES, plain_name
from analysis.latency.table import device_in
from analysis.tables import study
from analysis.tables.counts import with_counts
from analysis.tables.expressions import where_selected
from analysis.tables.mapping import TIED, mapped
from analysis.tables.names import with_our_names
from analysis.tables.readers import read_table
from analysis.tables.reading_log import CheckedTable, ReadingLog
from analysis.tables.rows import floats
from analysis.tables.status_words import with_finished
from analysis.training_speed.measures import MEASURES, STEP, device_seconds, lacking, with_measures
from scaling.arrays import Array
from scaling.columns import EXPERTS
from scaling.errors import InputError
from scaling.expression import Expression
from scaling.formatting import listed, si
from scaling.serving.calibration import cpu_cores
from scaling.serving.device import Device
from scaling.serving.devices import device, names
from scaling.serving.service import ModelSizes
from scaling.serving.training_work import TERMS, TrainingWork

SHAPE = (EXPERTS, "top_k", "n_active", "n_total", "n_router", "n_lookup", "n_layers", "d_model")
SETTING = ("batch_tokens", "seq_len", "devices")
OPTIONAL = ("n_layers", "d_model", "batch_tokens", "seq_len")
"""Columns without which terms are absent: those of layers and widths, of steps, of attention."""
_NUMBERS = (
    *(EXPERTS, "top_k", "n_active", "n_total", "n_router", "n_layers", "d_model", "vocab_size", TIED),
    *("batch_tokens", "seq_len", "devices", "threads", "tokens", "tokens_own", "compile_s", "busy_cores"),
    "trunks_together",
)
_ALIASES = {name: NAMES[name] for name in ("n_layers", "d_model", EXPERTS, "top_k", "n_router")} | {
    "devices": ("devices", *NAMES["n_devices"], "gpus", "num_devices", "world_size"),
    "batch_tokens": ("batch_tokens", "tokens_per_step", "tokens_per_batch", "global_batch_tokens"),
    "seq_len": ("seq_len", "sequence_length", "seq_length", "context_length", "max_seq_len"),
    "device_kind": ("device_kind", *DEVICES),
}
_COMPUTES_OTHERS = ("dense", "mixed")  # dispatches whose products are not those of k experts
LOOP = "loop"
"""The kernel that takes the experts' rows block by block (scaling/model/moe/kernels.py)."""


@dataclass(frozen=True, kw_only=True)
class TrainingTable(CheckedTable):
    """Configurations with their measured speed, as numbers; NaN in a column that the table lacks.

    Beside shape and setting: `seconds`, device-seconds a token, the median over the `rows` of the configuration, and
    `spread`, the largest over the smallest of them; `busy_cores`; `loops`, whether the experts' kernel goes block by
    block. `on`: the device.
    """

    on: Device

    @property
    def seconds(self) -> Array:
        """Device-seconds a token."""
        return self.column("seconds")

    def terms(self) -> Array:
        """The terms of each row (rows, terms) in the order of `TERMS`; 0 where the table lacks what they need."""
        terms = np.zeros((len(self), len(TERMS)))
        for _, rows in self.frame.reset_index(drop=True).groupby([EXPERTS, "top_k", "loops"], sort=False):
            terms[rows.index] = work_of(rows).terms(self.on).T
        return np.nan_to_num(terms)


def work_of(rows: pd.DataFrame) -> TrainingWork:
    """What a token asks in rows of one E, one k and one kernel."""
    of = {name: rows[name].to_numpy(float) for name in (*SHAPE, *SETTING)}
    models = ModelSizes(
        n_active=of["n_active"],
        n_total=of["n_total"],
        kv_elements_per_token=2 * of["n_layers"] * of["d_model"],
        n_layers=of["n_layers"],
        d_model=of["d_model"],
        n_experts=int(of[EXPERTS][0]),
        top_k=float(of["top_k"][0]),
        n_router=of["n_router"],
        n_lookup=of["n_lookup"],
    )
    tokens = np.where(np.isnan(of["batch_tokens"]), np.inf, of["batch_tokens"] / of["devices"])
    return TrainingWork.of(models, tokens, of["seq_len"], of["devices"], loops=bool(rows["loops"].iloc[0]))


def read_training(
    source: str | Path,
    mapping: Mapping[str, str] | None = None,
    where: str | None = None,
    device_name: str | None = None,
) -> TrainingTable:
    """The training speeds of a study folder or of any table of runs.

    A row needs n_active, n_experts (and n_total, top_k where routed) and a speed: `tokens_per_s`, `step_time_ms` with
    `batch_tokens`, `train_s` or `wall_s` with `tokens`, `gpu_hours` (device-hours of the run) with `tokens`, or `mfu`
    (a share or percent of the peak, of 6 n_active FLOPs a token). Runs that did not finish, and trunks trained side by
    side, are left out. Raises InputError naming rows and columns where they contradict each other, are impossible on
    the device, or lack what they need.
    """
    path, log, name = Path(source), ReadingLog(), str(source)
    frame = study.read_study(path, log) if path.is_dir() else read_table(path)
    frame, _ = mapped(frame, mapping or {}, name, log, (*MEASURES, "busy_cores"))
    asked = Expression(where, "`where`").names if where is not None else ()
    frame = _by_our_names(with_our_names(frame, asked, log), log)
    frame = with_finished(where_selected(frame, where, log), asked, log)
    _require_rows(frame, name, log)
    frame = with_measures(with_dense_rows(frame, log), name, log)
    frame = _as_numbers(frame, name, log)
    frame = _in_turn(with_counts(frame, log), log)
    frame = _with_shapes(frame, name, log)
    on = _device_of(frame, device_name, name)
    devices = _devices(frame, on, log)
    seconds, told = device_seconds(frame, devices, on.peak_flops, name, log)
    frame, needs = frame.assign(seconds=seconds, told=told), lacking(frame)
    frame = usable(frame, [EXPERTS, "top_k", "n_active", "n_total"], log, ["n_router"])
    frame = log.drop(frame, frame["seconds"].isna(), "no measured speed")
    frame = usable(frame, [column for column in OPTIONAL if frame[column].notna().any()], log)
    _require_rows(frame, name, log, needs)
    refuse_contradictions(frame, name)
    on = _possible(frame, on, name, log)
    notes = (*log.notes, *([f"left out: {'; '.join(log.row_numbers)}"] if log.row_numbers else []))
    return TrainingTable(by_configuration(frame), name, log.dropped, notes, on=on)


def _require_rows(frame: pd.DataFrame, source: str, log: ReadingLog, needs: str = "") -> None:
    if frame.empty:
        reasons = (*log.row_numbers, *(f"{count} with {why}" for why, count in log.dropped), needs)
        told = "; ".join(reason for reason in reasons if reason) or "the table has none"
        raise InputError(f"{source}: no row with a training speed is left ({told})")


def _by_our_names(frame: pd.DataFrame, log: ReadingLog) -> pd.DataFrame:
    """The frame with our names for the spellings of `_ALIASES`."""
    plain = {plain_name(str(name)): str(name) for name in reversed(frame.columns)}
    renamed = {}
    for ours, spellings in _ALIASES.items():
        theirs = next((plain[spelling] for spelling in spellings if spelling in plain), None)
        described = theirs is not None and frame[theirs].astype(str).str.startswith("{").any()
        if theirs is not None and ours not in frame and not described:
            renamed[theirs] = ours
            log.notes.append(f"the column {theirs} is read as {ours}")
    return frame.rename(columns=renamed)


def _as_numbers(frame: pd.DataFrame, source: str, log: ReadingLog) -> pd.DataFrame:
    remedy = "write one number a cell, or leave these rows out with `where`"
    there = [name for name in _NUMBERS if name in frame]
    return frame.assign(**{name: numeric(frame, name, source, log, remedy) for name in there})


def _in_turn(frame: pd.DataFrame, log: ReadingLog) -> pd.DataFrame:
    """The rows whose time is their own, of a dispatch that computes the k experts of a token."""
    frame = log.drop(frame, floats(frame, "trunks_together") > 1, "trunks trained side by side, whose time is shared")
    if "dispatch" not in frame:
        return frame
    others = frame["dispatch"].isin(_COMPUTES_OTHERS).to_numpy(bool) & (floats(frame, EXPERTS) > 1)
    return log.drop(frame, others, f"dispatch {listed(_COMPUTES_OTHERS)}, which computes more than k experts a token")


def _with_shapes(frame: pd.DataFrame, source: str, log: ReadingLog) -> pd.DataFrame:
    """The frame with all columns of shape and setting, NaN where unknown, dense models as E = k = 1.

    Raises InputError where n_active or n_experts is missing, and n_total or top_k of routed rows.
    """
    missing = [name for name in ("n_active", EXPERTS) if name not in frame]
    if missing:
        there = listed(frame.columns, most=40)
        raise InputError(
            f"{source}: the column {', '.join(missing)} is missing; it has {there}. Rename with `map` {missing[0]}=NAME"
        )
    experts = floats(frame, EXPERTS)
    routed = experts > 1
    for name in ("n_total", "top_k"):
        refuse(frame, routed & np.isnan(floats(frame, name)), name, "is missing where n_experts is above 1", source,
               "it says which products are the experts'", cells=False)  # fmt: skip
    if "n_router" not in frame and routed.any():
        log.notes.append("n_router is not in the table: routers of 0 parameters")
    lookup = np.where(floats(frame, TIED) == 1, 0.0, floats(frame, "vocab_size") * floats(frame, "d_model"))
    kernel = frame["kernel"] if "kernel" in frame else pd.Series("", index=frame.index)
    return frame.assign(
        top_k=np.where(routed, floats(frame, "top_k"), 1.0),
        n_total=np.where(routed, floats(frame, "n_total"), floats(frame, "n_active")),
        n_router=np.nan_to_num(floats(frame, "n_router")),
        n_lookup=np.nan_to_num(lookup),
        loops=(kernel == LOOP).to_numpy(bool) & routed,
        busy_cores=floats(frame, "busy_cores"),
        **{name: floats(frame, name) for name in OPTIONAL},
    )


def _device_of(frame: pd.DataFrame, name: str | None, source: str) -> Device:
    """The named device, else the one that every row names. Raises InputError where nothing says."""
    kinds = list(frame["device_kind"].dropna().astype(str).unique()) if "device_kind" in frame else list[str]()
    if name is not None and (name != "cpu" or "device" not in frame):
        named = device(name)
        if len(kinds) and named.name != "cpu":
            refuse_other_devices(frame, "device_kind", named, source)
        return named
    if "device" in frame and len(cells := frame["device"].dropna().unique()):
        found = [device_in(cell, f"{source}: `device`") for cell in cells]
        if len({one.name for one in found}) > 1:
            raise InputError(f"{source}: `device` {listed(one.name for one in found)} are mixed, and a law is of one")
        return max(found, key=lambda one: one.peak_flops)
    platforms = {*frame["platform"].dropna().astype(str).str.lower()} if "platform" in frame else set()
    if platforms == {"cpu"}:
        return device("cpu")
    if len(kinds) > 1:
        choice = f"choose with `where` 'device_kind == \"{kinds[0]}\"'"
        raise InputError(f"{source}: device_kind {listed(kinds)} are mixed, and a law is of one; {choice}")
    words = plain_name(str(kinds[0])).split("_") if len(kinds) else []
    fits = [known for known in names() if known != "cpu" and known.split("-")[0] in words]
    if not fits:
        raise InputError(f"{source}: the rows do not say on which device they trained; name it with `device`")
    return device(min(fits, key=len))


def _devices(frame: pd.DataFrame, on: Device, log: ReadingLog) -> Array:
    """How many devices work on each row: a thread of a CPU is its part of the cores."""
    if on.name == "cpu":
        threads = floats(frame, "threads")
        threads = np.where(np.isnan(threads), cpu_cores(), threads)
        log.notes.append(f"a CPU thread is 1/{cpu_cores()} of the device: the cores of this computer")
        return threads / cpu_cores()
    if "devices" not in frame:
        log.notes.append("no column says on how many devices a run trained (devices, num_gpus): 1 is assumed")
    return np.where(np.isnan(devices := floats(frame, "devices")), 1.0, devices)


def _possible(frame: pd.DataFrame, on: Device, source: str, log: ReadingLog) -> Device:
    """The device, after raising InputError, by row, for tokens whose 6 n_active FLOPs would exceed its peak.

    A CPU's peak is measured, and beside other work it comes out too low: the fastest row raises it, which is said.
    """
    weights = floats(frame, "n_active") - floats(frame, "n_lookup")
    shares = 6 * weights / (on.peak_flops * floats(frame, "seconds"))
    fastest = float(np.max(shares))
    if fastest > 1 and on.name == "cpu":
        peak = on.peak_flops * fastest
        log.notes.append(
            f"the CPU's peak is taken as {si(peak)} FLOP/s, of the fastest row: {si(on.peak_flops)} measured"
        )
        return replace(on, peak_flops=peak)
    columns = list(dict.fromkeys(frame["told"][shares > 1])) or [STEP]
    why = f"is faster than {on.title} can be (up to {fastest:.3g} times its peak)"
    refuse(frame, shares > 1, columns[0], why, source, "check units, the number of devices and `device`")
    return on


def by_configuration(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a shape and setting: the median of its rows, whose times are not independent."""
    keys = [*SHAPE, *SETTING, "loops"]
    frame = frame.assign(devices=np.where(np.isnan(split := floats(frame, "devices")), 1.0, split))
    groups = frame.groupby(keys, sort=False, dropna=False)
    found = groups["seconds"].agg(seconds="median", rows="size", least="min", most="max")
    found["busy_cores"] = groups["busy_cores"].max()
    return found.assign(spread=found["most"] / found["least"]).drop(columns=["least", "most"]).reset_index()
