"""PQN: Q-learning with lambda-returns over parallel environments, without replay or target network.

Gallici et al., "Simplifying deep temporal difference learning", arXiv 2407.04811. It is chosen over DQN because acting
and learning are one compiled loop, and because no replay buffer, target network or their settings stand between an
arm and its returns. A round acts `n_steps` steps in each of N environments and learns from them `n_epochs` times in
shuffled minibatches, with RAdam and gradients of norm at most 10. Unlike the published code observations are not
divided by 255 and truncated episodes keep the value of what would have followed.

Axes: T steps, N environments, A actions, K rounds of a call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from scaling.tasks.rl.environment import Environments
from scaling.tasks.rl.inside import RANK_ROWS, ROWS, spread_rows
from scaling.tasks.rl.network import Inside, QNetwork
from scaling.tasks.rl.returns import lambda_returns
from scaling.tasks.rl.rewards.rule import Rule, Scene

MOST_NORM = 10.0  # of a gradient
DECISIONS = 1000  # of a loop whose time is the latency of so many decisions
PART = 16  # observations whose gradient is computed at once


@dataclass(frozen=True)
class Shape:
    """What a round is made of; each shape is a program of its own."""

    n_steps: int
    n_minibatches: int
    n_epochs: int
    discount: float
    trace: float


@struct.dataclass
class Schedule:
    """Numbers that programs take as arguments: settings of these names, as in `scaling.tasks.value_rl`."""

    lr: float
    decay_frames: float
    exploration_frames: float
    epsilon: float
    reward_weight: float

    def rate(self, frame: jax.Array) -> jax.Array:
        """Learning rate after so many frames."""
        left = jnp.clip(1 - frame / jnp.maximum(self.decay_frames, 1), 0, 1)
        return self.lr * jnp.where(self.decay_frames > 0, left, 1.0)

    def random_share(self, frame: jax.Array) -> jax.Array:
        """Share of random actions after so many frames."""
        return 1 + (self.epsilon - 1) * jnp.clip(frame / self.exploration_frames, 0, 1)


@struct.dataclass
class Learner:
    """Everything that a training is at one moment.

    variables: of the network.   moments: of the optimiser.   score_N: own reward so far in each environment's episode.
    help: state of the rule of reward, () without one.
    """

    variables: Any
    moments: Any
    world: Any
    observation_NxHxWxC: jax.Array
    score_N: jax.Array
    rounds: jax.Array
    key: jax.Array
    help: Any


@struct.dataclass
class Transitions:
    """What was seen in T steps. reward: what is learnt from.   next_value: max_a Q of the state that each step led to,
    before any reset.   adapts_by: for a rule of reward that adapts, its trace and the value of the policy in the
    state that was acted in, max_a Q but for random actions; else ().
    """

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    next_value: jax.Array
    adapts_by: Any


@struct.dataclass
class Records:
    """What each round reported, [K]: sum of the returns of episodes that ended, their number, the mean loss, and the
    mean over steps of the reward that was learnt from."""

    return_sum: jax.Array
    episodes: jax.Array
    loss: jax.Array
    learnt: jax.Array


@dataclass(frozen=True)
class PQN:
    """The learner of one network, game, shape of rounds and rule of reward, as functions that are compiled by
    `scaling.tasks.rl.programs`. Without a rule it learns from the environment's own reward; returns are always of that.
    """

    network: QNetwork
    environments: Environments
    shape: Shape
    rule: Rule | None = None

    @property
    def frames(self) -> int:
        """Frames of one round."""
        return self.shape.n_steps * self.environments.count

    def start(self, key: jax.Array) -> Learner:
        """A learner with new weights in new episodes."""
        weights_key, world_key, own_key = jax.random.split(key, 3)
        observation, world = self.environments.reset(world_key)
        variables = {"constants": {}, **self.network.init(weights_key, observation)}
        moments = _optimiser().init(variables["params"])
        score = jnp.zeros(self.environments.count)
        help_ = () if self.rule is None else self.rule.start()
        return Learner(variables, moments, world, observation, score, jnp.int32(0), own_key, help_)

    def advance(self, learner: Learner, schedule: Schedule, count: jax.Array, room: int) -> tuple[Learner, Records]:
        """`count` rounds of at most `room`; records after them are zero.

        What happens in a round depends on the key, the round's number and the schedule alone, so that a longer training
        begins with the shorter ones.
        """

        def one(place: jax.Array, state: tuple[Learner, Records]) -> tuple[Learner, Records]:
            learner, records = state
            learner, record = self._round(learner, schedule)
            return learner, jax.tree.map(lambda all_, own: all_.at[place].set(own), records, record)

        nothing = Records(*(jnp.zeros(room) for _ in range(4)))
        return jax.lax.fori_loop(0, count, one, (learner, nothing))

    def evaluate(self, variables: Any, key: jax.Array, random_share: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns of the first episode of each environment, [N], with that share of random actions; and the
        observations of the last `n_steps` steps in all of them, [T N, ...].

        First episodes alone, each to its end: over a fixed number of steps short episodes would count more often.
        """
        start_key, own_key = jax.random.split(key)
        observation, world = self.environments.reset(start_key)
        limit, count = self.environments.parameters.max_steps_in_episode, self.environments.count
        kept = self.shape.n_steps

        def playing(state: tuple[Any, ...]) -> jax.Array:
            alive_N, step = state[3:5]
            return (jnp.any(alive_N) & (step < limit)) | (step < kept)

        def act(state: tuple[Any, ...]) -> tuple[Any, ...]:
            observation, world, score_N, alive_N, step, seen_before = state
            act_key, step_key = jax.random.split(jax.random.fold_in(own_key, step))
            action_N = _explored(self._values(variables, observation), act_key, random_share)
            seen = self.environments.step(step_key, world, action_N)
            score_N = score_N + jnp.where(alive_N, seen.reward_N, 0)
            alive_N &= ~(seen.terminated_N | seen.truncated_N)
            seen_before = seen_before.at[step % kept].set(observation)
            return seen.observation_NxHxWxC, seen.world, score_N, alive_N, step + 1, seen_before

        buffer = jnp.zeros((kept, *observation.shape), bool)
        first = (observation, world, jnp.zeros(count), jnp.ones(count, bool), jnp.int32(0), buffer)
        last = jax.lax.while_loop(playing, act, first)
        return last[2], last[5].reshape(-1, *observation.shape[1:])

    def decide(self, variables: Any, observation_1xHxWxC: jax.Array) -> jax.Array:
        """`DECISIONS` forward passes of one observation, one after another; the sum of the values."""

        def one(_: Any, total: jax.Array) -> jax.Array:
            # Each pass needs the one before it, so that none is left out or moved out of the loop.
            observation, total = jax.lax.optimization_barrier((observation_1xHxWxC, total))
            return total + jnp.sum(self._values(variables, observation ^ (total > jnp.inf)))

        return jax.lax.fori_loop(0, DECISIONS, one, jnp.float32(0))

    def inspect(self, variables: Any, observation_BxHxWxC: jax.Array) -> Inside:
        """What happens inside the network: of its layer on as many observations as give an expert `ROWS` rows, of what
        the head reads on `RANK_ROWS` of them."""
        layer = self.network.layer
        enough = 8 * ROWS // layer.rows  # an expert of a top-1 router may be reached by few rows
        of_head, of_layer = (
            self._inside(variables, observation_BxHxWxC[spread_rows(len(observation_BxHxWxC), most)])
            for most in (RANK_ROWS, enough)
        )
        return replace(of_layer, features_BxH=of_head.features_BxH)

    def _values(self, variables: Any, observation_BxHxWxC: jax.Array) -> jax.Array:
        q_BxA: Any = self.network.apply(variables, observation_BxHxWxC)
        return q_BxA

    def _inside(self, variables: Any, observation_BxHxWxC: jax.Array) -> Inside:
        found: Any = self.network.apply(variables, observation_BxHxWxC, inspect=True)
        return found[1]

    def _round(self, learner: Learner, schedule: Schedule) -> tuple[Learner, Records]:
        act_key, learn_key = jax.random.split(jax.random.fold_in(learner.key, learner.rounds))
        frame = learner.rounds * self.frames
        learner, seen, ended = self.act(learner, act_key, schedule.random_share(frame), schedule.reward_weight)
        learner, loss = self._learn(learner, seen, learn_key, schedule.rate(frame))
        return replace(learner, rounds=learner.rounds + 1), Records(*ended, loss, jnp.mean(seen.reward))

    def act(
        self, learner: Learner, key: jax.Array, random_share: jax.Array, reward_weight: jax.Array | float = 1.0
    ) -> tuple[Learner, Transitions, tuple[jax.Array, jax.Array]]:
        """T steps in every environment; also the sum of the returns of episodes that ended, and their number."""
        values = functools.partial(self._values, learner.variables)

        def step(state: tuple[Any, ...], key: jax.Array) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
            observation, q_NxA, world, score_N, help_ = state
            act_key, step_key = jax.random.split(key)
            action_N = _explored(q_NxA, act_key, random_share)
            seen = self.environments.step(step_key, world, action_N)
            next_q_NxA = values(seen.observation_NxHxWxC)
            # Cuts are rare, and only they lead to a state whose value is not needed for the next action too.
            next_value_N = jax.lax.cond(
                jnp.any(seen.truncated_N),
                lambda: jnp.where(seen.truncated_N, *(jnp.max(q, axis=-1) for q in (
                    values(seen.last_NxHxWxC), next_q_NxA))),
                lambda: jnp.max(next_q_NxA, axis=-1),
            )  # fmt: skip
            scene = Scene(observation, action_N, seen.reward_N, seen.last_NxHxWxC, seen.terminated_N, seen.truncated_N)
            learnt_N, trace, help_ = self._rewarded(help_, scene, reward_weight)
            score_N = score_N + seen.reward_N
            over_N = seen.terminated_N | seen.truncated_N
            ended = jnp.sum(jnp.where(over_N, score_N, 0)), jnp.sum(over_N, dtype=jnp.float32)
            expected_N = (1 - random_share) * jnp.max(q_NxA, axis=-1) + random_share * jnp.mean(q_NxA, axis=-1)
            adapts_by = (trace, expected_N) if self.rule is not None and self.rule.adapts else ()
            transition = Transitions(
                observation, action_N, learnt_N, seen.terminated_N, seen.truncated_N, next_value_N, adapts_by
            )
            state = (seen.observation_NxHxWxC, next_q_NxA, seen.world, jnp.where(over_N, 0, score_N), help_)
            return state, (transition, ended)

        start_q_NxA = values(learner.observation_NxHxWxC)
        first = (learner.observation_NxHxWxC, start_q_NxA, learner.world, learner.score_N, learner.help)
        last, (seen, ended) = jax.lax.scan(step, first, jax.random.split(key, self.shape.n_steps))
        learner = replace(learner, observation_NxHxWxC=last[0], world=last[2], score_N=last[3], help=last[4])
        return learner, seen, (jnp.sum(ended[0]), jnp.sum(ended[1]))

    def _rewarded(self, state: Any, scene: Scene, weight: jax.Array | float) -> tuple[jax.Array, Any, Any]:
        """What is learnt from, and the trace and state of the rule."""
        if self.rule is None:
            return scene.reward_N, (), state
        return self.rule.learnt(state, scene, weight)

    def _learn(self, learner: Learner, seen: Transitions, key: jax.Array, rate: jax.Array) -> tuple[Learner, jax.Array]:
        """Epochs of minibatches over what was seen; also the mean loss."""
        shape, constants = self.shape, learner.variables["constants"]
        target_TxN = lambda_returns(
            seen.reward, seen.next_value, seen.terminated, seen.truncated, shape.discount, shape.trace
        )
        help_ = learner.help
        if self.rule is not None and self.rule.adapts:
            trace, expected_TxN = seen.adapts_by
            help_ = self.rule.adapt(help_, trace, target_TxN - expected_TxN)
        rows = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (seen.observation, seen.action, target_TxN))

        def loss_of(params: Any, batch: tuple[jax.Array, ...]) -> jax.Array:
            observation, action_B, target_B = batch
            q_BxA = self._values({"params": params, "constants": constants}, observation)
            chosen_B = jnp.sum(jnp.where(action_B[:, None] == jnp.arange(q_BxA.shape[-1]), q_BxA, 0), axis=-1)
            return 0.5 * jnp.mean((chosen_B - target_B) ** 2)

        def descend(state: tuple[Any, Any], chosen: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
            params, moments = state
            loss, gradient = mean_gradient(loss_of, params, jax.tree.map(lambda a: a[chosen], rows))
            direction, moments = _optimiser().update(gradient, moments)
            return (jax.tree.map(lambda p, d: p - rate * d, params, direction), moments), loss

        orders = jax.vmap(lambda k: jax.random.permutation(k, self.frames))(jax.random.split(key, shape.n_epochs))
        minibatches = orders.reshape(shape.n_epochs * shape.n_minibatches, -1)
        start = (learner.variables["params"], learner.moments)
        (params, moments), losses = jax.lax.scan(descend, start, minibatches)
        variables = {"params": params, "constants": constants}
        return replace(learner, variables=variables, moments=moments, help=help_), jnp.mean(losses)


def mean_gradient(
    loss_of: Callable[[Any, Any], jax.Array], params: Any, batch: tuple[jax.Array, ...]
) -> tuple[jax.Array, Any]:
    """A loss that is a mean over rows, and its gradient: the mean of those of parts of `PART` rows, one after another.

    What is between layers then stays in the cache of a core: with 64 tokens an observation twice as fast as the whole.
    """
    rows = len(batch[0])
    parts = rows // PART if rows % PART == 0 else 1

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(
            lambda sum_, own: sum_ + own / parts, total, jax.value_and_grad(loss_of)(params, part)
        ), None

    nothing = jnp.float32(0), jax.tree.map(jnp.zeros_like, params)
    total: tuple[jax.Array, Any]
    total, _ = jax.lax.scan(add, nothing, jax.tree.map(lambda a: a.reshape(parts, -1, *a.shape[1:]), batch))
    return total


def _optimiser() -> optax.GradientTransformation:
    """RAdam on clipped gradients, without the learning rate."""
    return optax.chain(optax.clip_by_global_norm(MOST_NORM), optax.scale_by_radam())


def _explored(q_NxA: jax.Array, key: jax.Array, random_share: jax.Array) -> jax.Array:
    """The best actions, a share of them replaced by random ones."""
    coin_key, action_key = jax.random.split(key)
    random_N = jax.random.randint(action_key, q_NxA.shape[:1], 0, q_NxA.shape[-1])
    explores_N = jax.random.uniform(coin_key, q_NxA.shape[:1]) < random_share
    return jnp.where(explores_N, random_N, jnp.argmax(q_NxA, axis=-1))
