"""What each rule adds to a step, against sums and processes with a known answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.tasks.rl.rewards.adaptive import RATE, Adaptive, weights
from scaling.tasks.rl.rewards.bonus import LAMBDA, MOST, Bonus
from scaling.tasks.rl.rewards.features import FEATURES
from scaling.tasks.rl.rewards.library import REWARDS, resolved_program
from scaling.tasks.rl.rewards.observed import observed
from scaling.tasks.rl.rewards.potential import Potential
from scaling.tasks.rl.rewards.programmed import values_of
from scaling.tasks.rl.rewards.rule import Rule, Scene
from scaling.tasks.rl.rewards.rules import rule_of
from scaling.tasks.rl.rewards.telescoping import telescoping

GAMMA, N = 0.95, 3
Help = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def screen(seed: int, count: int = N) -> jax.Array:
    """Observations with one paddle, one ball, one trail and some bricks."""
    rng = np.random.default_rng(seed)
    made = np.zeros((count, 10, 10, 4), bool)
    for one in made:
        one[9, rng.integers(10), 0] = True
        row, column = rng.integers(1, 9), rng.integers(1, 9)
        one[row, column, 1] = True
        one[row + rng.choice([-1, 1]), column + rng.choice([-1, 1]), 2] = True
        one[1:4, :, 3] = rng.random((3, 10)) < 0.5
    return jnp.asarray(made)


def scene(seed: int, **changes: Any) -> Scene:
    nothing = jnp.zeros(N, bool)
    made = {
        "observation_NxHxWxC": screen(seed),
        "action_N": jnp.zeros(N, jnp.int32),
        "reward_N": jnp.zeros(N),
        "last_NxHxWxC": screen(seed + 1),
        "terminated_N": nothing,
        "truncated_N": nothing,
    }
    return Scene(**(made | changes))


def made_rule(reward: str, game: str = "breakout", text: str = "") -> Rule:
    rule = rule_of(reward, game, resolved_program(reward, game, text), GAMMA)
    assert rule is not None
    return rule


def test_own_has_no_help_and_every_other_reward_is_a_number_a_step() -> None:
    assert rule_of("own", "breakout", "", GAMMA) is None
    for reward in REWARDS[1:]:
        rule = made_rule(reward)
        learnt_N, _, _ = rule.learnt(rule.start(), scene(0, reward_N=jnp.arange(N) * 1.0), jnp.float32(0))
        np.testing.assert_array_equal(learnt_N, jnp.arange(N))  # of weight 0: the environment's own


@pytest.mark.parametrize("terminated", [True, False])
def test_shaping_telescopes_to_the_potentials_at_both_ends_of_an_episode(terminated: bool) -> None:
    """sum gamma^t F_t = gamma^T Phi(s_T) - Phi(s_0), and without the first term where s_T is an end; a cut is none."""
    rule, steps = made_rule("potential"), 5
    assert isinstance(rule, Potential)
    total = jnp.zeros(N)
    for step in range(steps):
        over = jnp.full(N, step == steps - 1)
        ended = {"terminated_N": over} if terminated else {"truncated_N": over}
        help_N, _, _ = rule.help((), scene(step, **ended))
        total += GAMMA**step * help_N
    last = 0 if terminated else GAMMA**steps * rule.of(screen(steps))
    np.testing.assert_allclose(total, last - rule.of(screen(0)), rtol=1e-5, atol=1e-6)


def test_a_bonus_follows_the_visits_of_states_that_are_taken_for_the_same() -> None:
    """Three environments in one state, four times: n is 0, 3, 6, 9; 0 visits give the most; an end gives nothing and
    counts. Another state has visits of its own."""
    rule = made_rule("bonus")
    assert isinstance(rule, Bonus)
    same = jnp.repeat(screen(0, 1), N, axis=0)
    state = rule.start()
    for visits in (0, 3, 6):
        help_N, _, state = rule.help(state, scene(0, last_NxHxWxC=same))
        np.testing.assert_allclose(help_N, LAMBDA / np.sqrt((LAMBDA / MOST) ** 2 + visits), rtol=1e-6)
    help_N, _, state = rule.help(state, scene(0, last_NxHxWxC=same, terminated_N=jnp.ones(N, bool)))
    assert not help_N.any()
    assert (float(state.sum()), float(state.max())) == (12, 12)
    assert rule.help(state, scene(0, last_NxHxWxC=jnp.repeat(screen(1, 1), N, axis=0)))[0] == pytest.approx([MOST] * N)


@pytest.mark.parametrize("game", FEATURES)
def test_states_with_other_counted_features_have_cells_of_their_own(game: str) -> None:
    rule = made_rule("bonus", game)
    assert isinstance(rule, Bonus)
    channels = {"breakout": 4, "asterix": 4, "space-invaders": 6}[game]
    seen = jax.random.bernoulli(jax.random.key(0), 0.02, (400, 10, 10, channels))
    found, cells = observed(game, seen), np.asarray(rule.cell(seen))
    counted = [name for name, feature in FEATURES[game].items() if feature.counted]
    clipped = [np.clip(found[name], FEATURES[game][name].low, FEATURES[game][name].high) for name in counted]
    tuples = list(zip(*clipped, strict=True))
    assert len({*tuples}) == len({*cells.tolist()}) == len({*zip(tuples, cells.tolist(), strict=True)})
    assert cells.max() < len(rule.start())


def test_the_adaptive_potential_is_the_most_informative_direction() -> None:
    """The learner finds it advantageous to bring the paddle nearer to where the ball lands, and nothing else: the
    potential rises as the distance falls, and no potential of the same length is more informative on what was seen."""
    rule, steps, k = made_rule("adaptive"), 40, len(FEATURES["breakout"])
    assert isinstance(rule, Adaptive)
    state = rule.start()
    assert not rule.help(state, scene(0))[0].any()
    traces, advantages = [], []
    for step in range(steps):
        seen = scene(2 * step)
        _, trace, state = rule.help(state, seen)
        traces.append(trace)
        first, last = (observed("breakout", one) for one in (seen.observation_NxHxWxC, seen.last_NxHxWxC))
        advantages.append(first["landing_distance"] - GAMMA * last["landing_distance"])
    trace_TxNxK, advantage_TxN = jnp.stack(traces), jnp.stack(advantages)
    adapted = rule.adapt(state, trace_TxNxK, advantage_TxN)
    w = weights(adapted)
    assert np.argmax(np.abs(w)) == list(FEATURES["breakout"]).index("landing_distance")
    assert w[list(FEATURES["breakout"]).index("landing_distance")] < 0

    def informativeness(direction: jax.Array) -> float:
        return float(jnp.mean((advantage_TxN - advantage_TxN.mean()) * (trace_TxNxK @ direction)))

    others = np.random.default_rng(0).normal(size=(200, k))
    best = max(informativeness(jnp.asarray(one / np.linalg.norm(one), jnp.float32)) for one in others)
    assert informativeness(w) > best
    assert float(jnp.linalg.norm(w)) == pytest.approx(1, abs=1e-6)
    assert informativeness(w) == pytest.approx(float(jnp.linalg.norm(adapted)) / RATE, rel=1e-3)  # w . g = |g|


def walked(steps: int, help_of: Help) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A random walk on four places, 0 to 3, in which a step from 3 is an end, and its help."""
    rng = np.random.default_rng(0)
    walk = [0]
    for _ in range(steps):
        walk.append(int(np.clip(walk[-1] + rng.choice([-1, 1]), 0, 3)))
    before, after = np.array(walk[:-1], float), np.array(walk[1:], float)
    ends = before == 3
    return before[:, None], after[:, None], help_of(before, after, ends), ends


@pytest.mark.parametrize(
    ("help_of", "verdict"),
    [
        (lambda before, after, ends: GAMMA * ~ends * after**2 - before**2, "shaping"),
        (lambda before, after, ends: GAMMA * after**2 - before**2, "other"),  # an end that keeps its potential
        (lambda before, after, ends: ~ends * after - before, "other"),  # without gamma
        (lambda before, after, ends: 0.1 * (after == 2), "other"),
        (lambda before, after, ends: 0 * before, "shaping"),
    ],
)
def test_a_help_that_is_a_difference_of_potentials_is_told_from_others(help_of: Help, verdict: str) -> None:
    found = telescoping(*walked(300, help_of), GAMMA)
    assert found.verdict == verdict
    assert (found.states, found.residual > 0.01) == (4, verdict == "other")


def test_few_transitions_tell_nothing() -> None:
    assert telescoping([[0.0], [1.0]], [[1.0], [2.0]], [0.3, -1.7], [False, False], GAMMA).verdict == "undecided"


def test_a_program_reads_both_states_and_the_step() -> None:
    seen = scene(3, reward_N=jnp.arange(N) * 1.0, action_N=jnp.arange(N))
    values = values_of("breakout", seen, GAMMA)
    text = "next_bricks - bricks + 10 * reward + action * discount"
    help_N, _, _ = made_rule("program", text=text).help((), seen)
    expected = values["next_bricks"] - values["bricks"] + jnp.arange(N) * (10 + GAMMA)
    np.testing.assert_allclose(help_N, expected, rtol=1e-6)
    constant, _, _ = made_rule("program", text="0.25").help((), seen)
    np.testing.assert_array_equal(constant, np.full(N, 0.25))
