"""The world of `text-world` once more, in plain Python and from its description alone: a test of its arrays."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

VERBS = ("go", "open", "take", "put")
STEPS = {"north": (-1, 0), "south": (1, 0), "east": (0, 1), "west": (0, -1)}
ROOMS = ("hall", "kitchen", "bedroom", "bathroom", "study", "attic")
ITEMS = ("apple", "book", "cup", "lamp", "ball", "pen")
NOUNS = (*STEPS, *ITEMS, "key", "box")


class Moment(NamedTuple):
    """What changes."""

    room: str
    hand: str
    boxed: frozenset[str]
    has_key: bool
    box_open: bool
    opened: frozenset[frozenset[str]]


class PlainWorld:
    """An instance read from its description in words."""

    def __init__(self, description: str, rows: int, columns: int) -> None:
        words = description.rstrip(" .").split()
        places = [(row, column) for row in range(rows) for column in range(columns)]
        self.room_at = dict(zip(places, ROOMS, strict=False))
        self.place_of = {room: place for place, room in self.room_at.items()}
        assert (words[0], words[4], words[10], words[12], words[15]) == ("goal", "you", "key", "box", "doors")
        self.goal = tuple(words[1:4])
        self.item_room = {words[6]: words[7], words[8]: words[9]}
        self.key_room, self.box_room = words[11], words[13]
        east = [((row, column), (row, column + 1)) for row in range(rows) for column in range(columns - 1)]
        south = [((row, column), (row + 1, column)) for row in range(rows - 1) for column in range(columns)]
        pairs = [frozenset(self.room_at[place] for place in edge) for edge in (*east, *south)]
        self.between = dict(zip(pairs, words[16:], strict=True))
        opened = frozenset(pair for pair, word in self.between.items() if word == "open")
        self.first = Moment(words[5], "", frozenset(), False, words[14] == "open", opened)

    def reached(self, moment: Moment) -> bool:
        verb, item, place = self.goal
        if verb == "put":
            return item in moment.boxed
        return moment.hand == item and moment.room == place

    def act(self, moment: Moment, verb: str, noun: str) -> tuple[Moment, str]:
        """What comes of an action, and the feedback."""
        if verb in ("go", "open") and noun in STEPS:
            return self._at_door(moment, verb, noun)
        if (verb, noun) == ("open", "box"):
            if moment.room != self.box_room:
                return moment, "not here"
            return (moment, "already open") if moment.box_open else (moment._replace(box_open=True), "now open")
        if (verb, noun) == ("take", "key"):
            if moment.has_key:
                return moment, "already held"
            return (moment._replace(has_key=True), "now held") if moment.room == self.key_room else (moment, "not here")
        if verb == "take" and noun in ITEMS:
            return self._take(moment, noun)
        if verb == "put" and noun in ITEMS:
            if moment.hand != noun:
                return moment, "not held"
            if moment.room != self.box_room:
                return moment, "not here"
            if not moment.box_open:
                return moment, "box closed"
            return moment._replace(hand="", boxed=moment.boxed | {noun}), "in box"
        return moment, "no sense"

    def _at_door(self, moment: Moment, verb: str, noun: str) -> tuple[Moment, str]:
        row, column = self.place_of[moment.room]
        down, right = STEPS[noun]
        other = self.room_at.get((row + down, column + right))
        edge = frozenset((moment.room, other or ""))
        word = self.between.get(edge, "wall")
        if word == "wall":
            return moment, "no door"
        assert other is not None
        if verb == "go":
            return (moment._replace(room=other), f"in {other}") if edge in moment.opened else (moment, f"door {word}")
        if edge in moment.opened:
            return moment, "already open"
        if word == "locked" and not moment.has_key:
            return moment, "door locked"
        return moment._replace(opened=moment.opened | {edge}), "now open"

    def _take(self, moment: Moment, noun: str) -> tuple[Moment, str]:
        if moment.hand == noun:
            return moment, "already held"
        where = self.box_room if noun in moment.boxed else self.item_room.get(noun)
        if where != moment.room:
            return moment, "not here"
        if moment.hand:
            return moment, "hands full"
        return moment._replace(hand=noun, boxed=moment.boxed - {noun}), "now held"

    def steps_to_goal(self, start: Moment) -> int | None:
        """Length of a shortest plan, by breadth-first search over all actions; None where there is no plan."""
        seen, queue = {start}, deque([(start, 0)])
        while queue:
            moment, steps = queue.popleft()
            if self.reached(moment):
                return steps
            for verb in VERBS:
                for noun in NOUNS:
                    after, _ = self.act(moment, verb, noun)
                    if after not in seen:
                        seen.add(after)
                        queue.append((after, steps + 1))
        return None
