"""The rules of the world: what an action does, and what is said of it. Pure functions of arrays, of one instance.

An action is two words, a verb and a noun. One that is not feasible changes nothing. Items are held one at a time; the
key does not fill the hands and stays with whoever took it; the box stays where it is, and once open stays open, as
doors do. Axes: I items, L edges, D doors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from scaling.tasks.world.layout import DOORWAY, LOCKED, WALL, Layout
from scaling.tasks.world.vocabulary import BOX, CODE, DIRECTIONS, FEASIBLE, FEEDBACK, ID, ITEMS, KEY, ROOMS, VERBS

Array = Any
PUT_IN_BOX, BRING_TO_ROOM = range(2)  # goals
START, HELD, BOXED = range(3)  # places of an item
_FEEDBACK_WORDS = tuple((ID[first], ID[second]) for first, second in FEEDBACK.values())


class Instance(NamedTuple):
    """What a world is made of, whole numbers. Rooms and edges by their number, items by the token of their name.

    goal_item: which of the I items.   goal_room: of the goal `BRING_TO_ROOM`, else that of the box.
    kind_L: what stands on each edge.   door_D: the edges that are doors.
    """

    goal: Array
    goal_item: Array
    goal_room: Array
    room: Array
    name_I: Array
    item_room_I: Array
    key_room: Array
    box_room: Array
    box_open: Array
    kind_L: Array
    door_D: Array


class State(NamedTuple):
    """What changes: the agent's room, the place of each item, whether the key is held and the box open, and which edges
    can be passed."""

    room: Array
    place_I: Array
    has_key: Array
    box_open: Array
    open_L: Array


def first_state(instance: Instance) -> State:
    """The state before any action."""
    return State(
        instance.room, jnp.zeros_like(instance.name_I), jnp.zeros((), bool), instance.box_open > 0,
        instance.kind_L == DOORWAY,
    )  # fmt: skip


def reached(instance: Instance, state: State) -> Array:
    """Whether the goal is: the item in the box, or held in the room."""
    place = state.place_I[instance.goal_item]
    brought = (place == HELD) & (state.room == instance.goal_room)
    return jnp.where(instance.goal == PUT_IN_BOX, place == BOXED, brought)


def act(layout: Layout, instance: Instance, state: State, verb: Array, noun: Array) -> tuple[State, Array]:
    """The state after an action, and the code of its feedback."""
    direction = noun - ID[DIRECTIONS[0]]
    is_direction = (direction >= 0) & (direction < len(DIRECTIONS))
    edges_Rx4, behind_Rx4 = map(jnp.asarray, layout.ways())
    edge = edges_Rx4[state.room, jnp.clip(direction, 0, 3)]
    # No edge is a wall.
    kind = jnp.append(instance.kind_L, WALL)[edge]
    passable = jnp.append(state.open_L, False)[edge]
    slot = jnp.argmax(instance.name_I == noun)
    code = jnp.select(
        [verb == ID[word] for word in VERBS],
        [
            jnp.where(is_direction, _go(kind, passable), CODE["no sense"]),
            _open(instance, state, noun, is_direction, kind, passable),
            _take(instance, state, noun, slot),
            _put(instance, state, noun, slot),
        ],
        CODE["no sense"],
    )
    moved, opened, taken, placed = (code == CODE[name] for name in FEASIBLE)
    is_slot = (jnp.arange(len(state.place_I)) == slot) & (noun != ID[KEY])
    place_I = jnp.where(is_slot & taken, HELD, jnp.where(is_slot & placed, BOXED, state.place_I))
    return State(
        jnp.where(moved, behind_Rx4[state.room, jnp.clip(direction, 0, 3)], state.room),
        place_I,
        state.has_key | (taken & (noun == ID[KEY])),
        state.box_open | (opened & (noun == ID[BOX])),
        state.open_L | (opened & is_direction & (jnp.arange(layout.n_edges) == edge)),
    ), code


def feedback_words(state: State, code: Array) -> Array:
    """The two words of a feedback, [2], in the state after the action."""
    words_2 = jnp.asarray(_FEEDBACK_WORDS, jnp.int32)[code]
    return words_2.at[1].set(jnp.where(code == CODE["moved"], ID[ROOMS[0]] + state.room, words_2[1]))


def is_feasible(code: Array) -> Array:
    """Whether this is the feedback of an action that was feasible."""
    return code < len(FEASIBLE)


def _go(kind: Array, passable: Array) -> Array:
    closed = jnp.where(kind == LOCKED, CODE["door locked"], CODE["door closed"])
    return jnp.where(kind == WALL, CODE["no door"], jnp.where(passable, CODE["moved"], closed))


def _open(instance: Instance, state: State, noun: Array, is_direction: Array, kind: Array, passable: Array) -> Array:
    lacks_key = (kind == LOCKED) & ~state.has_key
    door = jnp.select(
        [kind == WALL, passable, lacks_key],
        [CODE["no door"], CODE["already open"], CODE["door locked"]],
        CODE["opened"],
    )
    box = jnp.select(
        [state.room != instance.box_room, state.box_open], [CODE["not here"], CODE["already open"]], CODE["opened"]
    )
    return jnp.select([is_direction, noun == ID[BOX]], [door, box], CODE["no sense"])


def _is_item(noun: Array) -> Array:
    return (noun >= ID[ITEMS[0]]) & (noun < ID[ITEMS[0]] + len(ITEMS))


def _take(instance: Instance, state: State, noun: Array, slot: Array) -> Array:
    place = state.place_I[slot]
    here = state.room == jnp.where(place == BOXED, instance.box_room, instance.item_room_I[slot])
    known = jnp.any(instance.name_I == noun)
    item = jnp.select(
        [known & (place == HELD), ~known | ~here, jnp.any(state.place_I == HELD)],
        [CODE["already held"], CODE["not here"], CODE["hands full"]],
        CODE["taken"],
    )
    key = jnp.select(
        [state.has_key, state.room != instance.key_room], [CODE["already held"], CODE["not here"]], CODE["taken"]
    )
    return jnp.select([_is_item(noun), noun == ID[KEY]], [item, key], CODE["no sense"])


def _put(instance: Instance, state: State, noun: Array, slot: Array) -> Array:
    held = jnp.any(instance.name_I == noun) & (state.place_I[slot] == HELD)
    item = jnp.select(
        [~held, state.room != instance.box_room, ~state.box_open],
        [CODE["not held"], CODE["not here"], CODE["box closed"]],
        CODE["placed"],
    )
    return jnp.where(_is_item(noun), item, CODE["no sense"])
