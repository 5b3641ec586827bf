"""The rules, descriptions and plans of text-world against a second world in plain Python, which reads descriptions."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_world import NOUNS, VERBS, PlainWorld

from scaling.tasks.world.instances import DRAWN, candidates, drawn, identities, is_held_out
from scaling.tasks.world.layout import LAYOUTS
from scaling.tasks.world.planner import FAR, N_ACTIONS, actions, number_of, state_of
from scaling.tasks.world.programs import planner_of
from scaling.tasks.world.rules import Instance, act, feedback_words, first_state, is_feasible, reached
from scaling.tasks.world.text import describe
from scaling.tasks.world.vocabulary import FEASIBLE, FEEDBACK, ID, OK_WORDS, ROOMS, WORDS, sentence

ATTEMPTS = 10


def plain_worlds(name: str, instances: Instance) -> list[PlainWorld]:
    """The second world of each instance, from its words."""
    layout = LAYOUTS[name]
    texts = np.asarray(jax.vmap(describe)(instances))
    assert texts.shape[1] == layout.prompt_tokens
    return [PlainWorld(sentence(text), layout.rows, layout.columns) for text in texts.tolist()]


@functools.cache
def known(name: str) -> tuple[Instance, Any]:
    """Candidates of a layout, some without a plan, and what the planner knows of them."""
    instances = candidates(LAYOUTS[name], DRAWN, np.random.default_rng(3))
    return instances, jax.tree.map(np.asarray, planner_of(LAYOUTS[name], ATTEMPTS)(instances))


@pytest.mark.parametrize("name", LAYOUTS)
def test_actions_do_and_say_what_they_do_and_say_in_the_plain_world(name: str) -> None:
    """Random actions: most of those that can be feasible, some of a verb and a noun, some of any two words."""
    layout, count, steps = LAYOUTS[name], 64, 120
    rng = np.random.default_rng(7)
    instances = candidates(layout, count, rng)
    place = rng.integers(N_ACTIONS, size=(count, steps))
    own = np.asarray(jax.vmap(actions)(instances))[np.arange(count)[:, None], place]
    verbs, nouns = (np.array([ID[word] for word in words]) for words in (VERBS, NOUNS))
    usual = np.stack([rng.choice(verbs, (count, steps)), rng.choice(nouns, (count, steps))], axis=2)
    strange = rng.integers(len(WORDS), size=usual.shape)
    kind = rng.choice(3, p=[0.7, 0.2, 0.1], size=(count, steps, 1))
    words = np.choose(kind, [own, usual, strange]).astype(np.int32)

    def walk(instance: Instance, words_Sx2: jax.Array) -> Any:
        def step(state: Any, pair: jax.Array) -> Any:
            state, code = act(layout, instance, state, pair[0], pair[1])
            return state, (feedback_words(state, code), is_feasible(code), reached(instance, state))

        return jax.lax.scan(step, first_state(instance), words_Sx2)[1]

    said, feasible, at_goal = (np.asarray(part) for part in jax.jit(jax.vmap(walk))(instances, words))
    heard = set()
    for number, world in enumerate(plain_worlds(name, instances)):
        moment = world.first
        for step in range(steps):
            verb, noun = (WORDS[word] for word in words[number, step])
            before, (moment, feedback) = moment, world.act(moment, verb, noun)
            heard.add(feedback)
            assert sentence(said[number, step].tolist()) == feedback
            assert feasible[number, step] == (moment != before)  # an action is feasible if it changes something
            assert at_goal[number, step] == world.reached(moment)
    every = {" ".join(words) for kind, words in FEEDBACK.items() if kind != "moved"}
    assert heard == every | {f"in {room}" for room in ROOMS[: layout.n_rooms]}


@pytest.mark.parametrize("name", LAYOUTS)
def test_plans_are_as_short_as_breadth_first_search_finds(name: str) -> None:
    """Of all candidates, those without a plan included; and the words of a plan lead to the goal."""
    instances, plans = known(name)
    distance = plans.distance_Z[np.arange(DRAWN), plans.first]
    lengths = [world.steps_to_goal(world.first) for world in plain_worlds(name, instances)]
    assert [FAR if length is None else length for length in lengths] == distance.tolist()
    assert 0 < sum(length is None for length in lengths) < DRAWN / 2
    for number, world in enumerate(plain_worlds(name, instances)):
        if distance[number] <= ATTEMPTS:
            moment = world.first
            for verb, noun in plans.plan_Sx2[number, : distance[number]].tolist():
                before, (moment, _) = moment, world.act(moment, WORDS[verb], WORDS[noun])
                assert moment != before
            assert world.reached(moment)


def test_states_have_numbers_of_their_own() -> None:
    layout = LAYOUTS["flat"]
    instance = Instance(*(jnp.asarray(part[0]) for part in candidates(layout, 1, np.random.default_rng(0))))
    numbers = jnp.arange(layout.n_states, dtype=jnp.int32)
    again = jax.jit(jax.vmap(lambda n: number_of(layout, instance, state_of(layout, instance, n))))(numbers)
    np.testing.assert_array_equal(again, numbers)


def test_training_and_evaluation_have_no_instance_in_common() -> None:
    """And no instance twice; a larger number begins with the smaller one; other seeds draw others."""
    layout, planner = LAYOUTS["flat"], planner_of(LAYOUTS["flat"], ATTEMPTS)
    held_out = drawn(layout, 40, 0, planner, held_out=True)
    evaluation = identities(held_out.instances)
    trained = [identities(drawn(layout, 40, seed, planner, held_out=False).instances) for seed in (0, 1)]
    assert len({*evaluation, *trained[0], *trained[1]}) == len({*evaluation}) + len({*trained[0], *trained[1]})
    assert len({*evaluation}) == len({*trained[0]}) == 40
    assert all(map(is_held_out, evaluation))
    assert not any(map(is_held_out, trained[0] + trained[1]))
    assert trained[0] != trained[1]
    assert identities(drawn(layout, 9, 0, planner, held_out=True).instances) == evaluation[:9]
    assert ((held_out.shortest_N >= 3) & (held_out.shortest_N <= 10)).all()


def test_the_first_word_of_feedback_tells_whether_an_action_was_feasible() -> None:
    assert [*FEEDBACK][: len(FEASIBLE)] == [*FEASIBLE]
    assert not {*OK_WORDS} & {words[0] for name, words in FEEDBACK.items() if name not in FEASIBLE}
    assert len({*WORDS}) == len(WORDS) < 128
