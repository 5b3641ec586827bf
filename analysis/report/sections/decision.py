"""The decision: the front page and the table behind it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from analysis.decision.optima import UNANSWERED_LIMIT
from analysis.decision.question import Question
from analysis.decision.recommendation import EXTRAPOLATION_LIMIT, PROBABILITY_NEEDED, REGRET_LIMIT
from analysis.report import blocks
from analysis.report.blocks import Block, Cell, Tile, bullets, field, heading, picture, table, text
from analysis.report.plots import decision as decision_plots
from analysis.report.plots.study import measured_decode
from analysis.report.question import question_sentence
from analysis.report.sections import what_if
from analysis.report.sections.serving import price
from analysis.report.study import Answer, Study, choices
from scaling import formatting
from scaling.columns import EXPERTS
from scaling.formatting import between, experts, experts_cell, listed, loss, money, percent, plural, sentence, si
from scaling.serving.step_time import ASSUMED


def front_page(study: Study) -> dict[str, Any]:
    """Title, decision and the numbers that go with it."""
    answer = study.decision
    chosen, decided = answer["recommendation"], bool(answer["decided"])
    name = experts(chosen["n_experts"])
    if decided:
        headline = f"Train {name}: {si(chosen['n_active'])} active parameters on {si(chosen['tokens'])} tokens"
        because = f"It is best in {percent(chosen['probability_best'])} of {answer['n_draws']} bootstrap draws"
        for second in answer["alternatives"][:1]:
            because += f"; {experts(second['n_experts'])} is next with {percent(second['probability_best'])}"
    else:
        headline = f"Not decided; {name} leads"
        because = " ".join(sentence(reason) for reason in answer["undecided_because"])
    return blocks.front_page(
        headline,
        sentence(because),
        "Decided" if decided else "Not decided by these runs",
        decided=decided,
        tiles=_tiles(answer),
        summary=_summary(study),
    )


def _tiles(answer: Answer) -> list[Tile]:
    """Label, value and note of the numbers under the decision."""
    chosen, unit = answer["recommendation"], answer["recommendation"]["cost"]["unit"]
    dense = chosen["n_experts"] == 1
    total = si(chosen["n_total"]) if chosen["n_total"] else "unknown"
    cost_interval = between(chosen["cost_interval"], lambda value: formatting.cost(value, unit))
    # Answers of older versions have no 95 % set.
    candidates = f"; 95% set: {listed(answer['best_experts'])}" if answer.get("best_experts") else ""
    return [
        ("Experts, E", str(chosen["n_experts"]), "dense" if dense else f"{chosen['top_k']} per token"),
        ("Active parameters", si(chosen["n_active"]), between(chosen["n_active_interval"])),
        ("Total parameters", total, "held in memory"),
        ("Training tokens", si(chosen["tokens"]), between(chosen["tokens_interval"])),
        ("Loss, nats/token", loss(chosen["loss"]), between(chosen["loss_interval"], loss)),
        (f"Lifetime cost, {unit}", formatting.cost(chosen["cost"]["total"], unit), cost_interval),
        ("Best in", percent(chosen["probability_best"]), f"of draws{candidates}" if answer["n_draws"] else "no draws"),
    ]


def _summary(study: Study) -> list[Block]:
    answer = study.decision
    dense = next((choice for choice in answer["alternatives"] if choice["n_experts"] == 1), None)
    against_dense = "" if dense is None else _against_dense(answer["recommendation"], dense)
    next_run = "" if answer["next_run"] is None else _next_run(answer["next_run"])
    advice = " ".join(filter(None, (against_dense, next_run)))
    draws = f"{answer['n_draws']} bootstrap draws" if answer["n_draws"] else "no draws, so without intervals"
    caption = (
        f"What every expert count offers by the fitted {answer['law']} law, with the recommendation as a star, and the "
        f"share of draws in which each is best. From {plural(len(study.table), 'run')} and {draws}.{_measured(study)}"
    )
    facts = [_cost(answer), *_monthly_cost(answer), *_loss(study), _how_sure(answer), *what_if.in_short(answer)]
    return [
        text(question_sentence(answer["question"])),
        bullets(facts),
        *([text(advice)] if advice else []),
        picture("hero", caption),
    ]


def _cost(answer: Answer) -> str:
    """The parts of the lifetime cost, and in USD the price of a million tokens."""
    chosen, tokens = answer["recommendation"], Question.from_json(answer["question"]).served
    train, serve, total = (money(chosen["cost"][part], chosen["cost"]["unit"]) for part in ("train", "serve", "total"))
    if not tokens:
        return f"cost: {train} to train; nothing is served"
    served = chosen.get("served")
    at = "" if served is None else f" at {price(served)} USD per million"
    return f"cost: {total}, {train} to train and {serve} to serve {si(tokens)} tokens{at}"


def _monthly_cost(answer: Answer) -> list[str]:
    """What a month of serving costs; nothing where no load was given."""
    chosen, asked = answer["recommendation"], Question.from_json(answer["question"])
    if asked.requests_per_month is None:
        return []
    monthly = money(chosen["cost"]["serve"] / asked.months, chosen["cost"]["unit"])
    line = f"a month: {monthly} for {si(asked.requests_per_month)} requests"
    if (served := chosen.get("served")) is not None and served["replicas"] is not None:
        devices = plural(served["replicas"] * served["n_devices"], "device")
        line += f", on {devices} ({plural(served['replicas'], 'replica')} of {served['n_devices']})"
    return [line]


def _loss(study: Study) -> list[str]:
    """The interval of the law and that of one run, as far as the fit has them."""
    ends = study.decision["recommendation"]["loss_interval"]
    if ends is None:
        return []
    line = f"loss: {between(ends, loss)} by the law (95%)"
    if study.new_run is not None:
        line += f"; a single run is expected to measure {between(study.new_run, loss)}"
    return [line]


def _how_sure(answer: Answer) -> str:
    regret, best = answer["expected_regret"], experts(answer["recommendation"]["n_experts"])
    if regret is None:
        return "how sure: not known, because the fit has no draws"
    return f"how sure: the expected regret of {best} is {100 * regret:.2g}% of the cost (limit {percent(REGRET_LIMIT)})"


def _measured(study: Study) -> str:
    """What the panel of measured times shows; nothing where nothing was measured."""
    rows = measured_decode(study)
    if rows.empty:
        return ""
    first = rows.iloc[0]
    dense = "; above the bars, the ratio to the dense model" if (rows[EXPERTS] == 1).any() else ""
    return (
        f" Right: measured decode time on {first['device_kind']}, per token at batch {int(first['batch'])}, median and "
        f"quartiles, for models of {si(first['n_active'])} active parameters{dense}. {_in_the_cost(study.decision)}"
    )


def _in_the_cost(answer: Answer) -> str:
    """Whether the cost rests on times that were measured."""
    asked = Question.from_json(answer["question"])
    source = asked.service.efficiency.source
    if asked.pricing.device is None or source == ASSUMED.source:
        return "These times are not in the cost."
    return sentence(f"The device speed behind the cost is {source}")


def _against_dense(chosen: Mapping[str, Any], dense: Mapping[str, Any]) -> str:
    """What the recommendation gains over the best dense model; nothing where neither cost nor loss differs."""
    saved, gained = 1 - chosen["cost"]["total"] / dense["cost"]["total"], dense["loss"] - chosen["loss"]
    difference = f"a loss {abs(gained):.3f} nats {'lower' if gained > 0 else 'higher'}"
    less = f"{percent(abs(saved))} {'less' if saved > 0 else 'more'}"
    if abs(saved) < 0.005:
        return "" if abs(gained) < 5e-4 else f"It costs the same as the best dense model and has {difference}."
    at = "at the same expected loss" if abs(gained) < 5e-4 else f"with {difference}"
    return f"Over its life it costs {less} than the best dense model, {at}."


def _next_run(run: Mapping[str, Any]) -> str:
    advice = (
        f"The most informative next run: {experts(run['n_experts'])} with {si(run['n_active'])} active parameters on "
        f"{si(run['tokens'])} tokens ({formatting.flops(run['train_flops'])} FLOP); {run['reason']}."
    )
    if run["regret_before"] is not None:
        advice += (
            f" Among the E that can answer in all but {percent(UNANSWERED_LIMIT)} of the draws, it would reduce the "
            f"expected regret of the best choice from {100 * run['regret_before']:.1f}% of the cost to "
            f"{100 * run['regret_after']:.1f}%."
        )
    return advice


def decision(study: Study) -> list[Block]:
    """Every expert count at its best, and why the answer is as sure as it is."""
    parts = []
    for name, answer in study.answers.items():
        if len(study.answers) > 1:
            parts += [heading(f"Question “{name}”"), text(question_sentence(answer["question"]))]
        parts.append(_choices(answer, len(study.table)))
        if answer["unreachable"]:
            parts.append(text(f"Unable to answer: E = {listed(answer['unreachable'])}."))
    answer = study.decision
    if answer.get("rivals"):
        parts.append(_compared_fits(answer))
    if decision_plots.regret in decision_plots.drawn(study):
        parts.append(picture("regret", _REGRET_CAPTION, 0.7))
    reasons = answer["undecided_because"] or [
        f"expected regret is at most {percent(REGRET_LIMIT)} of the cost, the chosen E is best in at least "
        f"{percent(PROBABILITY_NEEDED)} of the draws and cannot answer in at most {percent(UNANSWERED_LIMIT)}, it lies "
        f"inside the range of E studied, and training it takes at most {EXTRAPOLATION_LIMIT:g} times the compute of "
        "the largest run"
    ]
    if candidates := answer.get("best_experts"):
        names = ", ".join(experts(e) for e in candidates)
        meaning = "the only candidate at 95%" if len(candidates) == 1 else "together best in 95% of the draws"
        reasons = [*reasons, f"95% set: {names} ({meaning})"]
    title = "Decided, and by which rule" if answer["decided"] else "Why it is not decided"
    return [*parts, heading(title), bullets(reasons)]


_REGRET_CAPTION = (
    "Expected regret of each E: its cost beyond that of the best choice, averaged over the draws in which it can "
    f"answer; linear up to the dashed line at {percent(REGRET_LIMIT)}, the limit for a decision, logarithmic beyond. "
    "Above the bars, the regret and the share of the draws in which this E is best."
)


def _compared_fits(answer: Answer) -> Block:
    """The fits that were compared (other k, routers or experts), each at its best E."""
    unit, fits = answer["recommendation"]["cost"]["unit"], answer["rivals"]["rivals"]
    header, write = f"cost, {unit}", partial(formatting.cost, unit=unit)
    if Question.from_json(answer["question"]).goal == "loss":
        header, write = "loss", partial(loss)
    caption = (
        "The best model of every fit that was compared; the answer is that of ★. “best in” and “regret” are over "
        f"{answer['rivals']['n_draws']} draws, as for the expert counts."
    )
    columns: dict[str, Cell] = {
        "fit": lambda fit: fit["name"] + (" ★" if fit is fits[0] else ""),
        "k": field("top_k"),
        "best E": blocks.EXPERTS_CELL,
        "active": blocks.ACTIVE,
        "tokens": blocks.TOKENS,
        header: field("value", write),
        "best in": blocks.BEST_IN,
        "regret": blocks.REGRET,
    }
    return table(fits, columns, caption)


def _choices(answer: Answer, n_runs: int) -> Block:
    """Every expert count at its best."""
    chosen = answer["recommendation"]
    unit = chosen["cost"]["unit"]
    with_unanswered = any(choice.get("unanswered") is not None for choice in choices(answer))

    def spent(part: str) -> Cell:
        return lambda choice: formatting.cost(choice["cost"][part], unit)

    columns: dict[str, Cell] = {
        "E": lambda choice: experts_cell(choice["n_experts"]) + (" ★" if choice is chosen else ""),
        "active": blocks.ACTIVE,
        "total": field("n_total", lambda count: si(count or None)),
        "tokens": blocks.TOKENS,
        "loss (95%)": lambda choice: f"{loss(choice['loss'])}  ({between(choice['loss_interval'], loss)})",
        f"train, {unit}": spent("train"),
        "serve": spent("serve"),
        "both": spent("total"),
        "best in": blocks.BEST_IN,
        "regret": blocks.REGRET,
    }
    if with_unanswered:
        columns["no answer in"] = field("unanswered", percent)
    caption = (
        "The best model of every expert count for this question; ★ is recommended. Losses in nats per token by the "
        f"{answer['law']} law ({plural(n_runs, 'run')}); “best in” is the share of {answer['n_draws']} bootstrap "
        "draws, “regret” the cost beyond that of the best choice, the mean over the draws in which this E can answer"
        + ("; “no answer in”, the share of draws in which no size of it can." if with_unanswered else ".")
    )
    return table(choices(answer), columns, caption)
