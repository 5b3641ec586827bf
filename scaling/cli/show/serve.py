"""What a model costs to serve, as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaling.cli.show.page import Page
from scaling.formatting import between, number, plural, si, usd
from scaling.serving.replicas import METRICS

if TYPE_CHECKING:
    from analysis.decision.serve import Serving

_ROWS = 6
_METRICS = ("tpot", "ttft", "output_throughput")


def serving_page(found: Serving) -> Page:
    """The cheapest point within the limits, the ladder, the front, and what it rests on."""
    from analysis.decision.serve import SPLIT_OF_THE_PRICE
    from analysis.decision.serving_tables import front_table, ladder_table

    return Page(
        _headline(found),
        why=(_point(found), _model(found)),
        tables=(ladder_table(found, _ROWS), front_table(found, _ROWS)),
        notes=(_price(found), _speed(found)),
        details=(
            ladder_table(found, detailed=True),
            front_table(found, detailed=True),
            *(f"{name}: {METRICS[name]}" for name in _METRICS),
            "TP: matrices are split over the devices; EP: experts are, attention is copied and requests are shared out",
            SPLIT_OF_THE_PRICE,
            *found.notes,
            f"rent: {found.device.price_source}; {found.device.price_date}",
            f"device: {found.device.source}",
        ),
    )


def _headline(found: Serving) -> str:
    best = found.cheapest
    return (
        f"{found.model} on {found.device.name}: {usd(best.usd_per_million_input)} in, "
        f"{usd(best.usd_per_million_output)} out per M tokens, {_three(best.tokens_per_s_per_user)} tok/s a user"
    )


def _point(found: Serving) -> str:
    """The cheapest point: layout, speeds and how sure they are."""
    best = found.cheapest
    limits = {"ttft": found.service.ttft_s, "tpot": found.service.tpot_s}
    kept = [f"{name} at most {1e3 * value:g} ms" for name, value in limits.items() if value]
    within = f" with {' and '.join(kept)}" if kept else ""
    devices = plural(best.n_devices, "device")
    layout = f"{devices}, {'expert' if best.experts_split else 'tensor'}-parallel" if best.n_devices > 1 else devices
    step = "" if best.tpot_ms_interval is None else f" ({between(best.tpot_ms_interval, _three)})"
    rate = best.tokens_per_s_per_device_interval
    return (
        f"Cheapest{within}: {layout}, {best.concurrency} requests at once, TPOT "
        f"{_three(best.tpot_ms)} ms{step}, {si(best.tokens_per_s_per_device)} tokens/s a device"
        f"{'' if rate is None else f' ({between(rate)})'}."
    )


def _model(found: Serving) -> str:
    routed = f", E = {found.n_experts}, k = {found.top_k:g}" if found.n_experts > 1 else ""
    cache = f"{found.kv_bytes_per_token / 1e3:,.4g} kB a token"
    return (
        f"{si(found.n_total)} parameters, {si(found.n_active)} active{routed}; weights {found.weight_gb:,.4g} GB, "
        f"cache {cache}."
    )


def _speed(found: Serving) -> str:
    """How far the speed may be off, in a line."""
    engine = found.service.engine
    if engine is None:
        return found.notes[0]
    return f"speed {engine.name}: TPOT within {engine.error:.0%} (median) on models left out of its fit"


def _price(found: Serving) -> str:
    service = found.service
    return (
        f"a request is {si(service.prompt)} prompt and {si(service.generated)} output tokens; "
        f"{usd(found.device.usd_per_hour)} an hour and device, busy {service.utilisation:.0%} of the time; no queueing"
    )


def _three(value: float) -> str:
    return number(value, ".3g") if abs(value) < 999.5 else si(value)
