"""Coverage: in how many of many simulated studies the 95 % intervals hold the truth that was planted.

    python -m benchmarks.coverage [DESIGN ...] [--studies 1000] [--draws 400] [--json]

A design is a law, its true parameters, a grid, and noise of runs and of trunks; every study draws its noise anew, is
fitted by the defaults and resampled. Quantities are the parameters that the grid identifies and what people decide with
at ten times the largest compute: the compute-optimal N, the loss there and, with experts, the gain of eight of them
and the best E within a memory. About .25 s of CPU a study for hoffmann, 1.5 s for joint-moe; studies are spread over
all cores.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

for _library in ("OPENBLAS", "OMP", "MKL"):  # before numpy: a study a core
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from analysis import laws  # noqa: E402
from analysis.decision.question import Question  # noqa: E402
from analysis.decision.recommend import recommend  # noqa: E402
from analysis.fitting import bootstrap  # noqa: E402
from analysis.fitting.fit import Fit, fit  # noqa: E402
from analysis.fitting.published import published  # noqa: E402
from analysis.laws import Law  # noqa: E402
from analysis.laws.model_family import JOINT_MOE_2025  # noqa: E402
from analysis.tables.runs import RunTable  # noqa: E402

EPOCH = {"E": 1.81721802, "A": 477.825486, "alpha": 0.34731045, "B": 2143.41717, "beta": 0.36717243}
"""The minimum on Epoch's points (data of arXiv 2404.10102)."""
EXPERTS = (1, 2, 4, 8, 16, 32)
BEYOND = 10.0  # times the largest compute
_HEAVY = 3  # degrees of freedom of Student's t: infinite kurtosis
Noise = Callable[[pd.DataFrame, np.random.Generator], Any]


def independent(frame: pd.DataFrame, rng: np.random.Generator) -> Any:
    """Every run .4 % off, normal."""
    return 0.004 * rng.standard_normal(len(frame))


def heavy(frame: pd.DataFrame, rng: np.random.Generator) -> Any:
    """Student's t of three degrees of freedom, the same deviation."""
    return 0.004 * rng.standard_t(_HEAVY, len(frame)) / np.sqrt(_HEAVY)


def uneven(frame: pd.DataFrame, rng: np.random.Generator) -> Any:
    """Small models noisier: .8 % at the smallest, falling as N^-1/4."""
    return 0.008 * (frame["n_active"] / frame["n_active"].min()) ** -0.25 * rng.standard_normal(len(frame))


def by_trunk(frame: pd.DataFrame, rng: np.random.Generator, tails: float = np.inf) -> Any:
    """.3 % shared by the budgets of a trunk and .2 % of each run's own."""
    codes, names = pd.factorize(frame["trunk_id"])

    def draw(count: int) -> Any:
        return rng.standard_normal(count) if np.isinf(tails) else rng.standard_t(tails, count) * np.sqrt(1 - 2 / tails)

    return 0.003 * draw(len(names))[codes] + 0.002 * draw(len(frame))


def grid(
    sizes: Sequence[float], ratios: Sequence[float], experts: Sequence[int] = (1,), *, trunks: bool = False
) -> pd.DataFrame:
    """Sizes x tokens per parameter x E; `trunks` joins the budgets of a size and an E in one trunk."""
    rows = [
        {"n_active": n, "tokens": r * n, "n_experts": e, "trunk_id": f"{e}-{n:.0f}" + ("" if trunks else f"-{r}")}
        for e in experts
        for n in sizes
        for r in ratios
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(train_flops=6.0 * frame["n_active"] * frame["tokens"])


@dataclass(frozen=True)
class Design:
    """One kind of study."""

    law: Law
    truth: Mapping[str, float]
    frame: pd.DataFrame
    noise: Noise

    @property
    def budget(self) -> float:
        return BEYOND * float(self.frame["train_flops"].max())


_SIZES = tuple(np.geomspace(5e7, 5e9, 8))
_DENSE = grid(_SIZES, (5, 10, 20, 40, 80))
_ROUTED = grid(tuple(np.geomspace(1e8, 3e9, 6)), (5, 20, 80), EXPERTS, trunks=True)
_JOINT = dict(published("joint-moe-2025").params)
DESIGNS: dict[str, Design] = {
    "hoffmann-normal": Design(laws.HOFFMANN, EPOCH, _DENSE, independent),
    "hoffmann-heavy": Design(laws.HOFFMANN, EPOCH, _DENSE, heavy),
    "hoffmann-uneven": Design(laws.HOFFMANN, EPOCH, _DENSE, uneven),
    "hoffmann-trunks": Design(
        laws.HOFFMANN, EPOCH, grid(tuple(np.geomspace(5e7, 5e9, 20)), (5, 20, 80), trunks=True), by_trunk
    ),
    "joint-moe": Design(laws.JOINT_MOE, _JOINT, _ROUTED, by_trunk),
    "joint-moe-scarce": Design(laws.JOINT_MOE, _JOINT, grid((2e8, 1.5e9), (5, 20, 80), EXPERTS, trunks=True), by_trunk),
    "joint-moe-heavy": Design(laws.JOINT_MOE, _JOINT, _ROUTED, partial(by_trunk, tails=4.0)),
}


def quantities(law: Law, params: Mapping[str, Any], budget: float) -> dict[str, Any]:
    """What intervals are asked for, from parameters as numbers or columns (B, 1)."""
    if law is laws.HOFFMANN:
        n, d = law.optimum(params, budget, 1)  # type: ignore[misc]
        named = {name: params[name] for name in ("E", "alpha", "beta")}
        share = params["beta"] / (params["alpha"] + params["beta"])
        inside = law.loss(params, {"n_active": 1e9, "tokens": 2e10})
        return {
            **named,
            "a": share,
            "N_opt": n,
            "loss_opt": law.loss(params, {"n_active": n, "tokens": d}),
            "loss_inside": inside,
        }
    found: dict[str, Any] = {name: params[name] for name in ("alpha", "beta", "c")}
    least = {}
    for e in (1, 8, 32):
        n, d = law.optimum(params, budget, e)  # type: ignore[misc]
        least[e] = law.loss(params, {"n_active": n, "tokens": d, "n_experts": float(e)})
        found |= {f"N_opt E={e}": n, f"loss_opt E={e}": least[e]}
    return found | {"gain of 8": least[8] - least[1]}


def study(name: str, draws: int, seed: int) -> dict[str, bool] | None:
    """Whether each interval of one simulated study holds the truth; None where it gave no fit."""
    design, rng = DESIGNS[name], np.random.default_rng(seed)
    columns = {column: design.frame[column].to_numpy(dtype=float, copy=True) for column in design.law.columns}
    loss = design.law.loss(design.truth, columns) * np.exp(np.asarray(design.noise(design.frame, rng)))
    table = RunTable(design.frame.assign(loss_val=loss), "simulated")
    fitted = bootstrap.bootstrap(fit(table, design.law, n_starts=16), table, draws, rng)
    if not fitted.draws:
        return None
    names = list(quantities(design.law, design.truth, design.budget))

    def all_of(params: Mapping[str, Any]) -> Any:
        found = quantities(design.law, params, design.budget)
        return np.stack([np.ravel(found[key]) for key in names], axis=-1)

    low, high = fitted.quantiles((0.025, 0.975), all_of)
    truth = all_of(design.truth)[0] if np.ndim(all_of(design.truth)) > 1 else all_of(design.truth)
    held = {key: bool(low[i] <= truth[i] <= high[i]) for i, key in enumerate(names) if key not in fitted.pinned}
    return held if design.law is laws.HOFFMANN else held | {"best E": _best_held(design, fitted, rng)}


def _best_held(design: Design, fitted: Fit, rng: np.random.Generator) -> bool:
    """Whether the 95 % set of the best E holds the true one, within a memory that makes the largest E too large."""
    memory = float(np.exp(rng.uniform(np.log(20.0), np.log(400.0))))
    question = Question(train_flops=design.budget, memory_gb=memory)
    known = replace(fitted, family=JOINT_MOE_2025)
    truth = recommend(replace(published("joint-moe-2025"), family=JOINT_MOE_2025), question)
    return truth.recommendation.n_experts in recommend(known, question).best_experts


def measure(name: str, studies: int, draws: int, workers: int) -> dict[str, Any]:
    """Share of the studies of a design whose interval holds the truth, by quantity, with its binomial standard
    error."""
    if workers == 1:
        found = [study(name, draws, seed) for seed in range(studies)]
    else:
        with ProcessPoolExecutor(workers) as pool:
            found = list(pool.map(partial(study, name, draws), range(studies), chunksize=4))
    held = pd.DataFrame([one for one in found if one is not None]).astype(float)
    shares = {key: float(held[key].mean()) for key in held}
    return {
        "studies": studies,
        "without a fit": int(sum(one is None for one in found)),
        "standard_error": float(np.sqrt(0.95 * 0.05 / max(1, len(held)))),
        "covered": shares,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the coverage of the designs named, or of all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("designs", nargs="*", metavar="DESIGN", help=f"of {', '.join(DESIGNS)}; default all")
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies a design")
    parser.add_argument("--draws", type=int, default=400, help="bootstrap resamples a study")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    asked = parser.parse_args(arguments)
    unknown = [name for name in asked.designs if name not in DESIGNS]
    if unknown:
        parser.error(f"no design is called {', '.join(unknown)}; there are {', '.join(DESIGNS)}")
    results = {}
    for name in asked.designs or DESIGNS:
        results[name] = measure(name, asked.studies, asked.draws, asked.workers)
        if not asked.json:
            shares = ", ".join(f"{key} {100 * share:.1f}" for key, share in results[name]["covered"].items())
            error = 100 * results[name]["standard_error"]
            print(f"{name}: {shares} (+-{error:.1f}, {asked.studies} studies)", flush=True)
    if asked.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
