"""The words of the world: one token a word, and the feedback that an action gets."""

from __future__ import annotations

from collections.abc import Iterable

VERBS = ("go", "open", "take", "put")
DIRECTIONS = ("north", "south", "east", "west")
ROOMS = ("hall", "kitchen", "bedroom", "bathroom", "study", "attic")
ITEMS = ("apple", "book", "cup", "lamp", "ball", "pen")
PAD, BRING, KEY, BOX = ".", "bring", "key", "box"
EDGE_WORDS = ("wall", "open", "closed", "locked")
"""What may lie between two rooms, in the order of `scaling.tasks.world.layout`."""

FEASIBLE = ("moved", "opened", "taken", "placed")
FEEDBACK: dict[str, tuple[str, str]] = {
    "moved": ("in", "hall"),  # the second word is the room
    "opened": ("now", "open"),
    "taken": ("now", "held"),
    "placed": ("in", BOX),
    "no door": ("no", "door"),
    "door closed": ("door", "closed"),
    "door locked": ("door", "locked"),
    "already open": ("already", "open"),
    "not here": ("not", "here"),
    "box closed": (BOX, "closed"),
    "hands full": ("hands", "full"),
    "already held": ("already", "held"),
    "not held": ("not", "held"),
    "no sense": ("no", "sense"),
}
"""What the world answers, by what happened: two words. Those in `FEASIBLE` come first; any other changed nothing."""

CODE = {name: code for code, name in enumerate(FEEDBACK)}
"""Number of a feedback."""

WORDS = tuple(dict.fromkeys((
    PAD, "goal", BRING, "you", "doors", *VERBS, *DIRECTIONS, *ROOMS, *ITEMS, KEY, BOX, *EDGE_WORDS,
    *(word for words in FEEDBACK.values() for word in words),
)))  # fmt: skip
ID = {word: number for number, word in enumerate(WORDS)}
"""Token of a word."""

OK_WORDS = tuple(dict.fromkeys(FEEDBACK[name][0] for name in FEASIBLE))
"""First words of the feedback to feasible actions; none of them begins another feedback."""


def sentence(tokens: Iterable[int]) -> str:
    """Tokens as text, words apart by spaces."""
    return " ".join(WORDS[token] for token in tokens)
