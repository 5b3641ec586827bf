"""The features of observations, computed in JAX.

Axes: any leading ones, then H rows, W columns and C channels of a 0/1 observation, as gymnax's MinAtar has them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from scaling.tasks.rl.games import SIDE

Features = dict[str, jax.Array]
FAR = 2 * (SIDE - 1)  # no two places are further apart, columns and rows together
_ROWS, _COLUMNS = np.indices((SIDE, SIDE), dtype=np.int32)


def observed(game: str, observation: jax.Array) -> Features:
    """The features of `scaling.tasks.rl.rewards.features`, float32, each of the leading shape of the observation.

    Channels beyond the game's own, such as padding, are not read. Raises KeyError for a game without features.
    """
    found = _GAMES[game](observation)
    return {name: value.astype(jnp.float32) for name, value in found.items()}


def _breakout(observation: jax.Array) -> Features:
    """Channels: paddle, ball, the ball's place one step before, bricks."""
    _, paddle_x = _place(observation[..., 0])
    ball_y, ball_x = _place(observation[..., 1])
    last_y, last_x = _place(observation[..., 2])
    dx, dy = ball_x - last_x, ball_y - last_y
    landing_x = _landing(ball_x, ball_y, dx, dy)
    return {
        "paddle_x": paddle_x,
        "ball_x": ball_x,
        "ball_y": ball_y,
        "ball_dx": dx,
        "ball_dy": dy,
        "bricks": jnp.sum(observation[..., 3], axis=(-2, -1)),
        "landing_x": landing_x,
        "landing_distance": jnp.abs(paddle_x - landing_x),
    }


def _landing(x: jax.Array, y: jax.Array, dx: jax.Array, dy: jax.Array) -> jax.Array:
    """The column in which a falling ball reaches the last row.

    It moves one column and one row a step; at a side wall it stays in its column for one step and turns, so its column
    is that of a straight path folded at the walls with a period of 2 SIDE. Its last move has no column at a wall alone,
    from which it comes back. A ball that has not moved vertically has just met the paddle, above it, and rises, or a
    brick, and is taken to fall.
    """
    heading = jnp.where(dx != 0, dx, jnp.where(x == 0, 1, -1))
    falls = (dy > 0) | ((dy == 0) & (y < SIDE - 2))
    straight = jnp.mod(x + heading * (SIDE - 1 - y), 2 * SIDE)
    return jnp.where(falls, jnp.minimum(straight, 2 * SIDE - 1 - straight), x)


def _asterix(observation: jax.Array) -> Features:
    """Channels: player, enemies, where they and the gold come from, gold."""
    player_y, player_x = _place(observation[..., 0])
    enemy, gold = observation[..., 1], observation[..., 3]
    down, right = _ROWS - player_y[..., None, None], _COLUMNS - player_x[..., None, None]
    distance = jnp.abs(down) + jnp.abs(right)
    to_gold = _least(gold, distance, FAR)
    any_gold = jnp.any(gold, axis=(-2, -1))
    nearest = jnp.argmin(jnp.where(gold != 0, distance, FAR + 1).reshape(*to_gold.shape, -1), axis=-1)
    return {
        "player_x": player_x,
        "player_y": player_y,
        "enemies": jnp.sum(enemy, axis=(-2, -1)),
        "golds": jnp.sum(gold, axis=(-2, -1)),
        "enemy_distance": _least(enemy, distance, FAR),
        "gold_distance": to_gold,
        "gold_dx": jnp.where(any_gold, nearest % SIDE - player_x, 0),
        "gold_dy": jnp.where(any_gold, nearest // SIDE - player_y, 0),
        "enemy_in_row": _least((enemy != 0) & (down == 0), jnp.abs(right), SIDE),
    }


def _space_invaders(observation: jax.Array) -> Features:
    """Channels: cannon, aliens, those that move left, those that move right, own bullets, enemy bullets."""
    _, cannon_x = _place(observation[..., 0])
    alien, own, enemy = observation[..., 1], observation[..., 4], observation[..., 5]
    across = jnp.abs(_COLUMNS - cannon_x[..., None, None])
    return {
        "cannon_x": cannon_x,
        "aliens": jnp.sum(alien, axis=(-2, -1)),
        "alien_y": jnp.max(jnp.where(alien != 0, _ROWS, 0), axis=(-2, -1)),
        "alien_distance": _least(alien, across, SIDE),
        "bullet_above": _least((enemy != 0) & (across == 0), SIDE - 1 - _ROWS, SIDE),
        "own_bullets": jnp.sum(own, axis=(-2, -1)),
    }


_GAMES: dict[str, Callable[[jax.Array], Features]] = {
    "breakout": _breakout,
    "asterix": _asterix,
    "space-invaders": _space_invaders,
}


def _place(channel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Row and column of the one place that is set."""
    place = jnp.argmax(channel.reshape(*channel.shape[:-2], SIDE * SIDE), axis=-1)
    return place // SIDE, place % SIDE


def _least(channel: jax.Array, distance: jax.Array | NDArray[np.int32], without: int) -> jax.Array:
    """The least distance over the places that are set; `without` where none is."""
    return jnp.min(jnp.where(channel != 0, distance, without), axis=(-2, -1))
