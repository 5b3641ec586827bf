"""Reward programs as no one means them: checked for a game, or refused with their place."""

from __future__ import annotations

import numpy as np
import pytest
from mutations import of_lines

from scaling.errors import InputError
from scaling.tasks.rl.rewards.check import MOST_REWARD, checked_program, readable
from scaling.tasks.rl.rewards.library import PROGRAMS

_WRITTEN = [(game, text) for game, programs in PROGRAMS.items() for text in programs.values()]


def faults(seeds: range) -> tuple[list[str], int]:
    """What went wrong, and how many mutants were accepted.

    Where every name is 0 or 1, which are in all their ranges, an accepted one gives a finite reward below the limit.
    """
    found, accepted = [], 0
    for seed in seeds:
        game, written = _WRITTEN[seed % len(_WRITTEN)]
        text = of_lines(written, seed).content.decode("utf-8", "surrogateescape")
        try:
            program = checked_program(text, game)
        except InputError as error:
            if "reward program" not in str(error):
                found.append(f"seed {seed}: {text!r}\n  refused without its place: {error}")
            continue
        except Exception as error:
            found.append(f"seed {seed}: {text!r}\n  {type(error).__name__}: {error}")
            continue
        accepted += 1
        for value in (0.0, 1.0):
            reward = np.asarray(program.over({name: np.full(3, value) for name in readable(game)}, np))
            if not (np.isfinite(reward).all() and (np.abs(reward) <= MOST_REWARD).all()):
                found.append(f"seed {seed}: {text!r}\n  rewards {reward}")
    return found, accepted


def test_an_odd_reward_program_is_checked_or_refused() -> None:
    found, accepted = faults(range(60))
    assert not found, "\n".join(found)
    assert 0 < accepted < 60  # both ways are tried


@pytest.mark.slow
def test_many_odd_reward_programs_are_checked_or_refused() -> None:
    found, _ = faults(range(1000, 6000))
    assert not found, f"{len(found)} of 5,000\n" + "\n".join(found[:20])
