"""The ensemble of published laws as a planner: is it as sure as it is right, and what does its choice cost?

    python -m benchmarks.ensemble --studies 60

In each study one of the laws is true: one of its draws, shifted to another corpus. The user has 0, 5 or 20 runs of it
with noise, weighs the laws by them, and asks for the E of least lifetime cost, in FLOPs and within some memory. Two
ensembles answer: of all laws, and of all but the true one. Stated probabilities are compared with how often the E was
best, in tenths, within three binomial errors; the regret of the E chosen with that of the best single law in hindsight.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.decision.lineage import sizes_of_lineage
from analysis.decision.optima import MOST_REGRET, SizeOptimiser, best_columns
from analysis.decision.published_models import as_models, weighed_by
from analysis.decision.question import Question
from analysis.decision.value_of_information import choice_of_least_risk
from analysis.mixture.composite import DISCREPANCY, parameter_name, weight_name
from analysis.mixture.ensemble import Ensemble, published_moe
from analysis.mixture.readings import OFFSET, READINGS
from analysis.tables.runs import RunTable
from benchmarks.decisions import reliability
from scaling.arrays import Array, Booleans
from scaling.serving.families import architecture_family

EXPERTS = (1, 16, 32, 64, 96, 128, 192, 256)
RUNS = (0, 5, 20)
KEPT = ("all", "without the truth")
LINEAGE = architecture_family("deepseek")
BUDGETS, SERVED, MEMORY_GB = (1e21, 1e24), (1e11, 1e13), (10.0, 300.0)
_SIZES, _RATIOS = (5e7, 1e9), (10.0, 100.0)  # N_active of runs, and their tokens per parameter
_NOISE, _LEVEL = (0.002, 0.008), 0.3  # of ln L: from run to run, and the level of the corpus
_ALLOWED = 0.02  # regret beyond that of the best single law in hindsight


def truth_of(ensemble: Ensemble, name: str, rng: np.random.Generator) -> dict[str, float]:
    """Parameters of the ensemble with all weight on one law, at one of its draws and another level."""
    draws = READINGS[name].fit().draws
    row = int(rng.integers(len(next(iter(draws.values())))))
    drawn = {parameter_name(name, key): values[row] for key, values in draws.items()}
    level = {parameter_name(name, OFFSET): float(_LEVEL * rng.standard_normal())}
    return {**ensemble.row_of(name), **drawn, **level}


def _between(rng: np.random.Generator, ends: tuple[float, float], count: int) -> Array:
    """Evenly in ln."""
    low, high = (float(np.log(end)) for end in ends)
    return np.exp(rng.uniform(low, high, count))


def runs_of(ensemble: Ensemble, truth: Mapping[str, float], count: int, rng: np.random.Generator) -> RunTable:
    """Runs of a truth, at four E, with noise."""
    n_experts = np.resize((1, 16, 64, 128), count)
    active = _between(rng, _SIZES, count)
    tokens = active * _between(rng, _RATIOS, count)
    noise = _between(rng, _NOISE, 1)[0]
    losses = []
    for size, e, many in zip(active, n_experts, tokens, strict=True):
        sizes = sizes_of_lineage(LINEAGE, np.array([size]), int(e))
        columns = {
            name: sizes.column(name) for name in ensemble.definition.columns if name not in ("tokens", "n_experts")
        }
        loss = ensemble.definition.loss(truth, {**columns, "tokens": np.array([many]), "n_experts": float(e)})
        losses.append(float(np.ravel(loss)[0] * np.exp(noise * rng.standard_normal())))
    frame = {"n_active": active, "n_experts": n_experts, "top_k": LINEAGE.k, "tokens": tokens, "loss_val": losses}
    return RunTable(pd.DataFrame(frame), "simulated")


def study(seed: int, laws: Sequence[str] = tuple(READINGS)) -> list[dict[str, Any]]:
    """What came of one truth, for every number of runs and both ensembles; nothing where no E answers under it.

    All draws of all laws are searched once: an ensemble is a weighing of them, and no offset moves their optima.
    """
    rng = np.random.default_rng([seed, 19])
    true = laws[seed % len(laws)]
    budget, served, memory = (float(_between(rng, ends, 1)[0]) for ends in (BUDGETS, SERVED, MEMORY_GB))
    question = Question(train_flops=budget, serve_tokens=served, memory_gb=memory, n_experts=EXPERTS, family=LINEAGE)
    everything = as_models(published_moe(), question)
    assert isinstance(everything, Ensemble)
    optimiser = SizeOptimiser(everything, question)
    asked = list(_asked(everything, truth := truth_of(everything, true, rng), true, rng))
    estimates = [truth, *(everything.row_of(name) for name in READINGS), *(one.params for _, _, one in asked)]
    rows = [{**everything.params, **dict.fromkeys(map(weight_name, READINGS), 0.0), **row} for row in estimates]
    columns = {name: np.array([[row[name]] for row in rows]) for name in everything.params}
    found = optimiser.solve(EXPERTS, columns, len(rows))
    if not found.ranked():
        return []  # the truth leaves nothing to choose
    regrets = np.nan_to_num(found.regrets()[0], nan=MOST_REGRET)
    values = found.values  # noqa: PD011 no frame
    best = best_columns(values)
    single = min(float(regrets[best[1 + number]]) for number in range(len(READINGS)))
    drawn = {name: _regrets_of_draws(optimiser, everything, name, rng) for name in READINGS}
    records = []
    for number, (count, kept, ensemble) in enumerate(asked):
        able = np.isfinite(values[1 + len(READINGS) + number])
        chosen, stated = _choice(ensemble, drawn, able)
        records.append(
            {
                "seed": seed,
                "law": true,
                "runs": count,
                "kept": kept,
                "best": EXPERTS[int(np.argmin(regrets))],
                "chosen": EXPERTS[chosen],
                "stated": stated.tolist(),
                "regret": float(regrets[chosen]),
                "best_single": single,
                "weights": {member.name: member.weight for member in ensemble.members},
            }
        )
    return records


def _asked(
    everything: Ensemble, truth: Mapping[str, float], true: str, rng: np.random.Generator
) -> Iterator[tuple[int, str, Ensemble]]:
    """The ensembles that answer, by the number of runs and what they are of."""
    for count in RUNS:
        table = runs_of(everything, truth, count, rng) if count else None
        for kept in KEPT:
            ensemble = everything if kept == "all" else everything.without([true], ())
            weighed = ensemble if table is None else weighed_by(ensemble, table, LINEAGE)
            assert isinstance(weighed, Ensemble)
            yield count, kept, weighed


def _regrets_of_draws(optimiser: SizeOptimiser, everything: Ensemble, name: str, rng: np.random.Generator) -> Array:
    """The regret of every E in every draw of one law (draws, E), each with a slope of its discrepancy."""
    draws = READINGS[name].fit().draws
    count = len(next(iter(draws.values())))
    member = next(each for each in everything.members if each.name == name)
    assert member.discrepancy is not None
    params: dict[str, Any] = {key: np.full((count, 1), value) for key, value in everything.row_of(name).items()}
    params |= {parameter_name(name, key): np.array(values)[:, None] for key, values in draws.items()}
    params[DISCREPANCY] = member.discrepancy.slopes(count, rng)[:, None]
    return optimiser.solve(EXPERTS, params, count).regrets()


def _choice(ensemble: Ensemble, drawn: Mapping[str, Array], able: Booleans) -> tuple[int, Array]:
    """The column chosen of those `able` to answer at the estimate, and the probability that each E is best, by the
    draws that count and the weights of the laws."""
    parts, weights = [], []
    for member in ensemble.members:
        rows = ensemble.selected.get(member.name, range(len(drawn[member.name])))
        parts.append(drawn[member.name][list(rows)])
        weights.append(np.full(len(parts[-1]), member.weight / len(parts[-1])))
    regrets, weight = np.concatenate(parts), np.concatenate(weights)
    columns = np.flatnonzero(able) if able.any() else np.arange(len(EXPERTS))
    chosen = int(columns[choice_of_least_risk(regrets[:, columns], weight)])
    return chosen, weight @ (regrets == 0.0)


def summary(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Reliability and regret, for every number of runs and both ensembles."""
    rows = []
    for kept in KEPT:
        for count in RUNS:
            some = [one for one in records if one["kept"] == kept and one["runs"] == count]
            if not some:
                continue
            stated = np.array([one["stated"][EXPERTS.index(one["chosen"])] for one in some])
            right = np.array([one["chosen"] == one["best"] for one in some])
            every = np.concatenate([one["stated"] for one in some])
            is_best = np.concatenate([np.array(EXPERTS) == one["best"] for one in some])
            regret, single = (np.array([one[name] for one in some]) for name in ("regret", "best_single"))
            rows.append(
                {
                    "kept": kept,
                    "runs": count,
                    "studies": len(some),
                    "chosen": reliability(stated, right),
                    "every": reliability(every, is_best),
                    "stated": float(stated.mean()),
                    "right": float(right.mean()),
                    "regret": float(regret.mean()),
                    "best_single": float(single.mean()),
                    "within_two_percent": float(np.mean(regret <= single + _ALLOWED)),
                }
            )
    return rows


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        wrong = ", ".join(f"{one['from']:.1f}" for one in row["every"] if not one["within"]) or "none"
        yield (
            f"{row['kept']:17} {row['runs']:2d} runs, {row['studies']} studies: best in {row['right']:.0%}, stated "
            f"{row['stated']:.0%}; tenths beyond three errors: {wrong}; regret {row['regret']:.2%}, of the best single "
            f"law {row['best_single']:.2%}, within 2 % of it in {row['within_two_percent']:.0%}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print calibration and regret."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ensemble", description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=60, help="simulated truths")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    asked = parser.parse_args(arguments)
    begun = time.process_time()
    records = [record for seed in range(asked.studies) for record in study(seed)]
    rows = summary(records)
    print(json.dumps(rows) if asked.json else "\n".join(_lines(rows)))
    if not asked.json:
        print(f"{time.process_time() - begun:.0f} CPU s")


if __name__ == "__main__":
    main()
