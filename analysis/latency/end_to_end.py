"""End-to-end measurements of serving engines: each row's model, device, formats and layout, and the terms of its time.

The format is that of ai-dynamo/aiconfigurator's silicon tables: `model_path`, `system`, `backend`, `precision`, `isl`
and `osl` (prompt and output tokens), `batch_size` (concurrency), `tp_size`, `pp_size`, `attention_dp_size`,
`moe_tp_size`, `moe_ep_size`, `mode` (agg: one pool; disagg: prefill and decode apart), `silicon_ttft_ms`,
`silicon_tpot_ms`. Other spellings of these columns are known too (`COLUMNS`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.latency.reported_names import DEVICES as DEVICE_NAMES
from analysis.latency.reported_names import NAMES, PRECISIONS, WEIGHTS
from analysis.tables.readers import read_table
from scaling.architecture import Architecture
from scaling.arrays import Array, Booleans
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.serving.device import Device
from scaling.serving.devices import DEVICES, device
from scaling.serving.engine import iteration_terms, prompt_terms
from scaling.serving.engine_speed import TERMS
from scaling.serving.hub_config import read_hub_config
from scaling.serving.precision import number_format, served_in
from scaling.serving.public_models import public_model
from scaling.serving.replicas import iteration, seconds_of
from scaling.serving.service import Layout, ModelSizes, Service

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "model_path": ("model_path", "model", "model_id"),
    "system": ("system", *DEVICE_NAMES),
    "backend": ("backend", "engine", "framework"),
    "precision": WEIGHTS,
    "isl": NAMES["prompt"],
    "osl": NAMES["generated"],
    "batch_size": NAMES["batch"],
    "tp_size": NAMES["n_devices"],
    "pp_size": ("pp_size", "pipeline_parallel_size", "pp"),
    "attention_dp_size": ("attention_dp_size", "data_parallel_size", "dp_size", "dp"),
    "silicon_tpot_ms": ("silicon_tpot_ms", "tpot_ms", "median_tpot_ms", "mean_tpot_ms"),
    "silicon_ttft_ms": ("silicon_ttft_ms", "ttft_ms", "median_ttft_ms", "mean_ttft_ms"),
}
"""Columns, and the spellings of each, the first that a table has."""
_NEEDED = ("model_path", "system", "isl", "osl", "batch_size", "tp_size", "silicon_tpot_ms")
_SPELLINGS = {**PRECISIONS, "fp8_static": "fp8", "int8_wo": "int8", "int4_wo": "int4", "w4a16_mxfp4": "mxfp4"}
_FP8_CACHE = ("trtllm", "tensorrt-llm", "tensorrt_llm")  # quantised checkpoints hold an FP8 cache; others keep 16 bits
_IN_MXFP4 = "gpt-oss"  # experts in MXFP4 and all else in 16 bits, whatever the column says


_MOST = 1e9  # of any count, and of ms
_WHOLE = ("isl", "osl", "tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
_OF_POOL = ("batch_size", "tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")


class Unreadable(InputError):
    """A row that says nothing of an engine's speed: `why` is the reason, which others share."""

    def __init__(self, place: str, why: str, found: str = "") -> None:
        super().__init__(f"{place}: {why}{found}")
        self.why = why


@dataclass(frozen=True, eq=False)
class EndToEnd:
    """Rows that were read: `frame` with `model`, `engine`, `device`, `precision`, and per row the terms of an iteration
    and of a prompt (rows, terms), measured seconds, time per token at shares of the peaks that are only assumed
    (`scaling.serving.step_time.ASSUMED`), and why others were left out."""

    frame: pd.DataFrame
    iterations: Array
    prompts: Array
    tpot_s: Array
    ttft_s: Array
    assumed_s: Array
    left_out: tuple[tuple[str, int], ...]

    def only(self, rows: Booleans) -> EndToEnd:
        """Some of the rows."""
        return EndToEnd(
            self.frame[rows].reset_index(drop=True), self.iterations[rows], self.prompts[rows], self.tpot_s[rows],
            self.ttft_s[rows], self.assumed_s[rows], self.left_out,
        )  # fmt: skip


def is_end_to_end(table: pd.DataFrame) -> bool:
    """Whether a table has the columns of end-to-end measurements: models, devices and times per token."""
    return not _lacking(table)


def read_end_to_end(
    path: str | Path, configs: str | Path | None, *, mode: str = "agg", tolerant: bool = False
) -> EndToEnd:
    """The rows of one `mode`, each model described by a hub configuration in the folder `configs`; without a folder it
    is the public model of its name.

    A configuration is called as the part of `model_path` after the slash, perhaps with more before it. Raises
    InputError for a missing column, a model without configuration, and a cell that is no positive number, by row;
    `tolerant` leaves such rows out and counts them.
    """
    return end_to_end(read_table(Path(path)), str(path), configs, mode=mode, tolerant=tolerant)


def end_to_end(
    table: pd.DataFrame, origin: str, configs: str | Path | None, *, mode: str = "agg", tolerant: bool = False
) -> EndToEnd:
    """The rows of a table; `origin` names it in messages (`read_end_to_end`)."""
    apart = {"batch_size", "tp_size"} if mode != "agg" else set()
    if missing := [name for name in _lacking(table) if name not in apart]:
        raise InputError(f"{origin}: the column {missing[0]} is missing; end-to-end tables have {', '.join(_NEEDED)}")
    table = table.rename(columns={_found(table, name): name for name in COLUMNS if _found(table, name)})
    left_out: Counter[str] = Counter()
    modes = table["mode"].map(_mode) if "mode" in table else pd.Series("agg", index=table.index)
    left_out.update(f"mode {other}" for other in modes[modes != mode])
    table = table[modes == mode]
    reader = _Reader(origin, None if configs is None else Path(configs), mode)
    rows: list[_Row] = []
    for number, row in zip(table.index, _records(table), strict=True):
        try:
            rows.append(reader.row(number + 1, row))
        except Unreadable as refused:
            if not tolerant and refused.why != _NO_DEVICE:
                raise
            left_out[refused.why] += 1
    shape = (len(rows), len(TERMS))
    frame = pd.DataFrame([row.frame for row in rows], columns=list(_FRAME))
    return EndToEnd(
        frame,
        np.reshape([row.iteration for row in rows], shape),
        np.reshape([row.prompt for row in rows], shape),
        np.array([row.tpot_ms for row in rows], dtype=float) / 1e3,
        np.array([row.ttft_ms for row in rows], dtype=float) / 1e3,
        np.array([row.assumed_s for row in rows], dtype=float),
        tuple(left_out.items()),
    )  # fmt: skip


def architecture_of(model_path: str, configs: Path | None) -> Architecture:
    """The configuration of a model in a folder, or without a folder the public model of that name.

    Raises InputError naming the file that is missing, or the public models.
    """
    name = model_path.rpartition("/")[2]
    if configs is None:
        return public_model(name)
    every = sorted(configs.glob("*.json"))
    files = [file for file in every if file.name == f"{name}.json"]
    files += [file for file in every if file.name.endswith(f"{name}.json")]
    if not files:
        raise InputError(f"no {name}.json in {configs}, the configuration of {model_path}")
    return read_hub_config(files[0])


@dataclass(frozen=True)
class _Row:
    frame: dict[str, Any]
    iteration: Array
    prompt: Array
    tpot_ms: float
    ttft_ms: float
    assumed_s: float


_FRAME = ("row", "model", "engine", "device", "precision", "concurrency", "devices", "by_expert")
_NO_DEVICE = "a device that is not in the table"


@dataclass
class _Reader:
    """Reads rows of one file; models are read once."""

    origin: str
    configs: Path | None
    mode: str
    models: dict[str, tuple[Architecture, ModelSizes] | str] = field(default_factory=dict)

    def row(self, number: int, row: Mapping[str, Any]) -> _Row:
        """One row. Raises Unreadable."""
        place = f"{self.origin}: row {number}"
        if self.mode != "agg":  # time per token is that of the devices that decode
            row = {**row, **{name: row.get(f"decode_{name}") for name in _OF_POOL}}
        name = _device_name(row["system"])
        if name is None:
            raise Unreadable(place, _NO_DEVICE, f": {row['system']!r}; it has {listed(DEVICES)}")
        on = device(name)
        model, sizes = self.model(row["model_path"], place)
        try:
            service = _service(row, model, on, place)
            layout = _layout(row, place)
            batch = _number(row, "batch_size", place)
            # Stages in a row of devices hold a part of the sequences each, and a token passes all of them.
            batch /= _given(row, "pp_size", place) or 1.0
            # The batch of data-parallel attention is that of one of its ranks, and ranks are multiplied as devices are.
            batch *= _given(row, "attention_dp_size", place) or 1.0
            assumed = replace(service, apart=self.mode != "agg")
            return _Row(
                {
                    "row": number,
                    "model": str(row["model_path"]),
                    "engine": str(row.get("backend", "")),
                    "device": name,
                    "precision": _precision(row, place) or "bf16",
                    "concurrency": batch,
                    "devices": layout.n_devices,
                    "by_expert": layout.by_expert,
                },
                iteration_terms(sizes, on, batch, service, layout, mixed=self.mode == "agg"),
                prompt_terms(sizes, on, service, layout),
                _number(row, "silicon_tpot_ms", place),
                _given(row, "silicon_ttft_ms", place) or np.nan,
                float(seconds_of(iteration(sizes, on, batch, assumed, layout), assumed)),
            )
        except Unreadable:
            raise
        except InputError as refused:
            raise Unreadable(place, str(refused)) from refused

    def model(self, path: object, place: str) -> tuple[Architecture, ModelSizes]:
        """The model of this name. Raises Unreadable where it has no configuration that can be read."""
        name = path if isinstance(path, str) else ""
        if name not in self.models:
            try:
                if not name:
                    raise InputError("a row without a model")
                model = architecture_of(name, self.configs)
                self.models[name] = (model, ModelSizes.of_architecture(model))
            except InputError as refused:
                self.models[name] = str(refused)
        found = self.models[name]
        if isinstance(found, str):
            raise Unreadable(place, found)
        return found


def _found(table: pd.DataFrame, column: str) -> str | None:
    """The name that a column has in a table."""
    return next((name for name in COLUMNS[column] if name in table), None)


def _lacking(table: pd.DataFrame) -> list[str]:
    return [column for column in _NEEDED if _found(table, column) is None]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _mode(cell: object) -> str:
    """agg, disagg, or what else stands there; a blank cell is agg."""
    word = "" if cell is None or cell != cell else str(cell).strip().lower()
    return "disagg" if word.startswith("disagg") else "agg" if word in ("", "aggregated") else word


def _device_name(system: object) -> str | None:
    """The row of the device table: h100_sxm is h100."""
    name = str(system).strip().lower().removeprefix("nvidia ").replace("-sxm", "_sxm").removesuffix("_sxm")
    return name if name in DEVICES else None


def _precision(row: Mapping[str, Any], place: str) -> str | None:
    """The number format of the weights; None where the cell is blank."""
    value = row.get("precision")
    word = "" if value is None or value != value else str(value).strip()
    if word and word.lower() not in _SPELLINGS:
        raise Unreadable(place, f"precision: no number format {word!r}", f"; known: {', '.join(_SPELLINGS)}")
    return _SPELLINGS[word.lower()] if word else None


def _service(row: Mapping[str, Any], model: Architecture, on: Device, place: str) -> Service:
    service = Service(prompt=int(_number(row, "isl", place)), generated=int(_number(row, "osl", place)))
    precision = _precision(row, place)
    if _IN_MXFP4 in model.name.lower():
        service = served_in(service, on, weights="bf16", experts="mxfp4")
    elif precision is not None:
        chosen = number_format(precision, "precision")
        if chosen.arithmetic in ("", *dict(on.peaks)):
            service = served_in(service, on, weights=precision)
        else:  # stored so, and widened to the device's own format before it is multiplied
            service = replace(service, bytes_per_weight=chosen.bits / 8)
    quantised = precision not in (None, "bf16", "fp16", "fp32")
    engine = str(row.get("backend", "")).strip().lower()
    return replace(service, bytes_per_kv=1.0) if quantised and engine in _FP8_CACHE else service


def _layout(row: Mapping[str, Any], place: str) -> Layout:
    """Devices, and whether attention is data-parallel.

    Where the same devices split experts both ways the tables multiply the two (64 of a node of 8): these are one.
    """
    split, experts = (int(_given(row, name, place) or 1) for name in ("moe_tp_size", "moe_ep_size"))
    devices = _recorded_devices(row, place)
    apart = int(_given(row, "attention_dp_size", place) or 1) > 1
    return Layout(split if split == experts > 1 and split * experts == devices else devices, apart)


def _recorded_devices(row: Mapping[str, Any], place: str) -> int:
    return int(_number(row, "tp_size", place)) * int(_given(row, "attention_dp_size", place) or 1)


def _given(row: Mapping[str, Any], name: str, place: str) -> float | None:
    """A number, or None where the cell is blank, 0 or absent. Raises Unreadable for a text and a negative number."""
    value = row.get(name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise Unreadable(place, f"{name} is not a number", f": {value!r}") from error
    if np.isfinite(number) and number < 0:
        raise Unreadable(place, f"{name} must not be negative", f", found {value!r}")
    if not number <= _MOST and not np.isnan(number):
        raise Unreadable(place, f"{name} must be at most {_MOST:g}", f", found {value!r}")
    if name in _WHOLE and number % 1 > 0:
        raise Unreadable(place, f"{name} must be a whole number", f", found {value!r}")
    return number if number > 0 else None


def _number(row: Mapping[str, Any], name: str, place: str) -> float:
    value = _given(row, name, place)
    if value is None:
        raise Unreadable(place, f"{name} must be a positive number", f", found {row.get(name)!r}")
    return value
