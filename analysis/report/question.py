"""Numbers as a reader wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.decision.question import Question
from scaling.formatting import loss, money, si


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
            f"Of all models trained within {budget} whose loss is no worse than that of the best {best} of this "
            f"budget, which costs least {'to serve' if found.goal == 'serving' else life}"
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
