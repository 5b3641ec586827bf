"""Worth: in how many of many simulated studies the 95 % intervals of effective speedups hold the truth.

    python -m benchmarks.worth [--truth factor|joint-moe] [--studies 1000] [--seed 0] [--draws 200] [--gate]
                               [--workers N] [--out FILE] [--json]

Each study has a truth of its own and 36 runs of three E with noise; `analysis.worth` gives the speedup of E = 8 at ten
times the largest compute. The truth is a dense law whose compute E multiplies by a power of E (`factor`, six
parameters), or the joint law of `benchmarks.decisions`, drawn widely around the published one, with saturation and
interaction pinned (`joint-moe`, seven). Fit and resamples are those of the tool but for the search: it starts at the
truth, and resamples at the estimate, a fifth of the time (that it finds the minimum is the matter of
`benchmarks.coverage`). Time: the truth of the training speed is drawn from what the tool is told of it, a fall of MFU
with E and a scatter of every E, each with its spread. With `--gate` also the runs of a method that is worth a planted
factor of compute, which grows with compute: six of them against the dense models of the same fit, alone and
extrapolated. `--out` keeps a line a study: a run that is killed goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

for _library in ("OPENBLAS", "OMP", "MKL"):  # before numpy: small matrices
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from analysis import laws  # noqa: E402
from analysis.decision.question import Question  # noqa: E402
from analysis.fitting.bootstrap import resample_weights  # noqa: E402
from analysis.fitting.fit import Fit  # noqa: E402
from analysis.fitting.identifiability import Pin  # noqa: E402
from analysis.fitting.objective import HUBER  # noqa: E402
from analysis.fitting.problem import Problem  # noqa: E402
from analysis.laws.autodiff import log, log_sum_exp  # noqa: E402
from analysis.tables.runs import RunTable  # noqa: E402
from analysis.worth.equal_loss import Comparison  # noqa: E402
from analysis.worth.gate import gate  # noqa: E402
from analysis.worth.of_law import law_worth  # noqa: E402
from analysis.worth.prices import ANY_DEVICE, Prices  # noqa: E402
from benchmarks.decisions import PINNED, world  # noqa: E402
from benchmarks.truths import Truth  # noqa: E402
from scaling.serving.training_speed import MfuByExperts  # noqa: E402

TRUTHS = ("factor", "joint-moe")
EXPERTS, JUDGED = (1, 8, 32), 8
BLOCKS = (6, 9, 13, 20)  # of width 64 n: 50M to 550M active parameters
RATIOS = (5.0, 20.0, 80.0)  # tokens a parameter
BEYOND = 10.0  # times the largest compute
SPEED = MfuByExperts("told", 0.4, 0.2, "told to the tool", slope_spread=0.02, scatter=0.03)
METHOD = 1.15, 0.02  # what a method is worth at the middle of its runs, and d ln speedup / d ln C
METHOD_SIZES = (1e8, 2e8, 4e8)
METHOD_RATIOS = (10.0, 30.0)  # tokens a parameter


def grid() -> pd.DataFrame:
    """The runs of a study, each a trunk of its own, without losses."""
    blocks, ratio, e = (each.ravel() for each in np.meshgrid(BLOCKS, RATIOS, EXPERTS))
    n_active = 2 * 50257 * 64 * blocks + 13 * 64**2 * blocks**3  # as JOINT_MOE_2025 counts
    frame = pd.DataFrame({"n_active": n_active, "tokens": ratio * n_active, "n_experts": e})
    return frame.assign(train_flops=6.0 * frame["n_active"] * frame["tokens"])


def _multiplied(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
    half = 0.5 * p["power"] * np.log(x["n_experts"])  # on size and on tokens: E^power on compute
    return log_sum_exp(
        log(p["E"]),
        log(p["A"]) - p["alpha"] * (np.log(x["n_active"]) + half),
        log(p["B"]) - p["beta"] * (log(x["tokens"]) + half),
    )


FACTOR = laws.Law(
    name="factor",
    formula="L = E + A/(f N^2)^(alpha/2) + B/(f D^2)^(beta/2), f = E^power",
    typst="",
    n_column="n_active",
    parameters=(
        *laws.HOFFMANN.parameters,
        laws.Parameter("power", "expert", "power of E that multiplies compute", (0.0, 0.6), (-2.0, 2.0)),
    ),
    log_formula=_multiplied,
    source="simulation",
    domain="simulation",
    columns=("n_active", "tokens", "n_experts"),
)


def truth_of(name: str, seed: int) -> tuple[Truth, float]:
    """The truth of one study and the deviation of ln loss of its runs; the same for the same seed."""
    joint = world(seed)
    if name == "joint-moe":
        return joint.truth, joint.noise
    rng = np.random.default_rng([seed, 3])
    alpha, beta = rng.uniform(0.2, 0.4, size=2)
    params = {
        "E": rng.uniform(1.0, 2.0),
        "A": np.exp(np.log(0.9) + 0.3 * rng.standard_normal() + alpha * np.log(2e8)),
        "alpha": alpha,
        "B": np.exp(np.log(0.6) + 0.3 * rng.standard_normal() + beta * np.log(1e10)),
        "beta": beta,
        "power": rng.uniform(0.0, 0.5),
    }
    return Truth(FACTOR, {key: float(value) for key, value in params.items()}), joint.noise


def measured(truth: Truth, noise: float, rng: np.random.Generator) -> RunTable:
    """The grid with losses of the truth and noise of every run."""
    frame = grid()
    columns = {name: frame[name].to_numpy(dtype=float, copy=True) for name in truth.law.columns}
    loss = truth.law.loss(truth.params, columns) * np.exp(noise * rng.standard_normal(len(frame)))
    return RunTable(frame.assign(loss_val=loss), "simulated")


def study(name: str, draws: int, with_gate: bool, seed: int) -> dict[str, Any]:
    """Whether each interval of one study holds what was planted."""
    begun = time.process_time()
    truth, noise = truth_of(name, seed)
    rng = np.random.default_rng([seed, 1])
    fitted = _resampled(truth, measured(truth, noise, rng), draws, rng)
    found = _by_law(fitted, truth, np.random.default_rng([seed, 2]))
    if with_gate:
        found |= _by_gate(fitted, truth, noise, rng)
    return {"seed": seed, "held": found, "cpu_s": time.process_time() - begun}


def _resampled(truth: Truth, table: RunTable, count: int, rng: np.random.Generator) -> Fit:
    """The fit of the law that is true with draws and a jackknife over its runs, each a local minimum."""
    law = truth.law
    pins = {each: truth.params[each] for each in PINNED if each in truth.params}
    problem = Problem.of(table, law, pins, HUBER)
    start = problem.coordinates(truth.params)[None]
    estimate = problem.minimise(start, np.ones((1, len(table))), near=True).theta
    weights = resample_weights(table, count, rng)
    drawn, left = (
        problem.parameters(problem.minimise(np.repeat(estimate, len(rows), axis=0), rows, near=True).theta)
        for rows in (weights, 1.0 - np.eye(len(table)))
    )
    best = {name: float(value[0]) for name, value in problem.parameters(estimate).items()}
    residuals = problem.log_loss(estimate)[0][0] - np.log(problem.loss)
    _, strata = np.unique(table.experts, return_inverse=True)
    return Fit(
        law=law.name,
        own_law=law,
        params={**pins, **best},
        pinned={name: Pin(value, "planted") for name, value in pins.items()},
        draws={name: tuple(values.tolist()) for name, values in drawn.items()},
        jackknife={name: tuple(values.tolist()) for name, values in left.items()},
        strata=tuple(strata.tolist()),
        n_runs=len(table),
        n_trunks=len(table),
        residuals=tuple(residuals.tolist()),
        rmse_log=float(np.sqrt(np.mean(residuals**2))),
        experts=EXPERTS,
    )


def _by_law(fitted: Fit, truth: Truth, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Of every E and both kinds: whether the interval holds the truth, its width, and on which side it fails."""
    budget = BEYOND * float(grid()["train_flops"].max())
    asked = Question(train_flops=budget, n_experts=(JUDGED,), device=ANY_DEVICE, training_speed=SPEED)
    worth = law_worth(fitted, [budget], Prices(asked), around=False).worth
    slope = SPEED.slope + SPEED.slope_spread * rng.standard_normal()
    own = {e: SPEED.scatter * rng.standard_normal() for e in EXPERTS}
    judged = {}
    for one in worth:
        e = int(one.n_experts or 0)
        compute = float(Comparison(truth.exact, 1).at(e, budget, dict(truth.params), 1).log_speedup[0])
        slower = slope * np.log(e) + own[e] - own[1]
        judged[f"compute, E = {e}"] = _judged(one.compute_interval, compute)
        judged[f"time, E = {e}"] = _judged(one.time_interval, compute - slower)
    return judged


def _by_gate(fitted: Fit, truth: Truth, noise: float, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """The same of a method's runs: at the centre of their compute and thirty times beyond it."""
    size, ratio = (each.ravel() for each in np.meshgrid(METHOD_SIZES, METHOD_RATIOS))
    spent = 6.0 * size * ratio * size
    centre = float(np.exp(np.log(spent).mean()))

    def log_worth(train_flops: Any) -> Any:
        return np.log(METHOD[0]) + METHOD[1] * np.log(train_flops / centre)

    growth = np.exp(0.5 * log_worth(spent))
    columns = {"n_active": size * growth, "tokens": ratio * size * growth, "n_experts": np.ones(len(size))}
    loss = truth.law.loss(truth.params, columns) * np.exp(noise * rng.standard_normal(len(size)))
    runs = pd.DataFrame({"n_active": size, "tokens": ratio * size, "n_experts": 1, "loss_val": loss})
    beyond = 30.0 * centre
    asked = Question(train_flops=beyond, device=ANY_DEVICE, training_speed=SPEED)
    tested = gate(fitted, RunTable(runs, "simulated"), [beyond], Prices(asked))
    (extrapolated,) = tested.at
    return {
        "method, alone": _judged(tested.alone.compute_interval, log_worth(tested.alone.train_flops)),
        "method, 30 times beyond": _judged(extrapolated.compute_interval, log_worth(beyond)),
    }


def _judged(interval: tuple[float, float] | None, truth: float) -> dict[str, float]:
    low, high = np.log(interval) if interval is not None else (np.nan, np.nan)
    return {
        "held": float(low <= truth <= high), "below": float(truth < low), "above": float(truth > high),
        "width": float(high - low),
    }  # fmt: skip


def studies(
    asked: Callable[[int], dict[str, Any]], count: int, seed: int, workers: int, out: Path | None
) -> Iterator[dict[str, Any]]:
    """So many studies; those that a file of lines holds are not made again, and others are added to it."""
    done = [] if out is None or not out.exists() else [json.loads(line) for line in out.read_text().splitlines()]
    wanted = range(seed, seed + count)
    known = {one["seed"]: one for one in done}
    yield from (known[each] for each in wanted if each in known)
    left = [each for each in wanted if each not in known]
    with ProcessPoolExecutor(workers) as pool:
        for one in pool.map(asked, left, chunksize=4):
            if out is not None:
                with out.open("a") as file:
                    file.write(json.dumps(one) + "\n")
            yield one


def summary(done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The share of intervals that hold the truth by quantity, how many fail on either side, and their median width."""
    judged = [one["held"] for one in done]
    names = list(judged[0]) if judged else []
    return {
        "studies": len(done),
        "standard_error": float(np.sqrt(0.95 * 0.05 / max(1, len(judged)))),
        "cpu_s_a_study": float(np.mean([one["cpu_s"] for one in done])),
        "coverage": {
            name: {key: float(np.mean([one[name][key] for one in judged])) for key in ("held", "below", "above")}
            | {"median_width": float(np.median([one[name]["width"] for one in judged]))}
            for name in names
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the coverage of compute, time and the gate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worth", description=__doc__.splitlines()[0])
    parser.add_argument("--truth", choices=TRUTHS, default=TRUTHS[0], help="the law that is true")
    parser.add_argument("--studies", type=int, default=1_000, help="simulated studies")
    parser.add_argument("--seed", type=int, default=0, help="of the first study")
    parser.add_argument("--draws", type=int, default=200, help="bootstrap resamples a study")
    parser.add_argument("--gate", action="store_true", help="test the runs of a method, too")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--out", type=Path, help="file for a line a study, and to go on from (of one truth)")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    asked = parser.parse_args(arguments)
    one = partial(study, asked.truth, asked.draws, asked.gate)
    found = summary(list(studies(one, asked.studies, asked.seed, asked.workers, asked.out)))
    if asked.json:
        print(json.dumps(found))
        return
    error = 100 * found["standard_error"]
    print(f"{found['studies']} studies, {found['cpu_s_a_study']:.2f} CPU s each")
    for name, quantity in found["coverage"].items():
        held, below, above = (100 * quantity[key] for key in ("held", "below", "above"))
        print(
            f"{name:24} {held:5.1f} % (+-{error:.1f}), truth below {below:.1f} %, above {above:.1f} %; median width of "
            f"ln {quantity['median_width']:.3f}"
        )


if __name__ == "__main__":
    main()
