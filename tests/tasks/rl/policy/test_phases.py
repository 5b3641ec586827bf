"""Games in turn, the curve, and what routers tell of the game: examples with a known answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from scaling.tasks.policy_rl import PolicyRL
from scaling.tasks.rl.policy.curve import Curve
from scaling.tasks.rl.policy.learner import Losses, Records
from scaling.tasks.rl.policy.measures import game_information, inside_metrics
from scaling.tasks.rl.policy.network import TowerInside
from scaling.tasks.rl.policy.phases import joint_return, transfer

GAMES = ("asterix", "breakout", "freeway")


def test_games_come_in_their_order_again_and_again() -> None:
    """Phases of 1000 frames are two rounds of 512."""
    settings = PolicyRL(setting="continual", games=GAMES, n_envs=8, n_steps=64, phase_frames=1000)
    found = [settings.phase_of(number) for number in range(8)]
    assert [phase.games for phase in found] == [(GAMES[number],) for number in (0, 0, 1, 1, 2, 2, 0, 0)]
    assert [(phase.number, phase.first, phase.end, phase.first_task) for phase in found[5:7]] == [
        (2, 4, 6, 2), (3, 6, 8, 0)
    ]  # fmt: skip
    together = PolicyRL(setting="multi-task", games=GAMES, n_envs=9, n_steps=64)
    assert {together.phase_of(number) for number in (0, 5, 10**6)} == {together.phase_of(0)}
    assert together.phase_of(7).games == GAMES


def test_what_is_kept_lost_and_transferred() -> None:
    """Returns of e^s - 1, so that s is what the metrics are of. Three games, four phases: the first game comes twice.

    learnt: s of own games are 2, 3, 1, 4.   lost since their own last phase: of the second game 3 - 1, of the third
    1 - .5; the first was trained on last.   gained before the first phase, over random .1: .6 - .1 and 0 - .1.
    """
    scores = [(2, 0.6, 0.2), (1, 3, 0.0), (1, 2, 1), (4, 1, 0.5)]
    after = [dict(zip(GAMES, map(math.expm1, row), strict=True)) for row in scores]
    found = transfer(GAMES, after, dict.fromkeys(GAMES, math.expm1(0.1)))
    assert found["learnt_return"] == pytest.approx(math.expm1(2.5), rel=1e-12)
    assert found["forgetting"] == pytest.approx((2 + 0.5) / 2, rel=1e-12)
    assert found["forward_transfer"] == pytest.approx((0.5 - 0.1) / 2, rel=1e-12)
    first = transfer(GAMES, after[:1], dict.fromkeys(GAMES, 1.0))
    assert first["learnt_return"] == pytest.approx(math.expm1(2), rel=1e-12)
    assert np.isnan([first["forgetting"], first["forward_transfer"]]).all()


def test_the_joint_return_of_one_game_is_its_return() -> None:
    assert joint_return([7.25]) == pytest.approx(7.25, rel=1e-12)
    assert joint_return([0.0, 3.0]) == pytest.approx(1.0, rel=1e-12)  # sqrt(1 x 4) - 1


def test_experts_of_a_game_tell_it_and_shared_ones_do_not() -> None:
    """One expert a game: 1. All games alike: 0. Two of three games share one expert: the expert has entropy
    ln 3 - 2/3 ln 2, of ln 3. Rows of a game count by their mean: 40 rows of the first change nothing."""
    game = np.repeat([0, 1, 2], [40, 10, 10])
    assert game_information(np.eye(3)[game], game) == pytest.approx(1, rel=1e-12)
    assert game_information(np.full((60, 3), 1 / 3), game) == pytest.approx(0, abs=1e-12)
    shared = game_information(np.eye(2)[np.minimum(game, 1)], game)
    assert shared == pytest.approx(1 - 2 / 3 * math.log(2) / math.log(3), rel=1e-12)
    scaled = np.eye(3)[game] * np.linspace(0.4, 0.9, 60)[:, None]  # top-1 gates do not sum to 1
    assert game_information(scaled, game) == pytest.approx(1, rel=1e-12)
    assert np.isnan(game_information(np.eye(3)[game], np.zeros(60, int)))


def test_metrics_are_means_over_layers_and_experts_of_both_networks() -> None:
    """Four units, ten rows. Actor: one of four units dead in one of two experts of each layer, so dormant 1/8; its
    second expert of the first router is reached by no row and wholly dormant. Critic: nothing."""
    rows = 10
    active = np.random.default_rng(0).uniform(0.5, 1.5, (2, rows, 4))
    dead = active.copy()
    dead[0, :, 1] = 0
    everywhere, one_idle = np.ones((2, rows), bool), np.stack([np.ones(rows, bool), np.zeros(rows, bool)])
    half = np.full((rows, 2), 0.5)
    actor: Any = TowerInside((dead, dead), (one_idle, everywhere), (np.tile([1.0, 0.0], (rows, 1)), half), active[:1])
    critic: Any = TowerInside((active, active), (everywhere, everywhere), (half,), active)
    found = inside_metrics(actor, critic, np.arange(rows) % 2)
    assert found["dormant_actor"] == pytest.approx(((1 / 4 + 1) / 2 + 1 / 8) / 2)
    assert (found["dormant_critic"], found["dormant_frac_worst"], found["idle_experts"]) == (0, 1, 1)
    assert found["dormant_frac"] == pytest.approx(found["dormant_actor"] / 2)
    assert found["router_entropy"] == pytest.approx(2 / 3)
    assert found["load_entropy"] == pytest.approx(2 / 3)
    assert found["game_information"] == pytest.approx(0, abs=1e-12)


def records(returns: list[list[float]], episodes: list[list[float]]) -> Records:
    loss = np.arange(len(returns), dtype=float)
    return Records(np.array(returns), np.array(episodes), Losses(loss, loss, loss, loss, loss), loss)  # type: ignore[arg-type]


def test_the_curve_knows_which_game_was_played() -> None:
    """Two rounds of one game, then three of another; a call reports more rounds than were asked for. The last tenth of
    few rounds is the last one."""
    curve = Curve(("asterix", "breakout"), 10)
    curve.add(records([[4], [6], [99]], [[1], [2], [9]]), 2, ("asterix",))
    curve.add(records([[1], [0], [5]], [[1], [0], [2]]), 3, ("breakout",))
    assert curve.frames == 50
    metrics = curve.metrics()
    assert (metrics["train_return_asterix"], metrics["train_return_breakout"], metrics["value_loss"]) == (3, 2.5, 2)
    rows = curve.rows()
    assert [row["frames"] for row in rows] == [40, 50]
    assert [row["train_return_asterix"] for row in rows] == [pytest.approx(10 / 3), None]
    assert [row["train_return_breakout"] for row in rows] == [1, 2.5]
    assert [row["policy_kl"] for row in rows] == [pytest.approx((0 + 1 + 0 + 1) / 4), 2]
    together = Curve(("asterix", "breakout"), 10)
    together.add(records([[4, 2]], [[2, 4]]), 1, ("asterix", "breakout"))
    assert together.rows()[0]["train_return"] == pytest.approx((3 * 1.5) ** 0.5 - 1)
    assert [together.metrics()[f"train_return_{game}"] for game in ("asterix", "breakout")] == [2, 0.5]
