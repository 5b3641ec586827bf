"""Instances told in words: the goal, where everything is, and what stands on each edge."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from scaling.tasks.world.layout import ATTEMPT_TOKENS, CLOSED, DOORWAY
from scaling.tasks.world.rules import PUT_IN_BOX, Instance
from scaling.tasks.world.vocabulary import BOX, BRING, EDGE_WORDS, ID, KEY, PAD, ROOMS

_EDGES = tuple(ID[word] for word in EDGE_WORDS)


def describe(instance: Instance) -> Any:
    """The description of an instance, int32 [P] with P of `Layout.prompt_tokens`, filled up at the end. For a house:

    goal put apple box you study apple hall pen attic key hall box kitchen closed doors open wall open closed ...

    with the goal `bring apple attic` of an item that is to be brought to a room. Edges come in their order.
    """
    room = lambda number: ID[ROOMS[0]] + number  # noqa: E731
    put = instance.goal == PUT_IN_BOX
    box_word = jnp.where(instance.box_open > 0, _EDGES[DOORWAY], _EDGES[CLOSED])
    goal = [
        ID["goal"], jnp.where(put, ID["put"], ID[BRING]), instance.name_I[instance.goal_item],
        jnp.where(put, ID[BOX], room(instance.goal_room)), ID["you"], room(instance.room),
    ]  # fmt: skip
    items = jnp.stack([instance.name_I, room(instance.item_room_I)], axis=1).reshape(-1)
    things = [ID[KEY], room(instance.key_room), ID[BOX], room(instance.box_room), box_word, ID["doors"]]
    edges_L = jnp.asarray(_EDGES)[instance.kind_L]
    parts = [jnp.stack([jnp.asarray(word) for word in goal]), items,
             jnp.stack([jnp.asarray(word) for word in things]), edges_L]  # fmt: skip
    words = jnp.concatenate(parts).astype(jnp.int32)
    return jnp.pad(words, (0, -len(words) % ATTEMPT_TOKENS), constant_values=ID[PAD])
