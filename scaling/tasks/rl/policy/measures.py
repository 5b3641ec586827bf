"""Metrics of what happened inside actor and critic.

Axes: B observations, E experts, G games.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scaling.tasks.rl.inside import RANK_ROWS, dormancy, effective_rank, spread_rows
from scaling.tasks.rl.policy.network import TowerInside

Floats = NDArray[np.floating]


def inside_metrics(actor: TowerInside, critic: TowerInside, game_B: NDArray[np.integer]) -> dict[str, float]:
    """Dormancy of the hidden layers (`scaling.tasks.rl.inside`), rank of what the actor's last layer reads, and what
    routers do. NaN for routers where there is none, and for information on the game where there is one game."""
    towers = {"actor": actor, "critic": critic}
    found = {
        name: [
            dormancy(np.asarray(hidden), np.asarray(reached), np.random.default_rng(0))
            for hidden, reached in zip(tower.hidden, tower.reached, strict=True)
        ]
        for name, tower in towers.items()
    }
    every = [layer for layers in found.values() for layer in layers]
    gates = [np.asarray(one, dtype=float) for tower in towers.values() for one in tower.gates]
    some = spread_rows(len(game_B), RANK_ROWS)
    return {
        "dormant_frac": _mean([np.mean(layer.dormant) for layer in every]),
        "dormant_actor": _mean([np.mean(layer.dormant) for layer in found["actor"]]),
        "dormant_critic": _mean([np.mean(layer.dormant) for layer in found["critic"]]),
        "dormant_frac_worst": float(max(np.max(layer.dormant) for layer in every)),
        "silent_frac": _mean([np.mean(layer.silent) for layer in every]),
        "idle_experts": float(sum(np.sum(~np.any(one > 0, axis=0)) for one in gates)),
        "effective_rank": _mean([effective_rank(rows[some]) for rows in np.asarray(actor.features)]),
        "router_entropy": _mean([_over_ln_e(_entropy(_shares(one)).mean(), one) for one in gates]),
        "load_entropy": _mean([_over_ln_e(_entropy(_shares(one).mean(axis=0)), one) for one in gates]),
        "game_information": _mean([game_information(one, game_B) for one in gates]),
    }


def game_information(gates_BxE: Floats, game_B: NDArray[np.integer]) -> float:
    """The mutual information of expert and game over the entropy of games, with gates as probabilities of experts:

        I = H(mean over games of p_g) - mean over games of H(p_g),    p_g = mean gates of the observations of game g

    1 where every game has experts of its own, 0 where all use them alike; NaN for one game. Games count alike.
    """
    games = np.unique(game_B)
    if len(games) < 2:
        return float("nan")
    shares_BxE = _shares(gates_BxE)
    mean_GxE = np.stack([shares_BxE[game_B == game].mean(axis=0) for game in games])
    return float((_entropy(mean_GxE.mean(axis=0)) - _entropy(mean_GxE).mean()) / np.log(len(games)))


def _shares(gates_BxE: Floats) -> Floats:
    """Gates that sum to 1 in each row; those of top-k do not."""
    return np.asarray(gates_BxE / gates_BxE.sum(axis=1, keepdims=True))


def _entropy(shares: Floats) -> Floats:
    """Over the last axis, in nats."""
    return np.asarray(-np.sum(np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1)), 0), axis=-1))


def _over_ln_e(entropy: Floats | float, gates_BxE: Floats) -> float:
    """NaN of one expert, which has no entropy."""
    experts = gates_BxE.shape[1]
    return float(entropy / np.log(experts)) if experts > 1 else float("nan")


def _mean(values: Sequence[float | np.floating]) -> float:
    return float(np.mean([float(value) for value in values])) if values else float("nan")
