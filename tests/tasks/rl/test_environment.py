"""MinAtar in gymnax: what is known without it, and how episodes end."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import pytest

from scaling.errors import InputError
from scaling.tasks.rl.environment import environments
from scaling.tasks.rl.games import GAMES


def test_a_missing_extra_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    environments.cache_clear()
    monkeypatch.setitem(sys.modules, "gymnax", None)
    monkeypatch.setattr("scaling.distribution._is_installed", lambda name: name != "gymnax")
    with pytest.raises(InputError, match=r"needs gymnax: pip install 'moe-scaling\[rl\]'"):
        environments("breakout", 4)


@pytest.mark.parametrize("game", GAMES)
def test_what_is_known_of_a_game_is_what_gymnax_has(game: str) -> None:
    """Channels, actions and limit are checked when environments are made."""
    pytest.importorskip("gymnax")
    assert environments(game, 2).count == 2


def test_breakout_ends_where_the_ball_is_missed_and_never_by_a_cut() -> None:
    """The ball falls from height 3, at one side, to the ninth row in 6 steps, where it is 3 or 6 places along; a paddle
    that goes right from place 4 is then at the ninth. So every sixth step is an end, after which the next observation
    is that of a new episode."""
    pytest.importorskip("gymnax")
    worlds = environments("breakout", 4)
    observation, world = worlds.reset(jax.random.key(0))
    assert (observation.dtype, observation.shape) == (jnp.bool_, (4, 10, 10, 4))
    step = jax.jit(worlds.step)
    right = jnp.full(4, 2)
    for number in range(1, 13):
        seen = step(jax.random.key(number), world, right)
        world = seen.world
        over = number % 6 == 0
        assert not seen.truncated_N.any()
        assert (seen.terminated_N == over).all()
        differs = (seen.observation_NxHxWxC != seen.last_NxHxWxC).any(axis=(1, 2, 3))
        assert (differs == over).all()


def test_freeway_is_cut_at_its_limit() -> None:
    """Nothing ends an episode of Freeway: from one step before the limit the next one is a cut, and a new episode
    begins."""
    pytest.importorskip("gymnax")
    worlds = environments("freeway", 2)
    _, world = worlds.reset(jax.random.key(0))
    world = world.replace(time=jnp.full_like(world.time, GAMES["freeway"].limit - 2))
    step = jax.jit(worlds.step)
    seen = [step(jax.random.key(0), world, jnp.zeros(2, jnp.int32))]
    seen.append(step(jax.random.key(1), seen[0].world, jnp.zeros(2, jnp.int32)))
    assert [(one.terminated_N.any(), one.truncated_N.all()) for one in seen] == [(False, False), (False, True)]
    assert (seen[1].world.time == 0).all()
