"""Named features of the games: the representation that rewards, and programs of rewards, may read.

Text2Reward (arXiv 2309.11489) has programs written over a compact description of the environment; this is ours. A
feature is a number that follows from one observation alone (`scaling.tasks.rl.rewards.observed` computes it).
"""

from __future__ import annotations

from dataclasses import dataclass

from scaling.tasks.rl.games import GAMES


@dataclass(frozen=True)
class Feature:
    """low, high: the least and the largest value that it can have; it is whole between them.   unit: of one step in it.
    counted: whether it is part of what the exploration bonus tells states apart by."""

    low: int
    high: int
    unit: str
    meaning: str
    counted: bool = False


FEATURES: dict[str, dict[str, Feature]] = {
    "breakout": {
        "paddle_x": Feature(0, 9, "column", "place of the paddle", counted=True),
        "ball_x": Feature(0, 9, "column", "place of the ball", counted=True),
        "ball_y": Feature(0, 9, "row", "row of the ball; 0 is the top, 9 the paddle's", counted=True),
        "ball_dx": Feature(-1, 1, "column", "last move of the ball to the right; 0 where it met a side wall"),
        "ball_dy": Feature(-1, 1, "row", "last move of the ball down; 0 where it met a brick or the paddle"),
        "bricks": Feature(0, 30, "brick", "bricks that stand", counted=True),
        "landing_x": Feature(0, 9, "column", "where a falling ball reaches the paddle's row; ball_x while it rises"),
        "landing_distance": Feature(0, 9, "column", "from the paddle to landing_x"),
    },
    "asterix": {
        "player_x": Feature(0, 9, "column", "place of the player", counted=True),
        "player_y": Feature(0, 9, "row", "row of the player; 0 is the top", counted=True),
        "enemies": Feature(0, 8, "enemy", "enemies in sight", counted=True),
        "golds": Feature(0, 8, "gold", "pieces of gold in sight", counted=True),
        "enemy_distance": Feature(0, 18, "step", "to the nearest enemy, columns and rows together; 18 without one"),
        "gold_distance": Feature(0, 18, "step", "to the nearest gold, columns and rows together; 18 without any"),
        "gold_dx": Feature(-9, 9, "column", "to the right from the player to the nearest gold; 0 without any"),
        "gold_dy": Feature(-9, 9, "row", "down from the player to the nearest gold; 0 without any"),
        "enemy_in_row": Feature(0, 10, "column", "to the nearest enemy in the player's row; 10 without one"),
    },
    "space-invaders": {
        "cannon_x": Feature(0, 9, "column", "place of the cannon", counted=True),
        "aliens": Feature(0, 40, "alien", "aliens left", counted=True),
        "alien_y": Feature(0, 9, "row", "row of the lowest alien; 9 is the cannon's, 0 without one", counted=True),
        "alien_distance": Feature(0, 10, "column", "from the cannon to the nearest alien; 10 without one"),
        "bullet_above": Feature(0, 10, "row", "to the nearest enemy bullet in the cannon's column; 10 without one"),
        "own_bullets": Feature(0, 10, "bullet", "bullets of the cannon under way"),
    },
}
ACTIONS: dict[str, tuple[str, ...]] = {
    "breakout": ("stay", "left", "right"),
    "asterix": ("stay", "left", "up", "right", "down"),
    "space-invaders": ("stay", "left", "right", "fire"),
}
PLAY: dict[str, str] = {
    "breakout": "A paddle on the bottom row (9) bounces a ball that moves diagonally; +1 for each brick that the ball "
    "breaks. The episode ends when the ball passes the paddle.",
    "asterix": "A player moves on a grid; enemies and gold cross it from side to side. +1 for each gold reached; the "
    "episode ends when an enemy is met.",
    "space-invaders": "A cannon on the bottom row (9) shoots at aliens that move sideways and down; +1 for each alien "
    "hit. The episode ends when an alien or one of their bullets meets the cannon.",
}
"""What is won and lost in a game, for whoever writes a program."""


def features_of(game: str) -> dict[str, Feature]:
    """The features of a game by name. Raises ValueError for a game without any, naming those that have them."""
    if game not in FEATURES:
        known = "no game" if game not in GAMES else "no named features are known of the game"
        raise ValueError(f"{known} `{game}`; games with features: {', '.join(FEATURES)}")
    return FEATURES[game]
