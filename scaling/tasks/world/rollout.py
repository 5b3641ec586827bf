"""Walks of a model through instances: word by word, against the world and, where there is one, beside a teacher.

A walk is a text: the description of the instance, then attempts of four words, an action and the feedback to it. All
attempts are decoded against a cache of the keys and values of the text so far. Axes: N instances, S attempts, P words
of the description, V words of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from scaling.model.transformer import Transformer, apply, empty_caches
from scaling.tasks.world.layout import ATTEMPT_TOKENS, Layout
from scaling.tasks.world.planner import number_of
from scaling.tasks.world.rules import Instance, act, feedback_words, first_state, is_feasible, reached
from scaling.tasks.world.text import describe
from scaling.tasks.world.vocabulary import ID, OK_WORDS, PAD

Array = Any
FREE, GUIDED, TAUGHT = range(3)
"""Who acts: the model alone; the model as long as it errs, and after each error or feasible proposal the teacher; the
teacher alone."""


class Settings(NamedTuple):
    """How a walk is made. temperature: 0 takes the likeliest word.   mode: `FREE`, `GUIDED` or `TAUGHT`.
    speculates: the model predicts the feedback first, and where it predicts an error, thinks once more."""

    temperature: Array
    mode: Array
    speculates: Array


class Walks(NamedTuple):
    """Texts and what happened, attempt by attempt.

    text_NxT: T = P + 4 S words; after the goal is reached, padding.   live: whether the attempt took place.
    taught: its action is the teacher's.   imagined: it was thought and not made; its feedback is what was predicted.
    foreseen: both words of the feedback to the model's proposal were predicted.
    number_Nx: the number of the state before each attempt, and at last after all, [N, S + 1].
    """

    text_NxT: Array
    live_NxS: Array
    feasible_NxS: Array
    taught_NxS: Array
    imagined_NxS: Array
    foreseen_NxS: Array
    number_Nx: Array
    reached_N: Array


@dataclass(frozen=True)
class Walker:
    """Walks of one network in one layout, of `attempts` attempts."""

    network: Transformer
    layout: Layout
    attempts: int

    def __call__(self, params: Any, instances: Instance, plan_NxSx2: Array, key: Array, settings: Settings) -> Walks:
        """The walks of these instances. What happens in an instance depends on its place in the batch, the key and
        itself alone."""
        count, blocks = len(plan_NxSx2), self.layout.prompt_tokens // ATTEMPT_TOKENS
        text_NxP = jax.vmap(describe)(instances)
        # One loop for descriptions, of which the first blocks are, and attempts: half the program to compile.
        told_BxNx4 = jnp.zeros((blocks + self.attempts, count, ATTEMPT_TOKENS), jnp.int32)
        told_BxNx4 = told_BxNx4.at[:blocks].set(jnp.swapaxes(text_NxP.reshape(count, blocks, -1), 0, 1))

        def block(carry: Any, given: tuple[Array, Array]) -> tuple[Any, Any]:
            caches, logits_NxV, state, live_N, taught_N, erred_N, imagined_N = carry
            place, told_Nx4 = given
            position, acts = ATTEMPT_TOKENS * place, place >= blocks
            words_Nx4 = self._proposed(params, caches, logits_NxV, position, jax.random.fold_in(key, place), settings)
            moved, code_N = self._act(instances, state, words_Nx4[:, :2])
            foreseen_N = jnp.all(jax.vmap(feedback_words)(moved, code_N) == words_Nx4[:, 2:], axis=1)
            errs_N = ~is_feasible(code_N)
            fears_N = ~jnp.any(words_Nx4[:, 2:3] == jnp.asarray([ID[word] for word in OK_WORDS]), axis=1)
            imagines_N = acts & settings.speculates & fears_N & ~imagined_N & (settings.mode == FREE)
            guides_N = acts & ((settings.mode == TAUGHT) | ((settings.mode == GUIDED) & (erred_N | ~errs_N)))
            lesson_Nx2 = jnp.take_along_axis(plan_NxSx2, taught_N[:, None, None], axis=1)[:, 0]
            action_Nx2 = jnp.where(guides_N[:, None], lesson_Nx2, words_Nx4[:, :2])
            moved, code_N = self._act(instances, state, action_Nx2)
            said_Nx2 = jnp.where(imagines_N[:, None], words_Nx4[:, 2:], jax.vmap(feedback_words)(moved, code_N))
            moves_N = acts & live_N & ~imagines_N
            number_N = self._number(instances, state)
            state = jax.tree.map(lambda new, old: jnp.where(_like(moves_N, new), new, old), moved, state)
            words_Nx4 = jnp.where(live_N[:, None], jnp.concatenate([action_Nx2, said_Nx2], axis=1), ID[PAD])
            words_Nx4 = jnp.where(acts, words_Nx4, told_Nx4)
            output = apply(self.network, params, words_Nx4, caches, position)
            record = (
                words_Nx4, live_N, is_feasible(code_N) & moves_N, live_N & guides_N, live_N & imagines_N,
                live_N & foreseen_N, number_N,
            )  # fmt: skip
            ends_N = acts & jax.vmap(reached)(instances, state)
            carry = (
                output.caches, output.logits_BxTxV[:, -1], state, live_N & ~ends_N,
                jnp.minimum(taught_N + guides_N, plan_NxSx2.shape[1] - 1), acts & ~is_feasible(code_N), imagines_N,
            )  # fmt: skip
            return carry, record

        nobody, config = jnp.zeros(count, bool), self.network.config
        caches = empty_caches(config, count, ATTEMPT_TOKENS * len(told_BxNx4))
        no_logits = jnp.zeros((count, self.network.vocab_size))
        state = jax.vmap(first_state)(instances)
        first = (caches, no_logits, state, ~nobody, jnp.zeros(count, jnp.int32), nobody, nobody)
        last, records = jax.lax.scan(block, first, (jnp.arange(len(told_BxNx4)), told_BxNx4))
        words_NxBx4, *others = (jnp.swapaxes(record, 0, 1) for record in records)
        live, feasible, taught, imagined, foreseen, number = (record[:, blocks:] for record in others)
        end = last[2]
        return Walks(
            words_NxBx4.reshape(count, -1),
            live, feasible, taught, imagined, foreseen,
            jnp.concatenate([number, self._number(instances, end)[:, None]], axis=1),
            jax.vmap(reached)(instances, end),
        )  # fmt: skip

    def _proposed(
        self, params: Any, caches: Any, logits_NxV: Array, position: Array, key: Array, settings: Settings
    ) -> Array:
        """The action that the model proposes, and the feedback that it predicts: its likeliest words, [N, 4]."""

        def word(carry: Any, place: Array) -> tuple[Any, Array]:
            caches, logits_NxV = carry
            heat = jnp.where(place < 2, settings.temperature, 0.0)
            noise_NxV = jax.random.gumbel(jax.random.fold_in(key, place), logits_NxV.shape)
            chosen_N = jnp.argmax(logits_NxV + heat * noise_NxV, axis=-1).astype(jnp.int32)
            output = apply(self.network, params, chosen_N[:, None], caches, position + place)
            return (output.caches, output.logits_BxTxV[:, 0]), chosen_N

        (_, logits_NxV), words_3xN = jax.lax.scan(word, (caches, logits_NxV), jnp.arange(ATTEMPT_TOKENS - 1))
        return jnp.stack([*words_3xN, jnp.argmax(logits_NxV, axis=-1).astype(jnp.int32)], axis=1)

    def _act(self, instances: Instance, state: Any, action_Nx2: Array) -> tuple[Any, Array]:
        return jax.vmap(lambda i, s, a: act(self.layout, i, s, a[0], a[1]))(instances, state, action_Nx2)

    def _number(self, instances: Instance, state: Any) -> Array:
        return jax.vmap(lambda i, s: number_of(self.layout, i, s))(instances, state)


def _like(flag_N: Array, values: Array) -> Array:
    return flag_N.reshape(-1, *[1] * (values.ndim - 1))
