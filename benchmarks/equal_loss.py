"""The table of arXiv 2404.02852 from a study's own runs: what each E costs to train and to serve at one loss.

    python -m benchmarks.equal_loss [FOLDER] [--answer NAME] [--json]

FOLDER (results/flagship) holds a fit, a latency law and an answer (`answer-heavy.json`), whose budget, lengths of
requests and device are taken. The loss is that of the best dense model at the budget, drawn anew in every draw. Two
models of each E have it: the one of least training FLOPs (the paper's compute-optimal model), and the one that is
cheapest to serve within the budget (over-trained). Intervals are of 95 %, over draws of the law and of the latency law.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.decision.answer import read_answer
from analysis.decision.optima import Optima, SizeOptimiser
from analysis.decision.question import Question
from analysis.decision.recommend import some_draws
from analysis.decision.recommendation import Interval
from analysis.decision.size_search import Optimum, largest_that_fits
from analysis.fitting.fit import Fit
from analysis.fitting.fit_file import load_fit
from analysis.latency.law import load_latency_law
from analysis.latency.speeds import Speeds
from benchmarks.prediction import interval_of
from benchmarks.prediction_pages import markdown_table
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import si

FOLDER = Path("results/flagship")
MILLION = 1e6  # output tokens that are priced
_DRAWS = 200


@dataclass(frozen=True)
class Priced:
    """A model of one E at the loss: N_active, tokens, training FLOPs over the budget, USD a million output tokens; 95 %
    intervals of the last two; and the share of draws in which there is such a model at all."""

    n_active: float
    tokens: float
    train_ratio: float
    usd: float
    train_ratio_interval: Interval
    usd_interval: Interval
    reached: float


@dataclass(frozen=True)
class EqualLoss:
    """The two models of one E; None where there is none at the estimate."""

    n_experts: int
    compute_optimal: Priced | None
    over_trained: Priced | None


def equal_loss(fit: Fit, question: Question, speeds: Speeds) -> tuple[float, tuple[EqualLoss, ...]]:
    """The loss of the best dense model at the question's budget, and both models of every E studied that have it."""
    budget, some = question.train_flops or 0.0, speeds.some()
    dense = SizeOptimiser(fit, Question(train_flops=budget, data_tokens=question.data_tokens))
    trained = SizeOptimiser(fit, Question(target_loss=1.0, data_tokens=question.data_tokens))  # 1: a row has its own
    served = SizeOptimiser(fit, replace(question, serve_tokens=MILLION, minimise="serving"))

    def optima(params: Mapping[str, Any], rows: int, speeds: Speeds | None) -> tuple[Array, Optima, Optima]:
        target = dense.solve([1], params, rows).value(1)
        least_compute = trained.solve(fit.experts, params, rows, target=target)
        return target, least_compute, served.solve(fit.experts, params, rows, speeds, target=target)

    loss, *estimates = optima(fit.params, 1, None)
    _, *draws = optima(some_draws(fit, _DRAWS), min(fit.n_draws, _DRAWS), some)
    return float(loss[0]), tuple(
        EqualLoss(
            e,
            *(
                _priced(served, e, budget, one.by_experts[e], many.by_experts[e], some)
                for one, many in zip(estimates, draws, strict=True)
            ),
        )
        for e in fit.experts
    )


def _priced(
    served: SizeOptimiser, n_experts: int, budget: float, estimate: Optimum, draws: Optimum, speeds: Speeds
) -> Priced | None:
    """An optimum and its draws with their prices."""
    size, tokens = float(estimate.n_active[0]), float(estimate.tokens[0])
    if not np.isfinite(estimate.value[0]):
        return None
    space, pricing = served.space(n_experts), served.pricing
    table = pricing.tabulated(space.sizes, largest_that_fits(space), speeds, size)
    there = np.isfinite(draws.value)
    usd = MILLION * table.per_token(np.where(there, draws.n_active, size)[:, None])[there, 0]
    ratios = 6.0 * draws.n_active[there] * draws.tokens[there] / budget
    return Priced(
        n_active=size,
        tokens=tokens,
        train_ratio=6.0 * size * tokens / budget,
        usd=float(MILLION * np.ravel(pricing.per_token(space.sizes(np.array([size]))))[0]),
        train_ratio_interval=interval_of(ratios),
        usd_interval=interval_of(usd),
        reached=float(there.mean()),
    )


def table_of(found: Iterable[EqualLoss]) -> str:
    """The table as Markdown, a row each E."""
    heads = ("E", "N", "tokens", "training", "USD a million", "N, over-trained", "tokens", "training", "USD a million")
    rows = ((row.n_experts, *_cells(row.compute_optimal), *_cells(row.over_trained)) for row in found)
    return markdown_table(heads, rows)


def _cells(priced: Priced | None) -> tuple[str, ...]:
    if priced is None:
        return ("none", "", "", "")
    low, high = priced.train_ratio_interval
    training = f"{priced.train_ratio:.2f} ({low:.2f} to {high:.2f})"
    usd = f"{priced.usd:.3g} ({priced.usd_interval[0]:.3g} to {priced.usd_interval[1]:.3g})"
    return si(priced.n_active), si(priced.tokens), training, usd


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.equal_loss", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--answer", default="answer-heavy.json", help="the answer whose budget and requests are taken")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    asked = parser.parse_args(arguments)
    try:
        fit, law = load_fit(str(asked.folder / "fit.json")), load_latency_law(asked.folder / "latency.json")
        loss, found = equal_loss(fit, read_answer(asked.folder / asked.answer).question, law.speeds)
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    if asked.json:
        print(json.dumps({"loss": loss, "by_experts": [asdict(row) for row in found]}))
    else:
        print(f"At a loss of {loss:.4f} nats a token:\n\n{table_of(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
