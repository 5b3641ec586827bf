"""Rewards as settings of value-rl: what identifies a cell, and what is refused before anything trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scaling.tasks.cell import TaskCell
from scaling.tasks.rl.rewards.library import POTENTIALS, PROGRAMS
from scaling.tasks.value_rl import ValueRL


def run_id(**settings: Any) -> str:
    return TaskCell(task="value-rl", settings=ValueRL(**settings), budget=1000).run_id()


def test_own_is_the_cell_that_there_was_without_rewards() -> None:
    """Whatever else a crossed grid says of a reward that is not used."""
    assert "reward" not in ValueRL().identity()
    assert run_id() == run_id(reward="own", reward_weight=3, reward_program="track")
    assert ValueRL(reward="own", reward_program="track").reward_program == ""


def test_what_a_reward_uses_tells_cells_apart() -> None:
    ids = [
        run_id(reward=reward, reward_weight=weight)
        for reward in ("own", "potential", "adaptive", "bonus", "program")
        for weight in (1, 2)
    ]
    assert len({*ids}) == 9
    for reward in ("adaptive", "bonus"):
        assert run_id(reward=reward) == run_id(reward=reward, reward_program="track")
    assert run_id(reward="program") == run_id(reward="program", reward_program="track")
    assert run_id(reward="program") != run_id(reward="program", reward_program="bounce")


def test_a_program_is_known_by_its_text_and_not_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("# mine\n0.1 * (ball_y == 8)\n")
    first = run_id(reward="program", reward_program=str(file))
    assert first == run_id(reward="program", reward_program="0.1 * (ball_y == 8)")
    file.write_text("0.2 * (ball_y == 8)\n")
    assert run_id(reward="program", reward_program=str(file)) != first


@pytest.mark.parametrize("game", PROGRAMS)
def test_the_default_is_what_ships_for_the_game_and_settings_read_themselves_again(game: str) -> None:
    program = ValueRL(game=game, reward="program")
    assert program.reward_program == next(iter(PROGRAMS[game].values()))
    assert ValueRL(game=game, reward="potential").reward_program == POTENTIALS[game]
    assert ValueRL.model_validate(program.model_dump(mode="json")) == program


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reward": "bonus", "game": "freeway"}, "games with features: breakout"),
        ({"reward": "program", "game": "asterix", "reward_program": "ball_x"}, "line 1, column 1: there is no"),
        ({"reward": "potential", "reward_program": "1 / bricks"}, "off 0"),
        ({"reward": "program", "reward_program": "gone.txt"}, "gone.txt: No such file"),
        ({"reward": "program", "reward_weight": -1}, "reward_weight"),
        ({"reward": "none"}, "reward"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_when_settings_are_read(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        ValueRL(**settings)
    assert said in str(caught.value)
