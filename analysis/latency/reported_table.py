"""Serving benchmarks of other tools as a table: the model, the load and the measured speed of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.latency import reported_names as names
from analysis.latency.cells import (
    is_dense,
    not_measured,
    numeric,
    refuse,
    refuse_contradictions,
    require_words,
    spelled,
    usable,
    with_dense_rows,
)
from analysis.latency.reported_names import Measure
from analysis.latency.time_units import NO_UNIT
from analysis.tables.numbers import numbers
from analysis.tables.reading_log import ReadingLog, rows_named
from analysis.tables.rows import floats, ratio
from scaling.arrays import Array, Booleans
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.serving.precision import CACHE_FORMATS
from scaling.serving.service import Service

SIZES = ("n_active", "n_total", "n_layers", "d_model")
_MOST_CACHED = 1e7  # elements of a token and layer
_HEAD = 128.0  # width of a head where a table has n_kv_heads and neither head_dim nor n_heads
_ORDER = ("output", "total", "requests", "generic", "tpot", "ttft")
_ACHIEVED = 0.9  # of the request rate offered: from here a limit on concurrency was not what held the load back
_REMEDY = "write one number a cell, or remove the row"


@dataclass(frozen=True)
class ReportedTable:
    """Rows of a benchmark by our names, as numbers; their labels are those of the rows in the file, from 0.

    Beside sizes and load: `speed` of `measure` (output_throughput in generated tokens per second of a replica, tpot_ms
    or ttft_ms), `kv_elements_per_token`, `weights` and `kv` (number formats), and what was measured besides (`tpot_ms`,
    `ttft_ms`, `output_throughput`, NaN where it was not). `assumed`: what the table does not say, by column; `notes`:
    what else was understood, and the rows left out.
    """

    frame: pd.DataFrame
    source: str
    assumed: dict[str, str]
    notes: tuple[str, ...]


def read_reported(frame: pd.DataFrame, service: Service, source: str) -> ReportedTable:
    """The rows of a benchmark. Lengths are those measured, else those of its settings, else those of `service`.

    Raises InputError for a table of training runs or of latencies, for a missing column, for text where a number
    belongs, and where no row can be used.
    """
    log, assumed = ReadingLog(), dict[str, str]()
    measures = _measures(frame, source)
    ours = with_dense_rows(_by_our_names(frame, source, log), log)
    _require_columns(frame, ours, measures, source)
    _refuse_splits(frame, source, log)
    table = _as_numbers(ours, frame, source, log)
    table = _with_experts(table, source, assumed)
    table = _with_lengths(_with_devices(table, assumed), service, log)
    table = table.assign(**_values(frame, measures, table, source, log))
    table = _with_batch(table, log)
    table = usable(
        table, [*SIZES, "n_experts", "top_k", "n_devices", "batch", "prompt", "generated", "speed"], log, ["n_router"]
    )
    table = _with_precision(table, frame, source, assumed)
    table = _with_cache(table, source, assumed)
    if table.empty:
        raise InputError(
            f"{source}: no row can be used: {'; '.join(log.row_numbers) or 'the table has no rows'}; a row needs the "
            "sizes of its model, the sequences at once (batch, concurrency) and a measured speed"
        )
    refuse_contradictions(table, source)
    refuse(table, table["n_devices"].to_numpy() % 1 != 0, "n_devices", "is not whole", source)
    left_out = [f"left out: {'; '.join(log.row_numbers)}"] if log.row_numbers else []
    return ReportedTable(table, source, assumed, (*log.notes, *left_out))


def _measures(frame: pd.DataFrame, source: str) -> list[Measure]:
    """What the columns measure, the most direct first. Raises InputError for tables of another kind."""
    plain = {names.plain_name(str(name)): str(name) for name in frame}
    found = [measure for name in frame if (measure := names.measure_of(str(name))) is not None]
    if "phase" in plain and any(name in plain for name in ("time_ms", "time_us", "time_s")):
        raise InputError(
            f"{source}: a table of measured steps (it has phase and time_ms), not of a serving benchmark: fit it with "
            "`scaling latency` and give its law as `latency`"
        )
    training = [plain[name] for name in names.TRAINING if name in plain]
    direct = [measure for measure in found if measure.kind != "generic"]
    if training and not direct:
        speed = f"its {found[0].column} is the speed of training" if found else "it has no speed of serving"
        raise InputError(
            f"{source}: a table of training runs (it has {listed(training, most=4)}): {speed}, not what serving "
            "generates; give a serving benchmark with a concurrency and output_throughput, tpot_ms or ttft_ms"
        )
    return sorted(direct or found, key=lambda measure: (_ORDER.index(measure.kind), measure.by != ""))


def _by_our_names(frame: pd.DataFrame, source: str, log: ReadingLog) -> pd.DataFrame:
    """The columns of `NAMES` that the table has; of several spellings the first that has a cell, row by row."""
    plain = {names.plain_name(str(name)): str(name) for name in reversed(frame.columns)}
    columns: dict[str, pd.Series[Any]] = {}
    for name, spellings in names.NAMES.items():
        for theirs in (plain[spelling] for spelling in spellings if spelling in plain):
            cells = frame[theirs].astype(object)
            if name == "request_rate":  # "inf" and other words: as fast as can be
                cells = pd.Series(numbers(frame[theirs]).floats, index=frame.index)
            elif name != "n_experts" and name != "top_k":
                cells = pd.Series(numeric(frame, theirs, source, log, _REMEDY), index=frame.index)
            blank = cells.isna() | cells.astype(str).str.strip().eq("")
            columns[name] = (
                columns[name].where(columns[name].notna(), cells) if name in columns else cells.where(~blank, None)
            )
    return pd.DataFrame(columns, index=frame.index)


def _as_numbers(ours: pd.DataFrame, frame: pd.DataFrame, source: str, log: ReadingLog) -> pd.DataFrame:
    """Our columns as floats. Raises InputError for text, under the name that the column has in the file."""
    plain = {names.plain_name(str(name)): str(name) for name in frame}
    columns: dict[str, Array] = {}
    for name in ours:
        theirs = next(plain[spelling] for spelling in names.NAMES[str(name)] if spelling in plain)
        columns[str(name)] = numeric(ours.rename(columns={name: theirs}), theirs, source, log, _REMEDY)
    return pd.DataFrame(columns, index=frame.index)


def _require_columns(frame: pd.DataFrame, ours: pd.DataFrame, measures: list[Measure], source: str) -> None:
    missing = [name for name in SIZES if name not in ours]
    if "batch" not in ours and not _by_littles_law(measures):
        missing.append("batch (or concurrency, max_concurrency)")
    silent = [str(name) for name in frame if names.without_unit(str(name))]
    if not measures and silent:
        kind = names.without_unit(silent[0])
        raise InputError(f"{source}: the column {silent[0]} {NO_UNIT.format(name=kind)}")
    missing += [] if measures else ["output_throughput or tpot_ms or ttft_ms"]
    if missing:
        there = listed(frame.columns, most=40)
        model = ""
        if missing[0] in SIZES:
            model = (
                f"; a benchmark does not know its model: add {', '.join((*SIZES, 'n_experts', 'top_k'))} to every row"
            )
        generic = [measure.column for measure in measures if measure.kind == "generic"]
        if generic and missing[-1].startswith("batch"):
            model += f"; {generic[0]} without a concurrency may be the speed of training"
        raise InputError(f"{source}: the column {', '.join(missing)} is missing; the table has {there}{model}")


def _by_littles_law(measures: list[Measure]) -> bool:
    kinds = {measure.kind for measure in measures}
    return "tpot" in kinds and len(kinds - {"tpot", "ttft"}) > 0


def _refuse_splits(frame: pd.DataFrame, source: str, log: ReadingLog) -> None:
    plain = {names.plain_name(str(name)): str(name) for name in frame}
    for name in (plain[split] for split in names.SPLITS if split in plain):
        ways = numeric(frame, name, source, log, _REMEDY)
        why = "is above 1, and pipelines and replicas counted as one are not modelled"
        remedy = "give concurrency and tokens/s of one replica, split by tensors alone, or remove the row"
        refuse(frame, ways > 1, name, why, source, remedy)


def _with_experts(table: pd.DataFrame, source: str, assumed: dict[str, str]) -> pd.DataFrame:
    """E and k in every row: those of dense models follow from their sizes. Raises InputError where others lack them."""
    experts, top_k = floats(table, "n_experts"), floats(table, "top_k")
    experts = np.where(np.isnan(experts) & is_dense(table), 1.0, experts)
    routed = table["n_active"].to_numpy(float) < table["n_total"].to_numpy(float)
    refuse(table, np.isnan(experts) & routed, "n_experts", "is missing where n_total is above n_active", source,
           "such a model is routed: say how many experts it has, and top_k", cells=False)  # fmt: skip
    top_k = np.where(np.isnan(top_k) & (experts == 1), 1.0, top_k)
    refuse(table, np.isnan(top_k) & (experts > 1), "top_k", "is missing where n_experts is above 1", source,
           "say how many experts a token has", cells=False)  # fmt: skip
    router = floats(table, "n_router")
    if np.any(np.isnan(router) & (experts > 1)):
        assumed["n_router"] = "routers of 0 parameters"
    return table.assign(n_experts=experts, top_k=top_k, n_router=np.nan_to_num(router))


def _with_devices(table: pd.DataFrame, assumed: dict[str, str]) -> pd.DataFrame:
    devices = floats(table, "n_devices")
    if np.isnan(devices).any():
        assumed["n_devices"] = "1 device a replica"
    return table.assign(n_devices=np.where(np.isnan(devices), 1.0, devices))


def _with_lengths(table: pd.DataFrame, service: Service, log: ReadingLog) -> pd.DataFrame:
    """Tokens of a request: the mean that was measured, else the setting, else those of the service, which is said."""
    done = floats(table, "completed")
    lengths: dict[str, Array] = {}
    for name, whole, default in (
        ("prompt", "total_input_tokens", service.prompt),
        ("generated", "total_output_tokens", service.generated),
    ):
        setting = floats(table, name)
        with np.errstate(all="ignore"):
            mean = floats(table, whole) / np.where(done > 0, done, np.nan)
            apart = np.abs(mean / setting - 1) > 0.02
        if apart.any():
            log.notes.append(
                f"{name}: {whole} / completed differs from the setting {_in(table, apart)}; the mean counts"
            )
        measured = np.where(np.isnan(mean), setting, mean)
        silent = np.isnan(measured)
        if silent.any():
            log.notes.append(
                f"column `{name}` is not in the table {_in(table, silent)}: {default} tokens, those of the question"
            )
        lengths[name] = np.where(silent, default, measured)
    return table.assign(**lengths)


def _in(table: pd.DataFrame, chosen: Booleans) -> str:
    return "(all rows)" if np.all(chosen) else rows_named(table.index[chosen])


def _values(
    frame: pd.DataFrame, measures: list[Measure], table: pd.DataFrame, source: str, log: ReadingLog
) -> dict[str, Any]:
    """What was measured, in our units: `output_throughput`, `tpot_ms`, `ttft_ms`, and the first of them that a row has
    as its `measure` and `speed`."""
    found = {name: np.full(len(frame), np.nan) for name in ("output_throughput", "tpot_ms", "ttft_ms")}
    for measure in measures:
        not_measured(frame, measure.column, source, log)
        read = numbers(frame[measure.column]).floats
        name, values = _in_our_units(measure, np.where(read > 0, read, np.nan), table)
        taken = np.isnan(found[name]) & ~np.isnan(values)
        if taken.any() and measure.column != name:
            log.notes.append(_said(measure, name))
        found[name] = np.where(taken, values, found[name])
    choice, value = np.full(len(frame), "", dtype=object), np.full(len(frame), np.nan)
    for name, values in found.items():
        taken = np.isnan(value) & ~np.isnan(values)
        choice, value = np.where(taken, name, choice), np.where(taken, values, value)
    return {**found, "measure": choice, "speed": value}


def _in_our_units(measure: Measure, values: Array, table: pd.DataFrame) -> tuple[str, Array]:
    """The name of ours that a column gives, and its values in the unit of that."""
    if measure.kind in ("tpot", "ttft"):
        return f"{measure.kind}_ms", values * measure.unit
    generated, prompt, devices = (table[name].to_numpy(float) for name in ("generated", "prompt", "n_devices"))
    with np.errstate(all="ignore"):
        of_output = {"requests": generated, "total": generated / (generated + prompt)}
        rate = values * of_output.get(measure.kind, 1.0)
        if measure.by == "user":
            return "tpot_ms", 1e3 / rate
        return "output_throughput", rate * (devices if measure.by == "device" else 1.0)


def _said(measure: Measure, name: str) -> str:
    factors = {
        "requests": " times generated tokens of a request",
        "total": " times the share of generated tokens",
        "generic": ", taken for generated tokens per second",
    }
    by = {"device": ", times the devices of a replica", "user": ", of one sequence", "": ""}[measure.by]
    unit = "" if measure.unit == 1 else f" times {measure.unit:g}"
    return f"{name} from {measure.column}{factors.get(measure.kind, '')}{by}{unit}"


def _with_batch(table: pd.DataFrame, log: ReadingLog) -> pd.DataFrame:
    """Sequences at once in every row: those of the table, else by Little's law from tokens/s and times, as where
    requests came so slowly that a limit on their number was not what held them back."""
    batch, rate, in_flight = floats(table, "batch"), floats(table, "request_rate"), sequences_in_flight(table)
    reached = ratio(floats(table, "output_throughput"), floats(table, "generated"))
    with np.errstate(invalid="ignore"):
        arrivals = np.isfinite(rate) & (reached > _ACHIEVED * rate) & (batch > in_flight)
    from_law = (np.isnan(batch) | arrivals) & ~np.isnan(in_flight)
    if from_law.any():
        log.notes.append(f"sequences at once from tokens/s times seconds of a request {_in(table, from_law)}")
    return table.assign(batch=np.where(from_law, in_flight, batch))


def sequences_in_flight(table: pd.DataFrame) -> Array:
    """Little's law: requests a second times seconds of one, `tokens/s / n (ttft + (n - 1) tpot)`; without a measured
    ttft, those that decode, `tokens/s tpot`. NaN where speed or time was not measured."""
    first, tpot = (floats(table, name) / 1e3 for name in ("ttft_ms", "tpot_ms"))
    generated = floats(table, "generated")
    with np.errstate(all="ignore"):
        seconds = np.where(first > 0, first + (generated - 1) * tpot, generated * tpot)
        return np.asarray(ratio(floats(table, "output_throughput"), generated) * seconds)


def _with_precision(table: pd.DataFrame, frame: pd.DataFrame, source: str, assumed: dict[str, str]) -> pd.DataFrame:
    """The number formats of weights and of the cache; without a word, bf16."""
    plain = {names.plain_name(str(name)): str(name) for name in frame}
    found: dict[str, Any] = {}
    for ours, spellings, what in (
        ("weights", names.WEIGHTS, "weights"),
        ("kv", names.CACHE, "cache"),
    ):
        known = {word: name for word, name in names.PRECISIONS.items() if ours == "weights" or name in CACHE_FORMATS}
        words = pd.Series(None, index=table.index, dtype=object)
        for theirs in (plain[spelling] for spelling in spellings if spelling in plain):
            cells = frame.loc[table.index, [theirs]]
            cells = cells.assign(**{theirs: spelled(cells[theirs], known)})
            cells = cells.where(~cells.isin(["auto", "none", "None"]), None)
            require_words(cells, theirs, known, source, "others are not priced: remove the row", blank=True)
            words = words.where(words.notna(), cells[theirs])
        if words.isna().any():
            assumed[spellings[-1] if what == "weights" else spellings[0]] = f"{what} in bf16"
        found[ours] = words.where(words.notna(), "bf16")
    return table.assign(**found)


def _with_cache(table: pd.DataFrame, source: str, assumed: dict[str, str]) -> pd.DataFrame:
    """Keys and values of a token: as given, of grouped heads, else those of plain attention, 2 d_model a layer."""
    of = {name: floats(table, name) for name in ("n_kv_heads", "n_heads", "head_dim")}
    width, layers, d_model = of["head_dim"], table["n_layers"].to_numpy(float), table["d_model"].to_numpy(float)
    width = np.where(np.isnan(width), ratio(d_model, of["n_heads"]), width)
    grouped = ~np.isnan(of["n_kv_heads"])
    if (grouped & np.isnan(width)).any():
        assumed["head_dim"] = f"heads of width {_HEAD:g}"
    elements = 2 * layers * of["n_kv_heads"] * np.where(np.isnan(width), _HEAD, width)
    given = floats(table, "kv_elements_per_token")
    elements = np.where(np.isnan(given), np.where(grouped, elements, 2 * layers * d_model), given)
    wrong = ~((elements > 0) & (elements < _MOST_CACHED * layers))
    refuse(table, wrong & ~np.isnan(given), "kv_elements_per_token", "is no size of a cache", source)
    refuse(table, wrong | (of["n_kv_heads"] > of["n_heads"]), "n_kv_heads", "makes no size of a cache", source)
    if (~grouped & np.isnan(given)).any():
        assumed["n_kv_heads"] = "keys and values of 2 d_model a layer"
    return table.assign(kv_elements_per_token=elements)
