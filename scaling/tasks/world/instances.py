"""Instances drawn from a seed, and which of them are held out.

An instance is held out if a hash of it says so, whatever drew it: training and evaluation can have none in common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling.tasks.world.layout import CLOSED, DOORWAY, LOCKED, N_ITEMS, WALL, Layout
from scaling.tasks.world.planner import Plans
from scaling.tasks.world.rules import Instance
from scaling.tasks.world.vocabulary import ID, ITEMS

DRAWN = 64  # candidates of one call of the planner
SHORTEST, LONGEST = 3, 10  # steps of the plans of instances that are used
_LOCKED_SHARE = 0.4  # of doors
_HELD_OUT = 4  # one instance in so many is held out


@dataclass(frozen=True)
class Instances:
    """N instances, with what the teacher knows of them: leading axes of N in all arrays."""

    instances: Instance
    plans: Plans

    @property
    def shortest_N(self) -> NDArray[np.int64]:
        """Steps of a shortest plan."""
        return np.asarray(self.plans.distance_Z)[np.arange(len(self.plans.first)), self.plans.first].astype(np.int64)


def candidates(layout: Layout, count: int, rng: np.random.Generator) -> Instance:
    """Instances drawn uniformly: rooms of everything, names of items, and which edges are doors and walls; also some
    whose goal cannot be reached."""
    rooms = lambda *shape: rng.integers(layout.n_rooms, size=(count, *shape), dtype=np.int32)  # noqa: E731
    order = np.argsort(rng.random((count, layout.n_edges)), axis=1).astype(np.int32)
    door_D = np.sort(order[:, : layout.doors], axis=1)
    kind_L = np.full((count, layout.n_edges), DOORWAY, np.int32)
    locked = rng.random((count, layout.doors)) < _LOCKED_SHARE
    np.put_along_axis(kind_L, door_D, np.where(locked, LOCKED, CLOSED).astype(np.int32), axis=1)
    np.put_along_axis(kind_L, order[:, layout.doors : layout.doors + layout.walls], np.int32(WALL), axis=1)
    names = np.argsort(rng.random((count, len(ITEMS))), axis=1)[:, :N_ITEMS].astype(np.int32) + ID[ITEMS[0]]
    goal = rng.integers(2, size=count, dtype=np.int32)
    box_room, goal_room = rooms(), rooms()
    return Instance(
        goal=goal, goal_item=rng.integers(N_ITEMS, size=count, dtype=np.int32),
        goal_room=np.where(goal > 0, goal_room, box_room), room=rooms(), name_I=names, item_room_I=rooms(N_ITEMS),
        key_room=rooms(), box_room=box_room, box_open=rng.integers(2, size=count, dtype=np.int32),
        kind_L=kind_L, door_D=door_D,
    )  # fmt: skip


def identities(instances: Instance) -> list[bytes]:
    """A hash of each instance."""
    table = np.concatenate([np.asarray(part).reshape(len(instances.goal), -1) for part in instances], axis=1)
    return [hashlib.blake2b(row.astype("<i4").tobytes(), digest_size=16).digest() for row in table]


def is_held_out(identity: bytes) -> bool:
    """Whether the instance with this hash is one for evaluation."""
    return identity[0] % _HELD_OUT == 0


def drawn(layout: Layout, count: int, seed: int, planner: Callable[[Instance], Plans], *, held_out: bool) -> Instances:
    """`count` different instances whose plans have `SHORTEST` to `LONGEST` steps, of those that are held out or of the
    others. A larger count begins with the same instances."""
    rng = np.random.default_rng((seed, held_out))
    found: list[tuple[Instance, Plans]] = []
    seen: set[bytes] = set()
    while len(seen) < count:
        many = candidates(layout, _HELD_OUT * DRAWN, rng)
        of_many = identities(many)
        fitting = [number for number, identity in enumerate(of_many) if is_held_out(identity) == held_out]
        rows = np.resize(fitting, DRAWN).tolist()  # the planner takes so many; repeated ones are dropped below
        batch = _rows(many, rows)
        known = Plans(*(np.asarray(part) for part in planner(batch)))
        shortest = Instances(batch, known).shortest_N
        kept = []
        for number, identity in enumerate(of_many[row] for row in rows):
            if SHORTEST <= shortest[number] <= LONGEST and identity not in seen and len(seen) < count:
                seen.add(identity)
                kept.append(number)
        found.append((_rows(batch, kept), _rows(known, kept)))
    instances, known_of = zip(*found, strict=True)
    return Instances(_joined(instances), _joined(known_of))


def _rows(table: Any, rows: list[int]) -> Any:
    return type(table)(*(np.asarray(part)[rows] for part in table))


def _joined(tables: Any) -> Any:
    return type(tables[0])(*(np.concatenate(parts) for parts in zip(*tables, strict=True)))
