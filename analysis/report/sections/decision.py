"""The decision: the front page and the table behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.decision.optima import UNANSWERED_LIMIT
from analysis.decision.question import Question
from analysis.decision.recommendation import EXTRAPOLATION_LIMIT, PROBABILITY_NEEDED, REGRET_LIMIT
from analysis.report import question
from analysis.report.blocks import Block, bullets, heading, picture, sheet, text
from analysis.report.plots import decision as serving_pictures
from analysis.report.plots.study import measured_decode
from analysis.report.sections import what_if
from analysis.report.study import Study
from scaling import formatting
from scaling.columns import EXPERTS
from scaling.formatting import between, flops, money, percent, sentence, si
from scaling.serving.step_time import ASSUMED


def front_page(study: Study) -> dict[str, Any]:
    """Title, decision and the numbers that go with it."""
    answer = study.decision
    chosen, runner_up = answer["recommendation"], next(iter(answer["alternatives"]), None)
    name, share = formatting.experts(chosen["n_experts"]), percent(chosen["probability_best"])
    if answer["decided"]:
        headline = f"Train {name}: {si(chosen['n_active'])} active parameters on {si(chosen['tokens'])} tokens"
        because = f"It is best in {share} of {answer['n_draws']} bootstrap draws"
        if runner_up is not None:
            next_best = formatting.experts(runner_up["n_experts"])
            because += f"; {next_best} comes next with {percent(runner_up['probability_best'])}"
    else:
        headline = f"Not decided; {name} leads"
        because = " ".join(sentence(reason) for reason in answer["undecided_because"])
    return {
        "headline": headline,
        "because": sentence(because),
        "decided": bool(answer["decided"]),
        "verdict": "Decided" if answer["decided"] else "Not decided by these runs",
        "tiles": [{"label": label, "value": value, "note": note} for label, value, note in _tiles(answer)],
        "summary": _summary(study),
    }


def _tiles(answer: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Label, value and note of the numbers under the decision."""
    chosen = answer["recommendation"]
    dense, unit = chosen["n_experts"] == 1, chosen["cost"]["unit"]

    def cost(value: float) -> str:
        return formatting.cost(value, unit)

    return [
        ("Experts, E", str(chosen["n_experts"]), "dense" if dense else f"{chosen['top_k']} per token"),
        ("Active parameters", si(chosen["n_active"]), between(chosen["n_active_interval"])),
        ("Total parameters", si(chosen["n_total"]) if chosen["n_total"] else "unknown", "held in memory"),
        ("Training tokens", si(chosen["tokens"]), between(chosen["tokens_interval"])),
        ("Loss, nats/token", formatting.loss(chosen["loss"]), between(chosen["loss_interval"], formatting.loss)),
        (f"Lifetime cost, {unit}", cost(chosen["cost"]["total"]), between(chosen["cost_interval"], cost)),
        ("Best in", percent(chosen["probability_best"]), _likely(answer)),
    ]


def _likely(answer: Mapping[str, Any]) -> str:
    """The 95 % set of the best E beside the share of the chosen one; answers of older versions have none."""
    if not answer["n_draws"]:
        return "no draws"
    likely = answer.get("best_experts") or ()
    return f"of draws; 95% set: {', '.join(map(str, likely))}" if likely else "of draws"


def _summary(study: Study) -> list[Block]:
    answer = study.decision
    chosen = answer["recommendation"]
    lines = []
    dense = next((c for c in answer["alternatives"] if c["n_experts"] == 1), None)
    if dense is not None:
        lines.append(_against_dense(chosen, dense))
    if answer["next_run"] is not None:
        lines.append(_next_run(answer["next_run"]))
    draws = f"{answer['n_draws']} bootstrap draws" if answer["n_draws"] else "no draws, so without intervals"
    caption = (
        f"The answer in one picture: what every expert count offers by the fitted {answer['law']} law, the "
        "recommendation as a star, and the share of draws in which each is best. From "
        f"{formatting.plural(len(study.table), 'run')} and {draws}.{_measured(study)}"
    )
    asked, answered = text(question.question(answer["question"])), text(" ".join(line for line in lines if line))
    return [asked, bullets(_told(study)), *([answered] if answered["text"] else []), picture("hero", caption)]


def _told(study: Study) -> list[str]:
    """What it costs, in all and a month, what loss to expect, how sure that is, and what would change it."""
    answer = study.decision
    return [_paid(answer), *_a_month(answer), *_loss(study), _how_sure(answer), *what_if.in_short(answer)]


def _paid(answer: Mapping[str, Any]) -> str:
    """The parts of the lifetime cost, and in USD the price of a million tokens."""
    chosen, asked = answer["recommendation"], Question.from_json(answer["question"])
    cost = chosen["cost"]
    parts = {name: money(cost[name], cost["unit"]) for name in ("train", "serve", "total")}
    if not asked.served:
        return f"cost: {parts['train']} to train; nothing is served"
    told = f"cost: {parts['total']}, {parts['train']} to train and {parts['serve']} to serve {si(asked.served)} tokens"
    if (served := chosen.get("served")) is not None:
        interval = formatting.spread(served.get("usd_per_million_interval"))
        told += f" at {si(served['usd_per_million'])}{interval} USD a million"
    return told


def _a_month(answer: Mapping[str, Any]) -> list[str]:
    """What a month of serving costs; nothing where no load was given."""
    chosen, asked = answer["recommendation"], Question.from_json(answer["question"])
    if asked.requests_per_month is None:
        return []
    monthly = money(chosen["cost"]["serve"] / asked.months, chosen["cost"]["unit"])
    told = f"a month: {monthly} for {si(asked.requests_per_month)} requests"
    if (served := chosen.get("served")) is not None and served["replicas"] is not None:
        devices = formatting.plural(served["replicas"] * served["n_devices"], "device")
        told += f", which take {devices} ({formatting.plural(served['replicas'], 'replica')} of {served['n_devices']})"
    return [told]


def _loss(study: Study) -> list[str]:
    """The interval of the law and that of one run, as far as the fit knows them."""
    ends = study.decision["recommendation"]["loss_interval"]
    if ends is None:
        return []
    told = f"loss: {between(ends, formatting.loss)} by the law (95%)"
    if study.new_run is not None:
        told += f"; one run of it is expected to measure {between(study.new_run, formatting.loss)}"
    return [told]


def _how_sure(answer: Mapping[str, Any]) -> str:
    regret, best = answer["expected_regret"], formatting.experts(answer["recommendation"]["n_experts"])
    if regret is None:
        return "how sure: that cannot be said, the fit has no draws"
    return (
        f"how sure: choosing {best} is expected to cost {100 * regret:.2g}% more than the best choice would; "
        f"{percent(REGRET_LIMIT)} is allowed"
    )


def _measured(study: Study) -> str:
    """What the panel of measured times shows; nothing where nothing was measured."""
    rows = measured_decode(study)
    if rows.empty:
        return ""
    first = rows.iloc[0]
    dense = "; over the bars, how many times the dense model's" if (rows[EXPERTS] == 1).any() else ""
    return (
        f" Right: the decode step as measured on {first['device_kind']}, per token at batch {int(first['batch'])}, "
        f"median and quartiles, models of {si(first['n_active'])} active parameters{dense}. "
        f"{_in_the_cost(study.decision)}"
    )


def _in_the_cost(answer: Mapping[str, Any]) -> str:
    """Whether the cost rests on times that were measured."""
    asked = Question.from_json(answer["question"])
    source = asked.service.efficiency.source
    if asked.pricing.device is None or source == ASSUMED.source:
        return "These times are not in the cost."
    return sentence(f"In the cost, what the device reaches is {source}")


def _against_dense(chosen: Mapping[str, Any], dense: Mapping[str, Any]) -> str:
    """What the recommendation gains over the best dense model; nothing where neither cost nor loss differs."""
    saved, gained = 1 - chosen["cost"]["total"] / dense["cost"]["total"], dense["loss"] - chosen["loss"]
    lower = f"a loss {abs(gained):.3f} nats {'lower' if gained > 0 else 'higher'}"
    if abs(saved) < 0.005:
        return "" if abs(gained) < 5e-4 else f"The best dense model costs the same: against it stands {lower}."
    more_or_less = f"{percent(abs(saved))} {'less' if saved > 0 else 'more'}"
    at = "at the same expected loss" if abs(gained) < 5e-4 else f"with {lower}"
    return f"Against the best dense model it costs {more_or_less} over its life, {at}."


def _next_run(run: Mapping[str, Any]) -> str:
    told = (
        f"The run that would help most: {formatting.experts(run['n_experts'])} with {si(run['n_active'])} active "
        f"parameters on "
        f"{si(run['tokens'])} tokens ({flops(run['train_flops'])} FLOP); {run['reason']}."
    )
    if run["regret_before"] is not None:
        before, after = 100 * run["regret_before"], 100 * run["regret_after"]
        told += (
            f" Of the E that can answer in all but {percent(UNANSWERED_LIMIT)} of the draws, the best choice has an "
            f"expected regret of {before:.1f}% of the cost; after that run, {after:.1f}%."
        )
    return told


def decision(study: Study) -> list[Block]:
    """Every expert count at its best, and why the answer is as sure as it is."""
    blocks = []
    for name, answer in study.answers.items():
        if len(study.answers) > 1:
            blocks += [heading(f"Question “{name}”"), text(question.question(answer["question"]))]
        blocks.append(_choices(answer, len(study.table)))
        if answer["unreachable"]:
            blocks.append(text(f"Not able to answer: E = {', '.join(map(str, answer['unreachable']))}."))
    answer = study.decision
    if answer.get("rivals"):
        blocks.append(_rivals(answer))
    if serving_pictures.regret in serving_pictures.drawn(study):
        blocks.append(picture("regret", _REGRET_CAPTION, 0.7))
    reasons = answer["undecided_because"] or [
        f"expected regret is at most {percent(REGRET_LIMIT)} of the cost, the E chosen is best in at least "
        f"{percent(PROBABILITY_NEEDED)} of the draws and cannot answer in at most {percent(UNANSWERED_LIMIT)}, it lies "
        f"inside the E that were studied, and training it stays within {EXTRAPOLATION_LIMIT:g} times the compute of "
        "the largest run"
    ]
    if likely := answer.get("best_experts"):
        told = ", ".join(formatting.experts(e) for e in likely)
        which = "it alone" if len(likely) == 1 else "any of them"
        reasons = [*reasons, f"95% set: {told} ({which} may be the best; together they hold 95% of the draws)"]
    title = "Decided, and by which rule" if answer["decided"] else "Why it is not decided"
    return [*blocks, heading(title), bullets(reasons)]


_REGRET_CAPTION = (
    "What choosing each E is expected to cost beyond the best choice, the mean over the draws in which it can answer; "
    f"linear up to the dashed line, {percent(REGRET_LIMIT)}, which a decision may cost at most, logarithmic beyond. "
    "Over the bars, the regret and the share of the draws in which this E is best."
)


def _rivals(answer: Mapping[str, Any]) -> Block:
    """The fits that were compared (other k, routers or experts), each at its best E."""
    unit, value = answer["recommendation"]["cost"]["unit"], "loss"
    if Question.from_json(answer["question"]).goal != "loss":
        value = f"cost, {unit}"
    rows = [
        [
            one["name"] + (" ★" if one is answer["rivals"]["rivals"][0] else ""),
            "–" if one["top_k"] is None else str(one["top_k"]),
            "dense" if one["n_experts"] == 1 else str(one["n_experts"]),
            si(one["n_active"]),
            si(one["tokens"]),
            formatting.loss(one["value"]) if value == "loss" else formatting.cost(one["value"], unit),
            percent(one["probability_best"]),
            percent(one["regret"]),
        ]
        for one in answer["rivals"]["rivals"]
    ]
    columns = ["fit", "k", "best E", "active", "tokens", value, "best in", "regret"]
    caption = (
        "The best model of every fit that was compared; the answer is that of ★. “best in” and “regret” are over "
        f"{answer['rivals']['n_draws']} draws, as those of an E."
    )
    return sheet(columns, rows, caption)


def _choices(answer: Mapping[str, Any], n_runs: int) -> Block:
    choices = [answer["recommendation"], *answer["alternatives"]]
    unit = choices[0]["cost"]["unit"]
    told = any(c.get("unanswered") is not None for c in choices)
    rows = [
        [
            ("dense" if c["n_experts"] == 1 else str(c["n_experts"])) + (" ★" if c is choices[0] else ""),
            si(c["n_active"]),
            si(c["n_total"]) if c["n_total"] else "–",
            si(c["tokens"]),
            f"{formatting.loss(c['loss'])}  ({between(c['loss_interval'], formatting.loss)})",
            formatting.cost(c["cost"]["train"], unit),
            formatting.cost(c["cost"]["serve"], unit),
            formatting.cost(c["cost"]["total"], unit),
            percent(c["probability_best"]),
            percent(c["regret"]),
            *([percent(c["unanswered"])] if told else []),
        ]
        for c in sorted(choices, key=lambda c: c["n_experts"])
    ]
    columns = ["E", "active", "total", "tokens", "loss (95%)", f"train, {unit}", "serve", "both", "best in", "regret"]
    columns += ["no answer in"] if told else []
    caption = (
        "The best model of every expert count for the question asked; ★ is recommended. Losses in nats per token by "
        f"the {answer['law']} law ({n_runs} runs); “best in” is the share of {answer['n_draws']} bootstrap draws, "
        "“regret” what that choice costs beyond the best one, the mean over the draws in which this E can answer"
        + ("; “no answer in”, the share of draws in which no size of it can." if told else ".")
    )
    return sheet(columns, rows, caption)
