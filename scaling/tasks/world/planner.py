"""The teacher: shortest plans, from the distances of all states of an instance to its goal.

Every state of an instance has a number, so distances are a table: d(s) = 0 at the goal, else 1 + min over actions of
d(state after it), which breadth-first search would give too. Axes: A actions, Z states, S steps of a plan.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scaling.tasks.world.layout import DOORWAY, N_ITEMS, Layout
from scaling.tasks.world.rules import Instance, State, act, first_state, reached
from scaling.tasks.world.vocabulary import BOX, DIRECTIONS, ID, KEY

Array = Any
FAR = 200  # distance of a state from which the goal cannot be reached
N_ACTIONS = 2 * len(DIRECTIONS) + 2 + 2 * N_ITEMS
"""Actions that can be feasible in an instance: go and open in each direction, open the box, take the key, and take and
put each item."""


class Plans(NamedTuple):
    """What is known of an instance: distance and successor of every state, and the shortest plan.

    distance_Z: uint8, `FAR` at most.   after_ZxA: number of the state after each action, the same where it is not
    feasible.   plan_Sx2: words of the actions from the first state on, of which the first d(first state) count.
    """

    distance_Z: Array
    after_ZxA: Array
    first: Array
    plan_Sx2: Array


def actions(instance: Instance) -> Array:
    """The words of each action, [A, 2]."""
    directions = [ID[word] for word in DIRECTIONS]
    fixed = [(ID[verb], noun) for verb in ("go", "open") for noun in directions]
    fixed += [(ID["open"], ID[BOX]), (ID["take"], ID[KEY])]
    name_I = jnp.asarray(instance.name_I, jnp.int32)
    of_items = [jnp.stack([jnp.full_like(name_I, ID[verb]), name_I], axis=1) for verb in ("take", "put")]
    return jnp.concatenate([jnp.asarray(fixed, jnp.int32), *of_items])


def number_of(layout: Layout, instance: Instance, state: State) -> Array:
    """The number of a state: digits are room, places of items, key, box and doors."""
    number = state.room
    for item in range(N_ITEMS):
        number = number * 3 + state.place_I[item]
    number = (number * 2 + state.has_key) * 2 + state.box_open
    for door in range(layout.doors):
        number = number * 2 + state.open_L[instance.door_D[door]]
    return number


def state_of(layout: Layout, instance: Instance, number: Array) -> State:
    """The state with a number; the inverse of `number_of`."""
    open_L = instance.kind_L == DOORWAY
    for door in reversed(range(layout.doors)):
        number, is_open = jnp.divmod(number, 2)
        open_L = open_L.at[instance.door_D[door]].set(is_open > 0)
    number, box_open = jnp.divmod(number, 2)
    number, has_key = jnp.divmod(number, 2)
    places = []
    for _ in range(N_ITEMS):
        number, place = jnp.divmod(number, 3)
        places.append(place)
    return State(number, jnp.stack(places[::-1]), has_key > 0, box_open > 0, open_L)


def plans(layout: Layout, instance: Instance, steps: int) -> Plans:
    """Distances, successors and the first `steps` actions of a shortest plan; of equal actions the first is taken."""
    words_Ax2 = actions(instance)

    def after(number: Array) -> tuple[Array, Array]:
        state = state_of(layout, instance, number)
        next_ = jax.vmap(lambda words: number_of(layout, instance, act(layout, instance, state, *words)[0]))(words_Ax2)
        return next_, reached(instance, state)

    after_ZxA, is_goal_Z = jax.vmap(after)(jnp.arange(layout.n_states, dtype=jnp.int32))
    start_Z = jnp.where(is_goal_Z, 0, FAR).astype(jnp.int32)

    def relax(found: tuple[Array, Array]) -> tuple[Array, Array]:
        distance_Z, _ = found
        shorter_Z = jnp.minimum(distance_Z, 1 + jnp.min(distance_Z[after_ZxA], axis=1))
        return shorter_Z, jnp.any(shorter_Z < distance_Z)

    distance_Z, _ = jax.lax.while_loop(lambda found: found[1], relax, (start_Z, jnp.bool_(True)))

    def step(number: Array, _: None) -> tuple[Array, Array]:
        best = jnp.argmin(distance_Z[after_ZxA[number]])
        return after_ZxA[number, best], words_Ax2[best]

    first = number_of(layout, instance, first_state(instance)).astype(jnp.int32)
    _, plan_Sx2 = jax.lax.scan(step, first, None, length=steps)
    return Plans(distance_Z.astype(jnp.uint8), after_ZxA.astype(jnp.int32), first, plan_Sx2)
