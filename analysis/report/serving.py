"""What serving costs, as counted, measured and priced, and what the answer takes for granted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures import si
from analysis.laws import EXPERTS
from analysis.question import Question
from analysis.report import words
from analysis.report.blocks import Block, bullets, heading, picture, sheet, text
from analysis.report.pictures import shown_latency, sizes_of
from analysis.report.study import Study
from analysis.report.words import percent
from scaling import hardware
from scaling.serving import ModelSizes, Service, decode_seconds

UNLIKE = 2.0  # measured over priced, median: beyond it the report warns
_COUNTS = ("prefill_flops_per_token", "decode_flops_per_token", "weight_bytes", "kv_bytes_per_token")
_SHAPE = ("n_total", "n_layers", "d_model", "top_k")
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}


def serving(study: Study) -> list[Block]:
    """Serving as counted from the structure, as measured beside the roofline's floor, and as priced."""
    counted = _counted(study)
    if study.latency.empty:
        return [*counted, text("No latency was measured in this study.")]
    shown = shown_latency(study)
    first, decode = shown.iloc[0], shown[shown["phase"] == "decode"]
    told = (
        f"Measured on {first['device_kind']} ({first['platform']}, {first['dtype']}, "
        f"{words.plural(int(first['threads']), 'thread')}), {int(first['repeats'])} repeats after warm-up, compilation "
        f"excluded; offline batches, not a serving system. Models of {si(first['n_active'])} active parameters, "
        f"{_weights(first['weights'])}. A batch of one reads the active parameters; a larger one touches more experts "
        "and in the end reads them all, so decode time follows the total parameters as the batch grows."
    )
    ends = decode[decode["batch"].isin([decode["batch"].min(), decode["batch"].max()])]
    columns = ["E", "batch", "median, ms", "quartiles, ms", "floor, ms", "median/floor", "experts touched", "tokens/s"]
    caption = "One decode step at the smallest and the largest batch that were measured; experts touched as observed."
    table = sheet(columns, [_timing(row) for _, row in ends.iterrows()], caption)
    blocks = [text(told), picture("latency", f"Time against batch: medians with quartiles (band). {_floors(shown)}")]
    return [*counted, *blocks, *([table] if len(ends) else []), *_priced(study)]


def _weights(state: Any) -> str:
    return "routed by untrained weights" if state == "initial" else "routed by trained weights"


def _floors(shown: pd.DataFrame) -> str:
    """What the dashed lines are, and where there are none."""
    unknown = int(shown["roofline_ms"].isna().sum())
    if unknown == len(shown):
        return "No floor is known for this device, so none is drawn."
    told = "Dashed, the floor that FLOPs and bytes set at this device's peaks, which is no prediction"
    if (shown["platform"] == "cpu").any():
        told += "; what fits a CPU's cache need not come from memory, so bytes count only beyond its size"
    if unknown:
        told += f"; {unknown} of the {len(shown)} times have no known floor"
    return f"{told}."


def _timing(row: Any) -> list[str]:
    return [
        _named(row[EXPERTS]),
        str(int(row["batch"])),
        _known(row["time_ms"]),
        f"{row['time_q25_ms']:.3g} – {row['time_q75_ms']:.3g}",
        _known(row["roofline_ms"]),
        _known(row["time_ms"] / row["roofline_ms"], ".2g"),
        _known(row["distinct_experts"]),
        si(row["tokens_per_s"]),
    ]


def _named(n_experts: float) -> str:
    return "dense" if n_experts == 1 else str(int(n_experts))


def _known(value: float, form: str = ".3g") -> str:
    return words.number(value, form) if pd.notna(value) else "–"


def _counted(study: Study) -> list[Block]:
    """The counts of serving of the largest size that has most E; nothing where the runs have none."""
    frame = study.table.frame
    if not set(_COUNTS) <= set(frame.columns):
        return []
    frame = frame.dropna(subset=list(_COUNTS))
    if frame.empty:
        return []
    frame = frame.assign(size=sizes_of(frame))
    by_size = frame.groupby("size")[EXPERTS].nunique()
    largest = by_size[by_size == by_size.max()].index.max()
    models = frame[frame["size"] == largest].drop_duplicates([EXPERTS, *_COUNTS])
    longest = models.groupby(EXPERTS)["prefill_flops_per_token"].idxmax()
    rows = [
        [_named(row[EXPERTS]), *(si(row[name]) for name in ("n_active", "n_total", *_COUNTS))]
        for _, row in models.loc[longest].sort_values(EXPERTS).iterrows()
    ]
    columns = ["E", "active", "total", "prefill FLOP", "decode FLOP", "weight bytes", "cache bytes a token"]
    caption = (
        "What serving takes, counted from the structure of the largest models: forward FLOPs a token of a prompt as "
        "long as the training sequence and of a token after it, router in; bytes of the weights of all experts, and of "
        "keys and values a token. FLOPs hardly rise with E; bytes do."
    )
    return [sheet(columns, rows, caption)]


def _priced(study: Study) -> list[Block]:
    """Measured decode beside the price's roofline; nothing where no price rests on the device measured."""
    rows = priced_decode(study)
    if rows.empty:
        return []
    ratio = rows["time_ms"] / rows["priced_ms"]
    table = [
        [
            _named(row[EXPERTS]),
            str(int(row["batch"])),
            _known(row["time_ms"]),
            _known(row["priced_ms"]),
            _known(r, ".2g"),
        ]
        for (_, row), r in zip(rows.iterrows(), ratio, strict=True)
    ]
    caption = (
        f"Decode steps as measured and as the roofline prices them on {rows['device'].iloc[0]}, at the number format "
        f"that was measured: a median of {ratio.median():.2g} times the price's."
    )
    return [sheet(["E", "batch", "measured, ms", "priced, ms", "measured/priced"], table, caption)]


def priced_decode(study: Study) -> pd.DataFrame:
    """Decode rows measured on the device that the decision is priced on, with `priced_ms` by its roofline and `device`.

    `scaling.serving.decode_seconds` with the assumptions of the prices, but the element size that was measured. Empty
    where no device prices the decision, or none was measured of its kind.
    """
    name = study.decision["question"]["device"]
    if name is None or study.latency.empty:
        return pd.DataFrame()
    shown = shown_latency(study)
    rows = shown[(shown["phase"] == "decode") & _is(name, shown)]
    sizes = study.table.frame.set_index("run_id") if "run_id" in study.table.frame else pd.DataFrame()
    if not set(_SHAPE) <= set(sizes.columns):
        return pd.DataFrame()
    rows = rows[rows["run_id"].isin(sizes.index)]
    if rows.empty:
        return pd.DataFrame()
    asked = Question.from_json(study.decision["question"])
    on = asked.pricing.rented
    priced = [_priced_ms(row, sizes.loc[row["run_id"]], on, asked.service) for _, row in rows.iterrows()]
    return rows.assign(priced_ms=priced, device=on.title)


def _is(name: str, rows: pd.DataFrame) -> pd.Series:
    """Which latency rows were measured on a device of that name."""
    if name == "cpu":
        return rows["platform"] == "cpu"
    return rows["device_kind"].str.upper().str.contains(name.split("-")[0].upper(), regex=False)


def _priced_ms(row: Any, model: Any, on: hardware.Device, service: Service) -> float:
    width = _BYTES.get(str(row["dtype"]), service.bytes_per_weight)
    router = model.get("n_router")
    sizes = ModelSizes(
        n_active=float(row["n_active"]),
        n_total=float(model["n_total"]),
        kv_elements_per_token=2.0 * float(model["n_layers"]) * float(model["d_model"]),
        n_layers=float(model["n_layers"]),
        d_model=float(model["d_model"]),
        n_experts=int(row[EXPERTS]),
        top_k=int(model["top_k"]),
        n_router=float(router) if pd.notna(router) else 0.0,
    )
    service = replace(service, bytes_per_weight=width, bytes_per_kv=width)
    return 1e3 * float(np.asarray(decode_seconds(sizes, on, float(row["batch"]), float(row["context"]), service)))


def assumptions(study: Study) -> list[Block]:
    """What the answer takes for granted, and what the reader should be wary of."""
    answer = study.decision
    told = [*study.notes, *answer["assumptions"]]
    if answer["question"]["device"] is None:
        told.append(_not_priced(study))
    blocks = [
        bullets(told),
        *(
            []
            if answer["question"]["device"] is None
            else _money_assumptions(Question.from_json(answer["question"]).service)
        ),
    ]
    warnings = [*answer["warnings"], *_unlike(study)]
    return [*blocks, heading("Warnings"), bullets(warnings)] if warnings else blocks


def _not_priced(study: Study) -> str:
    """What a cost in FLOPs leaves out."""
    told = (
        "FLOPs price neither memory nor the bytes that decode reads: the experts that lie idle cost nothing here, so "
        "this cost flatters large E; --device prices both"
    )
    return (
        told if study.latency.empty else f"{told}. What serving was measured to take stands on page 1, not in the cost"
    )


def _unlike(study: Study) -> list[str]:
    rows = priced_decode(study)
    if rows.empty or (ratio := float((rows["time_ms"] / rows["priced_ms"]).median())) <= UNLIKE:
        return []
    return [
        f"decode took a median of {ratio:.2g} times what the price assumes on {rows['device'].iloc[0]}: a roofline is no "
        "prediction"
    ]


def _money_assumptions(service: Service) -> list[Block]:
    reached = service.efficiency
    told = (
        f"a request brings {service.prompt} tokens and takes {service.generated}; weights and cache take "
        f"{service.bytes_per_weight:g} and {service.bytes_per_kv:g} bytes an element; a step "
        f"reaches {percent(reached.bandwidth_share)} of the bandwidth and {percent(reached.flops_share)} of the peak "
        f"({reached.source}); "
        f"replicas are busy {percent(service.utilisation)} of the time with at most {service.max_batch} sequences each; "
        "all experts are resident and idle ones are not read"
    )
    rows = [
        [
            row.title,
            f"{row.peak_flops / 1e12:.4g}",
            f"{row.bandwidth / 1e12:.4g}",
            f"{row.memory / 1e9:g}",
            f"{row.usd_per_hour:.2f}",
            row.price_date,
            row.source,
        ]
        for row in (hardware.device(name) for name in hardware.NAMES if name != "cpu")
    ]
    columns = ["device", "TFLOP/s", "TB/s", "GB", "$/h", "priced", "source"]
    caption = (
        "Data-sheet values, dense bf16. Every price is a placeholder to be replaced (--usd-per-hour, --devices). The CPU has no "
        "row: it has no data sheet here but is measured anew whenever it is asked for."
    )
    return [bullets([told]), sheet(columns, rows, caption, wide=6)]
