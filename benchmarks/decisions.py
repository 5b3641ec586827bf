"""Decisions: in simulated studies with a planted best E, how often what is stated about it turns out right.

    python -m benchmarks.decisions [--studies 5000] [--seed 0] [--free] [--truths NAME,...] [--out FILE] [--json]

Each study has a truth of its own (a joint law drawn widely around the published one, arXiv 2502.05172), a grid of runs
with noise of trunks and of runs, and a question. It goes the tool's own way: fit, bootstrap, recommend. Told are the
reliability of the stated probabilities (in each tenth, the share that is right beside the mean stated, of the E chosen
and of every E), the regret under the truth of what was chosen, and how many of the studies with a clear leader were
decided. Saturation and interaction are pinned at the planted values, as by a user who knows them (`benchmarks.suggest`
pins the same); with `--free` they are fitted, and saturation too varies from truth to truth. With `--truths` the law
that is true is one of those named, drawn for each study (`benchmarks.truths`); what `scaling fit` does by default is
fitted, the mixture, and joint-moe alone beside it on the same runs, both with what a fit pins by itself. `--out` keeps
a line a study: a run that is killed goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

for _library in ("OPENBLAS", "OMP", "MKL"):  # before numpy: small matrices
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from analysis import laws  # noqa: E402
from analysis.decision.optima import MOST_REGRET, SizeOptimiser  # noqa: E402
from analysis.decision.question import Question  # noqa: E402
from analysis.decision.recommend import recommend  # noqa: E402
from analysis.decision.size_search import tokens_for_loss  # noqa: E402
from analysis.fitting.bootstrap import bootstrap  # noqa: E402
from analysis.fitting.fit import Fit, fit  # noqa: E402
from analysis.fitting.published import published  # noqa: E402
from analysis.laws.model_family import JOINT_MOE_2025  # noqa: E402
from analysis.mixture.composite import parameter_name  # noqa: E402
from analysis.mixture.fitted_mixture import fit_mixture  # noqa: E402
from analysis.mixture.mixture import Mixture  # noqa: E402
from analysis.tables.runs import RunTable  # noqa: E402
from benchmarks.truths import TRUTHS, Truth, drawn  # noqa: E402
from scaling.arrays import Array  # noqa: E402
from scaling.errors import InputError  # noqa: E402
from scaling.serving.service import Service  # noqa: E402
from scaling.serving.step_time import Efficiency  # noqa: E402
from scaling.serving.training_speed import MfuByExperts  # noqa: E402

PUBLISHED = dict(published("joint-moe-2025").params)
EXPERTS = (1, 2, 4, 8, 16, 32)
BLOCKS = (6, 8, 11, 15, 20)  # of width 64 n: 50M to 550M active parameters
RATIOS = (5.0, 20.0, 80.0)  # tokens a parameter, branches of one trunk
NOISE, SHARED = (0.002, 0.01), 0.4
"""Deviation of ln loss, drawn evenly in ln, and the share of its variance that a trunk's budgets have in common: .0066
in the quickstart, .007 and a correlation of .43 between two budgets of a trunk in results/routers (seeds of 19
methods)."""
BEYOND = (3.0, 30.0)  # times the largest compute of the grid
KINDS = {"money": 0.6, "target": 0.2, "memory": 0.2}
"""What is asked, and how often: least money on an h100 at the loss of the best dense model at a budget (at most so many
devices a replica); the same at that loss as a target, without a budget; least loss at a budget within a memory."""
SERVED, DEVICES, MEMORY_GB = (1e10, 1e13), (1, 2, 4, 8), (5.0, 80.0)
DRAWS, STARTS = 100, 8
PINNED = ("gamma", "zeta", "E_start", "E_max")
CLEAR = 0.05  # lead of the planted best over the second, share of the cost
WITHIN = 3.0  # binomial standard errors
TENTHS = 10


@dataclass(frozen=True)
class World:
    """What is true in one study, what is asked, and how it is measured."""

    truth: Truth
    kind: str
    question: Question
    noise: float
    seeds: int

    @property
    def params(self) -> Mapping[str, float]:
        return self.truth.params

    @property
    def exact(self) -> Fit:
        """The truth, as a fit without draws."""
        return self.truth.exact


def world(seed: int, free: bool = False, truths: Sequence[str] = ()) -> World:
    """One truth and its question; the same for the same seed. Of several `truths` by name, one is drawn."""
    rng = np.random.default_rng([seed, 0])
    params = _truth(rng, free)
    truth = drawn(truths, params, np.random.default_rng([seed, 2])) if truths else Truth(laws.JOINT_MOE, params)
    budget = _between(rng, BEYOND) * float(grid()["train_flops"].max())
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    noise = _between(rng, NOISE)
    seeds = 2 if free else int(rng.choice((1, 1, 2)))  # of one, too few trunks a parameter to fit saturation
    served, devices = _between(rng, SERVED), int(rng.choice(DEVICES))
    if kind == "memory":
        question = Question(train_flops=budget, memory_gb=_between(rng, MEMORY_GB), n_experts=EXPERTS)
    elif kind == "money":
        question = Question(train_flops=budget, **_sold(served, devices))
    else:
        dense = SizeOptimiser(truth.exact, Question(train_flops=budget)).solve([1], dict(truth.params), 1)
        question = Question(target_loss=float(dense.value(1)[0]), **_sold(served, devices))
    return World(truth, kind, question, noise, seeds)


def _truth(rng: np.random.Generator, free: bool) -> dict[str, float]:
    """Parameters by what they mean: sizes of the terms in the middle of the grid, effects of experts where it is asked.

    So wide that the runs, not this prior, say what is true: exponents from those of Ludziejewski et al. to beyond those
    of Hoffmann et al., effects of experts from none to what saves most of the compute.
    """
    n, d = np.log(2e8), np.log(1e10)
    alpha, beta = -rng.uniform(0.13, 0.36, size=2)
    held = {name: PUBLISHED[name] for name in PINNED}
    held |= {name: PUBLISHED[name] * rng.uniform(-0.5, 1.5) for name in ("gamma", "zeta")}
    if free:
        held |= {"E_start": _between(rng, (1.3, 3.5)), "E_max": _between(rng, (100.0, 800.0))}
    by_size, by_data = -rng.uniform(0.0, 0.04, size=2)  # dln(term)/dln(E_hat) at 1e9 parameters, 3e10 tokens
    found = held | {
        "a": float(np.exp(np.log(0.9) + 0.3 * rng.standard_normal() - alpha * n)),
        "alpha": alpha,
        "delta": by_size - held["gamma"] * np.log(1e9),
        "b": float(np.exp(np.log(0.6) + 0.3 * rng.standard_normal() - beta * d)),
        "beta": beta,
        "omega": by_data - held["zeta"] * np.log(3e10),
        "c": rng.uniform(1.0, 2.0),
    }
    return {name: float(value) for name, value in found.items()}


def _sold(served: float, devices: int) -> dict[str, Any]:
    return {
        "serve_tokens": served,
        "device": "h100",
        "service": Service(max_devices=devices, efficiency=Efficiency(source="known in the simulation")),
        "training_speed": MfuByExperts("known in the simulation", 0.4, 0.0, "known in the simulation"),
        "n_experts": EXPERTS,
    }


def _between(rng: np.random.Generator, ends: tuple[float, float]) -> float:
    """Evenly in ln."""
    return float(np.exp(rng.uniform(*np.log(ends))))


def grid(seeds: int = 1) -> pd.DataFrame:
    """The runs of a study, with the columns that tell a fit how sizes hang together, and no losses."""
    parts = []
    for e in EXPERTS:
        blocks = np.array(BLOCKS, dtype=float)
        n_active = 2 * 50257 * 64 * blocks + 13 * 64**2 * blocks**3  # as JOINT_MOE_2025 counts
        sizes = JOINT_MOE_2025.sizes(n_active, e)
        shapes = pd.DataFrame(
            {"n_experts": e, "top_k": 1, "d_model": 64 * blocks, "n_layers": blocks, "n_active": n_active}
        ).assign(n_total=sizes.n_total)
        for seed in range(seeds):
            named = shapes.assign(seed=seed, trunk_id=[f"{e}-{n:g}-{seed}" for n in blocks])
            parts += [named.assign(tokens=ratio * n_active) for ratio in RATIOS]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(train_flops=6.0 * frame["n_active"] * frame["tokens"], status="ok")


def measured(here: World, rng: np.random.Generator) -> RunTable:
    """The grid with losses of the truth and noise of trunks and runs."""
    frame = grid(here.seeds)
    law = here.truth.law
    columns = {name: frame[name].to_numpy(dtype=float) for name in law.columns}
    member, trunks = pd.factorize(frame["trunk_id"])
    shared = np.sqrt(SHARED) * rng.standard_normal(len(trunks))[member]
    own = np.sqrt(1 - SHARED) * rng.standard_normal(len(frame))
    loss = law.loss(here.params, columns) * np.exp(here.noise * (shared + own))
    return RunTable(frame.assign(loss_val=loss), "simulated")


@dataclass(frozen=True)
class Oracle:
    """The regret of every E under the truth (NaN where it cannot answer), the best of them, and its lead over the
    second."""

    world: World
    regrets: Mapping[int, float]
    least: float  # loss or cost of the best
    slope: float | None  # -dL/dln(budget) there, where a loss is minimised

    @property
    def best(self) -> int:
        return min(self.regrets, key=lambda e: (np.isnan(self.regrets[e]), self.regrets[e]))

    @property
    def lead(self) -> float:
        """Regret of the second best; `MOST_REGRET` where no other E can answer."""
        others = [r for e, r in self.regrets.items() if e != self.best and np.isfinite(r)]
        return min(others, default=MOST_REGRET)

    def of_expert_count(self, n_experts: int) -> float:
        """What choosing an E costs beyond the best, each at its best size; at most `MOST_REGRET`, also where it cannot
        answer."""
        return float(np.nan_to_num(self.regrets[n_experts], nan=MOST_REGRET))

    def of_model(self, n_experts: int, n_active: float, tokens: float) -> tuple[float, float]:
        """What training this very size costs beyond the best, with the error of its size in it, and its overrun of the
        budget.

        Where a loss is asked for, the model is trained until it truly has it, on fewer or more tokens than was thought:
        what that takes beyond the training budget, as a share of it, is the overrun, which a cost below the oracle's
        comes from. Where a budget is spent, loss is made up for by compute, to first order, as in `Optima.regrets`.
        Both are at least 0 and at most `MOST_REGRET`.
        """
        question, params = self.world.question, dict(self.world.params)
        task = SizeOptimiser(self.world.exact, question)
        space = task.space(n_experts, params)
        sizes = space.sizes(np.array([n_active]))
        if self.slope is not None:
            loss = float(space.loss(sizes.n_active, np.array([tokens]))[0])
            return _limited(np.expm1((loss - self.least) / self.slope)), 0.0
        target, budget = task.target(params, 1), question.budget
        assert target is not None  # a cost is minimised
        needed = tokens_for_loss(space, sizes, target)
        cost = float((task.pricing.train(sizes, needed) + task.pricing.serve(sizes))[0])
        overrun = 0.0 if budget is None else _limited(6.0 * n_active * float(needed[0]) / budget - 1.0)
        return _limited(cost / self.least - 1.0), overrun


def _limited(share: float) -> float:
    return float(np.clip(share, 0.0, MOST_REGRET))


def oracle(here: World) -> Oracle:
    """The answer under the truth, by the search that `recommend` uses. Raises InputError where no E can answer."""
    found = SizeOptimiser(here.exact, here.question).solve(EXPERTS, dict(here.params), 1)
    values = {e: float(found.value(e)[0]) for e in EXPERTS}
    best = min(values, key=lambda e: values[e])
    if not np.isfinite(values[best]):
        raise InputError("no expert count can answer under the truth")
    slope = float(found.budget_slopes[best][0]) if found.budget_slopes else None
    return Oracle(here, dict(zip(EXPERTS, found.regrets()[0].tolist(), strict=True)), values[best], slope)


def study(seed: int, free: bool = False, truths: Sequence[str] = ()) -> dict[str, Any]:
    """One study, from its truth to what came of the recommendation; `failed` says why where there is none.

    Under several `truths` it is that of the mixture, with that of joint-moe alone under `single`.
    """
    begun = time.process_time()
    here, rng = world(seed, free, truths), np.random.default_rng([seed, 1])
    record: dict[str, Any] = {
        "seed": seed, "law": here.truth.law.name, "kind": here.kind, "noise": here.noise, "seeds": here.seeds
    }  # fmt: skip
    try:
        truth = oracle(here)
        record |= {"best": truth.best, "lead": truth.lead}
        table = measured(here, rng)
        if truths:
            mixture = fit_mixture(table, n_starts=STARTS, resamples=DRAWS, seed=seed)
            record |= {"weights": {member.name: member.weight for member in mixture.members}}
            record |= {"single": _single(mixture, here, truth)} | _outcome(mixture, here, truth)
        else:
            pins = {} if free else {name: here.params[name] for name in PINNED}
            fitted = bootstrap(fit(table, laws.JOINT_MOE, pin=pins, n_starts=STARTS), table, DRAWS, rng)
            record |= _outcome(fitted, here, truth)
    except InputError as error:
        record |= {"failed": str(error)}
    return record | {"cpu_s": time.process_time() - begun}


def _single(mixture: Mixture, here: World, truth: Oracle) -> dict[str, Any]:
    """What came of joint-moe alone: that member of the mixture, whose fit and draws are those of the law alone."""
    name = laws.JOINT_MOE.name
    member = next(each for each in mixture.members if each.name == name)
    fitted = replace(member, draws={free: mixture.draws[parameter_name(name, free)] for free in member.free})
    try:
        return _outcome(fitted, here, truth)
    except InputError as error:
        return {"failed": str(error)}


def _outcome(fitted: Fit, here: World, truth: Oracle) -> dict[str, Any]:
    """What a fit recommends, what it states of it, and what that costs under the truth."""
    answer = recommend(fitted, here.question)
    chances, chosen = answer.probability_best or {}, answer.recommendation
    regret, overrun = truth.of_model(chosen.n_experts, chosen.n_active, chosen.tokens)
    return {
        "chosen": chosen.n_experts,
        "n_active": chosen.n_active,
        "tokens": chosen.tokens,
        "stated": [chances.get(e, 0.0) for e in EXPERTS],  # those that cannot answer are never best
        "expected_regret": chosen.regret,
        "regret_of_E": truth.of_expert_count(chosen.n_experts),
        "regret": regret,
        "overrun": overrun,
        "decided": answer.decided,
        "undecided_because": list(answer.undecided_because),
    }


def reliability(stated: Array, right: Array) -> list[dict[str, Any]]:
    """In each tenth of stated probability: how many, the mean stated, the share right, and how far apart they may be.

    The standard error is that of the share if the mean stated were true, sqrt(p (1 - p)/n); `within` says whether they
    differ by at most three of it. Tenths that nothing falls into are left out.
    """
    tenth = np.minimum(np.floor(TENTHS * stated + 1e-9).astype(int), TENTHS - 1)
    rows = []
    for number in np.unique(tenth):
        inside = tenth == number
        mean, share = float(stated[inside].mean()), float(right[inside].mean())
        error = float(np.sqrt(mean * (1 - mean) / inside.sum()))
        rows.append(
            {
                "from": number / TENTHS,
                "count": int(inside.sum()),
                "stated": mean,
                "right": share,
                "standard_error": error,
                "within": bool(abs(share - mean) <= WITHIN * error + 1e-12),
            }
        )
    return rows


def summary(studies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the studies say together. Raises InputError where none has an answer."""
    answered = [one for one in studies if "failed" not in one]
    if not answered:
        raise InputError("no study has an answer")
    frame = pd.DataFrame(answered)
    stated = np.array(frame["stated"].tolist())
    right = np.array(EXPERTS)[None] == frame["best"].to_numpy()[:, None]
    picked = np.array(EXPERTS)[None] == frame["chosen"].to_numpy()[:, None]
    decided, clear = frame["decided"].astype(bool), frame["lead"] > CLEAR
    inside = clear & (frame["best"] < EXPERTS[-1])
    return {
        "studies": len(studies),
        "without_an_answer": len(studies) - len(answered),
        "chosen": reliability(stated[picked], right[picked]),
        "every": reliability(stated.ravel(), right.ravel()),
        "decided": int(decided.sum()),
        "regret_of_decided": _mean(frame["regret"][decided]),
        "regret_of_decided_by_E": _mean(frame["regret_of_E"][decided]),
        "overrun_of_decided": _mean(frame["overrun"][decided]),
        "right_of_decided": _mean(frame["best"][decided] == frame["chosen"][decided]),
        "regret_of_all": _mean(frame["regret"]),
        "regret_of_all_by_E": _mean(frame["regret_of_E"]),
        "expected_regret_of_all": _mean(frame["expected_regret"].astype(float)),
        "clear": int(clear.sum()),
        "decided_of_clear": _mean(decided[clear]),
        "clear_inside": int(inside.sum()),
        "decided_of_clear_inside": _mean(decided[inside]),
        "planted_best": {str(e): int((frame["best"] == e).sum()) for e in EXPERTS},
        "cpu_s_a_study": float(frame["cpu_s"].mean()),
    }


def _mean(values: pd.Series[Any]) -> dict[str, float | None]:
    """The mean and its standard error; None where there are too few."""
    count = len(values)
    return {
        "mean": float(values.mean()) if count else None,
        "standard_error": float(values.std() / np.sqrt(count)) if count > 1 else None,
    }


def studies(
    count: int, seed: int, free: bool, out: Path | None, truths: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Studies of consecutive seeds; those whose line is in `out` already are read, the others added to it one by
    one."""
    known = {}
    if out is not None and out.is_file():
        known = {one["seed"]: one for one in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
    for number in range(seed, seed + count):
        if number not in known:
            known[number] = study(number, free, truths)
            if out is not None:
                with out.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(known[number]) + "\n")
        yield known[number]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the reliability, the regret of what was decided and how much was."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decisions", description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=5_000, help="simulated studies")
    parser.add_argument("--seed", type=int, default=0, help="of the first study")
    parser.add_argument("--free", action="store_true", help=f"{', '.join(PINNED)} are fitted")
    parser.add_argument(
        "--truths",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="NAME,...",
        help=f"laws of which one is true, of {', '.join(TRUTHS)}; the mixture is fitted, and joint-moe alone beside it",
    )
    parser.add_argument("--out", type=Path, help="file for a line a study, and to go on from (of one kind of run)")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.truths) - set(TRUTHS):
        parser.error(f"--truths: no {', '.join(sorted(unknown))}; there are {', '.join(TRUTHS)}")
    done = list(studies(asked.studies, asked.seed, asked.free, asked.out, asked.truths))
    found = summary(done)
    if asked.truths:
        found |= {"single": summary([one | one.get("single", {}) for one in done])}
        found |= {"by_truth": {law: summary(of_law) for law, of_law in _by_truth(done).items()}}
    print(json.dumps(found) if asked.json else "\n".join(_lines(found)))


def _by_truth(done: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The studies by the law that is true; those of a law without any answer are left out."""
    names = sorted({one["law"] for one in done if "failed" not in one})
    return {name: [one for one in done if one["law"] == name] for name in names}


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield from _summary_lines(found)
    if "single" not in found:
        return
    yield "joint-moe alone, on the same runs:"
    yield from _summary_lines(found["single"])
    yield "where this law is true: studies, stated of the E chosen, right, regret of all"
    for law, one in found["by_truth"].items():
        count = sum(row["count"] for row in one["chosen"])
        stated, right = (sum(row["count"] * row[what] for row in one["chosen"]) / count for what in ("stated", "right"))
        yield f"  {law:20} {count:5d}  {stated:6.4f}  {right:6.4f}  {_share(one['regret_of_all'])}"


def _summary_lines(found: Mapping[str, Any]) -> Iterator[str]:
    unanswered, cpu_s = found["without_an_answer"], found["cpu_s_a_study"]
    yield f"{found['studies']} studies, {unanswered} without an answer, {cpu_s:.2f} CPU s each"
    for which in ("chosen", "every"):
        yield f"{'the E chosen' if which == 'chosen' else 'every E':12}  count  stated   right  standard error"
        for row in found[which]:
            mark = "" if row["within"] else f"  beyond {WITHIN:g}"
            yield (
                f"  from {row['from']:.1f}  {row['count']:7d}  {row['stated']:6.4f}  {row['right']:6.4f}  "
                f"{row['standard_error']:.4f}{mark}"
            )
    yield f"decided: {found['decided']}, of them right {_share(found['right_of_decided'])}"
    yield (
        f"regret of what was decided: {_share(found['regret_of_decided'])} of the oracle's cost with the size chosen, "
        f"{_share(found['regret_of_decided_by_E'])} of the E alone; training budgets overrun by "
        f"{_share(found['overrun_of_decided'])}"
    )
    yield (
        f"regret of all: {_share(found['regret_of_all'])}, of the E alone {_share(found['regret_of_all_by_E'])}, "
        f"expected {_share(found['expected_regret_of_all'])}"
    )
    yield (
        f"decided where the planted best leads by more than {CLEAR:.0%}: {_share(found['decided_of_clear'])} of "
        f"{found['clear']}; where it is not the largest E: {_share(found['decided_of_clear_inside'])} of "
        f"{found['clear_inside']}"
    )


def _share(value: Mapping[str, float | None]) -> str:
    if value["mean"] is None:
        return "none"
    error = value["standard_error"]
    return f"{value['mean']:.2%}" + ("" if error is None else f" (+-{error:.2%})")


if __name__ == "__main__":
    main()
