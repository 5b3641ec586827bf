"""Features of observations, against drawn examples and against the games themselves."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling.tasks.rl.games import GAMES
from scaling.tasks.rl.rewards.features import FEATURES
from scaling.tasks.rl.rewards.observed import observed


def drawn(channels: int, **places: list[tuple[int, int]]) -> np.ndarray:
    """An observation with these places (row, column) set, by channel: c0=[(9, 4)]."""
    made = np.zeros((10, 10, channels), bool)
    for name, of_channel in places.items():
        for row, column in of_channel:
            made[row, column, int(name[1:])] = True
    return made


def features(game: str, observation: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in observed(game, jnp.asarray(observation)).items()}


def test_breakout() -> None:
    """The ball moves right and down from (3, 6): rows 4 to 9 are columns 7, 8, 9, 9, 8, 7 by the wall's one step."""
    found = features("breakout", drawn(4, c0=[(9, 2)], c1=[(3, 6)], c2=[(2, 5)], c3=[(1, 0), (2, 9)]))
    assert found == {
        "paddle_x": 2, "ball_x": 6, "ball_y": 3, "ball_dx": 1, "ball_dy": 1, "bricks": 2, "landing_x": 7,
        "landing_distance": 5,
    }  # fmt: skip
    rising = features("breakout", drawn(4, c0=[(9, 2)], c1=[(5, 6)], c2=[(6, 5)]))
    assert (rising["ball_dy"], rising["landing_x"], rising["landing_distance"]) == (-1, 6, 4)


def test_asterix() -> None:
    """The player at (5, 5); gold at (5, 9) and (3, 4), 4 and 3 steps away; enemies at (4, 5) and (5, 2)."""
    found = features("asterix", drawn(4, c0=[(5, 5)], c1=[(4, 5), (5, 2)], c3=[(5, 9), (3, 4)]))
    assert found == {
        "player_x": 5, "player_y": 5, "enemies": 2, "golds": 2, "enemy_distance": 1, "gold_distance": 3, "gold_dx": -1,
        "gold_dy": -2, "enemy_in_row": 3,
    }  # fmt: skip
    alone = features("asterix", drawn(4, c0=[(5, 5)]))
    assert (alone["enemy_distance"], alone["gold_distance"], alone["enemy_in_row"]) == (18, 18, 10)
    assert (alone["gold_dx"], alone["gold_dy"]) == (0, 0)


def test_space_invaders_with_further_channels() -> None:
    """The cannon in column 5; aliens in columns 2 and 3, the lowest in row 4; bullets in rows 6 (column 5) and 8."""
    found = features(
        "space-invaders", drawn(10, c0=[(9, 5)], c1=[(0, 2), (4, 3)], c4=[(7, 5)], c5=[(6, 5), (8, 1)], c9=[(1, 1)])
    )
    assert found == {
        "cannon_x": 5, "aliens": 2, "alien_y": 4, "alien_distance": 2, "bullet_above": 3, "own_bullets": 1,
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("game", FEATURES)
def test_features_stay_in_their_ranges_and_say_what_the_game_does(game: str) -> None:
    """In random play. In Breakout, a ball that ends an episode is in the column that was foretold three rows above, and
    not one of the paddle's."""
    pytest.importorskip("gymnax")
    from scaling.tasks.rl.environment import environments

    worlds, steps, count = environments(game, 16), 150, 16

    def step(state: tuple, key: jax.Array) -> tuple:  # type: ignore[type-arg]
        observation, world = state
        action = jax.random.randint(key, (count,), 0, GAMES[game].actions)
        seen = worlds.step(key, world, action)
        found = observed(game, observation), observed(game, seen.last_NxHxWxC), seen.terminated_N, seen.reward_N
        return (seen.observation_NxHxWxC, seen.world), found

    play = jax.jit(lambda key: jax.lax.scan(step, worlds.reset(key), jax.random.split(key, steps))[1])
    before, after, ended, reward = jax.tree.map(np.asarray, play(jax.random.key(0)))
    for name, feature in FEATURES[game].items():
        for found in (before[name], after[name]):
            assert found.min() >= feature.low, name
            assert found.max() <= feature.high, name
            np.testing.assert_array_equal(found, np.round(found))
    if game == "breakout":
        assert ended.sum() > 20
        np.testing.assert_array_equal((before["bricks"] - after["bricks"])[~ended & (after["bricks"] < 30)],
                                      reward[~ended & (after["bricks"] < 30)])  # fmt: skip
        foretold, fell = before["landing_x"][:-2][ended[2:]], after["ball_x"][2:][ended[2:]]
        assert (after["ball_y"][ended] == 9).all()
        falling = (before["ball_y"][:-2][ended[2:]] == 6) & (before["ball_dy"][:-2][ended[2:]] == 1)
        assert falling.sum() > 10
        np.testing.assert_array_equal(foretold[falling], fell[falling])


def test_features_of_a_round_are_those_of_each_observation() -> None:
    seen = jax.random.bernoulli(jax.random.key(0), 0.1, (2, 3, 10, 10, 4))
    together = observed("asterix", seen)
    alone = jax.vmap(jax.vmap(partial(observed, "asterix")))(seen)
    for name, value in together.items():
        np.testing.assert_array_equal(value, alone[name])
