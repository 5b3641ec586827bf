"""Comparisons of returns in a report: on the first page, in a section, and the reward programs as they were written."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pandas as pd
import planted_returns
import pytest
from typer.testing import CliRunner

import scaling
from analysis.figures.returns import panels_figure
from analysis.report.build import build_report
from analysis.report.contents import content, drawn
from analysis.report.sections.returns import commands, panels_name, programs, section
from analysis.report.task_study import load_task_study
from analysis.returns.comparison import read_returns
from scaling.cli.main import app
from scaling.files import write_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return planted_returns.write_value_rl(tmp_path / "planted", seeds=4)


def kept(folder: Path, name: str, **asked: object) -> scaling.ReturnsComparison:
    found = scaling.returns(folder, baseline="dense 1", bootstrap=200, **asked)
    write_json(folder / "returns" / f"{name}.json", found.to_json())
    return found


def test_the_registered_answer_is_the_headline_and_its_tables_are_shown(folder: Path) -> None:
    first = kept(folder, "1-registered", contrasts="experts: soft 4 - soft-one-wide 4 within .1")
    kept(folder, "2-breakout", where="game == 'breakout'")
    study = load_task_study(folder)
    page = content(study)
    assert "experts: soft 4" in page["headline"]
    assert first.contrasts[0].verdict in page["headline"]
    assert page["summary"][0]["path"] == "returns_overview_1-registered.svg"
    title, blocks = page["sections"][0]["title"], page["sections"][0]["blocks"]
    assert title == "Arms against each other"
    assert [block["text"] for block in blocks if block["kind"] == "heading"] == ["Registered", "Breakout"]
    pairs, arms, games, by_game, costs, *_ = (block for block in blocks if block["kind"] == "table")
    assert pairs["rows"][0][-1] == first.contrasts[0].verdict
    assert [row[0] for row in arms["rows"]] == [arm.name for arm in first.arms]
    assert games["columns"] == ["arm", "asterix", "breakout"]
    assert by_game["columns"] == ["arms", "asterix", "breakout"]
    assert by_game["rows"][0][0] == "soft 4 − soft-one-wide 4"
    assert costs["columns"][1:] == ["parameters", "FLOPs a forward pass", "training FLOPs", "µs a decision",
                                    "dormant", "of the worst expert", "effective rank", "dropped tokens"]  # fmt: skip
    doubts = [item for block in blocks if block["kind"] == "list" for item in block["items"]]
    assert any("4 runs in a game" in item for item in doubts)
    pictures = [
        block["path"].removesuffix(".svg") for block in [*page["summary"], *blocks] if block["kind"] == "figure"
    ]
    assert pictures == [draw.__name__ for draw in drawn(study)]
    assert pictures[:3] == ["returns_overview_1-registered", "returns_1-registered", "returns_panels_1-registered"]


def test_without_a_kept_comparison_all_arms_are_compared_with_the_first(folder: Path) -> None:
    study = load_task_study(folder)
    (made,) = study.returns.values()
    assert made.question.baseline == "dense 1"
    assert any("compares all arms with dense 1" in note for note in study.notes)


@pytest.mark.parametrize("curves", [True, False])
@pytest.mark.parametrize("costs", [True, False])
def test_a_caption_names_the_panels_that_are_drawn(folder: Path, curves: bool, costs: bool) -> None:
    found = kept(folder, "arms")
    if not curves:
        found = replace(found, curves=None)
    if not costs:
        found = replace(found, arms=tuple(replace(arm, measures={}) for arm in found.arms))
    path = f"{panels_name('arms')}.svg"
    (caption,) = [block["caption"] for block in section({"arms": found}) if block.get("path") == path]
    panels = {ax.get_title(loc="left") for ax in panels_figure(found).axes}
    assert ("learning curves" in str(caption)) == curves == ("While it learns" in panels)
    assert ("costs" in str(caption)) == costs == ("Against parameters" in panels)


def test_reward_programs_are_printed_as_they_were_written() -> None:
    text = "-abs(ball_x - paddle_x)\n  + 0.1*bricks_left"
    runs = pd.DataFrame({"game": ["breakout"] * 3, "reward": ["own", "program", "program"],
                         "reward_program": ["", text, text]})  # fmt: skip
    kinds, said, shown = programs(runs)
    assert [item.split(":")[0] for item in kinds["items"]] == ["Own", "Program"]
    assert kinds["items"][1].endswith("2 runs.")
    assert said["text"] == "Program, breakout: 2 runs."
    assert shown == {"kind": "code", "text": text}
    assert len(programs(runs.drop(columns="reward_program"))) == 1
    assert programs(runs.drop(columns="reward")) == programs(runs.head(1)) == []


@pytest.mark.long
def test_it_becomes_a_pdf_with_a_figure_on_its_first_page(folder: Path, tmp_path: Path) -> None:
    kept(folder, "arms")
    written = build_report(folder, tmp_path / "report.pdf", tmp_path / "first.svg")
    assert written.path.read_bytes().startswith(b"%PDF")
    assert (tmp_path / "first.svg").stat().st_size > 1000


def test_the_printed_command_gives_the_same_comparison(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = kept(folder, "1-registered", contrasts="gain: best of soft 4, top1 4 - dense 1", where="frames > 0", seed=3)
    (command,) = commands({"1-registered": found}, folder.name)
    (folder / "returns" / "1-registered.json").unlink()
    monkeypatch.chdir(folder.parent)
    assert CliRunner().invoke(app, shlex.split(command)[1:]).exit_code == 0
    assert read_returns(folder / "returns" / "1-registered.json").arms == found.arms
