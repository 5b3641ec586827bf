"""Mutated files of every format: exit 0, or one message that names the place; no traceback, no hang, no other file."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from judge import Verdict, judged
from mutations import Mutant, of_bytes, of_json, of_lines, of_table
from seeds import (
    DEVICES,
    GRID,
    answer_document,
    fit_document,
    latency_csv,
    latency_document,
    replicates_csv,
    returns_csv,
    runs,
    runs_csv,
    study_part,
    throughput_csv,
    training_csv,
    training_law_document,
)

PRICED = (
    "recommend", "published:joint-moe-2025", "--train-flops", "1e20", "--serve-tokens", "1e11", "--device", "h100",
    "--n-experts", "1,8", "--no-what-if",
)  # fmt: skip
SOME_FIT = "published:chinchilla-tex"
FITTED = ("--law", "hoffmann", "--bootstrap", "0", "--starts", "4")
RATES = ("rates", "rates.csv", "--metric", "risk", "--axis", "samples", "--by", "n_experts")


@dataclass(frozen=True)
class Kind:
    """A format: the file's name, its mutants by seed, and commands that read it, of which a case runs one."""

    file: str
    mutant: Callable[[int], Mutant]
    commands: tuple[tuple[str, ...], ...]
    writes: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    few: int = 10  # cases of the default tests
    many: int = 300  # and of the long ones


def parquet(seed: int) -> Mutant:
    import io

    written = io.BytesIO()
    runs().to_parquet(written)
    return of_bytes(written.getvalue(), seed)


KINDS = {
    "fit": Kind(
        "fit.json",
        lambda seed: of_json(fit_document(seed % 2 == 0), seed),
        (
            ("predict", "fit.json", "--n-active", "1e8", "--tokens", "1e9", "--json"),
            ("predict", "fit.json", "--n-active", "1e8", "--tokens", "1e9"),
            ("recommend", "fit.json", "--train-flops", "1e18", "--no-what-if"),
            ("recommend", "fit.json", "--target-loss", "3", "--serve-tokens", "1e9", "--no-what-if", "--json"),
            ("recommend", "published:chinchilla-tex", "--rival", "fit.json", "--train-flops", "1e18", "--no-what-if"),
        ),
        few=40,
        many=1000,
    ),
    "latency law": Kind(
        "law.json",
        lambda seed: of_json(latency_document(), seed),
        ((*PRICED, "--latency", "law.json"),),
        few=8,
        many=200,
    ),
    "devices": Kind(
        "devices.yaml",
        lambda seed: of_lines(DEVICES, seed),
        ((*PRICED, "--devices", "devices.yaml"),),
        few=10,
        many=300,
    ),
    "grid": Kind(
        "grid.yaml",
        lambda seed: of_lines(GRID, seed),
        (("sweep", "plan", "grid.yaml", "--json"), ("sweep", "plan", "grid.yaml")),
        few=30,
        many=700,
    ),
    "grid of a study": Kind(
        "study/grid.yaml", lambda seed: of_lines(GRID, seed), (("sweep", "status", "study"),), few=10, many=200
    ),
    "table": Kind(
        "runs.csv",
        lambda seed: of_table(runs_csv(), seed),
        (
            ("fit", "runs.csv", *FITTED),
            ("fit", "runs.csv", *FITTED, "--json"),
            ("import", "runs.csv", "--out", "study"),
            ("isoflop", "runs.csv", "--bootstrap", "0"),
        ),
        writes=("study",),
        few=24,
        many=600,
    ),
    "JSON table": Kind(
        "runs.json",
        lambda seed: of_json(json.loads(runs().to_json(orient="records")), seed),
        (("fit", "runs.json", *FITTED), ("import", "runs.json", "--out", "study")),
        writes=("study",),
        few=10,
        many=300,
    ),
    "answer": Kind(
        "answer.json",
        lambda seed: of_json(answer_document(), seed),
        (("sweep", "suggest", "study", "--fit", SOME_FIT, "--question", "answer.json", "--out", "new.yaml"),),
        places=("study",),  # there is none, so a sound answer goes no further
        few=20,
        many=300,
    ),
    "study": Kind(
        "study/runs/imported.parquet",
        lambda seed: of_bytes(study_part(), seed),
        (
            ("fit", "study", *FITTED),
            ("isoflop", "study", "--bootstrap", "0"),
            ("sweep", "pack", "study", "--out", "packed"),
            ("methods", "study"),
        ),
        writes=("packed",),
        few=8,
        many=300,
    ),
    "packed study": Kind(
        "packed/runs.parquet",
        lambda seed: of_bytes(study_part(), seed),
        (("fit", "packed", *FITTED), ("isoflop", "packed", "--bootstrap", "0")),
        few=5,
        many=200,
    ),
    "latency table": Kind(
        "bench.csv",
        lambda seed: of_table(latency_csv(), seed),
        (("latency", "bench.csv", "--resamples", "200", "--device", "h100"),),
        few=2,
        many=40,
    ),
    "throughput": Kind(
        "served.csv",
        lambda seed: of_table(throughput_csv(), seed),
        ((*PRICED, "--throughput", "served.csv"),),
        few=6,
        many=150,
    ),
    "training-speed law": Kind(
        "speed.json",
        lambda seed: of_json(training_law_document(), seed),
        ((*PRICED, "--training-speed", "speed.json"),),
        few=6,
        many=200,
    ),
    "training speeds": Kind(
        "trained.csv",
        lambda seed: of_table(training_csv(), seed),
        (("training-speed", "trained.csv", "--bootstrap", "0", "--device", "h100"),),
        few=10,
        many=300,
    ),
    "replicates": Kind(
        "rates.csv",
        lambda seed: of_table(replicates_csv(), seed),
        (
            (*RATES, "--bootstrap", "20"),
            (*RATES, "--bootstrap", "0", "--json"),
            (*RATES[:-2], "--optimum-over", "n_experts", "--bootstrap", "0"),
        ),
        few=10,
        many=300,
    ),
    "returns": Kind(
        "returns.csv",
        lambda seed: of_table(returns_csv(), seed),
        (
            ("returns", "returns.csv", "--baseline", "dense 1", "--bootstrap", "100"),
            ("returns", "returns.csv", "--baseline", "dense 1", "--bootstrap", "100", "--no-normalise", "--json"),
        ),
        few=10,
        many=300,
    ),
    "Parquet table": Kind(
        "runs.parquet",
        parquet,
        (("fit", "runs.parquet", *FITTED),),
        few=6,
        many=200,
    ),
}  # fmt: skip


def case(name: str, seed: int, folder: Path) -> tuple[Mutant, Verdict]:
    """One case; `folder` is its own."""
    kind = KINDS[name]
    mutant = kind.mutant(seed)
    (folder / kind.file).parent.mkdir(parents=True, exist_ok=True)
    (folder / kind.file).write_bytes(mutant.content)
    words = random.Random(seed).choice(kind.commands)
    return mutant, judged(words, folder, (kind.file, kind.file.split("/")[0], *kind.places), kind.writes)


def faults(name: str, seeds: range, folder: Path) -> list[str]:
    """What went wrong, a case each: how to run it again, what was done to the file, and how the command ended."""
    found = []
    for seed in seeds:
        (place := folder / f"{seed}").mkdir()
        mutant, verdict = case(name, seed, place)
        if verdict.fault:
            found.append(
                f"case({name!r}, {seed}): {mutant.what[:300]}\n  {' '.join(verdict.words)}\n  {verdict.fault}\n"
                f"  exit {verdict.status}: {verdict.said[-300:]}"
            )
    return found


def test_the_seeds_themselves_are_accepted(tmp_path: Path) -> None:
    whole = {
        "fit.json": json.dumps(fit_document(True)), "law.json": json.dumps(latency_document()), "devices.yaml": DEVICES,
        "grid.yaml": GRID, "study/grid.yaml": GRID, "runs.csv": runs_csv(),
        "runs.json": runs().to_json(orient="records"),
        "bench.csv": latency_csv(),
        "served.csv": throughput_csv(),
        "speed.json": json.dumps(training_law_document()),
        "trained.csv": training_csv(),
        "rates.csv": replicates_csv(),
        "returns.csv": returns_csv(),
    }  # fmt: skip
    for kind in KINDS.values():
        if kind.file in whole:
            (tmp_path / kind.file).parent.mkdir(exist_ok=True)
            (tmp_path / kind.file).write_text(whole[kind.file])
            for words in kind.commands:
                verdict = judged(words, tmp_path, (kind.file,), kind.writes)
                assert (verdict.status, verdict.fault) in ((0, ""), (1, "")), (words, verdict)


@pytest.mark.parametrize("name", KINDS)
def test_a_mutated_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    found = faults(name, range(KINDS[name].few), tmp_path)
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_many_mutated_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    found = faults(name, range(1000, 1000 + KINDS[name].many), tmp_path)
    assert not found, f"{len(found)} of {KINDS[name].many}\n" + "\n".join(found[:20])
