"""Serving cost against measurements: whole engines, kernels of experts, collectives, a service in production.

    python -m benchmarks.serving [--json] [--data DIR]
    python -m benchmarks.serving --test FILE.csv --configs DIR [--json]
    python -m benchmarks.serving --ship [--data DIR]

The first fits engines anew from the folder of shared data ($SCALING_DATA; a file that is not there skips its keys) and
states errors on models and devices left out. `--test` says what the shipped speeds predict of other rows in the format
of `end_to_end.csv.gz`, of models that `DIR/<part of model_path after the slash>.json` describes. `--ship` prints the
numbers that `scaling/serving/published_speeds.py` holds. Errors are of abs(predicted / measured - 1).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.latency import expert_kernel
from analysis.latency.end_to_end import EndToEnd, read_end_to_end
from analysis.latency.engines import EngineFit, HeldOutErrors, errors_of, fit_engines
from analysis.tables.readers import read_table
from benchmarks.peer import ROOT
from benchmarks.production import deepseek_production
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.serving.collectives import (
    COLLECTIVES,
    HIGH_THROUGHPUT,
    LOW_LATENCY,
    Exchange,
    collective_seconds,
    dispatch_and_combine,
)
from scaling.serving.devices import device
from scaling.serving.engine_speed import TERMS, EngineSpeed
from scaling.serving.published_speeds import DEVICES, default_speed

_END_TO_END, _CONFIGS = "end_to_end.csv.gz", "model_configs"
_KERNELS, _WIDE = "moe_kernel_h100_vllm.parquet", "wideep_generation_h100_sglang.parquet"
_ALL_REDUCE, _NCCL = "allreduce_vllm_h200.parquet", "nccl_h200.parquet"
_LOW_LATENCY, _NORMAL = "deepep_low_latency_h200.parquet", "deepep_normal_h200.parquet"
_EVEN = ("balanced", "uniform")
_CONCURRENCIES = (0, 8, 32, 128, np.inf)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--data", metavar="DIR", type=Path, help="the folder of shared data, or its serving folder")
    parser.add_argument("--test", metavar="FILE", type=Path, help="rows to predict with the shipped speeds")
    parser.add_argument("--configs", metavar="DIR", type=Path, help="hub configurations of the models of --test")
    parser.add_argument("--ship", action="store_true", help="print the numbers of published_speeds.py, fitted again")
    options = parser.parse_args(arguments)
    try:
        if options.test is not None:
            document = tested(options.test, options.configs)
        elif options.ship:
            print(shipped_numbers(fitted(data_folder(options.data))))
            return 0
        else:
            document = measured(data_folder(options.data))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(document, indent=None if options.json else 2, allow_nan=False))
    return 0


def measured(folder: Path) -> dict[str, Any]:
    """Every figure whose files are in the folder, and `skipped`: the keys whose files are not."""
    document: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for keys, needed, part in _PARTS:
        if missing := [name for name in needed if not (folder / name).exists()]:
            skipped |= dict.fromkeys(keys, f"{folder / missing[0]} is not there")
        else:
            document |= part(folder)
    absent = [name for name in (_ALL_REDUCE, _NCCL, _LOW_LATENCY, _NORMAL) if not (folder / name).is_file()]
    for name in absent:
        skipped["collectives" if len(absent) == 4 else f"collectives of {name}"] = f"{folder / name} is not there"
    return document | ({"skipped": skipped} if skipped else {})


def fitted(folder: Path) -> tuple[EndToEnd, EngineFit]:
    """The aggregated rows of devices that have shipped speeds, attention not data-parallel, and their fit."""
    rows = read_end_to_end(folder / _END_TO_END, folder / _CONFIGS)
    rows = rows.only(_counted(rows.frame))
    return rows, fit_engines(rows)


def of_engines(folder: Path) -> dict[str, Any]:
    """Errors on models, devices and layouts left out, coverage, times to the first token, disaggregated rows."""
    rows, fit = fitted(folder)
    models = fit.models_left_out
    every = read_end_to_end(folder / _END_TO_END, folder / _CONFIGS)
    apart = every.only((every.frame["by_expert"] & every.frame["device"].isin(DEVICES)).to_numpy())
    return {
        "rows": len(rows.frame),
        "model_left_out": {error.group: _errors(error) for error in models},
        "mean_median": float(np.mean([error.median for error in models])),
        "mean_p90": float(np.mean([error.p90 for error in models])),
        "coverage": sum(error.inside for error in models) / sum(error.rows for error in models),
        "device_left_out": {error.group: _errors(error) for error in fit.devices_left_out},
        "in_sample": _errors(fit.in_sample),
        "assumed": _assumed(rows),
        "by_concurrency": _by_concurrency(rows, fit),
        "attention_data_parallel": _errors(errors_of("", fit.seconds(apart.iterations), apart.tpot_s, fit.interval)),
        "ttft": _first_tokens(rows, fit),
        "disaggregated": _disaggregated(folder, fit),
    }


def _assumed(rows: EndToEnd) -> dict[str, Any]:
    """Errors with shares of the peaks that are only assumed, as for a device without a measured speed."""
    return _summary(_off(rows.assumed_s, rows.tpot_s)) | {"ratio": float(np.median(rows.assumed_s / rows.tpot_s))}


def _by_concurrency(rows: EndToEnd, fit: EngineFit) -> dict[str, Any]:
    """Errors of tpot in sample by sequences at once."""
    answer = {}
    for low, high in itertools.pairwise(_CONCURRENCIES):
        some = rows.only(rows.frame["concurrency"].between(low, high, inclusive="right").to_numpy())
        if len(some.frame):
            name = f"{low + 1:g} to {high:g}" if np.isfinite(high) else f"above {low:g}"
            answer[name] = _errors(errors_of(name, fit.seconds(some.iterations), some.tpot_s, fit.interval))
    return answer


def _first_tokens(rows: EndToEnd, fit: EngineFit) -> dict[str, Any]:
    """Median of measured over modelled time to the first token: a closed loop of c users starts with a queue of c."""
    ratio = rows.ttft_s / (fit.seconds(rows.prompts) + 0.5 * fit.seconds(rows.iterations))
    held = rows.frame["concurrency"].to_numpy()
    known = np.isfinite(ratio)
    answer = {}
    for low, high in itertools.pairwise(_CONCURRENCIES):
        some = known & (held > low) & (held <= high)
        if some.any():
            name = f"{low + 1:g} to {high:g}" if np.isfinite(high) else f"above {low:g}"
            answer[name] = {"rows": int(some.sum()), "measured_over_modelled": float(np.median(ratio[some]))}
    return answer


def _disaggregated(folder: Path, fit: EngineFit) -> dict[str, Any]:
    """Rows whose decode devices name their concurrency, without which a time per token is not determined."""
    rows = read_end_to_end(folder / _END_TO_END, folder / _CONFIGS, mode="disagg", tolerant=True)
    left_out = _reasons(rows)
    if not len(rows.frame):
        return {"rows": 0, "left_out": left_out}
    error = errors_of("", fit.seconds(rows.iterations), rows.tpot_s, fit.interval)
    return _errors(error) | {"ratio": error.ratio, "left_out": left_out}


def of_kernels(folder: Path) -> dict[str, Any]:
    """Errors on shapes left out, of laws fitted to evenly routed rows: `median` and `p90` of BF16 and FP8 together."""
    on, answer, errors = device("h100"), {}, []
    for kernel in (expert_kernel.BF16, expert_kernel.FP8, expert_kernel.FP8_CUTLASS):
        rows = expert_kernel.read_kernel_rows(folder / _KERNELS, kernel, on)
        even = rows.frame["distribution"].isin(_EVEN).to_numpy()
        off = _off(expert_kernel.left_out_predictions(rows, even), rows.frame["seconds"].to_numpy())
        law = expert_kernel.fit_expert_kernel(expert_kernel.some(rows, even))
        answer[kernel.name] = {
            **_summary(off[even]),
            "uneven": _summary(off[~even]),
            "law": dict(zip(expert_kernel.COEFFICIENTS, law.coefficients, strict=True)),
        }
        if kernel != expert_kernel.FP8_CUTLASS:
            errors.append(off[even])
    return {"kernels": _summary(np.concatenate(errors)) | {"by_kernel": answer}}


def of_wide_kernels(folder: Path) -> dict[str, Any]:
    """Errors of the busiest device of wide expert parallelism, of a law fitted to evenly routed rows."""
    rows = expert_kernel.read_kernel_rows(folder / _WIDE, expert_kernel.WIDE, device("h100"))
    even = rows.frame["distribution"].isin(_EVEN).to_numpy()
    law = expert_kernel.fit_expert_kernel(expert_kernel.some(rows, even))
    off = _off(law.seconds(rows), rows.frame["seconds"].to_numpy())
    return {"wide_kernels": {"in_sample": _summary(off[even]), "uneven": _summary(off[~even])}}


def of_collectives(folder: Path) -> dict[str, Any]:
    """Errors by collective, of the tables that are there."""
    on, answer = device("h200"), {}

    def collective(name: str, rows: pd.DataFrame, width: float) -> Array:
        message = width * rows["message_size"].to_numpy(float)
        predicted = collective_seconds(COLLECTIVES[name], message, rows["num_gpus"].to_numpy(float), on)
        return _off(np.asarray(predicted), rows["latency"].to_numpy(float) / 1e3)

    if (folder / _ALL_REDUCE).is_file():
        table = read_table(folder / _ALL_REDUCE)
        for name, backend in (("all_reduce", "vllm_graph"), ("all_reduce eager", "vllm_eager")):
            answer[name] = _summary(collective(name, table[table["backend"] == backend], 2.0))
    if (folder / _NCCL).is_file():
        table = read_table(folder / _NCCL)
        for name in sorted(table["op_name"].unique()):
            some = table[table["op_name"] == name]
            widths = {"half": 2.0, "int8": 1.0}
            off = [
                collective(f"{name} nccl", some[some["nccl_dtype"] == kind], width) for kind, width in widths.items()
            ]
            answer[f"{name} nccl"] = _summary(np.concatenate(off))
    if (folder / _LOW_LATENCY).is_file():
        table = read_table(folder / _LOW_LATENCY)
        answer |= _exchanged("low latency", LOW_LATENCY, table, "{}_avg_t_us")
    if (folder / _NORMAL).is_file():
        table = read_table(folder / _NORMAL)
        times = ["dispatch_transmit_us", "combine_transmit_us"]  # with the best number of multiprocessors
        best = table.groupby(["hidden_size", "num_topk", "num_experts", "num_token"])[times].min().reset_index()
        answer |= _exchanged("high throughput", HIGH_THROUGHPUT, best, "{}_transmit_us")
    return {"collectives": answer} if answer else {}


def _exchanged(name: str, kernels: Exchange, table: pd.DataFrame, column: str) -> dict[str, Any]:
    tokens, top_k, hidden = (table[one].to_numpy(float) for one in ("num_token", "num_topk", "hidden_size"))
    both = dispatch_and_combine(kernels, tokens, top_k, hidden, 8, device("h200"))
    return {
        f"{part}, {name}": _summary(_off(np.asarray(predicted), table[column.format(part)].to_numpy(float) / 1e6))
        for part, predicted in zip(("dispatch", "combine"), both, strict=True)
    }


_OF_ENGINES = (
    "model_left_out", "mean_median", "coverage", "device_left_out", "attention_data_parallel", "ttft", "disaggregated",
)  # fmt: skip
_PARTS: tuple[tuple[tuple[str, ...], tuple[str, ...], Callable[[Path], dict[str, Any]]], ...] = (
    (_OF_ENGINES, (_END_TO_END, _CONFIGS), of_engines),
    (("kernels",), (_KERNELS,), of_kernels),
    (("wide_kernels",), (_WIDE,), of_wide_kernels),
    (("collectives",), (), of_collectives),
    (("deepseek_production",), (), lambda _: {"deepseek_production": deepseek_production()}),
)
"""Keys, the files that they need, and what measures them."""


def tested(file: Path, configs: Path | None) -> dict[str, Any]:
    """What the shipped speeds predict of other rows: aggregated ones of their devices, attention not data-parallel.

    `apart`: errors of the others; `left_out`: rows that could not be read, by reason.
    """
    rows = read_end_to_end(file, configs, tolerant=True)
    counted = _counted(rows.frame)
    data_parallel = rows.frame["by_expert"].to_numpy(dtype=bool)
    answer: dict[str, Any] = {
        "test": {
            str(model): _predicted(rows.only(counted & (rows.frame["model"] == model).to_numpy()))
            for model in dict.fromkeys(rows.frame["model"][counted])
        },
        "apart": {
            name: _predicted(rows.only(some))
            for name, some in {
                "attention data-parallel": data_parallel,
                "other devices": ~counted & ~data_parallel,
            }.items()
            if some.any()
        },
        "left_out": _reasons(rows),
    }
    if disaggregated := _disaggregated_rows(file, configs):
        answer["apart"]["disaggregated"] = disaggregated
    return answer


def _disaggregated_rows(file: Path, configs: Path | None) -> dict[str, Any]:
    rows = read_end_to_end(file, configs, mode="disagg", tolerant=True)
    reasons = {why for why, _ in rows.left_out if not why.startswith("mode ")}
    if not len(rows.frame) and not reasons:
        return {}
    return (_predicted(rows) if len(rows.frame) else {"rows": 0}) | {"left_out": _reasons(rows)}


def _reasons(rows: EndToEnd) -> dict[str, int]:
    """Why rows could not be read; the two modes are stated apart from each other."""
    return {why: count for why, count in rows.left_out if why not in ("mode agg", "mode disagg")}


def _predicted(rows: EndToEnd) -> dict[str, Any]:
    """Errors of the speed that each row's device is priced with; that of H100 where it has none."""
    predicted = np.empty(len(rows.frame))
    low, high = np.empty((2, len(rows.frame)))
    for name in rows.frame["device"].unique():
        of_device = (rows.frame["device"] == name).to_numpy()
        speed = _speed(str(name))
        predicted[of_device] = rows.iterations[of_device] @ np.array(speed.coefficients)
        low[of_device], high[of_device] = np.exp([-1.96 * speed.scatter, 1.96 * speed.scatter])
    off = _off(predicted, rows.tpot_s)
    inside = (rows.tpot_s >= low * predicted) & (rows.tpot_s <= high * predicted)
    return _summary(off) | {"inside": int(inside.sum())}


def _speed(name: str) -> EngineSpeed:
    speed = default_speed(name) or default_speed("h100")
    assert speed is not None
    return speed


def shipped_numbers(of: tuple[EndToEnd, EngineFit]) -> str:
    """The part of `published_speeds.py` that is fitted, as text."""
    rows, fit = of
    speed = fit.speed("", "", "")
    lines = [f"    coefficients={shown(speed.coefficients)},", "    without=("]
    lines += [f"        {shown(row)}," for row in speed.without]
    lines += ["    ),", f"    scatter={speed.scatter:.3g},", f"    error={speed.error:.3g},"]
    return "\n".join([f"# {len(rows.frame):,} rows; in the order of {', '.join(TERMS)}", *lines])


def shown(values: Sequence[float]) -> str:
    """Numbers as they are shipped."""
    return f"({', '.join(f'{value:.4g}' for value in values)})"


def _counted(frame: pd.DataFrame) -> Any:
    return (frame["device"].isin(DEVICES) & ~frame["by_expert"].astype(bool)).to_numpy(dtype=bool)


def data_folder(given: Path | None = None) -> Path:
    """The folder of serving data: `given`, $SCALING_DATA or the folder beside this repository, or `serving` in it."""
    default = os.environ.get("SCALING_DATA", ROOT.parent / "shared" / "data")
    folder = Path(default if given is None else given)
    return folder / "serving" if (folder / "serving").is_dir() else folder


def _off(predicted: Array, actual: Array) -> Array:
    return np.asarray(np.abs(predicted / actual - 1.0))


def _summary(off: Array) -> dict[str, Any]:
    return {"rows": len(off), "median": float(np.median(off)), "p90": float(np.quantile(off, 0.9))}


def _errors(error: HeldOutErrors) -> dict[str, Any]:
    return {"rows": error.rows, "median": error.median, "p90": error.p90, "inside": error.inside}


if __name__ == "__main__":
    sys.exit(main())
