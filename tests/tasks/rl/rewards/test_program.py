"""Reward programs: their values by two array libraries, and what is refused, with its place."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

from scaling.errors import InputError
from scaling.tasks.rl.games import GAMES
from scaling.tasks.rl.rewards.check import checked_potential, checked_program
from scaling.tasks.rl.rewards.features import ACTIONS, FEATURES, PLAY
from scaling.tasks.rl.rewards.library import POTENTIALS, PROGRAMS
from scaling.tasks.rl.rewards.program import parsed

X, Y = [-2.0, 0.0, 1.5, 7.0], [1.0, -3.0, 2.0, 7.0]
FLAG = [True, False, False, True]


def condition(holds: bool) -> float:
    return 1.0 if holds else 0.0


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("x + 2 * y - x / 4", lambda x, y, flag: x + 2 * y - x / 4),
        ("-x ** 2 + y % 3 + y // 2", lambda x, y, flag: -(x**2) + y % 3 + y // 2),
        ("(x < y <= 2) * 3 + (x == y)", lambda x, y, flag: 3 * condition(x < y <= 2) + condition(x == y)),
        ("not (x > 0 and y != 2) or flag", lambda x, y, flag: condition(not (x > 0 and y != 2) or flag)),
        ("min(x, y, 1) - max(abs(x), y)", lambda x, y, flag: min(x, y, 1) - max(abs(x), y)),
        ("exp(x / 10) + sqrt(abs(y)) + log2(8)", lambda x, y, flag: math.exp(x / 10) + math.sqrt(abs(y)) + 3),
        ("near = abs(x - y) < 2\n# a comment = no line\n\nfar = 1 - near\n2 * far + flag",
         lambda x, y, flag: 2 * (1 - condition(abs(x - y) < 2)) + condition(flag)),
        ("max(x,\n    y)", lambda x, y, flag: max(x, y)),
    ],
)  # fmt: skip
def test_a_program_means_what_python_would(text: str, meant: Callable[[float, float, bool], float]) -> None:
    expected = [meant(x, y, flag) for x, y, flag in zip(X, Y, FLAG, strict=True)]
    for arrays in (np, jnp):
        values = {"x": arrays.asarray(X), "y": arrays.asarray(Y), "flag": arrays.asarray(FLAG)}
        np.testing.assert_allclose(parsed(text).over(values, arrays), expected, rtol=1e-6)
    again = parsed(parsed(text).text)  # the text without comments says the same
    np.testing.assert_array_equal(again.over(values, jnp), parsed(text).over(values, jnp))


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", "reward program", "empty"),
        ("paddle_x +", "line 1, column", "not an expression"),
        ("near = 1\n2 * paddel_x", "line 2, column 5", "did you mean `paddle_x`"),
        ("2 * (ball_x +\n  brick)", "line 2, column 3", "did you mean `bricks`"),
        ("1\n2", "line 1, column 1", "only the last line"),
        ("a = 1", "line 1, column 1", "the last line"),
        ("ball_x = 1\nball_x", "line 1", "has a meaning already"),
        ("__import__('os').system('ls')", "line 1", "not in the language"),
        ("ball_x.real", "line 1, column 7", "not in the language"),
        ("open(ball_x)", "line 1, column 1", "no function 'open'"),
        ("min(ball_x)", "line 1, column 1", "two or more values"),
        ("not ball_x", "line 1, column 5", "is no condition"),
        ("1 / paddle_x", "where paddle_x = 0", "off 0"),
        ("log(bricks - 31)", "where bricks", "logarithms"),
        ("exp(bricks)", "where bricks", "most is 100"),
        ("[ball_x]", "line 1", "not in the language"),
        ("\n".join(f"a{i} = 1" for i in range(50)), "reward program", "40 are allowed"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, place: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        checked_program(text, "breakout")
    assert place in str(caught.value)
    assert said in str(caught.value)


def test_a_potential_reads_one_state_alone() -> None:
    with pytest.raises(InputError, match="potential, line 1, column 1: there is no `next_ball_x`"):
        checked_potential("next_ball_x", "breakout")


@pytest.mark.parametrize("game", FEATURES)
def test_what_ships_passes_and_every_game_with_features_is_described(game: str) -> None:
    """Potentials lie between 0 and 1, so that no end looks like a gain."""
    for text in PROGRAMS[game].values():
        checked_program(text, game)
    checked_potential(POTENTIALS[game], game)
    assert len(ACTIONS[game]) == GAMES[game].actions
    assert PLAY[game]
    assert any(feature.counted for feature in FEATURES[game].values())
