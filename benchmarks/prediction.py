"""A study's prediction, written down before its check: losses, effective speedups and decisions at more compute.

Everything follows from files that the command line wrote: the fit, and an answer for each serving load. The models of
the check follow from the answers, so nobody chooses them after the fact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.decision.answer import Answer
from analysis.decision.optima import SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommend import recommend, some_draws
from analysis.decision.recommendation import Choice, Interval
from analysis.fitting.fit import Fit
from scaling.arrays import Array
from scaling.config.counts import parameters
from scaling.config.model import ModelConfig
from scaling.config.run import RunConfig
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.values import digest
from sweeps.grid import Grid, parse, resolved, with_axes

TIMES = 10.0  # the compute of the check over the largest of the fit
BRANCHES = (1 / 8, 1 / 4, 1 / 2, 1)  # token budgets of a check's trunk, to read off where it reaches the dense loss
_HEAD, _WIDEST = 16, 1024
_LADDER = np.geomspace(1 / 4, 64, 33)  # dense compute over that of a mixture of experts, for effective speedups
_DRAWS = 200


@dataclass(frozen=True)
class PredictedBest:
    """The best model of one E at the compute, its loss with the 95 % interval of a run, and its effective speedup: the
    compute of the dense model of equal loss over its own, with a 95 % interval."""

    n_experts: int
    n_active: float
    tokens: float
    loss: float
    run_interval: Interval | None
    speedup: float
    speedup_interval: Interval


@dataclass(frozen=True)
class PredictedCell:
    """One run of the check: its shape, its loss with the 95 % interval of a run."""

    n_experts: int
    d_model: int
    n_layers: int
    n_active: float
    tokens: float
    loss: float
    run_interval: Interval


@dataclass(frozen=True)
class PredictedDecision:
    """What is recommended under one load, and what it states of itself."""

    load: str
    serve_tokens: float
    decided: bool
    undecided_because: tuple[str, ...]
    n_experts: int
    n_active: float
    n_active_interval: Interval | None
    tokens: float
    target_loss: float
    cost_by_experts: Mapping[int, float]
    stated_regret: float | None


@dataclass(frozen=True)
class Prediction:
    """All that is stated before the check. `fit_hash` is the digest of the fit that it rests on."""

    fit_hash: str
    law: str
    largest_flops: float
    train_flops: float
    best: tuple[PredictedBest, ...]
    decisions: tuple[PredictedDecision, ...]
    checked_load: str
    cells: tuple[PredictedCell, ...]


def predict(fit: Fit, answers: Mapping[str, Answer], grid: Grid) -> tuple[Prediction, Grid]:
    """The prediction of a fit and its answers by load, and the grid of the check.

    The check is of the first load, in order of volume, that is decided, or of the first of all where none is. Raises
    InputError where an answer rests on another fit or asks about other compute.
    """
    answers = dict(sorted(answers.items(), key=lambda item: item[1].question.served))
    budget = _budget(fit, answers)
    checked = next((load for load, a in answers.items() if a.recommendation.decided), next(iter(answers)))
    check = check_grid(fit, answers[checked], grid, budget)
    prediction = Prediction(
        fit_hash=digest(fit),
        law=fit.law,
        largest_flops=budget / TIMES,
        train_flops=budget,
        best=predicted_best(fit, budget, answers[checked].question.data_tokens),
        decisions=tuple(_decision(load, answer) for load, answer in answers.items()),
        checked_load=checked,
        cells=tuple(_predicted(fit, cell) for cell in check.cells),
    )
    return prediction, check


def _budget(fit: Fit, answers: Mapping[str, Answer]) -> float:
    """The compute that all answers ask about, `TIMES` that of the largest run."""
    if not answers:
        raise InputError("no answer to check: `scaling recommend FIT --out answer-LOAD.json` makes one for each load")
    budgets = {answer.question.train_flops for answer in answers.values()}
    wrong = [load for load, answer in answers.items() if not answer.rests_on(fit)]
    if wrong:
        raise InputError(f"the answers for {listed(wrong)} rest on another fit: ask again")
    largest = fit.largest_train_flops
    budget = budgets.pop()
    if budgets or budget is None or largest is None or not math.isclose(budget, TIMES * largest, rel_tol=0.02):
        raise InputError(f"every answer must ask with `train_flops` {TIMES * (largest or math.nan):.4g}")
    return budget


def predicted_best(fit: Fit, budget: float, data_tokens: float | None) -> tuple[PredictedBest, ...]:
    """The model of least loss of every E at a compute, by ascending E, with its effective speedup over dense."""
    question = Question(train_flops=budget, data_tokens=data_tokens)
    found = recommend(fit, question)
    choices = sorted((found.recommendation, *found.alternatives), key=lambda choice: choice.n_experts)
    speedups = effective_speedups(fit, question, [choice.n_experts for choice in choices])
    return tuple(
        PredictedBest(c.n_experts, c.n_active, c.tokens, c.loss, c.run_interval, *speedups[c.n_experts])
        for c in choices
    )


def effective_speedups(fit: Fit, question: Question, experts: Sequence[int]) -> dict[int, tuple[float, Interval]]:
    """By E: compute at which the best dense model has the loss of the best model of this E at the budget, over the
    budget, with a 95 % interval over draws of the fit; at the end of `_LADDER` where it lies beyond."""
    optimiser = SizeOptimiser(fit, question)

    def factors(params: Mapping[str, Any], rows: int) -> dict[int, Array]:
        dense = np.stack(
            [
                optimiser.solve([1], params, rows, budgets=np.full(rows, factor * (question.train_flops or 0))).value(1)
                for factor in _LADDER
            ]
        )
        reached = optimiser.solve(experts, params, rows)
        return {
            e: np.exp([np.interp(-reached.value(e)[row], -dense[:, row], np.log(_LADDER)) for row in range(rows)])
            for e in experts
        }

    drawn = some_draws(fit, _DRAWS)
    estimate, draws = factors(fit.params, 1), factors(drawn, min(fit.n_draws, _DRAWS))
    return {e: (float(estimate[e][0]), interval_of(draws[e])) for e in experts}


def interval_of(draws: Array) -> Interval:
    """The 95 % interval of draws: the quantiles at both ends."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def check_grid(fit: Fit, answer: Answer, grid: Grid, budget: float) -> Grid:
    """The grid of the check: one trunk of `BRANCHES` for the recommended E, its neighbours among the E studied and the
    dense model.

    Each is the `nearest_model` to its answer; tokens are what the budget leaves at 6 N D, at most
    `data_tokens`. Latency is measured at the batches that are priced, at prompts of the length of a request and at its
    mean context in decode.
    """
    choices = {choice.n_experts: choice for choice in answer.choices}
    studied = [e for e in fit.experts if e in choices]
    place = studied.index(answer.best.n_experts)
    chosen = sorted(({1} | {*studied[max(0, place - 1) : place + 2]}) & {*studied})
    blocks: list[dict[str, list[Any]]] = []
    for experts in chosen:
        model = nearest_model(grid, choices[experts])
        tokens = min(budget / (6 * _n_active(model, grid)), answer.question.data_tokens or math.inf)
        shape = {name: [getattr(model, name)] for name in ("n_experts", "d_model", "n_layers", "top_k")}
        blocks.append(shape | {"tokens": [round(share * tokens) for share in BRANCHES]})
    service = answer.question.service
    served = {choices[e].served for e in chosen}
    bench = {
        "batch": sorted({1 if offer is None else offer.batch for offer in served}),
        "context": sorted({service.prompt, round(service.mean_context)}),
    }
    check = replace(with_axes(grid, blocks), study=f"{grid.study}-check", record={})
    check = replace(check, settings={**grid.settings, "bench": bench})
    return parse(resolved(check), grid.path)


def depth_of(width: int) -> int:
    """Layers of a width in the flagship's family: 2, 2, 3, 4 at 32, 48, 64, 96, and width / 24 beyond."""
    return max(2, round(width / 24))


def nearest_model(grid: Grid, choice: Choice) -> ModelConfig:
    """The model whose N_active is nearest to that of a choice, a layer more or less than `depth_of` its width at most:
    widths alone, in whole heads, lie up to a factor of 1.7 apart."""
    settings = {name: value for name, value in grid.settings["model"].items() if name not in ("d_model", "n_layers")}
    fixed = {**settings, "top_k": choice.top_k or settings.get("top_k", 1), "n_experts": choice.n_experts}
    family = [
        ModelConfig.model_validate({**fixed, "d_model": width, "n_layers": depth_of(width) + more})
        for width in range(_HEAD, _WIDEST + 1, _HEAD)
        for more in (0, 1, -1)
    ]
    return min(family, key=lambda model: abs(math.log(_n_active(model, grid) / choice.n_active)))


def _n_active(model: ModelConfig, grid: Grid) -> int:
    return parameters(model, grid.cells[0].data.vocab_size).n_active


def _predicted(fit: Fit, cell: RunConfig) -> PredictedCell:
    sizes, tokens = parameters(cell.model, cell.data.vocab_size), cell.steps * cell.train.batch_tokens
    columns = {
        "n_experts": cell.model.n_experts, "tokens": tokens, "n_active": sizes.n_active, "n_total": sizes.n_total,
        "n_active_nonembed": sizes.n_active_nonembed, "n_dense_nonembed": sizes.n_dense_nonembed,
    }  # fmt: skip
    row = fit.predict({name: columns[name] for name in fit.definition.columns}).iloc[0]
    return PredictedCell(
        n_experts=cell.model.n_experts,
        d_model=cell.model.d_model,
        n_layers=cell.model.n_layers,
        n_active=float(sizes.n_active),
        tokens=float(tokens),
        loss=float(row["loss"]),
        run_interval=(float(row["run_low"]), float(row["run_high"])),
    )


def _decision(load: str, answer: Answer) -> PredictedDecision:
    found, best = answer.recommendation, answer.best
    return PredictedDecision(
        load=load,
        serve_tokens=answer.question.served,
        decided=found.decided,
        undecided_because=found.undecided_because,
        n_experts=best.n_experts,
        n_active=best.n_active,
        n_active_interval=best.n_active_interval,
        tokens=best.tokens,
        target_loss=best.loss,
        cost_by_experts={choice.n_experts: choice.cost.total for choice in answer.choices},
        stated_regret=best.regret,
    )
