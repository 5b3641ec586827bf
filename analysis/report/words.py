"""Numbers as a reader wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.figures import powers, si
from analysis.question import Question


def loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def flops(value: float | None) -> str:
    """FLOPs in powers of ten, as budgets are quoted."""
    return "–" if value is None else "0" if value == 0 else powers(value)


def number(value: float, form: str = ".4g") -> str:
    """A plain number with a true minus sign; very large and very small ones in powers of ten."""
    plain = format(value, form) if value == 0 or 1e-4 <= abs(value) < 1e5 else powers(value)
    return plain.replace("-", "−")


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def between(interval: Sequence[float] | None, write: Any = si) -> str:
    """`low – high`, or a dash where there is no interval."""
    return "–" if interval is None else f"{write(interval[0])} – {write(interval[1])}"


def spread(interval: Sequence[float] | None) -> str:
    """` (low – high)` to set behind a number; nothing where there is no interval."""
    return "" if interval is None else f" ({between(interval)})"


def percent(share: float | None) -> str:
    """A share in percent; never `100 %` or `0 %` for what is only close to it."""
    if share is None:
        return "–"
    if 0 < share < 0.005:
        return "< 1%"
    return "> 99%" if 0.995 <= share < 1 else f"{100 * share:.0f}%"


def experts(count: int) -> str:
    return "the dense model" if count == 1 else f"E = {count}"


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    text = text.strip()
    return (text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")) if text else ""


def cost(value: float, unit: str) -> str:
    """A cost without its unit: FLOPs in powers of ten, USD as people say it."""
    return flops(value) if unit == "FLOP" else si(value)


def money(value: float, unit: str) -> str:
    """A cost with its unit."""
    return f"{cost(value, unit)} {unit}"


def question(asked: Mapping[str, Any]) -> str:
    """The question in words, by what was given."""
    found = Question.from_json(asked)
    unit = found.pricing.unit
    life = _life(found)
    if found.train_usd is not None:
        budget = money(found.train_usd, "USD")
    else:
        budget = money(found.train_flops, "FLOP") if found.train_flops is not None else ""
    if found.target_loss is not None:
        what = "the least cost of serving" if found.goal == "serving" else "the least cost"
        told = f"Which model reaches a loss of {loss(found.target_loss)} nats per token at {what} {life}"
    elif found.lifetime_cost is not None:
        told = f"Which model reaches the least loss for {money(found.lifetime_cost, unit)} {life}"
    elif found.goal == "loss":
        told = f"Which model reaches the least loss with a training budget of {budget}"
    else:
        best = "dense model" if found.reference_experts == 1 else f"model with E = {found.reference_experts}"
        told = (
            f"Of all models trained within {budget} whose loss is no worse than that of the best {best} of this budget, "
            f"which costs least {'to serve' if found.goal == 'serving' else life}"
        )
        told += f", {life}" if found.goal == "serving" else ""
    return f"{', '.join([told, *_limits(found)])}?"


def _life(asked: Question) -> str:
    if asked.requests_per_month is not None:
        return (
            f"over its life, {asked.months:g} months at {si(asked.requests_per_month)} requests a month "
            f"({si(asked.served)} tokens)"
        )
    return f"over its life, {si(asked.served)} tokens served" if asked.served else "to train"


def _limits(asked: Question) -> list[str]:
    """What must be kept to; limits that nobody set are left out."""
    service = asked.service
    told = [f"on {asked.device}"] if asked.device else []
    told += [f"within {asked.memory_gb:g} GB of memory"] if asked.memory_gb else []
    told += [f"on at most {si(asked.data_tokens)} tokens of text"] if asked.data_tokens else []
    told += [f"at no more than {si(asked.usd_per_million)} USD a million tokens"] if asked.usd_per_million else []
    told += [f"on at most {service.max_fleet} devices in all"] if service.max_fleet else []
    told += [f"with ttft at most {1e3 * service.ttft_s:g} ms"] if service.ttft_s else []
    return told + ([f"with tpot at most {1e3 * service.tpot_s:g} ms"] if service.tpot_s else [])
