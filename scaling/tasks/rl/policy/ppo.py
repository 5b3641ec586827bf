"""PPO (Schulman et al., arXiv 1707.06347) over parallel environments of one or several games.

Settings and losses are those of PureJaxRL for MinAtar, but for the ends of episodes: one that is cut at the time limit
keeps the value of what would have followed. A round acts T steps in each of N environments and learns from them
`n_epochs` times in shuffled minibatches, with Adam.

Axes: T steps, N environments, B rows of a minibatch, G games, A actions, K rounds of a call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from scaling.tasks.rl.policy.learner import Learner, Losses, Play, Records, Schedule, Shape, Transitions
from scaling.tasks.rl.policy.network import ActorCritic
from scaling.tasks.rl.policy.worlds import Worlds
from scaling.tasks.rl.returns import lambda_returns
from scaling.tasks.rl.rewards.rule import Rule, Scene

_LEAST_SPREAD = 1e-8  # added to the standard deviation of advantages
_LEAST_NORM = 1e-12
_ADAM = optax.scale_by_adam(eps=1e-5)


@dataclass(frozen=True)
class PPO:
    """The learner of one network, its games and the shape of its rounds, as functions that `programs` compiles.

    rules: of reward, one a game; without them it learns from the environment's own, and returns are always of that.
    """

    network: ActorCritic
    worlds: Worlds
    shape: Shape
    rules: tuple[Rule, ...] = ()

    @property
    def frames(self) -> int:
        """Frames of one round."""
        return self.shape.n_steps * self.worlds.count

    def begin(self, key: jax.Array) -> Play:
        """New episodes in every environment."""
        observation, world = self.worlds.reset(key)
        return Play(world, observation, jnp.zeros(self.worlds.count), tuple(rule.start() for rule in self.rules))

    def advance(self, learner: Learner, schedule: Schedule, count: jax.Array, room: int) -> tuple[Learner, Records]:
        """`count` rounds of at most `room`; records after them are zero.

        What happens in a round depends on the key, the round's number and the schedule alone, so that a longer training
        begins with the shorter ones.
        """

        def one(place: jax.Array, state: tuple[Learner, Records]) -> tuple[Learner, Records]:
            learner, records = state
            learner, record = self._round(learner, schedule)
            return learner, jax.tree.map(lambda all_, own: all_.at[place].set(own), records, record)

        by_game = jnp.zeros((room, len(self.worlds.games)))
        nothing = Records(by_game, by_game, Losses(*(jnp.zeros(room) for _ in range(5))), jnp.zeros(room))
        return jax.lax.fori_loop(0, count, one, (learner, nothing))

    def evaluate(
        self, params: Any, key: jax.Array, first_task: jax.Array, weight: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns of the first episode of each environment, [N], acting by the policy; and the observations of the last
        `n_steps` steps in all of them, [T, N, ...].

        weight: of the logits; 0 for random actions among those of the game.
        First episodes alone, each to its end: over a fixed number of steps short episodes would count more often.
        """
        start_key, own_key = jax.random.split(key)
        play, kept = self.begin(start_key), self.shape.n_steps
        task_N = first_task + self.worlds.game_N

        def playing(state: tuple[Any, ...]) -> jax.Array:
            _, alive_N, step, _ = state
            return (jnp.any(alive_N) & (step < self.worlds.limit)) | (step < kept)

        def act(state: tuple[Any, ...]) -> tuple[Any, ...]:
            play, alive_N, step, seen_before = state
            act_key, step_key = jax.random.split(jax.random.fold_in(own_key, step))
            logits_NxA, _ = self._outputs(params, play.observation_NxHxWxC, task_N)
            action_N = jax.random.categorical(act_key, self.worlds.legal(weight * logits_NxA, self.worlds.game_N))
            seen = self.worlds.step(step_key, play.world, action_N)
            score_N = play.score_N + jnp.where(alive_N, seen.reward_N, 0)
            alive_N &= ~(seen.terminated_N | seen.truncated_N)
            seen_before = seen_before.at[step % kept].set(play.observation_NxHxWxC)
            play = Play(seen.world, seen.observation_NxHxWxC, score_N, play.help)
            return play, alive_N, step + 1, seen_before

        buffer = jnp.zeros((kept, *play.observation_NxHxWxC.shape), bool)
        last = jax.lax.while_loop(playing, act, (play, jnp.ones(self.worlds.count, bool), jnp.int32(0), buffer))
        return last[0].score_N, last[3]

    def act(
        self, learner: Learner, key: jax.Array, first_task: jax.Array, reward_weight: jax.Array | float = 1.0
    ) -> tuple[Learner, Transitions, Any, Any]:
        """T steps in every environment; also the sum of the returns of episodes that ended, and their number, [G]; and
        the traces of the rules."""
        worlds = self.worlds
        task_N = first_task + worlds.game_N

        def seen_by_network(observation: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits_NxA, value_N = self._outputs(learner.params, observation, task_N)
            return worlds.legal(logits_NxA, worlds.game_N), value_N

        def step(state: tuple[Any, ...], key: jax.Array) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
            play, logits_NxA, value_N = state
            act_key, step_key = jax.random.split(key)
            action_N = jax.random.categorical(act_key, logits_NxA)
            seen = worlds.step(step_key, play.world, action_N)
            next_logits_NxA, next_value_N = seen_by_network(seen.observation_NxHxWxC)
            # Cuts are rare, and only they lead to a state whose value is not needed for the next action too.
            last_value_N = jax.lax.cond(
                jnp.any(seen.truncated_N),
                lambda: jnp.where(seen.truncated_N, seen_by_network(seen.last_NxHxWxC)[1], next_value_N),
                lambda: next_value_N,
            )
            score_N = play.score_N + seen.reward_N
            over_N = seen.terminated_N | seen.truncated_N
            scene = Scene(
                play.observation_NxHxWxC,
                action_N,
                seen.reward_N,
                seen.last_NxHxWxC,
                seen.terminated_N,
                seen.truncated_N,
            )
            learnt_N, traces, help_ = self._rewarded(play.help, scene, reward_weight)
            transition = Transitions(
                play.observation_NxHxWxC, action_N, _log_prob(logits_NxA, action_N), value_N, learnt_N,
                seen.terminated_N, seen.truncated_N, last_value_N,
            )  # fmt: skip
            play = Play(seen.world, seen.observation_NxHxWxC, jnp.where(over_N, 0, score_N), help_)
            ended = jnp.where(over_N, score_N, 0), over_N.astype(jnp.float32)
            return (play, next_logits_NxA, next_value_N), (transition, ended, traces)

        first = (learner.play, *seen_by_network(learner.play.observation_NxHxWxC))
        last, (seen, ended, traces) = jax.lax.scan(step, first, jax.random.split(key, self.shape.n_steps))
        by_game = [jnp.sum(one.reshape(-1, len(worlds.games), worlds.count // len(worlds.games)), axis=(0, 2))
                   for one in ended]  # fmt: skip
        return replace(learner, play=last[0]), seen, tuple(by_game), traces

    def _rewarded(self, states: Any, scene: Scene, weight: jax.Array | float) -> tuple[jax.Array, Any, Any]:
        """What is learnt from, [N], and the traces and states of the rules."""
        if not self.rules:
            return scene.reward_N, (), states
        found = [
            rule.learnt(state, jax.tree.map(lambda a, own=own: a[own], scene), weight)
            for rule, state, own in zip(self.rules, states, self._of_games(), strict=True)
        ]
        learnt_N = jnp.concatenate([learnt for learnt, _, _ in found])
        return learnt_N, tuple(trace for _, trace, _ in found), tuple(state for _, _, state in found)

    def _adapted(self, play: Play, traces: Any, advantage_TxN: jax.Array) -> Play:
        """The states of the rules after a round."""
        rules = zip(self.rules, play.help, traces, self._of_games(), strict=True) if self.rules else ()
        adapted = (
            rule.adapt(state, trace, advantage_TxN[:, own]) if rule.adapts else state
            for rule, state, trace, own in rules
        )
        return replace(play, help=tuple(adapted))

    def _outputs(self, params: Any, observation_BxHxWxC: jax.Array, task_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Logits of all actions [B, A] and values [B]."""
        found: Any = self.network.apply({"params": params}, observation_BxHxWxC, task_B)
        return found[0], found[1]

    def _of_games(self) -> list[slice]:
        """The environments of each game."""
        each = self.worlds.count // len(self.worlds.games)
        return [slice(number * each, (number + 1) * each) for number in range(len(self.worlds.games))]

    def loss(
        self, params: Any, rows: tuple[Transitions, jax.Array, jax.Array], schedule: Schedule
    ) -> tuple[jax.Array, Losses]:
        """Clipped surrogate, half the clipped squared error of the value, and entropy, of rows (transitions, returns
        [B], number of the game [B]); advantages, return less value, are standardised over the rows."""
        seen, return_B, game_B = rows
        logits_BxA, value_B = self._outputs(params, seen.observation, schedule.first_task + game_B)
        log_BxA = jax.nn.log_softmax(self.worlds.legal(logits_BxA, game_B))
        log_ratio_B = _chosen(log_BxA, seen.action) - seen.log_prob
        ratio_B = jnp.exp(log_ratio_B)
        advantage_B = return_B - seen.value
        advantage_B = (advantage_B - jnp.mean(advantage_B)) / (jnp.std(advantage_B) + _LEAST_SPREAD)
        near_B = jnp.clip(ratio_B, 1 - schedule.clip, 1 + schedule.clip)
        policy = -jnp.mean(jnp.minimum(ratio_B * advantage_B, near_B * advantage_B))
        moved_B = seen.value + jnp.clip(value_B - seen.value, -schedule.clip, schedule.clip)
        value = 0.5 * jnp.mean(jnp.maximum((value_B - return_B) ** 2, (moved_B - return_B) ** 2))
        entropy = -jnp.mean(jnp.sum(jnp.exp(log_BxA) * log_BxA, axis=-1))
        total = policy + schedule.value_weight * value - schedule.entropy_weight * entropy
        kl = jnp.mean(ratio_B - 1 - log_ratio_B)
        clipped = jnp.mean(jnp.abs(ratio_B - 1) > schedule.clip)
        return total, Losses(policy, value, entropy, kl, clipped)

    def _round(self, learner: Learner, schedule: Schedule) -> tuple[Learner, Records]:
        act_key, learn_key = jax.random.split(jax.random.fold_in(learner.key, learner.rounds))
        learner, seen, ended, traces = self.act(learner, act_key, schedule.first_task, schedule.reward_weight)
        return_TxN = lambda_returns(
            seen.reward, seen.next_value, seen.terminated, seen.truncated, schedule.discount, schedule.trace
        )
        play = self._adapted(learner.play, traces, return_TxN - seen.value)
        learner, losses = self._learn(learner, seen, return_TxN, learn_key, schedule)
        records = Records(ended[0], ended[1], losses, jnp.mean(seen.reward))
        return replace(learner, play=play, rounds=learner.rounds + 1), records

    def _learn(
        self, learner: Learner, seen: Transitions, return_TxN: jax.Array, key: jax.Array, schedule: Schedule
    ) -> tuple[Learner, Losses]:
        """Epochs of minibatches over what was seen, and their mean losses."""
        shape, rate = self.shape, schedule.rate(learner.rounds, self.frames)
        game_TxN = jnp.broadcast_to(self.worlds.game_N, return_TxN.shape)
        rows = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (seen, return_TxN, game_TxN))

        def descend(state: tuple[Any, Any], chosen: jax.Array) -> tuple[tuple[Any, Any], Losses]:
            params, moments = state
            batch = jax.tree.map(lambda a: a[chosen], rows)
            gradient, losses = jax.grad(self.loss, has_aux=True)(params, batch, schedule)
            norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
            shrink = jnp.minimum(1.0, schedule.most_norm / (norm + _LEAST_NORM))
            direction, moments = _ADAM.update(jax.tree.map(lambda g: shrink * g, gradient), moments)
            return (jax.tree.map(lambda p, d: p - rate * d, params, direction), moments), losses

        orders = jax.vmap(lambda k: jax.random.permutation(k, self.frames))(jax.random.split(key, shape.n_epochs))
        minibatches = orders.reshape(shape.n_epochs * shape.n_minibatches, -1)
        (params, moments), losses = jax.lax.scan(descend, (learner.params, learner.moments), minibatches)
        return replace(learner, params=params, moments=moments), jax.tree.map(jnp.mean, losses)


def new_moments(params: Any) -> Any:
    """Of the optimiser, before its first step."""
    return _ADAM.init(params)


def _chosen(values_BxA: jax.Array, action_B: jax.Array) -> jax.Array:
    """The value of the action of each row, [B]."""
    return jnp.sum(jnp.where(action_B[:, None] == jnp.arange(values_BxA.shape[-1]), values_BxA, 0), axis=-1)


def _log_prob(logits_NxA: jax.Array, action_N: jax.Array) -> jax.Array:
    return _chosen(jax.nn.log_softmax(logits_NxA), action_N)
