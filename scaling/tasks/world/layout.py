"""Where rooms lie: a grid of them, and what may stand between two that touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LayoutName = Literal["flat", "house"]
WALL, DOORWAY, CLOSED, LOCKED = range(4)  # of an edge, as the words `EDGE_WORDS` say it
N_ITEMS = 2
ATTEMPT_TOKENS = 4  # verb, noun, and two words of feedback
_STEPS = ((-1, 0), (1, 0), (0, 1), (0, -1))  # rows and columns of north, south, east, west


@dataclass(frozen=True)
class Layout:
    """A grid of rooms, numbered row by row, and the edges between them: first those to the east, then to the south.

    doors: edges that begin closed, some of them locked.   walls: edges that nobody passes. The others are doorways.
    """

    rows: int
    columns: int
    doors: int
    walls: int

    @property
    def n_rooms(self) -> int:
        return self.rows * self.columns

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """The two rooms of each edge."""
        rooms = np.arange(self.n_rooms).reshape(self.rows, self.columns)
        east = zip(rooms[:, :-1].ravel().tolist(), rooms[:, 1:].ravel().tolist(), strict=True)
        south = zip(rooms[:-1].ravel().tolist(), rooms[1:].ravel().tolist(), strict=True)
        return (*east, *south)

    @property
    def n_edges(self) -> int:
        return len(self.edges)

    def ways(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """For each room and direction the edge and the room behind it, [R, 4]; `n_edges` and the same room where the
        grid ends."""
        number = {edge: index for index, edge in enumerate(self.edges)}
        edge_Rx4 = np.full((self.n_rooms, 4), self.n_edges, np.int32)
        behind_Rx4 = np.repeat(np.arange(self.n_rooms, dtype=np.int32)[:, None], 4, axis=1)
        for room in range(self.n_rooms):
            row, column = divmod(room, self.columns)
            for direction, (down, right) in enumerate(_STEPS):
                if 0 <= row + down < self.rows and 0 <= column + right < self.columns:
                    other = room + down * self.columns + right
                    edge_Rx4[room, direction] = number[min(room, other), max(room, other)]
                    behind_Rx4[room, direction] = other
        return edge_Rx4, behind_Rx4

    @property
    def n_states(self) -> int:
        """States of an instance as `scaling.tasks.world.planner` numbers them."""
        return self.n_rooms * 3**N_ITEMS * 4 * 2**self.doors

    @property
    def prompt_tokens(self) -> int:
        """Words of a description: goal 4, place 2, items, key 2, box 3, doors; filled up to whole blocks of a walk."""
        words = 4 + 2 + 2 * N_ITEMS + 2 + 3 + 1 + self.n_edges
        return -(-words // ATTEMPT_TOKENS) * ATTEMPT_TOKENS


LAYOUTS: dict[str, Layout] = {"flat": Layout(2, 2, doors=2, walls=1), "house": Layout(2, 3, doors=3, walls=1)}
