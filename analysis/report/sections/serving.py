"""What serving costs, as counted, measured and priced, and what the answer takes for granted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.decision.question import Question
from analysis.report.blocks import Block, bullets, heading, picture, sheet, text
from analysis.report.plots.study import shown_latency, sizes_of
from analysis.report.study import LATENCY_LAW, Study
from scaling import formatting
from scaling.columns import EXPERTS
from scaling.formatting import percent, si
from scaling.serving import device, devices, replicas
from scaling.serving.service import NUMBER_BYTES, ModelSizes, Service
from scaling.serving.steps import decode_seconds

UNLIKE = 2.0  # measured over priced, median: beyond it the report warns
_COUNTS = ("prefill_flops_per_token", "decode_flops_per_token", "weight_bytes", "kv_bytes_per_token")
_SHAPE = ("n_total", "n_layers", "d_model", "top_k")


def serving(study: Study) -> list[Block]:
    """Serving as priced, as counted from the structure, and as measured beside the roofline's floor."""
    counted = [*_offered(study), *_counted(study)]
    if study.latency.empty:
        return [*counted, text("No latency was measured in this study.")]
    shown = shown_latency(study)
    first, decode = shown.iloc[0], shown[shown["phase"] == "decode"]
    told = (
        f"Measured on {first['device_kind']} ({first['platform']}, {first['dtype']}, "
        f"{formatting.plural(int(first['threads']), 'thread')}), {int(first['repeats'])} repeats after warm-up, "
        f"compilation excluded; offline batches, not a serving system. Models of {si(first['n_active'])} active "
        f"parameters, {_weights(first['weights'])}. A batch of one reads the active parameters; a larger one touches "
        "more experts and in the end reads them all, so decode time follows the total parameters as the batch grows."
    )
    ends = decode[decode["batch"].isin([decode["batch"].min(), decode["batch"].max()])]
    columns = ["E", "batch", "median, ms", "quartiles, ms", "floor, ms", "median/floor", "experts touched", "tokens/s"]
    caption = "One decode step at the smallest and the largest batch that were measured; experts touched as observed."
    table = sheet(columns, [_timing(row) for _, row in ends.iterrows()], caption)
    blocks = [text(told), picture("latency", f"Time against batch: medians with quartiles (band). {_floors(shown)}")]
    return [*counted, *blocks, *([table] if len(ends) else []), *_modelled(study), *_priced(study)]


def _offered(study: Study) -> list[Block]:
    """Replicas of the best model of every E and what tokens cost; one line where the question has no device."""
    answer = study.decision
    if answer["question"]["device"] is None:
        return [
            text(
                "The question counts FLOPs, so it has no prices, no latency and no load; with --device `scaling "
                "recommend` counts USD and says how each model is served."
            )
        ]
    asked = Question.from_json(answer["question"])
    on, service = asked.pricing.rented, asked.service
    load = (
        f"replicas busy {percent(service.utilisation)} of the time"
        if asked.pricing.demand is None
        else f"whole replicas for {si(asked.pricing.demand)} generated tokens a second"
    )
    told = (
        f"Priced on {on.title} at {on.usd_per_hour:g} USD an hour ({on.price_source}; {on.price_date}): {load}, "
        f"{service.prompt} tokens a prompt and {service.generated} generated."
    )
    choices = [answer["recommendation"], *answer["alternatives"]]
    served = {c["n_experts"]: c["served"] for c in choices if c.get("served") is not None}
    if not served:
        return [
            text(f"{told} How models are served was not stored with the answer, or nothing is served."),
            *_load(study),
        ]
    best = answer["recommendation"]["n_experts"]
    rows = [
        [
            _named(e) + (" ★" if e == best else ""),
            f"{one['n_devices']} by {'expert' if one['experts_split'] else 'matrix'}" if one["n_devices"] > 1 else "1",
            str(one["fewest_devices"]),
            str(one["batch"]),
            *(_known(one[name]) for name in ("ttft_ms", "tpot_ms", "e2el_ms")),
            si(one["output_throughput"]),
            si(one["request_goodput"]),
            si(one["usd_per_million"]) + formatting.spread(one.get("usd_per_million_interval")),
            "–" if one["replicas"] is None else str(one["replicas"]),
        ]
        for e, one in sorted(served.items())
    ]
    columns = [
        "E", "devices", "least", "batch", "ttft, ms", "tpot, ms", "e2el, ms", "tokens/s", "requests/s", "USD/million",
        "replicas",
    ]  # fmt: skip
    caption = (
        "How the best model of every E is served at the least price a token: devices of a replica and how it is split "
        "over them, the fewest that hold it, sequences at once, latency without queueing, what one replica reaches "
        "when busy (output_throughput, request_goodput), and the price, with its 95% interval where the device's speed "
        "was measured."
    )
    return [text(told), sheet(columns, rows, caption), *_load(study), _FORMULAS]


_FORMULAS = sheet(
    ["name", "formula"],
    [[name, formula] for name, formula in replicas.METRICS.items()],
    "What these names mean, which are those of vLLM's serving benchmark; b sequences at once, n generated tokens of a "
    "request, L_D and L_P the seconds of a decode step and of a prefill, G devices, r replicas, u the share of the "
    "time that they are busy, C0 USD per device-second.",
    wide=1,
)


def _load(study: Study) -> list[Block]:
    """Price against load and who is cheapest where; nothing where the fit knows no widths."""
    prices, changes = study.explored.prices, study.explored.overtakings
    if prices.empty:
        return []
    if changes.empty:
        told = "At no load shown does another E become the cheapest."
    else:
        first, last = changes.iloc[0], changes.iloc[-1]
        told = (
            f"Below {si(first['requests_per_month'])} requests a month no E is cheaper a token than "
            f"{formatting.experts(first['before'])}, above {si(last['requests_per_month'])} none than "
            f"{formatting.experts(last['after'])}."
        )
        told += f" The cheapest changes {len(changes)} times, as replicas come whole." if len(changes) > 1 else ""
    caption = (
        "Price of a million generated tokens against load, for the best model of every E. Devices come whole: below "
        "one replica the price is inverse to the load, and every tooth is one more replica; lines that coincide take "
        "as many devices. Rings, where another E becomes the cheapest. Training is not in it."
    )
    return [picture("cost_against_load", f"{caption} {told}", 0.8)]


def _weights(state: Any) -> str:
    return "routed by untrained weights" if state == "initial" else "routed by trained weights"


def _floors(shown: pd.DataFrame) -> str:
    """What the dashed lines are, and where there are none."""
    unknown = int(shown["roofline_ms"].isna().sum())
    if unknown == len(shown):
        return "No floor is known for this device, so none is drawn."
    told = "Dashed, the floor that FLOPs and bytes set at this device's peaks, which is no prediction"
    if (shown["platform"] == "cpu").any():
        told += (
            "; on a CPU bytes count at the speed of the cache or memory that holds them (studies of older versions: "
            "not at all within the cache)"
        )
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
        _known(row["time_ms"] / row["roofline_ms"], ".3g"),
        _known(row["distinct_experts"]),
        si(row["tokens_per_s"]),
    ]


def _named(n_experts: float) -> str:
    return "dense" if n_experts == 1 else str(int(n_experts))


def _known(value: float, form: str = ".3g") -> str:
    return formatting.number(value, form) if pd.notna(value) else "–"


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


def _modelled(study: Study) -> list[Block]:
    """How well the latency law of the study says these times; nothing where none is stored."""
    law = study.latency_law
    if law is None or study.modelled.empty:
        return []
    told = (
        f"A latency law (laid in {LATENCY_LAW} by `scaling latency`) carries these times to shapes that were not run: "
        f"fitted to {law.n_rows} times of {law.n_shapes} shapes in {law.dtype} on {law.device.title}."
    )
    if (left_out := law.held_out.get("all")) is not None:
        told += (
            f" On levels of batch, context, width and E that were left out in turn its median error is "
            f"{percent(left_out.median)}, the 90th percentile {percent(left_out.p90)}; the assumed shares of the data "
            f"sheet err by {percent(law.before.median)} and {percent(law.before.p90)}."
        )
    rows = [
        [
            name,
            formatting.number(getattr(law.efficiency, name), ".3g"),
            formatting.between(ends, lambda v: formatting.number(v, ".3g")),
        ]
        for name, ends in law.intervals.items()
    ]
    caption = (
        "What a step costs by the latency law, in seconds (_s), as shares of the device's peaks, and reread in units "
        "of the bytes over the bandwidth."
    )
    errors = (
        "Measured against modelled times, with the roofline floor of each as a grey mark, and what the model misses; "
        "red bars are medians."
    )
    warnings = bullets(list(law.warnings))
    return [
        text(told),
        picture("measured_modelled", errors),
        sheet(["term", "value", "95% interval"], rows, caption),
        *([warnings] if law.warnings else []),
    ]


def _priced(study: Study) -> list[Block]:
    """Measured decode beside what the price takes it to be; nothing where no price rests on the device measured."""
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
        f"Decode steps as measured and as the price takes them on {rows['device'].iloc[0]}, at the number format that "
        f"was measured: a median of {ratio.median():.2g} times the price's."
    )
    return [sheet(["E", "batch", "measured, ms", "priced, ms", "measured/priced"], table, caption)]


def priced_decode(study: Study) -> pd.DataFrame:
    """Decode rows measured on the device that the decision is priced on, with `priced_ms` and `device`.

    `scaling.serving.steps.decode_seconds` with the assumptions of the prices, but the element size that was measured.
    Empty where no device prices the decision, or none was measured of its kind.
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


def _priced_ms(row: Any, model: Any, on: device.Device, service: Service) -> float:
    width = NUMBER_BYTES.get(str(row["dtype"]), service.bytes_per_weight)
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
    blocks = [bullets(told)]
    if answer["question"]["device"] is not None:
        blocks += _money_assumptions(Question.from_json(answer["question"]))
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
        f"decode took a median of {ratio:.2g} times what the price takes it to on {rows['device'].iloc[0]}; `scaling "
        "latency` measures what a device reaches, and --latency takes it into the price"
    ]


def _money_assumptions(asked: Question) -> list[Block]:
    service = asked.service
    reached = service.efficiency
    told = (
        f"a request brings {service.prompt} tokens and takes {service.generated}; weights and cache take "
        f"{service.bytes_per_weight:g} and {service.bytes_per_kv:g} bytes an element; a step "
        f"reaches {percent(reached.bandwidth_share)} of the bandwidth and {percent(reached.flops_share)} of the peak "
        f"({reached.source}); "
        f"replicas are busy {percent(service.utilisation)} of the time with at most {service.max_batch} sequences "
        "each; all experts are resident and idle ones are not read"
    )
    own = asked.pricing.rented
    listed = [own, *(devices.device(name) for name in devices.NAMES if name not in ("cpu", own.name))]
    rows = [
        [
            row.title + (" ★" if row is own else ""),
            f"{row.peak_flops / 1e12:.4g}",
            f"{row.bandwidth / 1e12:.4g}",
            f"{row.memory / 1e9:.4g}",
            f"{row.usd_per_hour:.2f}",
            row.price_date,
            row.source,
        ]
        for row in listed
    ]
    columns = ["device", "TFLOP/s", "TB/s", "GB", "$/h", "priced", "source"]
    sources = "; ".join(dict.fromkeys(row.price_source for row in listed))
    caption = (
        "★ is the device of the question; the others stand beside it. Data-sheet values, dense bf16. Prices: "
        f"{sources}. Replace what is a placeholder (--usd-per-hour, --devices). The CPU has no data sheet here: it is "
        "measured anew whenever it is asked for."
    )
    return [bullets([told]), sheet(columns, rows, caption, wide=6)]
