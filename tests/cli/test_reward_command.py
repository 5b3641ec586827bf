"""`scaling reward` from outside: what a program may read, checked and written programs, exit statuses."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scaling.cli.main import app
from scaling.tasks.rl.rewards.features import FEATURES
from scaling.tasks.rl.rewards.library import POTENTIALS, PROGRAMS


def call(*words: object):
    return CliRunner().invoke(app, ["reward", *map(str, words)], env={"COLUMNS": "120"})


@pytest.mark.parametrize("game", FEATURES)
def test_what_a_reward_may_read_and_what_ships(game: str) -> None:
    said = call("show", game, "--verbose")
    assert said.exit_code == 0
    assert all(name in said.stdout for name in (*FEATURES[game], *PROGRAMS[game]))
    document = json.loads(call("show", game, "--json").stdout)
    assert (document["potential"], document["programs"]) == (POTENTIALS[game], PROGRAMS[game])
    assert {*document["names"]} > {f"next_{name}" for name in FEATURES[game]}


def test_a_written_program_is_a_file_that_a_grid_can_name(tmp_path: Path) -> None:
    writer = shlex.join([sys.executable, "-c", "print('0.1 * (ball_y == 8)')"])
    said = call("write", "breakout", "--reward-command", writer, "--out", tmp_path / "mine.txt", "--json")
    assert said.exit_code == 0
    assert json.loads(said.stdout)["program"] == "0.1 * (ball_y == 8)"
    assert (tmp_path / "mine.txt").read_text().endswith("\n0.1 * (ball_y == 8)\n")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("show", "freeway"), 2, "games with features: breakout"),
        (("check", "breakout", "ball_z"), 2, "line 1, column 1"),
        (("check", "asterix", "gone.txt"), 2, "gone.txt: No such file"),
        (("write", "breakout", "--reward-command", "true", "--out", "x.py"), 2, "must end in .txt or .reward"),
        (("write", "breakout", "--reward-command", "true", "--tries", "1", "--out", "x.txt"), 1, "no program of 1"),
    ],
)
def test_what_is_wrong_is_one_message(words: tuple[str, ...], status: int, said: str) -> None:
    found = call(*words)
    assert found.exit_code == status
    assert said in found.stderr


@pytest.mark.long
def test_random_play_tells_shaping_from_other_programs() -> None:
    """The potential that ships, written out as a program, is found to be one; a program of the same features without
    gamma and ends is not."""
    pytest.importorskip("gymnax")
    phi = POTENTIALS["breakout"]
    after = phi.replace("landing_distance", "next_landing_distance")
    shaping = f"discount * (1 - terminated) * ({after}) - ({phi})"
    found = {
        text: json.loads(call("check", "breakout", text, "--json").stdout)["random_play"]
        for text in (shaping, f"({after}) - ({phi})", "track")
    }
    assert [one["verdict"] for one in found.values()] == ["shaping", "other", "other"]
    assert found["track"]["most"] == pytest.approx(0.05, rel=1e-6)
