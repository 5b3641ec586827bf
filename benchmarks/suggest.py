"""Suggest against chance: training FLOPs until the choice of E is as good, by `scaling sweep suggest` and by random
cells.

    python -m benchmarks.suggest [--question budget|target] [--budget 1] [--studies 100] [--seed 0] [--workers 1]
        [--json]

Each study has a truth of its own around the published joint law (arXiv 2502.05172), a small first grid with noise of
runs and of trunks, and a question whose best E lies inside. Two ways then may spend equal FLOPs, round after round
(`--budget` times the dearest run of the first grid), on cells of one candidate set: `analysis.decision.suggest.choose`,
and cells drawn uniformly from those that still fit into the round. After every round the study is fitted anew and the E
that the estimate makes best is judged by its regret under the truth. The figure is the ratio of FLOPs at equal mean
regret, with its standard error over studies (bootstrap). Saturation and interaction are pinned, as the tool pins them
for a grid of that size.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

for _library in ("OPENBLAS", "OMP", "MKL"):  # before numpy: a study a core
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from analysis import laws  # noqa: E402
from analysis.decision import value_of_information  # noqa: E402
from analysis.decision.optima import MOST_REGRET, SizeOptimiser  # noqa: E402
from analysis.decision.question import Question  # noqa: E402
from analysis.decision.suggest import LARGEST_STEP, MOST_CELLS, Candidates, choose  # noqa: E402
from analysis.fitting.bootstrap import bootstrap  # noqa: E402
from analysis.fitting.fit import Fit, fit  # noqa: E402
from analysis.fitting.published import published  # noqa: E402
from analysis.laws.model_family import JOINT_MOE_2025  # noqa: E402
from analysis.tables.runs import RunTable  # noqa: E402

PUBLISHED = dict(published("joint-moe-2025").params)
SPREAD = {"alpha": 0.006, "delta": 0.03, "beta": 0.006, "omega": 0.06}  # standard deviations of the truths around it
PINNED = ("gamma", "zeta", "E_start", "E_max")
FIRST = {"experts": (1, 4, 16), "sizes": (1e8, 3e8, 1e9), "ratios": (10.0, 40.0)}
EXPERTS = (1, 2, 4, 8, 16, 32)  # compared, and of the candidates
SIZES = (1e8, 1.7e8, 3e8, 5.5e8, 1e9, 2e9)
RATIOS = (10.0, 20.0, 40.0, 80.0)
COOLDOWN = 0.2
NOISE, SHARED = (0.003, 0.01), 0.5  # deviation of ln loss, drawn evenly in ln; share common to a trunk
MEMORY_GB = (4.0, 25.0)
BEYOND = 10.0  # times the largest compute of the first grid
SERVED = 1e12  # tokens, where a loss is asked for
DRAWS, STARTS = 120, 8
ROUNDS = {"suggest": 3, "random": 12}
QUESTIONS = ("budget", "target")
Run = tuple[int, float, float, int]  # E, N_active, tokens, seed


@dataclass(frozen=True)
class World:
    """What is true in one study, and what is asked."""

    params: Mapping[str, float]
    noise: float
    question: Question
    rng: np.random.Generator

    @cached_property
    def regrets(self) -> dict[int, float]:
        """What choosing each E really costs, as a share of the cost; NaN where it cannot answer."""
        exact = Fit(law="joint-moe", params=self.params, family=JOINT_MOE_2025)
        found = SizeOptimiser(exact, self.question).solve(EXPERTS, dict(self.params), 1).regrets()[0]
        return dict(zip(EXPERTS, found.tolist(), strict=True))

    def regret(self, n_experts: int) -> float:
        """Of choosing one E: at most tenfold, as `Optima.regrets` has it, and tenfold where it cannot answer."""
        return MOST_REGRET if np.isnan(self.regrets[n_experts]) else self.regrets[n_experts]

    def measure(self, runs: Sequence[Run]) -> pd.DataFrame:
        """The rows of some runs: a trunk is an E, a size and a seed."""
        frame = pd.DataFrame(runs, columns=["n_experts", "n_active", "tokens", "seed"])
        names = [f"{e}-{n:g}-{s}" for e, n, _, s in runs]
        member, trunks = pd.factorize(np.array(names))
        shared = np.sqrt(SHARED) * self.rng.standard_normal(len(trunks))[member]
        own = np.sqrt(1 - SHARED) * self.rng.standard_normal(len(frame))
        columns = {name: frame[name].to_numpy(dtype=float) for name in laws.JOINT_MOE.columns}
        loss = laws.JOINT_MOE.loss(self.params, columns) * np.exp(self.noise * (shared + own))
        return frame.assign(
            trunk_id=names, loss_val=loss, train_flops=6.0 * frame["n_active"] * frame["tokens"], status="ok"
        )


def first_runs() -> list[Run]:
    """The grid that every study begins with."""
    return [(e, n, r * n, 0) for e in FIRST["experts"] for n in FIRST["sizes"] for r in FIRST["ratios"]]  # type: ignore[misc]


def candidates() -> Candidates:
    """Every E compared, over more sizes and budgets than the first grid has, from its smallest run to thrice its
    largest."""
    first = [6.0 * n * d for _, n, d, _ in first_runs()]
    cells = [
        (e, n, r * n, number)
        for number, (e, n) in enumerate((e, n) for e in EXPERTS for n in SIZES)
        for r in RATIOS
        if 0.999 * min(first) <= 6.0 * n * r * n <= 1.001 * LARGEST_STEP * max(first)
    ]
    e, n, d, shape = (np.array(column) for column in zip(*cells, strict=True))
    columns = {"n_active": n, "tokens": d, "n_experts": e.astype(float)}
    return Candidates(columns, shape, e, n, d, COOLDOWN * d, 6.0 * n)


def world(seed: int, kind: str) -> World:
    """One truth, its noise and its question; truths whose best E is the least or the most compared are drawn again."""
    rng = np.random.default_rng(seed)
    while True:
        drawn = _any_world(rng, kind)
        if drawn.regret(EXPERTS[0]) > 0.0 and drawn.regret(EXPERTS[-1]) > 0.0:
            return drawn


def _any_world(rng: np.random.Generator, kind: str) -> World:
    params = PUBLISHED | {name: PUBLISHED[name] + sd * rng.standard_normal() for name, sd in SPREAD.items()}
    noise, memory = (float(np.exp(rng.uniform(*np.log(ends)))) for ends in (NOISE, MEMORY_GB))
    budget = BEYOND * max(6.0 * n * d for _, n, d, _ in first_runs())
    question = Question(train_flops=budget, memory_gb=memory, n_experts=EXPERTS)
    if kind == "target":  # the loss of the best dense model at that budget
        n, d = laws.JOINT_MOE.optimum(params, budget, 1)  # type: ignore[misc]
        loss = float(laws.JOINT_MOE.loss(params, {"n_active": n, "tokens": d, "n_experts": 1.0}))
        question = Question(target_loss=loss, serve_tokens=SERVED, memory_gb=memory, n_experts=EXPERTS)
    return World(params, noise, question, rng)


def study(kind: str, rounds: Mapping[str, int], share: float, seed: int) -> dict[str, list[list[float]]]:
    """Of both ways: FLOPs spent and true regret, from before the first round on."""
    cells, budget = candidates(), share * max(6.0 * n * d for _, n, d, _ in first_runs())
    found: dict[str, list[list[float]]] = {}
    for way, count in rounds.items():
        here = world(seed, kind)  # the same first losses for both
        frame, spent = here.measure(first_runs()), 0.0
        chosen, fitted = _decide(here, frame, 0)
        path = [[0.0, here.regret(chosen)]]
        for _ in range(count):
            trunks = (
                _suggested(here, fitted, frame, cells, budget) if way == "suggest" else _random(here, cells, budget)
            )
            runs, cost = _as_runs(cells, trunks, frame)
            spent += cost
            frame = pd.concat([frame, here.measure(runs)], ignore_index=True) if runs else frame
            chosen, fitted = _decide(here, frame, chosen)
            path.append([spent, here.regret(chosen)])
        found[way] = path
    return found


def _decide(here: World, frame: pd.DataFrame, before: int) -> tuple[int, Fit]:
    """The E that a fit makes best; where it gives none, the E chosen before, or the smallest."""
    pins = {name: PUBLISHED[name] for name in PINNED}
    fitted = replace(
        fit(RunTable(frame, "simulated"), laws.JOINT_MOE, pin=pins, n_starts=STARTS), family=JOINT_MOE_2025
    )
    if not fitted.params:
        return before or EXPERTS[0], fitted
    solved = SizeOptimiser(fitted, here.question).solve(EXPERTS, dict(fitted.params), 1)
    values = [float(solved.value(e)[0]) for e in EXPERTS]
    return (EXPERTS[int(np.argmin(values))] if np.isfinite(min(values)) else before or EXPERTS[0]), fitted


def _suggested(here: World, fitted: Fit, frame: pd.DataFrame, cells: Candidates, budget: float) -> list[list[int]]:
    """Cells by trunk, as `scaling sweep suggest` chooses them."""
    if not fitted.params:
        return []
    table = RunTable(frame, "simulated")
    drawn = bootstrap(fitted, table, DRAWS, here.rng)
    if not drawn.draws:
        return []
    draws = drawn.parameter_draws()
    regrets = SizeOptimiser(drawn, here.question).solve(EXPERTS, draws, drawn.n_draws).regrets()
    predicted = laws.JOINT_MOE.log_loss(draws, cells.columns)
    noise = value_of_information.run_noise(drawn, table.trunks)
    trunks: dict[tuple[int, int], list[int]] = {}
    for pick in choose(regrets, predicted, cells, noise, budget, here.rng, enough=0.0).picks:
        trunks.setdefault((int(cells.shape[pick.cell]), pick.trunk), []).append(pick.cell)
    return list(trunks.values())


def _random(here: World, cells: Candidates, budget: float) -> list[list[int]]:
    """Cells drawn uniformly from those that still fit, each a trunk of its own."""
    left, trunks = budget, list[list[int]]()
    while len(trunks) < MOST_CELLS:
        fitting = np.flatnonzero(cells.train_flops <= left)
        if not fitting.size:
            break
        trunks.append([int(here.rng.choice(fitting))])
        left -= float(cells.train_flops[trunks[-1][0]])
    return trunks


def _as_runs(cells: Candidates, trunks: list[list[int]], frame: pd.DataFrame) -> tuple[list[Run], float]:
    """Runs of fresh seeds, and their FLOPs: of a trunk its longest budget and the cooldowns of the others."""
    runs, cost, seed = list[Run](), 0.0, int(frame["seed"].max())
    for members in trunks:
        seed += 1
        held: list[int] = []
        for cell in members:
            cost += float(cells.added_flops(np.array([cell]), held)[0] if held else cells.train_flops[cell])
            held.append(cell)
            runs.append((int(cells.n_experts[cell]), float(cells.n_active[cell]), float(cells.tokens[cell]), seed))
    return runs, cost


def flops_to_reach(level: float, path: np.ndarray[Any, Any]) -> float:
    """FLOPs at which a mean path (rounds, [FLOPs, regret]) first falls to a level, straight between rounds; inf if
    never."""
    for (low, high), (more, less) in itertools.pairwise(path):
        if less <= level < high:
            return float(low + (more - low) * (high - level) / (high - less))
    return 0.0 if path[0, 1] <= level else float("inf")


def compared(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """After each round of `suggest`: its mean FLOPs and regret, and how many times the FLOPs random cells take to get
    there.

    Where they do not get there in their rounds, what they spent is a lower bound, and the entry says so.
    """
    paths = {way: np.array([one[way] for one in found]) for way in ("suggest", "random")}  # (studies, rounds, 2)
    rng = np.random.default_rng(0)
    picks = [np.arange(len(found)), *rng.integers(len(found), size=(400, len(found)))]
    rows = []
    for number in range(1, paths["suggest"].shape[1]):
        ratios = []
        for pick in picks:
            spent, level = paths["suggest"][pick, number].mean(axis=0)
            chance = paths["random"][pick].mean(axis=0)
            ratios.append(min(flops_to_reach(float(level), chance), float(chance[-1, 0])) / max(float(spent), 1.0))
        spent, level = paths["suggest"][:, number].mean(axis=0)
        chance = paths["random"].mean(axis=0)
        rows.append(
            {
                "round": number,
                "train_flops": float(spent),
                "regret": float(level),
                "regret_se": float(paths["suggest"][:, number, 1].std() / np.sqrt(len(found))),
                "regret_of_random_after_as_many_rounds": float(chance[min(number, len(chance) - 1), 1]),
                "ratio": float(ratios[0]),
                "ratio_se": float(np.std(ratios[1:])),
                "at_least": not np.isfinite(flops_to_reach(float(level), chance)),
            }
        )
    return rows


def measure(kind: str, share: float, studies: int, seed: int, workers: int) -> dict[str, Any]:
    """The comparison over many studies; a round may spend `share` of the dearest run of the first grid."""
    seeds = range(seed, seed + studies)
    if workers == 1:
        found = [study(kind, ROUNDS, share, one) for one in seeds]
    else:
        with ProcessPoolExecutor(workers) as pool:
            found = list(pool.map(partial(study, kind, ROUNDS, share), seeds))
    paths = {way: np.array([one[way] for one in found]).mean(axis=0).tolist() for way in ROUNDS}
    return {
        "question": kind,
        "budget": share,
        "studies": studies,
        "seed": seed,
        "rounds": compared(found),
        "mean_paths": paths,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suggest", description=__doc__.splitlines()[0])
    parser.add_argument("--question", choices=QUESTIONS, default=QUESTIONS[0], help="what is asked of each study")
    parser.add_argument("--budget", type=float, default=1.0, help="of a round, in units of the dearest run so far")
    parser.add_argument("--studies", type=int, default=100, help="simulated studies")
    parser.add_argument("--seed", type=int, default=0, help="of the first study")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    asked = parser.parse_args(arguments)
    result = measure(asked.question, asked.budget, asked.studies, asked.seed, asked.workers)
    if asked.json:
        print(json.dumps(result))
        return
    first = result["mean_paths"]["suggest"][0][1]
    print(
        f"{asked.studies} studies, question {asked.question}, {asked.budget:g} dearest runs a round: mean regret "
        f"{first:.2%} before"
    )
    for row in result["rounds"]:
        bound = "at least " if row["at_least"] else ""
        print(
            f"round {row['round']}: {row['train_flops']:.3g} FLOPs, regret {row['regret']:.2%} "
            f"(+-{row['regret_se']:.2%}), random {row['regret_of_random_after_as_many_rounds']:.2%} after as many "
            f"rounds; random cells take {bound}{row['ratio']:.2f} (+-{row['ratio_se']:.2f}) times the FLOPs to get "
            "there"
        )


if __name__ == "__main__":
    main()
