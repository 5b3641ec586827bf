"""What serving costs, as counted, measured and priced, and what the answer takes for granted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.decision.tables import replicas_table
from analysis.report import blocks
from analysis.report.blocks import Block, Cell, bullets, field, heading, picture, table, text, three_digits
from analysis.report.measured import doubts_in_words, shown_latency, with_most, with_sizes
from analysis.report.study import LATENCY_LAW, ReportStudy
from analysis.report.subject import Subject
from scaling.columns import EXPERTS
from scaling.formatting import between, experts, percent, plural, si, usd
from scaling.serving import replicas
from scaling.serving.device import Device
from scaling.serving.service import NUMBER_BYTES, ModelSizes, Service
from scaling.serving.steps import decode_seconds

ASSUMPTIONS = "Assumptions and warnings"
UNLIKE = 2.0  # measured over priced, median: beyond it the report warns
_COUNTS = {
    "prefill FLOP": "prefill_flops_per_token",
    "decode FLOP": "decode_flops_per_token",
    "weight bytes": "weight_bytes",
    "cache bytes a token": "kv_bytes_per_token",
}
_SHAPE = ["n_total", "n_layers", "d_model", "top_k"]


def serving(subject: Subject) -> list[Block]:
    """Serving as priced and, where runs are reported, as counted from the structure and as measured beside the
    roofline's floor."""
    offered = _offered(subject)
    if not isinstance(subject, ReportStudy):
        return offered
    measured = [*_measured(subject), *_modelled(subject)] or [text("No latency was measured in this study.")]
    return [*offered, *_counted(subject), *measured]


def _offered(subject: Subject) -> list[Block]:
    """Replicas of the best model of every E and the price of their tokens; one line where the question has no
    device."""
    answer = subject.decision
    if answer.question.device is None:
        return [
            text(
                "The question counts FLOPs, so it has no prices, no latency and no load; with a `device`, `scaling "
                "recommend` counts USD and shows how each model is served."
            )
        ]
    on, service = answer.question.pricing.rented, answer.question.service
    load = (
        f"replicas busy {percent(service.utilisation)} of the time"
        if answer.question.pricing.demand is None
        else f"whole replicas for {si(answer.question.pricing.demand)} generated tokens a second"
    )
    basis = (
        f"Priced on {on.title} at {usd(on.usd_per_hour)} an hour (source: section “{ASSUMPTIONS}”): {load}, "
        f"{service.prompt} prompt and {service.generated} output tokens per request."
    )
    replicas_of = replicas_table(answer)
    if replicas_of is None:
        unknown = f"{basis} How models are served was not stored with the answer, or nothing is served."
        return [text(unknown), *_load(subject)]
    caption = (
        "How the best model of every E is served at the lowest price per token: devices of a replica, concurrent "
        "sequences, and performance of a replica at full load, without queueing. ★ is recommended"
    )
    fields = {column.field for column in replicas_of.columns}
    caption += ". “fits on”: the fewest devices that hold it" * ("served.fewest_devices" in fields)
    caption += ". “split”: whether devices share whole experts or parts of every matrix" * (
        "served.experts_split" in fields
    )
    table_of = blocks.values(replicas_of, caption, best=answer.best.served is not None)
    formulas = [_FORMULAS] if isinstance(subject, ReportStudy) else []  # a plan is short
    return [text(basis), table_of, *_load(subject), *formulas]


_FORMULAS = table(
    replicas.METRICS,
    {"name": str, "formula": replicas.METRICS.__getitem__},
    "These names are those of vLLM's serving benchmark; b concurrent sequences, n output tokens per request, L_D and "
    "L_P the seconds of a decode step and of a prefill, G devices, r replicas, u the share of the time that they are "
    "busy, C0 USD per device-second.",
    wide="formula",
)


def _load(subject: Subject) -> list[Block]:
    """Price against load and which E is cheapest where; nothing where the fit has no widths."""
    prices, changes = subject.curves.prices, subject.curves.overtakings
    if prices.empty:
        return []
    if changes.empty:
        cheapest = "At no load shown does another E become the cheapest."
    else:
        first, last = changes.iloc[0], changes.iloc[-1]
        few, many = experts(int(first["before"])), experts(int(last["after"]))
        cheapest = (
            f"Below {si(first['requests_per_month'])} requests a month no E is cheaper per token than {few}, above "
            f"{si(last['requests_per_month'])} none than {many}."
        )
        if len(changes) > 1:
            cheapest += f" The cheapest E changes {len(changes)} times, because replicas are whole."
    caption = (
        "Price of a million output tokens against load, for the best model of every E. Devices are whole: below one "
        "replica the price is inverse to the load, and every tooth is one more replica; lines coincide where models "
        "take as many devices. Rings: another E becomes the cheapest. Training is not included."
    )
    return [picture("cost_against_load", f"{caption} {cheapest}", 0.66)]


def _counted(study: ReportStudy) -> list[Block]:
    """The counts of serving of the largest size that has most E; nothing where the runs have none."""
    frame = study.table.frame
    counts = list(_COUNTS.values())
    frame = frame.dropna(subset=counts) if set(counts) <= set(frame) else frame.iloc[:0]
    if frame.empty:
        return []
    models = with_most(with_sizes(frame), "size", EXPERTS).drop_duplicates([EXPERTS, *counts])
    longest = models.loc[models.groupby(EXPERTS)["prefill_flops_per_token"].idxmax()].sort_values(EXPERTS)
    columns = {"E": blocks.EXPERTS_CELL, "active": blocks.ACTIVE, "total": blocks.TOTAL}
    columns |= {header: field(name, si) for header, name in _COUNTS.items()}
    caption = (
        "Counts of serving from the structure of the largest models: forward FLOPs per token of a prompt as long as "
        "the training sequence and per token after it, router included; bytes of the weights of all experts, and of "
        "keys and values per token. FLOPs hardly rise with E; bytes do."
    )
    return [table(longest, columns, caption)]


def _measured(study: ReportStudy) -> list[Block]:
    """Measured times beside their floors; nothing where nothing was measured."""
    if study.latency.empty:
        return []
    shown = shown_latency(study.latency)
    first, decode = shown.iloc[0], shown[shown["phase"] == "decode"]
    priced = priced_decode(study)
    decode = decode.assign(priced_ms=priced["priced_ms"] if len(priced) else np.nan)
    routing = "untrained" if first["weights"] == "initial" else "trained"
    how = [str(first[name]) for name in ("platform", "dtype") if pd.notna(first[name])]
    how += [plural(int(first["threads"]), "thread")] if pd.notna(first["threads"]) else []
    repeats = plural(int(first["repeats"]), "repeat") if pd.notna(first["repeats"]) else "repeats"
    setting = (
        f"Measured on {first['device_kind']} ({', '.join(how)}), {repeats} after warm-up, compilation "
        f"excluded; offline batches, not a serving system. Models of {si(first['n_active'])} active parameters, routed "
        f"by {routing} weights. A batch of one reads the active parameters; a larger one activates more experts and in "
        "the end reads them all, so decode time follows the total parameters as the batch grows."
    )
    columns: dict[str, Cell] = {
        "E": blocks.EXPERTS_CELL,
        "batch": field("batch", int),
        "median, ms": lambda row: three_digits(row["time_ms"]) + (" ?" if row["doubt"] else ""),
        "quartiles, ms": lambda row: f"{row['time_q25_ms']:.3g} – {row['time_q75_ms']:.3g}",
        "floor, ms": field("roofline_ms", three_digits),
        "median/floor": lambda row: three_digits(row["time_ms"] / row["roofline_ms"]),
        "latency law, ms": field("modelled_ms", three_digits),
        "priced, ms": field("priced_ms", three_digits),
        "activated experts": field("distinct_experts", three_digits),
        "tokens/s": field("tokens_per_s", si),
    }
    for name, column in (("latency law, ms", "modelled_ms"), ("priced, ms", "priced_ms")):
        if decode[column].isna().all():
            del columns[name]
    caption = "One decode step as measured; activated experts as observed."
    if len(priced):
        caption += (
            f" As priced on {priced['device'].iloc[0]}, at the number format that was measured; measured over priced "
            f"is {_median_ratio(priced):.2g} in the median."
        )
    if doubts := doubts_in_words(decode):
        caption += f" ? {doubts}."
    against_batch = f"Time against batch: medians with quartiles (band). {_floors(shown)}"
    if doubts := doubts_in_words(shown):
        against_batch += f" Hollow: {doubts}."
    timing = [table(decode, columns, caption)] if len(decode) else []
    return [text(setting), picture("latency", against_batch), *timing]


def _floors(shown: pd.DataFrame) -> str:
    """What the dashed lines are, and where there are none."""
    unknown = int(shown["roofline_ms"].isna().sum())
    if unknown == len(shown):
        return "No floor is known for this device, so none is drawn."
    floors = "Dashed: the lower bound from FLOPs and bytes at this device's peaks, which is no prediction"
    if (shown["platform"] == "cpu").any():
        floors += (
            "; on a CPU bytes count at the speed of the cache or memory that holds them (in studies of older versions, "
            "not at all within the cache)"
        )
    return floors + (f"; {unknown} of the {len(shown)} times have no known floor." if unknown else ".")


def _modelled(study: ReportStudy) -> list[Block]:
    """How well the latency law of the study reproduces these times; nothing where none is stored."""
    law = study.latency_law
    if law is None or study.latency.empty or study.modelled.empty:
        return []
    summary = (
        f"A latency law ({LATENCY_LAW}, from `scaling latency`) extends these times to shapes that were not run: "
        f"fitted to {law.n_rows} times of {law.n_shapes} shapes in {law.dtype} on {law.device.title}."
    )
    if (held_out := law.held_out.get("all")) is not None:
        summary += (
            " On levels of batch, context, width and E held out in turn, its median error is "
            f"{percent(held_out.median)} and the 90th percentile {percent(held_out.p90)}; with the assumed shares of "
            f"the data sheet they are {percent(law.before.median)} and {percent(law.before.p90)}."
        )
    errors = (
        "Measured against modelled times, with the roofline floor of each as a grey mark, and the errors of the model; "
        "red bars are medians."
    )
    columns: dict[str, Cell] = {
        "term": str,
        "value": lambda name: three_digits(getattr(law.efficiency, name)),
        "95% interval": lambda name: between(law.intervals[name], three_digits),
    }
    caption = (
        "Coefficients of the latency law: seconds (_s), shares of the device's peaks, and rereads in units of the "
        "bytes over the bandwidth."
    )
    return [
        text(summary),
        picture("measured_modelled", errors),
        table(law.intervals, columns, caption),
        *([bullets(law.warnings)] if law.warnings else []),
    ]


def priced_decode(study: ReportStudy) -> pd.DataFrame:
    """Decode rows measured on the device that the decision is priced on, with `priced_ms` and `device`.

    `scaling.serving.steps.decode_seconds` with the assumptions of the prices, but the element size that was measured.
    Empty where no device prices the decision, or none was measured of its kind.
    """
    asked = study.decision.question
    name = asked.device
    if name is None or study.latency.empty or not {*_SHAPE} <= {*study.latency}:
        return pd.DataFrame()
    shown = shown_latency(study.latency)
    kinds = shown["device_kind"].str.upper().str.contains(name.split("-")[0].upper(), regex=False)
    of_device = shown["platform"] == "cpu" if name == "cpu" else kinds
    rows = shown[(shown["phase"] == "decode") & of_device].dropna(subset=_SHAPE)
    if rows.empty:
        return pd.DataFrame()
    on = asked.pricing.rented
    return rows.assign(priced_ms=[_priced_ms(row, on, asked.service) for _, row in rows.iterrows()], device=on.title)


def _priced_ms(row: Any, on: Device, service: Service) -> float:
    width = NUMBER_BYTES.get(str(row["dtype"]), service.bytes_per_weight)
    router, groups = row.get("n_router"), row.get("n_kv_heads")
    shared = float(groups) / float(row["n_heads"]) if pd.notna(groups) else 1.0
    sizes = ModelSizes(
        n_active=float(row["n_active"]),
        n_total=float(row["n_total"]),
        kv_elements_per_token=2.0 * float(row["n_layers"]) * float(row["d_model"]) * shared,
        n_layers=float(row["n_layers"]),
        d_model=float(row["d_model"]),
        n_experts=int(row[EXPERTS]),
        top_k=int(row["top_k"]),
        n_router=float(router) if pd.notna(router) else 0.0,
    )
    service = replace(service, bytes_per_weight=width, bytes_per_kv=width)
    return 1e3 * float(np.asarray(decode_seconds(sizes, on, float(row["batch"]), float(row["context"]), service)))


def _median_ratio(rows: pd.DataFrame) -> float:
    return float((rows["time_ms"] / rows["priced_ms"]).median())


def assumptions(subject: Subject) -> list[Block]:
    """What the answer takes for granted, and what the reader should be wary of."""
    found = subject.decision.recommendation
    warnings = [*found.warnings]
    in_flops = [_not_priced(subject)] if found.question.device is None else []
    parts = [bullets([*subject.notes, *found.assumptions, *in_flops])]
    rows = priced_decode(subject) if isinstance(subject, ReportStudy) else pd.DataFrame()
    if len(rows) and (ratio := _median_ratio(rows)) > UNLIKE:
        warnings.append(
            f"measured decode takes a median of {ratio:.2g} times the priced time on {rows['device'].iloc[0]}; "
            "`scaling latency` measures what a device reaches, and `latency` takes that into the price"
        )
    return [*parts, heading("Warnings"), bullets(warnings)] if warnings else parts


def _not_priced(subject: Subject) -> str:
    """What a cost in FLOPs leaves out."""
    was_measured = isinstance(subject, ReportStudy) and not subject.latency.empty
    measured = ". Measured decode time is shown on page 1; it is not in the cost" if was_measured else ""
    return (
        "FLOPs price neither memory nor the bytes that decode reads: idle experts cost nothing here, so this cost "
        f"favours large E; a `device` prices both{measured}"
    )
