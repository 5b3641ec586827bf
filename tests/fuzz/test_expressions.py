"""Expressions as no one means them: `--where` and `--map` compute, or are refused; they never run, write or hang."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from judge import judged
from seeds import runs, runs_csv

_PIECES = (
    "n_active", "tokens", "loss_val", "n_experts", "status", "`n_active`", "nobody", "1", "2.5", "1e300", "-1", "'ok'",
    '"x"', "+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", ">=", "and", "or", "not", "in", "is", "(", ")", "[",
    "]", ",", "log(", "exp(", "abs(", "min(", "None", "nan", "inf", "1e999", "2M", "`", "'", ".", "@", "lambda", "__",
    "=", ";", "__import__('os').system('touch x')", "open('x', 'w')", "tokens.to_pickle('x')", "@pd.io", "9**9**9**9",
    "é", "\x00", "a" * 300, "(" * 200, "-" * 300,
)  # fmt: skip
_VALID = (
    "n_experts == 1 and loss_val < 4", "6*n_active*tokens < 1.2e20", "tokens / n_active > 2 or status in ['ok', 'x']",
    "not (log(loss_val) > 2)", "tokens*1e0", "n_active**1", "exp(log(tokens))", "tokens // 1", "`n_active` is not None",
)  # fmt: skip


def expression(seed: int) -> str:
    """A valid expression with a few pieces put in, taken out or exchanged; or pieces alone."""
    chance = random.Random(seed)
    words = chance.choice(_VALID).split() if chance.random() < 0.7 else []
    for _ in range(chance.choice((1, 2, 3, 8))):
        place = chance.randrange(len(words) + 1)
        words[place : place + chance.randrange(2)] = [chance.choice(_PIECES)]
    return chance.choice((" ", " ", "")).join(words)


def faults(seeds: range, folder: Path) -> list[str]:
    (folder / "runs.csv").write_text(runs_csv())
    found = []
    for seed in seeds:
        text = expression(seed)
        words = (f"--where={text}",) if seed % 2 else (f"--map={random.Random(seed).choice(('tokens', 'new'))}={text}",)
        verdict = judged(
            ("import", "runs.csv", "--out", "study", *words), folder, ("--where", "--map", "runs.csv"), ("study",)
        )
        if verdict.fault:
            found.append(f"seed {seed}: {words}\n  {verdict.fault}\n  exit {verdict.status}: {verdict.said[-300:]}")
    return found


def test_an_odd_expression_computes_or_is_refused(tmp_path: Path) -> None:
    found = faults(range(24), tmp_path)
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_many_odd_expressions_compute_or_are_refused(tmp_path: Path) -> None:
    found = faults(range(1000, 1500), tmp_path)
    assert not found, f"{len(found)} of 500\n" + "\n".join(found[:20])


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("6*n_active*tokens < 1.2e20", lambda f: 6 * f["n_active"] * f["tokens"] < 1.2e20),
        ("n_active*n_active*n_active > 1e27", lambda f: f["n_active"] ** 3 > 1e27),
        ("loss_val < 3 and not tokens > 1e10", lambda f: (f["loss_val"] < 3) & ~(f["tokens"] > 1e10)),
        ("tokens // 7 % 2 == 0", lambda f: f["tokens"] // 7 % 2 == 0),
    ],
)
def test_a_condition_keeps_the_rows_for_which_it_holds(condition: str, kept, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(runs_csv())
    verdict = judged(
        ("import", "runs.csv", "--out", "study", "--where", condition, "--json"), tmp_path, ("runs.csv",), ("study",)
    )
    assert (verdict.status, verdict.fault) == (0, ""), verdict
    assert json.loads(verdict.stdout)["n_runs"] == int(kept(runs()).sum())
