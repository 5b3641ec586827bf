"""A prediction held against its check: losses at more compute, and which E was the cheapest at equal loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.decision.answer import Answer
from analysis.decision.lifetime_cost import SECONDS_AN_HOUR
from analysis.decision.optima import SizeOptimiser
from analysis.fitting.fit import Fit
from benchmarks.prediction import PredictedCell, Prediction
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import listed

_STRETCH = 2.0  # beyond the budgets of a trunk
_FULL = 0.95  # of the check's compute, from which a run counts as one at all of it (tokens are whole batches)


@dataclass(frozen=True)
class CheckedRun:
    """One run of the check beside its prediction. `error`: predicted over measured loss, less 1."""

    n_experts: int
    d_model: int
    tokens: float
    train_flops: float
    measured: float
    predicted: float
    low: float
    high: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1

    @property
    def inside(self) -> bool:
        return self.low <= self.measured <= self.high


@dataclass(frozen=True)
class MeasuredCost:
    """What one E costs at the loss of the dense reference: tokens that its trunk takes to reach it (infinite: it does
    not), USD of training and of serving the load. `extrapolated`: these tokens lie beyond its budgets."""

    n_experts: int
    tokens: float
    train: float
    serve: float
    extrapolated: bool

    @property
    def total(self) -> float:
        return self.train + self.serve


@dataclass(frozen=True)
class CheckedDecision:
    """A decision beside its check. None where the E recommended was not trained, or does not reach the loss."""

    load: str
    decided: bool
    predicted_experts: int
    measured_experts: int
    stated_regret: float | None
    measured_regret: float | None
    costs: tuple[MeasuredCost, ...]


def checked_runs(prediction: Prediction, runs: pd.DataFrame) -> tuple[CheckedRun, ...]:
    """Every run of the check beside its prediction. Raises InputError for one that was not predicted, or is missing."""
    predicted = {(c.n_experts, c.d_model, int(c.tokens)): c for c in prediction.cells}
    ok = runs[runs["status"] == "ok"]
    names = ok[["n_experts", "d_model", "tokens"]].astype(int).itertuples(index=False, name=None)
    found = dict(zip(names, ok["loss_val"].astype(float), strict=True))
    if found.keys() != predicted.keys():
        missing, other = predicted.keys() - found.keys(), found.keys() - predicted.keys()
        raise InputError(
            f"the check has {len(found)} runs that are ok, and {len(predicted)} were predicted; as (E, width, tokens), "
            f"missing: {listed(sorted(missing)) or 'none'}; not predicted: {listed(sorted(other)) or 'none'}"
        )
    return tuple(_run(predicted[key], found[key]) for key in sorted(found))


def _run(cell: PredictedCell, measured: float) -> CheckedRun:
    flops, (low, high) = 6 * cell.n_active * cell.tokens, cell.run_interval
    return CheckedRun(cell.n_experts, cell.d_model, cell.tokens, flops, measured, cell.loss, low, high)


def checked_decision(
    prediction: Prediction, load: str, answer: Answer, fit: Fit, runs: Sequence[CheckedRun], latency: pd.DataFrame
) -> CheckedDecision:
    """The E of least measured lifetime cost at the loss of the dense reference, beside the one recommended.

    A trunk's tokens at that loss are read off between its budgets, straight in ln D against ln loss. Training is priced
    as in the answer, at the measured tokens; serving at the measured times of prefill and decode. Regret is what the E
    recommended costs beyond the cheapest, a share of the cheapest.
    """
    stated = next(decision for decision in prediction.decisions if decision.load == load)
    target = min((run for run in runs if run.n_experts == 1), key=lambda run: run.measured).measured
    optimiser = SizeOptimiser(fit, answer.question)
    costs = []
    for experts in sorted({run.n_experts for run in runs}):
        trunk = sorted((run for run in runs if run.n_experts == experts), key=lambda run: run.tokens)
        tokens, extrapolated = tokens_at_loss(trunk, target)
        sizes = optimiser.sizes(experts, trunk[0].train_flops / trunk[0].tokens / 6)
        train = float(np.ravel(optimiser.pricing.train(sizes, np.array([tokens])))[0])
        serve = answer.question.served * measured_usd_per_token(answer, experts, latency)
        costs.append(MeasuredCost(experts, tokens, train, serve, extrapolated))
    best = min(costs, key=lambda cost: cost.total)
    chosen = next((cost for cost in costs if cost.n_experts == stated.n_experts), None)
    regret = None if chosen is None or not np.isfinite(chosen.total) else chosen.total / best.total - 1
    return CheckedDecision(
        load, stated.decided, stated.n_experts, best.n_experts, stated.stated_regret, regret, tuple(costs)
    )


def tokens_at_loss(trunk: Sequence[CheckedRun], target: float) -> tuple[float, bool]:
    """Tokens at which a trunk, in order of tokens, has this loss, and whether they lie beyond its budgets.

    Straight in ln D against ln loss between two budgets, and up to `_STRETCH` times beyond the first and the last as
    between the two nearest; infinite where that does not reach it.
    """
    logs, wanted = np.log([[run.tokens, run.measured] for run in trunk]), float(np.log(target))
    reached = np.flatnonzero(logs[:, 1] <= wanted)
    after = int(np.clip(reached[0] if len(reached) else len(trunk), 1, len(trunk) - 1))
    (x0, y0), (x1, y1) = logs[after - 1], logs[after]
    tokens = float(np.exp(x0 + (wanted - y0) * (x1 - x0) / (y1 - y0))) if y1 < y0 else float("inf")
    beyond = not (len(reached) and reached[0] > 0)
    if tokens > _STRETCH * trunk[-1].tokens:
        return float("inf"), True
    return max(tokens, trunk[0].tokens / _STRETCH), beyond


def measured_usd_per_token(answer: Answer, n_experts: int, latency: pd.DataFrame) -> float:
    """USD of one output token, its prompt in it, from measured times: rent / (u b) (t_D(b) + t_P(b) / n).

    b sequences decode at the mean context of a request, and b prompts are read in n steps (`replicas.METRICS`). Raises
    InputError where the batch or a context that is priced was not measured.
    """
    service = answer.question.service
    served = next(choice for choice in answer.choices if choice.n_experts == n_experts).served
    if served is None:
        raise InputError(f"the answer prices no serving of E = {n_experts}: ask with `device` and `serve_tokens`")
    rows = latency[(latency["n_experts"] == n_experts) & (latency["batch"] == served.batch)]

    def seconds(phase: str, context: int) -> float:
        times = rows[(rows["phase"] == phase) & (rows["context"] == context)]["time_ms"]
        if times.empty:
            raise InputError(f"E = {n_experts}: no {phase} of batch {served.batch} at context {context} was measured")
        return float(times.median()) / 1e3

    step = seconds("decode", round(service.mean_context)) + seconds("prefill", service.prompt) / service.generated
    rent = answer.question.pricing.rented.usd_per_hour / SECONDS_AN_HOUR
    return rent * step / (service.utilisation * served.batch)


def summary(
    prediction: Prediction, runs: Sequence[CheckedRun], decisions: Sequence[CheckedDecision], cells: int, trunks: int
) -> Mapping[str, object]:
    """The content of `check.json`. `rollout` counts the runs at all of the check's compute; its error is |error|."""
    full = [run for run in runs if run.train_flops >= _FULL * prediction.train_flops]
    errors: Array = np.abs([run.error for run in full])
    return {
        "cells": cells,
        "trunks": trunks,
        "rollout": {
            "runs": len(full),
            "inside": float(np.mean([run.inside for run in full])) if full else None,
            "median_error": float(np.median(errors)) if full else None,
        },
        "decisions": [
            {
                "load": decision.load,
                "decided": decision.decided,
                "predicted_experts": decision.predicted_experts,
                "measured_experts": decision.measured_experts,
                "stated_regret": decision.stated_regret,
                "measured_regret": decision.measured_regret,
            }
            for decision in decisions
        ],
    }
