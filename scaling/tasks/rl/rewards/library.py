"""The rewards that a cell can name, and the potentials and programs that ship: known without JAX, for settings.

What a learner is rewarded for is the environment's own reward and, times `reward_weight`, the help of one of these:

* `own`: none.
* `potential`: gamma Phi(s') - Phi(s), which changes no optimal policy (Ng, Harada and Russell, ICML 1999).
* `adaptive`: the same with a Phi that follows what the learner finds advantageous (after arXiv 2402.07019).
* `bonus`: of states rarely seen (the exploration part of ExploRS, Devidze, Kamalaruban and Singla, NeurIPS 2022).
* `program`: a dense reward as text (after Text2Reward, arXiv 2309.11489).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from scaling.errors import InputError
from scaling.tasks.rl.rewards.check import checked_potential, checked_program
from scaling.tasks.rl.rewards.features import features_of

RewardName = Literal["own", "potential", "adaptive", "bonus", "program"]
REWARDS: tuple[RewardName, ...] = get_args(RewardName)
_OF_TEXT = ("potential", "program")
SUFFIXES = (".txt", ".reward")

# Between 0 and 1: a potential below 0 would make the first deaths of a learner look like gains, as Phi of an end is 0.
POTENTIALS: dict[str, str] = {
    "breakout": "1 - landing_distance / 9",
    "asterix": "0.5 * (1 - gold_distance / 18) + 0.5 * min(enemy_distance, 3) / 3",
    "space-invaders": "0.5 * (1 - alien_distance / 10) + 0.5 * min(bullet_above, 3) / 3",
}
PROGRAMS: dict[str, dict[str, str]] = {
    "breakout": {
        "track": "0.05 * (1 - next_landing_distance / 9)",
        "approach": "closer = landing_distance - next_landing_distance\n0.05 * max(min(closer, 1), -1)",
        "bounce": "bounces = ball_y == 8 and next_ball_y == 8\n0.2 * bounces",
    },
    "asterix": {
        "gather": "closer = gold_distance - next_gold_distance\ndanger = next_enemy_distance <= 1\n"
        "0.02 * max(min(closer, 1), -1) - 0.02 * danger",
        "flee": "0.02 * min(next_enemy_distance, 3) / 3",
    },
    "space-invaders": {
        "aim": "aligned = next_alien_distance == 0\n0.02 * aligned - 0.05 * (next_bullet_above <= 1)",
        "shoot": "0.02 * (action == 3 and alien_distance == 0)",
    },
}
"""Programs that ship, the first of a game being its default."""


def resolved_program(reward: str, game: str, text: str) -> str:
    """The text that a reward of this name is made of, checked, without comments: what a cell's setting holds.

    text: the potential or program itself; of a program also the name of one that ships or a file that ends in .txt or
    .reward, relative to the working directory; "" for the default of the game. "" for rewards without a text. Raises
    ValueError for a game without features and for a text that `scaling.tasks.rl.rewards.check` refuses.
    """
    if reward == "own":
        return ""
    features_of(game)
    if reward not in _OF_TEXT:
        return ""
    try:
        if reward == "potential":
            return checked_potential(text or POTENTIALS[game], game).text
        ships = PROGRAMS[game]
        return checked_program(ships.get(text.strip() or next(iter(ships)), "") or read_program(text), game).text
    except InputError as error:
        raise ValueError(f"`reward_program`: {error}") from error


def read_program(text: str) -> str:
    """A program that is given as itself or as a file. Raises InputError for a file that cannot be read."""
    if not text.strip().endswith(SUFFIXES):
        return text
    path = Path(text.strip())
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise InputError(f"program {path}: {reason}") from error


def unused_settings(reward: str) -> set[str]:
    """The settings that a cell of this reward does not use, so that they shape no result."""
    if reward == "own":
        return {"reward", "reward_program", "reward_weight"}
    return set() if reward in _OF_TEXT else {"reward_program"}
