"""The question of an answer, in words."""

from __future__ import annotations

from analysis.decision.question import Question
from scaling.formatting import loss, money, si, usd


def question_sentence(asked: Question) -> str:
    """The question in words, by what was given."""
    serving, life = asked.goal == "serving", _life(asked)
    budget = money(asked.train_flops, "FLOP") if asked.train_usd is None else money(asked.train_usd, "USD")
    if asked.target_loss is not None:
        cost = "cost of serving" if serving else "cost"
        question = f"Which model reaches a loss of {loss(asked.target_loss)} nats per token at the least {cost} {life}"
    elif asked.lifetime_cost is not None:
        question = f"Which model reaches the least loss for {money(asked.lifetime_cost, asked.pricing.unit)} {life}"
    elif asked.goal == "loss":
        question = f"Which model reaches the least loss with a training budget of {budget}"
    else:
        bar = f"that of {asked.reference}" if asked.reference_loss is None else loss(asked.reference_loss)
        question = (
            f"Of all models trained within {budget} whose loss is no worse than {bar}, which costs least "
            f"{f'to serve, {life}' if serving else life}"
        )
    return f"{', '.join([question, *_limits(asked)])}?"


def _life(asked: Question) -> str:
    if asked.requests_per_month is not None:
        load = f"{asked.months:g} months at {si(asked.requests_per_month)} requests a month"
        return f"over its life, {load} ({si(asked.served)} tokens)"
    return f"over its life, {si(asked.served)} tokens served" if asked.served else "to train"


def _limits(asked: Question) -> list[str]:
    """The limits that were set."""
    service = asked.service
    limits = [
        (asked.device, f"on {asked.device}"),
        (asked.memory_gb, f"within {asked.memory_gb or 0:g} GB of memory"),
        (asked.data_tokens, f"on at most {si(asked.data_tokens)} tokens of text"),
        (asked.usd_per_million, f"at no more than {usd(asked.usd_per_million)} per million tokens"),
        (service.max_fleet, f"on at most {service.max_fleet} devices in all"),
        (service.ttft_s, f"with ttft at most {1e3 * (service.ttft_s or 0):g} ms"),
        (service.tpot_s, f"with tpot at most {1e3 * (service.tpot_s or 0):g} ms"),
    ]
    return [text for limit, text in limits if limit]
