"""The games of MinAtar (arXiv 1903.03176), as gymnax has them: what is known of them without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GameName = Literal["asterix", "breakout", "freeway", "seaquest", "space-invaders"]
SIDE = 10  # an observation is SIDE x SIDE x channels, 0 or 1


@dataclass(frozen=True)
class Game:
    """gymnax: its name there.   channels: of an observation.   actions: of the minimal set.   limit: steps after which
    an episode is cut, which is a truncation and no end."""

    gymnax: str
    channels: int
    actions: int
    limit: int


GAMES: dict[str, Game] = {
    "asterix": Game("Asterix-MinAtar", 4, 5, 1000),
    "breakout": Game("Breakout-MinAtar", 4, 3, 1000),
    "freeway": Game("Freeway-MinAtar", 7, 3, 2500),
    "seaquest": Game("Seaquest-MinAtar", 10, 6, 1000),
    "space-invaders": Game("SpaceInvaders-MinAtar", 6, 4, 1000),
}
