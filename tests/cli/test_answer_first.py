"""Every command answers first: the decision in the first line, 30 lines of 80 columns, nothing on standard error."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pytest
from seeds import replicates_csv, returns_csv
from synthetic import cells, write_study
from synthetic_latency import CPU, frame
from synthetic_methods import write_methods
from typer.testing import CliRunner

from analysis.fitting.published import published
from scaling.cli.main import app

NUMBER = r"(\d[\d.]*[KMBT]?)"
DECISION = rf"E = (\d+), {NUMBER} active of {NUMBER} total, {NUMBER} tokens: (not )?decided"
JOINT = "published:joint-moe-2025"
# A command, and what its first line looks like.
COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "fit": (
        ("fit", "STUDY", "--law", "joint-moe", "--bootstrap", "8"),
        rf"joint-moe fits {NUMBER} runs .*: ok",
    ),
    "fit-budget": (
        ("fit", "CSV", "--law", "hoffmann", "--bootstrap", "8", "--budget", "1e22"),
        r"hoffmann fits 36 runs",
    ),
    "predict": (("predict", JOINT, "--n-active", "1B", "--tokens", "20B", "--n-experts", "8"), rf"loss {NUMBER} nats"),
    "validate": (
        ("validate", "STUDY", "--law", "hoffmann", "--laws", "yun", "--where", "n_experts == 4", "--bootstrap", "8"),
        rf"hoffmann predicts larger runs within {NUMBER} % \(median\)",
    ),
    "isoflop": (
        ("isoflop", "CSV", "--budget", "1e22"),
        rf"At 1×10²² FLOPs, E = 1: N\* = {NUMBER} \({NUMBER} to {NUMBER}\)",
    ),
    "latency": (("latency", "LATENCY", "--resamples", "200"), rf"a planted CPU: step time predicted within {NUMBER}%"),
    "methods": (("methods",), r"\d+ routers and \d+ forms of experts"),
    "methods-study": (("methods", "METHODS"), r"(Best|Not decided|\d+ methods) "),
    "rates": (
        ("rates", "RATES", "--metric", "risk", "--axis", "samples", "--by", "n_experts", "--bootstrap", "50"),
        r"Slopes of risk in samples: ",
    ),
    "returns": (("returns", "RETURNS", "--baseline", "dense 1", "--bootstrap", "1000"), r"episode_return in 2 games: "),
    "plan": (("sweep", "plan", "quickstart", "--out", "NOTHING"), r"quickstart: 22 cells, 22 to train, about \d"),
    "plan-large": (("sweep", "plan", "routers", "--out", "NOTHING"), r"routers: 132 cells, 132 to train, about \d"),
    "grids": (("sweep", "grids"), r"\d+ grids"),
    "laws": (("laws",), r"\d+ laws, \d+ published fits"),
    "recommend": (("recommend", JOINT, "--train-flops", "1e20"), DECISION),
    "recommend-served": (
        ("recommend", JOINT, "--train-flops", "1e22", "--serve-tokens", "1e12", "--device", "h100", "--tpot-ms", "30"),
        DECISION,
    ),
    "recommend-load": (
        ("recommend", JOINT, "--train-flops", "1e22", "--requests-per-month", "1e8", "--device", "h100"),
        DECISION,
    ),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The inputs that the commands above name."""
    folder = tmp_path_factory.mktemp("first")
    study = write_study(folder / "study", configs=cells(experts=(1, 4, 16), tokens=(500_000, 1_000_000, 4_000_000)))
    methods = write_methods(folder / "routers")
    law, rows = published("chinchilla-epoch"), []
    for budget in np.geomspace(1e17, 1e20, 4):
        for n in float(law.definition.optimum(law.params, budget, 1)[0]) * np.geomspace(1 / 8, 8, 9):
            loss = float(law.loss({"n_active": n, "tokens": budget / 6 / n}))
            rows.append({"n_active": n, "tokens": budget / 6 / n, "train_flops": budget, "loss_val": loss})
    runs = pd.DataFrame(rows)
    runs["loss_val"] *= np.exp(1e-3 * np.random.default_rng(0).standard_normal(len(runs)))
    runs.to_csv(folder / "runs.csv", index=False)
    return {
        "STUDY": str(study),
        "METHODS": str(methods),
        "CSV": str(folder / "runs.csv"),
        "LATENCY": str(latency_rows(folder / "latency.parquet")),
        "NOTHING": str(folder / "none"),
        "RATES": str(written(folder / "rates.csv", replicates_csv())),
        "RETURNS": str(written(folder / "returns.csv", returns_csv())),
    }


def written(path: Any, text: str) -> Any:
    path.write_text(text)
    return path


def latency_rows(path: Any) -> Any:
    frame().assign(device=json.dumps(asdict(CPU)), busy_cores=0.8).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def call(places: dict[str, str]) -> Callable[..., Any]:
    """Runs a command of `COMMANDS`, with more words; each once."""

    @functools.cache
    def run(name: str, *more: str) -> Any:
        words = [places.get(word, word) for word in (*COMMANDS[name][0], *more)]
        return CliRunner().invoke(app, words, env={"COLUMNS": "80"})

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_the_answer_is_the_first_of_few_lines_and_standard_error_is_empty(call: Any, name: str) -> None:
    ended = call(name)
    assert ended.exit_code == 0, ended.output
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert re.match(COMMANDS[name][1], lines[0]), lines[0]
    assert len(lines) <= (32 if name.startswith("recommend") else 30)
    assert max(map(len, lines)) <= 80
    order = [line.split()[0] for line in lines if line.startswith(("- ", "warning: "))]
    assert order == sorted(order), "notes come before warnings"


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.startswith("recommend")])
def test_the_decision_in_words_is_that_of_the_document(call: Any, name: str) -> None:
    experts, active, total, tokens, undecided = re.match(DECISION, call(name).stdout).groups()
    ended = call(name, "--json")
    found = json.loads(ended.stdout)
    best = found["recommendation"]
    assert int(experts) == best["n_experts"]
    for text, value in ((active, "n_active"), (total, "n_total"), (tokens, "tokens")):
        assert number(text) == pytest.approx(best[value], rel=5e-3)
    assert bool(undecided) != found["decided"]
    warned = [line for line in ended.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warned) == len(found["warnings"])


def number(text: str) -> float:
    factors = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    return float(text.rstrip("KMBT")) * factors.get(text[-1], 1.0)


def test_verbose_adds_formulas_assumptions_and_all_rows(call: Any) -> None:
    found = json.loads(call("recommend-served", "--json").stdout)
    shown = " ".join(call("recommend-served", "--verbose").stdout.split())
    for assumption in found["assumptions"]:
        assert assumption in shown
    assert "tpot: time of one iteration" in shown
    cells_shown = call("plan-large", "--verbose").stdout
    assert len(re.findall(r"^E=", cells_shown, re.M)) == 132


@pytest.mark.parametrize(
    "name", ["fit-budget", "isoflop", "latency", "methods-study", "plan", "predict", "laws", "rates"]
)
def test_a_document_is_alone_on_standard_output(call: Any, name: str) -> None:
    ended = call(name, "--json")
    assert ended.exit_code == 0, ended.stderr
    assert isinstance(json.loads(ended.stdout), dict)
    assert len(ended.stdout.splitlines()) == 1
