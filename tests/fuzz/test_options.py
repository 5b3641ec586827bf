"""Options of every command: a number that cannot be is refused with its option; no word is a traceback or a hang."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from judge import judged
from seeds import GRID, fit_document, replicates_csv, returns_csv, runs_csv

from scaling.cli.main import app
from scaling.errors import InputError

# A working call of every command that takes numbers, to which an option is added.
CALLS: dict[str, tuple[str, ...]] = {
    "fit": ("fit", "runs.csv", "--law", "hoffmann", "--bootstrap", "0", "--starts", "4"),
    "predict": ("predict", "fit.json", "--n-active", "1e8", "--tokens", "1e9"),
    "validate": ("validate", "runs.csv", "--law", "hoffmann", "--laws", "hoffmann", "--bootstrap", "2"),
    "isoflop": ("isoflop", "runs.csv", "--bootstrap", "0"),
    "recommend": ("recommend", "fit.json", "--train-flops", "1e20", "--no-what-if"),
    "serve": ("serve", "mixtral-8x7b", "--device", "h100"),
    "suggest": ("sweep", "suggest", "study", "--out", "new.yaml", "--fit", "fit.json", "--train-flops", "1e18"),
    "latency": ("latency", "runs.csv"),
    "methods": ("methods", "study"),
    "import": ("import", "runs.csv", "--out", "out"),
    "rates": ("rates", "rates.csv", "--metric", "risk", "--axis", "samples", "--by", "n_experts", "--bootstrap", "20"),
    "returns": ("returns", "returns.csv", "--baseline", "dense 1", "--bootstrap", "100"),
    "run": ("sweep", "run", "grid.yaml", "--out", "out", "--executor", "inline"),
}
# What an option needs beside it.
_RENTED, _SERVED = ("--device", "h100"), ("--device", "h100", "--serve-tokens", "1e9")
BESIDE = {
    **dict.fromkeys(("--mfu", "--usd-per-hour", "--bandwidth-share", "--flops-share", "--train-usd"), _RENTED),
    **dict.fromkeys(("--ttft-ms", "--tpot-ms", "--usd-per-million", "--utilisation", "--skew"), _SERVED),
    **dict.fromkeys(("--max-batch", "--max-devices", "--prompt", "--generated"), _SERVED),
    "--prefix-hit": _SERVED,
    "--drafted": (*_SERVED, "--accepted", ".5"),
    "--accepted": (*_SERVED, "--drafted", "3"),
    "--top-k": (*_SERVED, "--family", "qwen3"),
    "--months": ("--requests-per-month", "1e6"),
    "--max-fleet": ("--requests-per-month", "1e6", "--device", "h100"),
}
IMPOSSIBLE = ("nan", "inf", "-inf", "-3", "1e300", "-1e300", "x", "", "0x10", "1:30", "1e999", "٣", "1,5,", "9" * 400)
ODD = (
    *IMPOSSIBLE, "0", "1", "1.5", "1e9", "1000000000", "1e12", "1000000000000", "2M", "80G", "1_000", "1e-300", " 4 ",
    "4%", "1,4", "1,4,8", "1..9", "0.5", "1e18", "+7", "007", "-0", "1" * 60,
)  # fmt: skip
WRITES = ("out", "new.yaml", "results")


def numeric_options() -> Iterator[tuple[str, str]]:
    """The command and name of every option that takes a number."""
    for name, command in commands(typer.main.get_command(app)):
        for parameter in command.params:
            option = next((text for text in parameter.opts if text.startswith("--")), "")
            descriptor = getattr(parameter, "type_descriptor", None)
            numeric = descriptor is not None and descriptor.annotation in (int, float)
            if option and name in CALLS and (numeric or parameter.name == "n_experts"):
                yield name, option


def commands(group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield from commands(command) if hasattr(command, "commands") else [(name, command)]


def files(folder: Path) -> Path:
    (folder / "runs.csv").write_text(runs_csv())
    (folder / "rates.csv").write_text(replicates_csv())
    (folder / "returns.csv").write_text(returns_csv())
    (folder / "fit.json").write_text(json.dumps(fit_document(False)))
    (folder / "grid.yaml").write_text(GRID)
    (folder / "study").mkdir()
    (folder / "study" / "grid.yaml").write_text(GRID)
    return folder


@pytest.fixture(autouse=True)
def nothing_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep whose options are accepted ends there."""

    def refused(*_: object) -> None:
        raise InputError("grid.yaml: not trained in this test")

    monkeypatch.setattr("sweeps.execute.run_sweep", refused)


def call(command: str, option: str, value: str) -> tuple[str, ...]:
    base = CALLS[command]
    if option in base:  # the value instead of the usual one
        place = base.index(option)
        base = base[:place] + base[place + 2 :]
    if option in ("--train-usd", "--target-loss", "--lifetime-cost") and "--train-flops" in base:
        place = base.index("--train-flops")
        base = base[:place] + base[place + 2 :]
    beside = BESIDE.get(option, ()) if command == "recommend" else ()
    if "--device" in beside:  # a fit that knows the widths of its models
        base = tuple("published:joint-moe-2025" if word == "fit.json" else word for word in base)
    return (*base, *beside, f"{option}={value}")


OPTIONS = sorted(set(numeric_options()))


def test_every_command_with_numbers_is_tried() -> None:
    assert {"--bootstrap", "--n-experts", "--tokens", "--memory-gb", "--seed", "--max-hours"} <= {
        name for _, name in OPTIONS
    }
    assert len(OPTIONS) >= 55


def test_a_number_that_cannot_be_is_refused_with_its_option(tmp_path: Path) -> None:
    found, folder = [], files(tmp_path)
    for number, (command, option) in enumerate(OPTIONS):
        for value in (IMPOSSIBLE[number % len(IMPOSSIBLE)],):
            verdict = judged(call(command, option, value), folder, (option,), WRITES)
            if verdict.fault or verdict.status != 2 or option not in verdict.said:
                found.append(
                    f"{' '.join(verdict.words)}\n  {verdict.fault}\n  exit {verdict.status}: {verdict.said[-300:]}"
                )
    assert not found, f"{len(found)}\n" + "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("value", ODD)
def test_every_option_takes_or_refuses_any_word(value: str, tmp_path: Path) -> None:
    found, folder = [], files(tmp_path)
    for command, option in OPTIONS[ODD.index(value) % 4 :: 4]:
        verdict = judged(
            call(command, option, value),
            folder,
            (option, "fit.json", "runs.csv", "rates.csv", "returns.csv", "study", "grid.yaml", "no model with E"),
            WRITES,
        )
        impossible = value in IMPOSSIBLE and verdict.status == 0
        if verdict.fault or impossible:
            found.append(
                f"{' '.join(verdict.words)}\n  {verdict.fault}\n  exit {verdict.status}: {verdict.said[-300:]}"
            )
    assert not found, f"{len(found)}\n" + "\n".join(found[:20])
