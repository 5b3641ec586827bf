"""Rounds of a call, by how long the last one took."""

from __future__ import annotations

import pytest

from scaling.tasks.rl.pace import CALL_S, Pace


def test_the_first_call_is_one_round_and_no_call_is_more_than_are_left():
    pace = Pace(64)
    assert pace.rounds(10) == 1
    pace.took(1, CALL_S / 20)
    assert pace.rounds(10) == 10
    assert pace.rounds(100) == 20


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 64), (CALL_S / 1000, 64), (CALL_S / 8, 32), (60 * CALL_S, 1)])
def test_a_call_takes_about_a_second_within_one_round_and_the_most(seconds: float, rounds: int):
    pace = Pace(64)
    pace.took(4, seconds)
    assert pace.rounds(1000) == rounds
