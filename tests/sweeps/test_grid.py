"""Grid files: the cells they give, and mistakes reported with their line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from grids import parse, require_refused
from pydantic import BaseModel

from scaling.config.data import DataConfig
from scaling.config.model import ModelConfig, following
from scaling.config.training import TrainConfig
from scaling.errors import InputError
from scaling.tasks import TASKS
from sweeps import grid
from sweeps.status import opened
from sweeps.store import Store

RESULTS = Path(__file__).parents[2] / "results"
TAIL = "\ngrid: {tokens: 1M}\n"


def test_axes_of_a_block_are_crossed_and_blocks_united_in_file_order() -> None:
    cells = parse(
        "study: a\ngrid:\n  - {n_experts: [1, 8], tokens: [1M, 2M]}\n  - {d_model: 32, tokens: [1e6], seed: [3, 4]}\n"
    ).cells
    assert [(c.model.n_experts, c.model.d_model, c.tokens, c.seed) for c in cells] == [
        (1, 64, 1_000_000, 0), (1, 64, 2_000_000, 0), (8, 64, 1_000_000, 0), (8, 64, 2_000_000, 0),
        (1, 32, 1_000_000, 3), (1, 32, 1_000_000, 4),
    ]  # fmt: skip


def test_every_field_is_an_axis_by_its_own_name_and_no_two_share_one() -> None:
    names = [*ModelConfig.model_fields, *DataConfig.model_fields, *TrainConfig.model_fields, "seed", "tokens"]
    assert len(names) == len(set(names))
    assert set(grid.AXES) == set(names)


@pytest.mark.parametrize(
    ("written", "tokens"),
    [("2M", 2_000_000), ("0.25M", 250_000), ("1e6", 1_000_000), ("1_000_000", 1_000_000), ("300k", 300_000)],
)
def test_numbers_with_suffixes_are_read(written: str, tokens: int) -> None:
    assert [cell.tokens for cell in parse(f"study: a\ngrid: {{tokens: {written}}}").cells] == [tokens]
    assert parse(f"study: a\ntrain: {{warmup_tokens: 1e5}}\ngrid: {{tokens: [{written}]}}").cells[0].tokens == tokens


def test_an_axis_overrides_its_section_and_null_is_the_default() -> None:
    text = (
        "study: a\nmodel: {n_layers: 4}\ntrain: {lr: 1e-3}\ngrid: {tokens: 1M, n_layers: [1, null], lr: [null, 2e-3]}"
    )
    cells = parse(text).cells
    assert [(c.model.n_layers, c.train.lr) for c in cells] == [(1, 1e-3), (1, 2e-3), (4, 1e-3), (4, 2e-3)]


def test_equal_runs_are_one_cell() -> None:
    # 1,000,000 and 1,000,010 tokens are the same 488 steps; at E = 1 the router routes nothing.
    read = parse(
        "study: a\ntrain: {batch_tokens: 2048}\ngrid: {tokens: [1M, 1000010], router: [switch, topk], n_experts: [1, "
        "4]}"
    )
    assert len(read.cells) == 3
    assert read.duplicates == 5


def test_different_files_are_different_cells_and_their_paths_absolute() -> None:
    text = "study: a\ndata: {corpus: files, paths: [a/*.txt]}\ngrid: {tokens: 1M, paths: [[x.txt], [/y.txt]]}"
    cells = parse(text).cells
    assert [cell.data.paths for cell in cells] == [(str(Path("folder/x.txt").resolve()),), ("/y.txt",)]


def test_numbers_are_decimal_and_words_are_text() -> None:
    text = (
        "study: 2026-10-01\ndata: {corpus: files, paths: [no], text_field: off}\nmodel: {leak_study: no}\n"
        "grid: {tokens: 0100000, seed: [001, 010, 012], lr: [1_0.5, 01.0e-3]}"
    )
    cells = parse(text).cells
    assert {cell.tokens for cell in cells} == {100_000}
    assert [cell.seed for cell in cells[::2]] == [1, 10, 12]
    assert [cell.train.lr for cell in cells[:2]] == [10.5, 1e-3]
    first = cells[0]
    assert (first.study, first.data.text_field, first.model.leak_study) == ("2026-10-01", "off", False)
    assert first.data.paths == (str(Path("folder/no").resolve()),)


def sections_of(task: str) -> dict[str, type[BaseModel]]:
    """The sections of a grid of this task, and what each is."""
    settings = TASKS[task].settings
    return grid.SECTIONS if settings is None else {"settings": settings, "resources": grid.SECTIONS["resources"]}


def test_a_resolved_grid_has_the_same_cells_and_all_defaults() -> None:
    for name in grid.named_grids():
        read = grid.load_grid(name)
        text = grid.resolved(read, {"code_version": "1"})
        again = parse(text)
        assert again.cells == read.cells
        assert again.record == {"code_version": "1"}
        document = yaml.safe_load(text)
        axes = {axis for block in document["grid"] for axis in block}
        for section, kind in sections_of(read.task).items():
            assert set(kind.model_fields) - set(document[section]) <= axes | {*following()}


@pytest.mark.parametrize("study", ["flagship", "routers"])
def test_rows_that_were_trained_are_cells_of_their_grid(study: str) -> None:
    """The run_ids of rows trained by earlier versions: a grid that resolved otherwise would train them again."""
    folder = RESULTS / study
    _, run_ids = opened(folder)
    trained = {*Store(folder).survey().cells}
    assert trained
    assert trained <= {*run_ids}


def test_named_grids_ship_and_load() -> None:
    assert {"quickstart", "smoke"} <= set(grid.named_grids())
    assert grid.load_grid("quickstart").study == "quickstart"


# Text of the grid, and parts of the message: line and column, field, value found, allowed values.
MISTAKES = {
    "typo in a key": ("studdy: a" + TAIL, ["g.yaml:1:1: studdy", "did you mean `study`", "allowed: study, task"]),
    "typo in an axis": ("study: a\ngrid:\n  - {n_expert: [1]}", ["g.yaml:3:6: grid.n_expert", "`n_experts`"]),
    "typo in a field": ("study: a\nmodel: {\n n_layer: 2}" + TAIL, ["g.yaml:3:2: model.n_layer", "`n_layers`"]),
    "field of another section": ("study: a\nmodel: {seq_len: 64}" + TAIL, ["g.yaml:2:9", "belongs under `train:`"]),
    "an axis outside the grid": ("study: a\ntokens: 1M" + TAIL, ["g.yaml:2:1: tokens", "put it under `grid:`"]),
    "typo in a choice": (
        "study: a\nmodel: {router: swich}" + TAIL,
        ["g.yaml:2:17: model.router", "'swich'", "did you mean `switch`", "allowed: switch, topk"],
    ),
    "no number": ("study: a\ngrid: {tokens: [1M, many]}", ["g.yaml:2:21: grid.tokens", "'many'", "0.25M"]),
    "no whole number": ("study: a\ngrid: {tokens: 1M, seed: 0.5}", ["g.yaml:2:26: grid.seed", "whole number", "0.5"]),
    "a truth": ("study: a\ngrid: {tokens: 1M, seed: yes}", ["g.yaml:2:26: grid.seed", "expected a number", "'yes'"]),
    "a truth in English": ("study: a\ngrid: {tokens: 1M, seed: true}", ["g.yaml:2:26: grid.seed", "a number", "True"]),
    "octal": ("study: a\ngrid: {tokens: 1M, seed: 0o10}", ["g.yaml:2:26: grid.seed", "'0o10'"]),
    "hexadecimal": ("study: a\ngrid: {tokens: 0x1F}", ["g.yaml:2:16: grid.tokens", "'0x1F'"]),
    "sexagesimal": ("study: a\ngrid: {tokens: 1M, seed: 1:30}", ["g.yaml:2:26: grid.seed", "'1:30'"]),
    "too small": ("study: a\ngrid: {tokens: 1M, n_experts: [4, 0]}", ["g.yaml:2:35: grid.n_experts", "found 0", "1"]),
    "not finite": ("study: a\ngrid: {tokens: 1M, lr: .inf}", ["g.yaml:2:24: grid.lr", "'.inf'"]),
    "given twice": ("study: a\nstudy: b" + TAIL, ["g.yaml:2:1: study: given twice, first in line 1"]),
    "axis given twice": ("study: a\ngrid: {tokens: 1M,\n tokens: 2M}", ["g.yaml:3:2: tokens: given twice"]),
    "a tag": ("study: a\ngrid: {tokens: !!python/object/apply:os.system [x]}", ["g.yaml:2:16: the tag", "os.system"]),
    "a merge": ("study: a\ngrid: {tokens: 1M, <<: {seed: 1}}", ["g.yaml:2:20: <<"]),
    "empty axis": ("study: a\ngrid: {tokens: [], seed: 0}", ["g.yaml:2:8: grid.tokens: empty axis"]),
    "axis without a value": ("study: a\ngrid:\n  tokens:\n", ["g.yaml:3:3: grid.tokens: empty axis"]),
    "empty grid": ("study: a\ngrid: []", ["g.yaml:2:1: grid: empty"]),
    "empty block": ("study: a\ngrid: [{}]", ["g.yaml:2:8: grid: a block needs at least one axis"]),
    "no grid": ("study: a\n", ["g.yaml:1:1: grid: missing"]),
    "no study": ("grid: {tokens: 1M}", ["g.yaml:1:1: study: missing"]),
    "study is no folder": ("study: a/b" + TAIL, ["g.yaml:1:8: study", "'a/b'", "allowed"]),
    "study climbs out": ("study: ..\n" + TAIL, ["g.yaml:1:8: study", "'..'"]),
    "study is a number": ("study: 12" + TAIL, ["g.yaml:1:8: study", "found 12", "quote it"]),
    "empty file": ("", ["g.yaml:1:1", "empty"]),
    "only comments": ("# nothing\n", ["g.yaml:1:1", "empty"]),
    "not a mapping": ("- study\n", ["g.yaml:1:1", "must be a mapping"]),
    "section is a list": ("study: a\ntrain: [1]" + TAIL, ["g.yaml:2:8: train must be a mapping"]),
    "tab": ("study: a\ndata:\n\tcorpus: files\n", ["g.yaml:3:1", "not YAML", "spaces, not tabs"]),
    "unclosed list": ("study: a\ngrid: {tokens: [1M\n", ["not YAML", "g.yaml:3:1"]),
    "two documents": ("study: a\n---\nstudy: b\n", ["g.yaml:2:1", "single document"]),
    "an alias of itself": ("study: a\ngrid: &g {tokens: *g}\n", ["g.yaml", "alias"]),
    "no such date": ("study: a\ngrid: {tokens: 2001-13-45}\n", ["g.yaml:2:16", "2001-13-45"]),
    "control character": ("study: a\x00\n", ["g.yaml", "not YAML"]),
    "paths are a list": ("study: a\ngrid: {tokens: 1M, paths: [a.txt]}", ["g.yaml:2:28: grid.paths", "write [a.txt]"]),
    "k above E": (
        "study: a\ngrid:\n  - {tokens: 1M}\n  - {tokens: 1M, router: topk, n_experts: 2, top_k: 4}",
        ["g.yaml:4:5: impossible cell", "n_experts=2", "top_k=4"],
    ),
    "switch with k = 2": ("study: a\ngrid: {tokens: 1M, n_experts: 8, top_k: 2}", ["g.yaml:2:7", "router=topk"]),
    "groups do not fit": (
        "study: a\nmodel: {d_head: 16}\ngrid: {tokens: 1M, d_model: 64, n_kv_heads: [1, 3]}",
        ["g.yaml:3:49", "n_kv_heads=3", "=4"],
    ),
    "heads do not fit": ("study: a\nmodel: {d_head: 16}\ngrid: {tokens: 1M, d_model: 40}", ["d_model=40", "d_head=16"]),
    "too few tokens": ("study: a\ntrain: {warmup_tokens: 64K}\ngrid: {tokens: 1000}", ["tokens=1000", "=64000"]),
    "files without paths": ("study: a\ndata: {corpus: files}\ngrid: {tokens: 1M}", ["corpus=files needs paths"]),
    "too many cells": (f"study: a\ngrid: {{seed: [{','.join(map(str, range(1001)))}], bpe_vocab: "
                       f"[{','.join(map(str, range(300, 410)))}]}}", ["110,110 cells", "100,000"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_with_its_place(mistake: str) -> None:
    require_refused(*MISTAKES[mistake])


def test_all_mistakes_are_reported_at_once_in_order_of_their_lines() -> None:
    with pytest.raises(InputError) as caught:
        parse("study: a\ntask: lmm\nmodel: {n_layer: 1}\ngrid: {token: 1M}\n")
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["2", "3", "4"]


def test_a_missing_file_lists_the_named_grids(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No such file.*quickstart"):
        grid.load_grid(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match=r"a folder.*quickstart"):
        grid.load_grid(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"study: \xff\xfe")
    with pytest.raises(InputError, match="not UTF-8"):
        grid.load_grid(tmp_path / "binary.yaml")
