"""End-to-end measurements of serving engines: each row's model, device, formats and layout, and the terms of its time.

The format is that of ai-dynamo/aiconfigurator's silicon tables: `model_path`, `system`, `backend`, `precision`, `isl`
and `osl` (prompt and output tokens), `batch_size` (concurrency), `tp_size`, `attention_dp_size`, `moe_tp_size`,
`moe_ep_size`, `mode` (agg: one pool; disagg: prefill and decode apart), `silicon_ttft_ms`, `silicon_tpot_ms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.readers import read_table
from scaling.architecture import Architecture
from scaling.arrays import Array, Booleans
from scaling.errors import InputError
from scaling.serving.devices import DEVICES, device
from scaling.serving.engine import iteration_terms, prompt_terms
from scaling.serving.engine_speed import TERMS
from scaling.serving.hub_config import read_hub_config
from scaling.serving.precision import served_in
from scaling.serving.service import Layout, ModelSizes, Service

_NEEDED = ("model_path", "system", "backend", "isl", "osl", "batch_size", "tp_size", "silicon_tpot_ms")
_WEIGHTS = {"fp8": "fp8", "fp4": "nvfp4", "nvfp4": "nvfp4", "bf16": "bf16", "bfloat16": "bf16", "fp16": "bf16",
            "float16": "bf16", "int8": "int8", "int4": "int4", "mxfp4": "mxfp4"}  # fmt: skip
_FP8_CACHE = ("trtllm",)  # TensorRT-LLM's quantised checkpoints hold an FP8 cache; vLLM and SGLang keep 16 bits
_IN_MXFP4 = "gpt-oss"  # experts in MXFP4 and all else in 16 bits, whatever the column says


@dataclass(frozen=True, eq=False)
class EndToEnd:
    """Rows that were read: `frame` with `model`, `engine`, `device`, `precision`, and per row the terms of an iteration
    and of a prompt (rows, terms), measured seconds, and why others were left out."""

    frame: pd.DataFrame
    iterations: Array
    prompts: Array
    tpot_s: Array
    ttft_s: Array
    left_out: tuple[tuple[str, int], ...]

    def only(self, rows: Booleans) -> EndToEnd:
        """Some of the rows."""
        return EndToEnd(
            self.frame[rows].reset_index(drop=True), self.iterations[rows], self.prompts[rows], self.tpot_s[rows],
            self.ttft_s[rows], self.left_out,
        )  # fmt: skip


def read_end_to_end(path: str | Path, configs: str | Path, *, mode: str = "agg") -> EndToEnd:
    """The rows of one `mode`, each model described by a hub configuration in the folder `configs`.

    A configuration is called as the part of `model_path` after the slash, perhaps with more before it. Raises
    InputError for a missing column, a model without configuration, and a cell that is no positive number, by row.
    """
    table = read_table(Path(path))
    missing = [name for name in _NEEDED if name not in table]
    if missing:
        raise InputError(f"{path}: the column {missing[0]} is missing; end-to-end tables have {', '.join(_NEEDED)}")
    if "mode" in table:
        table = table[table["mode"].fillna("agg") == mode]
    known = table["system"].map(_device_name)
    left_out = [("a device that is not in the table", int(known.isna().sum()))]
    table = table[known.notna()].assign(device=known[known.notna()])
    models = {name: architecture_of(str(name), Path(configs)) for name in table["model_path"].unique()}
    kinds = {name: ModelSizes.of_architecture(model) for name, model in models.items()}
    iterations, prompts, measured, frame = [], [], [], []
    for number, row in zip(table.index, _records(table), strict=True):
        place = f"{path}: row {number + 1}"
        service, layout = _service(row, models[row["model_path"]], place), _layout(row)
        batch = _number(row, "batch_size" if mode == "agg" else "decode_batch_size", place)
        if layout.by_expert and layout.n_devices == _recorded_devices(row):
            batch *= float(layout.n_devices)  # of one device; where devices are multiplied the table has that of all
        sizes, on = kinds[row["model_path"]], device(row["device"])
        iterations.append(iteration_terms(sizes, on, batch, service, layout, mixed=mode == "agg"))
        prompts.append(prompt_terms(sizes, on, service, layout))
        measured.append((_number(row, "silicon_tpot_ms", place), float(row.get("silicon_ttft_ms", np.nan))))
        frame.append(
            {
                "row": number + 1,
                "model": str(row["model_path"]),
                "engine": str(row["backend"]),
                "device": row["device"],
                "precision": _WEIGHTS.get(str(row.get("precision")), "bf16"),
                "concurrency": batch,
                "devices": layout.n_devices,
                "by_expert": layout.by_expert,
            }
        )
    times = np.array(measured).reshape(-1, 2) / 1e3
    shape = (len(frame), len(TERMS))
    return EndToEnd(
        pd.DataFrame(frame), np.reshape(iterations, shape), np.reshape(prompts, shape), times[:, 0], times[:, 1],
        tuple((why, count) for why, count in left_out if count),
    )  # fmt: skip


def architecture_of(model_path: str, configs: Path) -> Architecture:
    """The configuration of a model in a folder. Raises InputError naming the file that is missing."""
    name = model_path.rpartition("/")[2]
    for file in (configs / f"{name}.json", *sorted(configs.glob(f"*{name}.json"))):
        if file.is_file():
            return read_hub_config(file)
    raise InputError(f"{configs}: no {name}.json, the configuration of {model_path}")


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _device_name(system: object) -> str | None:
    """The row of the device table: h100_sxm is h100."""
    name = str(system).lower().removesuffix("_sxm")
    return name if name in DEVICES else None


def _service(row: Mapping[str, Any], model: Architecture, place: str) -> Service:
    service = Service(prompt=int(_number(row, "isl", place)), generated=int(_number(row, "osl", place)))
    on, precision = device(row["device"]), row.get("precision")
    if _IN_MXFP4 in model.name.lower():
        service = served_in(service, on, weights="bf16", experts="mxfp4")
    elif isinstance(precision, str):
        if precision not in _WEIGHTS:
            raise InputError(f"{place}: precision: found {precision!r}; known: {', '.join(_WEIGHTS)}")
        service = served_in(service, on, weights=_WEIGHTS[precision])
    quantised = isinstance(precision, str) and _WEIGHTS.get(precision) != "bf16"
    return replace(service, bytes_per_kv=1.0) if quantised and row["backend"] in _FP8_CACHE else service


def _layout(row: Mapping[str, Any]) -> Layout:
    """Devices, and whether attention is data-parallel.

    Where the same devices split experts both ways the tables multiply the two (64 of a node of 8): these are one.
    """
    split, experts = (int(_given(row, name) or 1) for name in ("moe_tp_size", "moe_ep_size"))
    devices = _recorded_devices(row)
    apart = int(_given(row, "attention_dp_size") or 1) > 1
    return Layout(split if split == experts > 1 and split * experts == devices else devices, apart)


def _recorded_devices(row: Mapping[str, Any]) -> int:
    return int(_given(row, "tp_size") or 1) * int(_given(row, "attention_dp_size") or 1)


def _given(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    return None if value is None or not np.isfinite(float(value)) else float(value)


def _number(row: Mapping[str, Any], name: str, place: str) -> float:
    try:
        value = float(row[name])
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: {name} is not a number: {row[name]!r}") from error
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"{place}: {name} must be a positive number, found {row[name]!r}")
    return value
