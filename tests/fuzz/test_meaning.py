"""An oracle: what means the same gives the same answer, and what changes the meaning is refused or warned of.

Hoffmann's law is planted: a table that is written in another way must give its parameters, a fit the same prediction,
a grid the same cells.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from judge import Verdict, judged
from seeds import GRID, PLANTED, fit_document, runs

FIT = ("--law", "hoffmann", "--bootstrap", "0", "--starts", "8", "--json")


def fitted(text: bytes, folder: Path, words: tuple[str, ...] = (), name: str = "runs.csv") -> Verdict:
    (folder / name).write_bytes(text)
    verdict = judged(("fit", name, *FIT, *words), folder, (name,))
    assert not verdict.fault, verdict
    return verdict


def parameters(verdict: Verdict) -> Mapping[str, float]:
    assert verdict.status == 0, verdict.said
    return dict(json.loads(verdict.stdout)["params"])


def require_planted(verdict: Verdict) -> None:
    found = parameters(verdict)
    for name, value in PLANTED.items():
        assert found[name] == pytest.approx(value, rel=2e-3), (name, verdict)


def written(frame: pd.DataFrame, chance: random.Random) -> bytes:
    """A table as CSV: numbers, quotes, ends of lines, the order of rows and columns, and the separator vary."""
    columns = list(frame.columns)
    chance.shuffle(columns)
    frame = frame[columns].sample(frac=1.0, random_state=chance.randrange(10**6))
    separator, end = chance.choice([",", "\t", ";"]), chance.choice(["\n", "\r\n"])
    quote = chance.choice(["", '"'])
    writers: dict[str, Callable[[float], str]] = {
        "repr": repr,
        "fixed": lambda value: f"{value:.6f}",
        "exponent": lambda value: f"{value:.12e}",
        "capital": lambda value: f"{value:.12E}",
        "spaces": lambda value: f" {value!r} ",
        "plus": lambda value: f"+{value!r}",
    }
    how = {name: chance.choice(list(writers)) for name in columns}
    rows = [separator.join(f"{quote}{name}{quote}" for name in columns)]
    for row in frame.itertuples(index=False):
        cells = (
            writers[how[name]](value) if isinstance(value, float) else str(value)
            for name, value in zip(columns, row, strict=True)
        )
        rows.append(separator.join(f"{quote}{cell}{quote}" for cell in cells))
    mark = chance.choice(["", "\ufeff"])
    return (mark + end.join(rows) + chance.choice(["", end])).encode()


@pytest.mark.parametrize("seed", range(12))
def test_a_table_written_in_another_way_gives_the_same_law(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    frame = runs().assign(seed=0, notes=[f"run {i}" for i in range(len(runs()))])
    words: tuple[str, ...] = ()
    if seed % 3 == 1:  # other names, and other units that are said
        frame = frame.rename(columns={"n_active": "Model Size", "tokens": "D (B)"}).assign(
            **{"D (B)": frame["tokens"] / 1e9}
        )
        words = ("--map", "n_active=`Model Size`", "--map", "tokens=`D (B)`*1e9")
    if seed % 3 == 2:
        frame = frame.assign(wandb_tags="a|b", unused=[math.nan] * len(frame), n_experts=1, status="finished")
    require_planted(fitted(written(frame, chance), tmp_path, words))


@pytest.mark.parametrize("name", ["runs.jsonl", "runs.json"])
def test_json_gives_the_same_law(name: str, tmp_path: Path) -> None:
    records = runs().sample(frac=1.0, random_state=1).to_dict("records")
    lines = "\n".join(map(json.dumps, records)) if name.endswith("l") else json.dumps(records, indent=3)
    require_planted(fitted(lines.encode(), tmp_path, name=name))


def bits(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(loss_val=frame["loss_val"] / math.log(2))


# What another meaning is, and whether a message may do (else it must be refused).
CHANGED: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "N and D swapped": lambda f: f.rename(columns={"n_active": "tokens", "tokens": "n_active"}),
    "loss and D swapped": lambda f: f.rename(columns={"loss_val": "tokens", "tokens": "loss_val"}),
    "tokens in billions": lambda f: f.assign(tokens=f["tokens"] / 1e9),
    "parameters in millions": lambda f: f.assign(n_active=f["n_active"] / 1e6),
    "perplexity": lambda f: f.assign(loss_val=f["loss_val"].map(math.exp)),
    "a text in a number": lambda f: f.assign(tokens=[*f["tokens"].astype(str)[:-1], "many"]),
    "a blank loss": lambda f: f.assign(loss_val=[None, *f["loss_val"][1:]]),
    "a negative loss": lambda f: f.assign(loss_val=[-3.0, *f["loss_val"][1:]]),
    "a loss of zero": lambda f: f.assign(loss_val=[0.0, *f["loss_val"][1:]]),
    "one loss in bits": lambda f: f.assign(loss_val=[f["loss_val"][0] / math.log(2), *f["loss_val"][1:]]),
    "one size in millions": lambda f: f.assign(n_active=[f["n_active"][0] / 1e6, *f["n_active"][1:]]),
    "decimal commas": lambda f: f.assign(tokens=[f"{t / 1e9:.3f}".replace(".", ",") for t in f["tokens"]]),
    "total below active": lambda f: f.assign(n_total=f["n_active"] / 2),
    "FLOPs that contradict": lambda f: f.assign(train_flops=f["n_active"] * f["tokens"] * 600),
    "rows twice": lambda f: pd.concat([f, f]),
    "two losses": lambda f: f.assign(loss_train=f["loss_val"] * 1.1).rename(columns={"loss_train": "loss_val "}),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGED)
def test_another_meaning_is_refused_or_warned_of(what: str, tmp_path: Path) -> None:
    usual = fitted(runs().to_csv(index=False).encode(), tmp_path)
    verdict = fitted(CHANGED[what](runs()).to_csv(index=False).encode(), tmp_path)
    more = set(verdict.said.splitlines()) - set(usual.said.splitlines())
    assert verdict.status == 2 or more, f"{what}: accepted without a word: {parameters(verdict)}"


def shuffled(value: Any, chance: random.Random) -> Any:
    """The same document with its keys in another order, and with numbers as floats."""
    if isinstance(value, dict):
        items = list(value.items())
        chance.shuffle(items)
        return {key: shuffled(item, chance) for key, item in items}
    if isinstance(value, list):
        return [shuffled(item, chance) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and value else value


@pytest.mark.parametrize("seed", range(4))
def test_a_fit_written_in_another_way_predicts_the_same(seed: int, tmp_path: Path) -> None:
    chance, usual = random.Random(seed), fit_document(seed % 2 == 0)
    said = []
    for document, how in (
        (usual, {}),
        (
            shuffled(usual, chance) | {"comment": [1, "x"]},
            {"indent": chance.choice([None, 4]), "ensure_ascii": chance.random() < 0.5},
        ),
    ):
        (tmp_path / "fit.json").write_bytes(b"\xef\xbb\xbf" * (seed % 2) + json.dumps(document, **how).encode())
        verdict = judged(
            ("predict", "fit.json", "--n-active", "6e4", "--tokens", "2e6", "--json"), tmp_path, ("fit.json",)
        )
        assert (verdict.status, verdict.fault) == (0, ""), verdict
        said.append(json.loads(verdict.stdout))
    assert [answer | {"warnings": sorted(answer["warnings"])} for answer in said] == [
        said[0] | {"warnings": sorted(said[0]["warnings"])}
    ] * 2


_LR = "study: f\ntrain: {lr: 1e-3}\n"
GRIDS = {
    "plain": _LR + "grid: {n_experts: [1, 4], tokens: [1M, 2M], seed: [0, 1]}\n",
    "in blocks": _LR + "grid:\n- n_experts:\n  - 1\n  - 4\n  tokens: [1M, 2M]\n  seed: [0, 1]\n",
    "in JSON": '{"study": "f", "train": {"lr": 0.001},\n'
    '"grid": {"n_experts": [1, 4], "tokens": [1000000, 2e6], "seed": [0, 1]}}',
    "quoted": "'study': \"f\"\ntrain: {lr: '1e-3'}\n"
    "'grid': {'n_experts': ['1', \"4\"], 'tokens': ['1M', '2M'], 'seed': [0, 1]}\n",
    "padded": "study: f\ntrain: {lr: 0.0010}\n"
    "grid: {n_experts: [01, 04], tokens: [001_000_000, 2_000_000], seed: [00, 001]}\n",
    "with an alias": _LR + "grid: {n_experts: [1, 4], tokens: [&m 1M, 2M], seed: [0, 1]} # *m\n",
    "with a mark and other ends": "\ufeffstudy: f\r\ntrain: {lr: 1e-3}\r\n"
    "grid: {n_experts: [1, 4], tokens: [1M, 2M], seed: [0, 1]}\r\n",
}


def test_a_grid_written_in_another_way_has_the_same_cells(tmp_path: Path) -> None:
    cells = {}
    for what, text in GRIDS.items():
        (tmp_path / "grid.yaml").write_bytes(text.encode())
        verdict = judged(("sweep", "plan", "grid.yaml", "--json"), tmp_path, ("grid.yaml",))
        assert (verdict.status, verdict.fault) == (0, ""), (what, verdict)
        cells[what] = json.loads(verdict.stdout)["cells"]
    assert len(cells["plain"]) == 8
    assert all(found == cells["plain"] for found in cells.values())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed: [0, 1]", "seed: [0, no]"), ("seed: [0, 1]", "seed: [0, 0o10]"), ("seed: [0, 1]", "seed: [0, 1:30]"),
        ("seed: [0, 1]", "seed: [0, 0x1F]"), ("seed: [0, 1]", "seed: [0, true]"), ("tokens: 1M", "tokens: 1,5M"),
        ("tokens: 1M", "tokens: 1M tokens"), ("tokens: 1M", "tokens: .inf"), ("lr: 1e-3", "lr: .nan"),
        ("lr: 1e-3", "lr: 1e-3, lr: 2e-3"), ("n_experts: 8", "n_experts: 8x7B"), ("n_experts: 8", "n_experts: 2/8"),
        ("n_experts: 8", "n_experts: 128+1"), ("task: lm", "task: lm\ntask: lm"), ("study: fuzzed", "study: !!str x"),
        ("leak_study: false", "leak_study: perhaps"), ("seed: [0, 1]", "seed: [0, 1.5]"),
        ("tokens: 1M", "tokens: 2026-10-01"),
    ],
)  # fmt: skip
def test_a_number_that_is_none_is_refused_with_its_line(old: str, new: str, tmp_path: Path) -> None:
    assert old in GRID
    text = GRID.replace(old, new)
    (tmp_path / "grid.yaml").write_text(text)
    line = max(number for number, row in enumerate(text.splitlines(), start=1) if new.splitlines()[-1] in row)
    verdict = judged(("sweep", "plan", "grid.yaml"), tmp_path, ("grid.yaml",))
    assert (verdict.status, verdict.fault) == (2, ""), verdict
    assert f"grid.yaml:{line}:" in verdict.said
