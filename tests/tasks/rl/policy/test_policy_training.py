"""Cells of policy-rl: what a grid may say, and micro trainings, which follow from seed and frames alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from scaling.observer import Unobserved
from scaling.tasks.cell import TaskCell
from scaling.tasks.policy_rl import PolicyRL, rounds, train_flops

MICRO = {
    "setting": "continual", "games": ("breakout", "space-invaders"), "router": "hard", "d_hidden": 8, "n_envs": 8,
    "n_steps": 8, "n_minibatches": 2, "n_epochs": 2, "phase_frames": 128,
}  # fmt: skip


def cells(*frames: int, seed: int = 0, **changes: Any) -> list[TaskCell]:
    settings = PolicyRL(**(MICRO | changes))
    return [TaskCell(task="policy-rl", settings=settings, seed=seed, budget=budget) for budget in frames]


def trained(wanted: Iterable[TaskCell], folder: Path | None = None, observer: Any = None) -> list[dict[str, Any]]:
    from scaling.tasks.rl.policy.training import train_cells

    return [one.run | {"curves": one.curves} for one in train_cells([*wanted], folder, observer or Unobserved())]


TIMED = ("compile_s", "train_s", "frames_per_s")


def kept(row: dict[str, Any]) -> dict[str, Any]:
    """All but what a clock said."""
    return {name: value for name, value in row.items() if name not in TIMED}


class Stopping(Unobserved):
    """Asks to stop after so many reports."""

    def __init__(self, reports: int) -> None:
        self.left = reports

    def reason_to_stop(self) -> Any:
        self.left -= 1
        return KeyboardInterrupt("enough") if self.left < 0 else None


@pytest.mark.long
def test_a_continual_training_is_the_same_alone_after_shorter_ones_and_after_every_kill(tmp_path: Path) -> None:
    """Bit for bit, over the ends of phases: cells of one and a half phases and of three, together, alone, and killed
    after each call of rounds."""
    pytest.importorskip("gymnax")
    short, long = trained(cells(192, 384))
    (alone,) = trained(cells(384))
    assert kept(alone) == kept(long)
    assert kept(short)["policy_loss"] != kept(long)["policy_loss"]
    kills = 0
    while kills < 20:
        try:
            (resumed,) = trained(cells(384), tmp_path / "folder", Stopping(0))
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills == 6  # one a round
    assert kept(resumed) == kept(long)
    assert not (tmp_path / "folder").exists()


def test_crossed_axes_give_a_cell_once() -> None:
    """What a network or a setting does not use makes no other cell, and what it uses does."""
    one = {"setting": "single", "games": ("breakout",), "router": "soft"}

    fixed: dict[str, Any] = {"place": "none"}

    def runs(**axes: Any) -> int:
        ((name, values),) = axes.items()
        return len({cells(64, **(one | fixed | {name: value}))[0].run_id() for value in values})

    assert (
        runs(n_experts=(1, 2, 4)) == runs(router=("soft", "top-k", "hard")) == runs(experts_in=("both", "actor")) == 1
    )
    fixed = {"place": "wide"}
    assert (runs(n_experts=(1, 2, 4)), runs(router=("soft", "hard")), runs(experts_in=("both", "actor"))) == (3, 1, 2)
    fixed = {"place": "big"}
    assert (runs(n_experts=(2, 4)), runs(router=("soft", "top-k"))) == (2, 2)
    assert (runs(top_k=(1, 2)), runs(phase_frames=(64, 128))) == (1, 1)
    fixed = {"place": "big", "router": "top-k"}
    assert runs(top_k=(1, 2)) == 2
    fixed = {"place": "big", "router": "hard", "setting": "continual", "games": ("breakout", "freeway")}
    orders = ("breakout", "freeway"), ("freeway", "breakout")
    assert (runs(n_experts=(2, 4)), runs(phase_frames=(64, 128)), runs(games=orders)) == (1, 2, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"games": ("breakout", "breakout")}, "`games` names one twice"),
        ({"setting": "single"}, "`setting: single` needs one game in `games`, found 2"),
        ({"games": ("breakout",)}, "`setting: continual` needs two games or more in `games`, found 1"),
        ({"setting": "multi-task", "n_envs": 9, "n_minibatches": 8}, "`n_envs` 9 must be a multiple of the 2 games"),
        ({"n_minibatches": 3}, "`n_minibatches` 3 must divide `n_envs` 8 x `n_steps` 8"),
        ({"setting": "single", "games": ("breakout",)}, "`router: hard` gives each game its expert"),
        ({"reward": "potential", "reward_program": "0.5"}, "`reward_program` is of one game; several games have"),
        ({"reward": "potential", "games": ("breakout", "freeway")}, "freeway"),
        ({"router": "top-k", "top_k": 4, "n_experts": 3}, "`top_k` 4 must be at most `n_experts` 3"),
    ],
)
def test_what_cannot_be_trained_is_refused_when_it_is_planned(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        cells(64, **changes)


def test_experts_in_one_network_leave_the_other_dense() -> None:
    actor, critic = cells(64, router="soft", experts_in="critic")[0].settings.towers
    assert (actor.place, critic.place, critic.n_experts) == ("none", "big", 3)
    actor, critic = cells(64, place="wide", experts_in="actor")[0].settings.towers
    assert (actor.hidden, critic.hidden) == (24, 8)


def test_flops_count_whole_rounds_of_acting_and_learning() -> None:
    """Dense 100 C -> 8 -> 8 -> 6 and 1: a frame acts F and learns twice 3 F less the gradient of the observation.

    300 frames are five rounds of 64: two of four channels, two of seven, one of four again; together they have seven.
    """

    def of(channels: int) -> int:
        first = 2 * 2 * 100 * channels * 8
        forward = first + 2 * (2 * 64 + 8 * 6 + 8 * 1)
        return 64 * (forward + 2 * (3 * forward - first))

    cell = cells(300, place="none", games=("breakout", "freeway"))[0]
    assert rounds(cell) == 5
    assert train_flops(cell) == 3 * of(4) + 2 * of(7)
    assert train_flops(cells(300, place="none", games=("breakout", "freeway"), setting="multi-task")[0]) == 5 * of(7)


def test_a_reward_is_known_by_its_text() -> None:
    """The default Phi of a game and the same text are one cell; what `own` would weigh makes no other."""
    one = {"setting": "single", "games": ("breakout",), "router": "soft"}
    default = cells(64, reward="potential", **one)[0]
    text = default.settings.reward_program
    assert text
    assert default.run_id() == cells(64, reward="potential", reward_program=text, **one)[0].run_id()
    assert default.run_id() != cells(64, reward="potential", reward_weight=0.5, **one)[0].run_id()
    assert cells(64, **one)[0].run_id() == cells(64, reward_weight=0.5, **one)[0].run_id()
    assert [bool(part) for part in cells(64, reward="potential")[0].settings.reward_texts] == [True, True]
