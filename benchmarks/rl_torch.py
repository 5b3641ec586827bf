"""An independent PQN: PyTorch, and the games of the package `minatar`, which are NumPy.

`python -m benchmarks.rl_torch --threads 1` needs torch and minatar, and no JAX; `benchmarks.rl_peer` starts it. It was
written from the pseudo-code of the paper (arXiv 2407.04811, algorithm 1) and shares nothing with
`scaling.tasks.rl` but the settings. One line of JSON each way:

    {"game", "seed", "frames", "settings": {...}}  ->  {"episode_return", "random_return", "train_return", "area"}

Axes: T steps, N environments, A actions.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from minatar import Environment
from torch import nn

from benchmarks.peer import serve

NAMES = {"asterix": "asterix", "breakout": "breakout", "space-invaders": "space_invaders"}
LIMIT = 1000  # steps after which gymnax cuts an episode of these games; minatar has no limit
EVALUATED, EVALUATION_EPSILON, RANDOM_EPISODES = 128, 0.05, 512
LAST = 0.1  # share of the rounds whose episodes are `train_return`
_EPSILON = 1e-6  # of layer norms


@dataclass(frozen=True)
class Seen:
    """One step of N games. last: observations by number of game, of those that were cut, before their reset."""

    observation_NxHxWxC: np.ndarray
    reward_N: np.ndarray
    terminated_N: np.ndarray
    truncated_N: np.ndarray
    last: dict[int, np.ndarray]


class Games:
    """N games side by side, without sticky actions, with the difficulty that rises; those that are over begin again."""

    def __init__(self, game: str, count: int, seed: int) -> None:
        self.games = [Environment(NAMES[game], sticky_action_prob=0.0, difficulty_ramping=True) for _ in range(count)]
        for game_, own in zip(self.games, np.random.SeedSequence(seed).generate_state(count), strict=True):
            game_.seed(int(own))
            game_.reset()
        self.actions = self.games[0].minimal_action_set()
        self.age_N = np.zeros(count, int)

    def observe(self) -> np.ndarray:
        """What every game shows, [N, H, W, C]."""
        return np.stack([game.state() for game in self.games]).astype(bool)

    def step(self, action_N: np.ndarray) -> Seen:
        """Act in every game."""
        count = len(self.games)
        reward_N, terminated_N, truncated_N = np.zeros(count, np.float32), np.zeros(count, bool), np.zeros(count, bool)
        last = {}
        for n, (game, action) in enumerate(zip(self.games, action_N, strict=True)):
            reward_N[n], terminated_N[n] = game.act(self.actions[action])
            self.age_N[n] += 1
            truncated_N[n] = not terminated_N[n] and self.age_N[n] >= LIMIT
            if truncated_N[n]:
                last[n] = np.asarray(game.state(), bool)
            if terminated_N[n] or truncated_N[n]:
                game.reset()
                self.age_N[n] = 0
        return Seen(self.observe(), reward_N, terminated_N, truncated_N, last)


class Network(nn.Module):
    """3 x 3 convolution, layer norm over its features, ReLU; flattened; linear, layer norm, ReLU; linear."""

    def __init__(self, channels: int, actions: int, d_conv: int, hidden: int) -> None:
        super().__init__()
        self.conv, self.conv_norm = nn.Conv2d(channels, d_conv, 3), nn.LayerNorm(d_conv, eps=_EPSILON)
        self.dense, self.dense_norm = nn.Linear(64 * d_conv, hidden), nn.LayerNorm(hidden, eps=_EPSILON)
        self.head = nn.Linear(hidden, actions)
        for layer in (self.conv, self.dense):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.normal_(self.head.weight, std=hidden**-0.5)
        for linear in (self.conv, self.dense, self.head):
            nn.init.zeros_(linear.bias)

    def forward(self, observation_BxHxWxC: torch.Tensor) -> torch.Tensor:
        x = self.conv(observation_BxHxWxC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = torch.relu(self.conv_norm(x)).flatten(1)
        return self.head(torch.relu(self.dense_norm(self.dense(x))))


def lambda_targets(
    reward_TxN: np.ndarray,
    next_value_TxN: np.ndarray,
    terminated_TxN: np.ndarray,
    truncated_TxN: np.ndarray,
    discount: float,
    trace: float,
) -> np.ndarray:
    """What Q is to predict: from the last step back, r + gamma (lambda G + (1 - lambda) V), r where the episode ended,
    and r + gamma V where it was cut or nothing more was seen."""
    target_TxN = np.zeros_like(reward_TxN)
    for t in reversed(range(len(reward_TxN))):
        after_N = next_value_TxN[t].copy()
        if t + 1 < len(reward_TxN):
            follows_N = ~truncated_TxN[t]
            after_N[follows_N] = (trace * target_TxN[t + 1] + (1 - trace) * next_value_TxN[t])[follows_N]
        target_TxN[t] = reward_TxN[t] + discount * np.where(terminated_TxN[t], 0, after_N)
    return target_TxN


class Training:
    """One training: `round` acts and learns, with the settings of value-rl."""

    def __init__(self, game: str, seed: int, settings: dict[str, Any]) -> None:
        torch.manual_seed(seed)
        self.settings, self.game, self.seed = settings, game, seed
        self.rng = np.random.default_rng(seed)
        self.games = Games(game, settings["n_envs"], seed)
        self.observation = self.games.observe()
        self.network = Network(
            self.observation.shape[-1], len(self.games.actions), settings["d_conv"], settings["d_expert"]
        )
        self.optimiser = torch.optim.RAdam(self.network.parameters(), lr=settings["lr"])
        self.score_N = np.zeros(settings["n_envs"])
        self.frames = 0

    def values(self, observation_BxHxWxC: np.ndarray) -> np.ndarray:
        """Q of every action, [B, A]."""
        with torch.inference_mode():
            return self.network(torch.from_numpy(observation_BxHxWxC.astype(np.float32))).numpy()

    def explored(self, q_NxA: np.ndarray, share: float) -> np.ndarray:
        """The best actions, a share of them replaced by random ones."""
        random_N = self.rng.integers(q_NxA.shape[1], size=len(q_NxA))
        return np.where(self.rng.random(len(q_NxA)) < share, random_N, q_NxA.argmax(axis=1))

    def round(self) -> list[float]:
        """Act in every game, then learn from what was seen; the returns of the episodes that were over."""
        one, seen, ended = self.settings, [], []
        share = 1 + (one["epsilon"] - 1) * min(1.0, self.frames / one["exploration_frames"])
        q_NxA = self.values(self.observation)
        for _ in range(one["n_steps"]):
            observation, action_N = self.observation, self.explored(q_NxA, share)
            step = self.games.step(action_N)
            self.observation, q_NxA = step.observation_NxHxWxC, self.values(step.observation_NxHxWxC)
            next_value_N = q_NxA.max(axis=1)
            for n, last in step.last.items():
                next_value_N[n] = self.values(last[None]).max()
            self.score_N += step.reward_N
            over_N = step.terminated_N | step.truncated_N
            ended += self.score_N[over_N].tolist()
            self.score_N[over_N] = 0
            seen.append((observation, action_N, step.reward_N, next_value_N, step.terminated_N, step.truncated_N))
        observation, action, *rest = map(np.stack, zip(*seen, strict=True))
        target = lambda_targets(*rest, one["discount"], one["trace"])
        self.learn(observation.reshape(-1, *observation.shape[2:]), action.ravel(), target.ravel())
        self.frames += len(action.ravel())
        return ended

    def learn(self, observation: np.ndarray, action: np.ndarray, target: np.ndarray) -> None:
        """Epochs of shuffled minibatches of half the squared error."""
        inputs = torch.from_numpy(observation.astype(np.float32))
        chosen, wanted = torch.from_numpy(action), torch.from_numpy(target.astype(np.float32))
        for _ in range(self.settings["n_epochs"]):
            for batch in torch.from_numpy(self.rng.permutation(len(action))).chunk(self.settings["n_minibatches"]):
                predicted = self.network(inputs[batch]).gather(1, chosen[batch, None])[:, 0]
                loss = 0.5 * torch.mean((predicted - wanted[batch]) ** 2)
                self.optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
                self.optimiser.step()

    def evaluate(self, episodes: int, share: float, seed: int) -> float:
        """Mean return of the first episode of so many new games, each to its end."""
        games = Games(self.game, episodes, seed)
        observation, score_N, alive_N = games.observe(), np.zeros(episodes), np.ones(episodes, bool)
        while alive_N.any():
            step = games.step(self.explored(self.values(observation), share))
            observation = step.observation_NxHxWxC
            score_N += np.where(alive_N, step.reward_N, 0)
            alive_N &= ~(step.terminated_N | step.truncated_N)
        return float(score_N.mean())


def trained(game: str, seed: int, frames: int, settings: dict[str, Any]) -> dict[str, float]:
    """Train for so many frames, in whole rounds, and measure as value-rl does."""
    training = Training(game, seed, settings)
    returns = []
    while training.frames < frames:
        returns.append(training.round())
    last = returns[-max(1, round(LAST * len(returns))) :]
    means = [float(np.mean(of_round)) if of_round else np.nan for of_round in returns]
    known = np.flatnonzero(np.isfinite(means))
    latest = [means[known[known <= place][-1]] for place in range(known[0], len(means))] if len(known) else [np.nan]
    return {
        "episode_return": training.evaluate(EVALUATED, EVALUATION_EPSILON, seed + 1_000_000),
        "random_return": training.evaluate(RANDOM_EPISODES, 1.0, seed + 2_000_000),
        "train_return": float(np.mean([score for of_round in last for score in of_round])),
        "area": float(np.mean(latest)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rl_torch")
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    serve(lambda request: trained(**request))


if __name__ == "__main__":
    main()
