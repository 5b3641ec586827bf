"""PPO: advantages and losses against plain loops, and a task whose best policy is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bandits import Bandits

from scaling.tasks.rl.policy.examination import Examination
from scaling.tasks.rl.policy.learner import Learner, Schedule, Shape, Transitions
from scaling.tasks.rl.policy.network import ActorCritic
from scaling.tasks.rl.policy.ppo import PPO, new_moments
from scaling.tasks.rl.policy.towers import ACTIONS, tower_of
from scaling.tasks.rl.policy.worlds import Worlds
from scaling.tasks.rl.returns import lambda_returns
from scaling.tasks.rl.rewards.rule import Rule, Scene

SCHEDULE = Schedule(
    lr=5e-3, decay_frames=0.0, discount=0.9, trace=0.95, clip=0.2, entropy_weight=0.01, value_weight=0.5, most_norm=0.5,
    reward_weight=1.0, first_round=0, first_task=0,
)  # fmt: skip


def test_return_less_value_is_the_generalised_advantage() -> None:
    """Schulman et al., arXiv 1506.02438, equation 16, step by step: the value that follows is 0 where the episode ended
    and that of the last state where it was cut, and neither passes on what the next episode brings."""
    rng, steps, count, discount, trace = np.random.default_rng(0), 12, 9, 0.9, 0.8
    reward, value = rng.normal(size=(2, steps, count))
    terminated = rng.random((steps, count)) < 0.2
    truncated = (rng.random((steps, count)) < 0.2) & ~terminated
    last = rng.normal(size=(steps, count))  # of states that are seen because of a cut alone, or after the last step
    after = np.concatenate([value[1:], last[-1:]])
    following = np.where(truncated, last, after)
    found = lambda_returns(*map(jnp.asarray, (reward, following, terminated, truncated)), discount, trace) - value
    for n in range(count):
        advantage = 0.0
        for t in reversed(range(steps)):
            over = terminated[t, n] or truncated[t, n]
            surprise = reward[t, n] + discount * (0 if terminated[t, n] else following[t, n]) - value[t, n]
            advantage = surprise + (0 if over else discount * trace * advantage)
            assert found[t, n] == pytest.approx(advantage, abs=1e-5)  # float32, sums of 12 terms near 1


class Table:
    """A network whose outputs are its parameters."""

    def apply(self, variables: Any, observation: Any, task: Any) -> tuple[Any, Any, None]:
        return variables["params"]["logits"], variables["params"]["values"], None


def test_the_loss_is_its_definition() -> None:
    """Row by row in float64, with two games of different actions."""
    rng, rows, clip = np.random.default_rng(0), 40, 0.2
    ppo = PPO(Table(), Worlds(("breakout", "asterix"), ()), Shape(1, 1, 1))  # type: ignore[arg-type]
    logits, values, old_values = rng.normal(size=(rows, ACTIONS)), rng.normal(size=rows), rng.normal(size=rows)
    game = rng.integers(2, size=rows)
    actions_of = np.array([3, 5])[game]
    action = rng.integers(0, 1000, size=rows) % actions_of
    returns = rng.normal(size=rows)
    log = np.zeros((rows, ACTIONS))
    entropy = np.zeros(rows)
    for row in range(rows):
        own = logits[row, : actions_of[row]]
        log[row, : actions_of[row]] = own - np.log(np.sum(np.exp(own)))
        entropy[row] = -np.sum(np.exp(log[row, : actions_of[row]]) * log[row, : actions_of[row]])
    old_log = log[np.arange(rows), action] + rng.normal(scale=0.3, size=rows)
    advantage = returns - old_values
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    surrogate, value_loss = [], []
    for row in range(rows):
        ratio = np.exp(log[row, action[row]] - old_log[row])
        held = min(max(ratio, 1 - clip), 1 + clip)
        surrogate.append(min(ratio * advantage[row], held * advantage[row]))
        moved = old_values[row] + min(max(values[row] - old_values[row], -clip), clip)
        value_loss.append(0.5 * max((values[row] - returns[row]) ** 2, (moved - returns[row]) ** 2))
    expected = -np.mean(surrogate) + 0.5 * np.mean(value_loss) - 0.01 * np.mean(entropy)
    as_float = lambda a: jnp.asarray(a, jnp.float32)  # noqa: E731
    seen = Transitions(None, jnp.asarray(action), as_float(old_log), as_float(old_values), *4 * (None,))  # type: ignore[arg-type]
    params = {"logits": as_float(logits), "values": as_float(values)}
    total, losses = ppo.loss(params, (seen, as_float(returns), jnp.asarray(game)), SCHEDULE)
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert float(losses.entropy) == pytest.approx(entropy.mean(), rel=1e-5)
    ratios = np.exp(log[np.arange(rows), action] - old_log)
    assert float(losses.clipped) == pytest.approx(np.mean(np.abs(ratios - 1) > clip), abs=1e-6)
    assert float(losses.kl) == pytest.approx(np.mean(ratios - 1 - np.log(ratios)), rel=1e-4)


def small(place: str, router: str = "hard", **changes: Any) -> PPO:
    actor, critic = (tower_of(place, router, 2, 1, 8, outputs) for outputs in (ACTIONS, 1))  # type: ignore[arg-type]
    return PPO(ActorCritic(actor, critic), Bandits(**changes), Shape(8, 4, 4))


def learner_of(ppo: PPO) -> Learner:
    key = jax.random.key(0)
    params = jax.jit(Examination(ppo.network).start)(key)
    return Learner(params, new_moments(params), ppo.begin(key), jnp.int32(0), key)


def test_two_games_that_want_opposite_actions_are_learnt_by_experts_of_their_own() -> None:
    """Random actions have a mean return of 1/3, the best policy of 1; one network that cannot tell the games apart
    could have 2/3 at most (what is shown in the middle is the same in both)."""
    ppo = small("big", games=("breakout", "freeway"))
    advance = jax.jit(ppo.advance, static_argnames="room")
    learner, records = advance(learner_of(ppo), SCHEDULE, 60, room=64)
    returns = np.asarray(records.return_sum) / np.maximum(records.episodes, 1)
    assert np.all(np.asarray(records.episodes)[:60] == 8 * 16)
    assert np.abs(returns[0] - 1 / 3).max() < 0.17  # 128 draws: four standard deviations
    assert returns[56:60].mean(axis=0).min() > 0.9
    assert not np.asarray(records.episodes)[60:].any()
    assert int(learner.rounds) == 60


def test_a_cut_keeps_the_value_of_the_state_that_it_led_to() -> None:
    """Where every step is cut, the state that it led to shows what the state before showed, and a new episode something
    else; where every step ends an episode, the value is of the new one, which nothing reads."""
    for cut in (True, False):
        ppo = small("none", cut=cut)
        learner = learner_of(ppo)
        _, seen, _, _ = jax.jit(ppo.act)(learner, jax.random.key(1), 0)
        assert bool(seen.truncated.all()) == bool((~seen.terminated).all()) == cut
        expected = seen.value if cut else jnp.concatenate([seen.value[1:], seen.next_value[-1:]])
        np.testing.assert_allclose(seen.next_value, expected, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_falls_from_the_first_round_on() -> None:
    schedule = SCHEDULE.replace(decay_frames=1000.0, first_round=10)  # type: ignore[attr-defined]
    rates = [float(schedule.rate(jnp.int32(number), 100)) for number in (10, 15, 20, 25)]
    assert rates == pytest.approx([5e-3, 2.5e-3, 0, 0], abs=1e-9)
    assert float(SCHEDULE.rate(jnp.int32(10**6), 100)) == pytest.approx(5e-3)


@dataclass(frozen=True)
class Telling(Rule):
    """The help is the number of the action; the state counts steps, and after a round what the traces weigh."""

    adapts = True

    def start(self) -> Any:
        return jnp.float32(0)

    def help(self, state: Any, scene: Scene) -> tuple[jax.Array, Any, Any]:
        return scene.action_N.astype(jnp.float32), scene.action_N, state + 1

    def adapt(self, state: Any, trace: Any, advantage_TxN: jax.Array) -> Any:
        return state + jnp.sum(trace * advantage_TxN)


def test_each_game_has_a_rule_of_reward_of_its_own() -> None:
    """Two games of two environments: own reward 1, weight .5, actions 0 to 3. After a round of that one step with
    advantages 1, 10, 100 and 1000 the states are 0 x 1 + 1 x 10 and 2 x 100 + 3 x 1000 more."""
    bandits = Bandits(games=("breakout", "freeway"), each=2)
    ppo = PPO(Table(), bandits, Shape(1, 1, 1), (Telling("breakout", 0.9), Telling("freeway", 0.9)))  # type: ignore[arg-type]
    play = ppo.begin(jax.random.key(0))
    over = jnp.zeros(4, bool)
    scene = Scene(play.observation_NxHxWxC, jnp.arange(4), jnp.ones(4), play.observation_NxHxWxC, over, over)
    learnt, traces, states = ppo._rewarded(play.help, scene, 0.5)
    assert learnt.tolist() == [1, 1.5, 2, 2.5]
    assert [float(state) for state in states] == [1, 1]
    steps = jax.tree.map(lambda trace: trace[None], traces)
    adapted = ppo._adapted(replace(play, help=states), steps, jnp.array([[1.0, 10.0, 100.0, 1000.0]]))
    assert [float(state) for state in adapted.help] == [1 + 10, 1 + 3200]
    alone = PPO(Table(), bandits, Shape(1, 1, 1))  # type: ignore[arg-type]
    assert alone._rewarded((), scene, 0.5)[0].tolist() == [1, 1, 1, 1]
