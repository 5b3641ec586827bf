"""Whether a program may reward a learner: that its names are of the game, and that it is finite and not large."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from scaling.errors import InputError
from scaling.tasks.rl.games import GAMES
from scaling.tasks.rl.rewards.features import Feature, features_of
from scaling.tasks.rl.rewards.program import Program, parsed

NEXT = "next_"
"""Before the name of a feature: of the state that the step led to, before a new episode begins."""
OF_STEP = {
    "reward": "the environment's own reward of the step",
    "action": "number of the action, from 0",
    "discount": "gamma of the learner",
    "terminated": "condition: the episode ended with this step",
    "truncated": "condition: it was cut at the time limit",
}
MOST_REWARD = 100.0  # of a step; MinAtar's own rewards are 0 and 1
_POINTS = 4096


def readable(game: str) -> dict[str, str]:
    """What a program of this game may read: name and meaning. Raises ValueError for a game without features."""
    features = features_of(game)
    return {
        **{name: _described(feature) for name, feature in features.items()},
        **{NEXT + name: f"{name} of the state that the step led to" for name in features},
        **OF_STEP,
    }


def _described(feature: Feature) -> str:
    unit = f"{feature.unit}s" if feature.unit else ""
    return f"{feature.meaning} ({feature.low} to {feature.high} {unit})"


def checked_program(text: str, game: str) -> Program:
    """A program for a game. Raises InputError with line and column for what is not in the language or no name of the
    game, and with the values of what it reads where the reward is not finite or larger than `MOST_REWARD`.

    It is evaluated where every feature, of both states, is anything in its range: more than the game can show.
    """
    return _checked(text, game, "reward program")


def checked_potential(text: str, game: str) -> Program:
    """A potential for a game, which reads the features of one state alone. Raises InputError as `checked_program`."""
    return _checked(text, game, "potential")


@functools.lru_cache(maxsize=256)
def _checked(text: str, game: str, what: str) -> Program:
    values = _anywhere(game)
    if what == "potential":
        values = {name: values[name] for name in features_of(game)}
    program = parsed(text, what)
    with np.errstate(all="ignore"):
        found = np.broadcast_to(np.asarray(program.over(values, np), dtype=float), (_POINTS,))
    wrong = np.flatnonzero(~np.isfinite(found) | (np.abs(found) > MOST_REWARD))
    if wrong.size:
        at = int(wrong[0])
        where = ", ".join(f"{name} = {float(values[name][at]):g}" for name in values if name in program.reads)
        why = "keep divisors, roots and logarithms off 0" if not np.isfinite(found[at]) else f"most is {MOST_REWARD:g}"
        raise InputError(f"{what}: it is {found[at]:g}{f' where {where}' if where else ''}; {why}")
    return program


def _anywhere(game: str) -> Mapping[str, NDArray[np.generic]]:
    """Values of all that a program may read, at random in their ranges, half of them at an end."""
    rng = np.random.default_rng(0)

    def of(low: int, high: int) -> NDArray[np.float64]:
        inside = rng.integers(low, high + 1, _POINTS).astype(float)
        ends = rng.choice([float(low), float(high)], _POINTS)
        return np.where(rng.random(_POINTS) < 0.5, inside, ends)

    values: dict[str, NDArray[np.generic]] = {}
    for prefix in ("", NEXT):
        values |= {prefix + name: of(feature.low, feature.high) for name, feature in features_of(game).items()}
    ended = rng.choice(3, _POINTS)
    return values | {
        "reward": of(0, 1),
        "action": of(0, GAMES[game].actions - 1),
        "discount": np.full(_POINTS, 0.99),
        "terminated": ended == 1,
        "truncated": ended == 2,
    }
