"""Cells of value-rl, trained in micro sizes: what a table gets, and that it follows from seed and frames alone."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from scaling.observer import Unobserved
from scaling.tasks.cell import TaskCell
from scaling.tasks.rl.learning_curve import LearningCurve
from scaling.tasks.rl.pqn import PART, Records, mean_gradient
from scaling.tasks.value_rl import TASK, ValueRL, rounds, train_flops

MICRO = {
    "game": "breakout", "d_expert": 8, "d_conv": 4, "n_envs": 8, "n_steps": 8, "n_minibatches": 2,
    "exploration_frames": 256,
}  # fmt: skip


def cells(*frames: int, seed: int = 0, **changes: Any) -> list[TaskCell]:
    settings = ValueRL(**(MICRO | changes))
    return [TaskCell(task="value-rl", settings=settings, seed=seed, budget=budget) for budget in frames]


def trained(*frames: int, **changes: Any) -> list[dict[str, Any]]:
    from scaling.tasks.rl.training import train_cells

    return [one.run for one in train_cells(cells(*frames, **changes))]


SAME = ("episode_return", "train_return", "area", "td_loss", "dormant_frac", "effective_rank", "random_return")


@pytest.mark.long
def test_a_longer_training_begins_with_the_shorter_one_and_repeats_itself() -> None:
    """Bit for bit: rounds depend on their number, and not on what is asked of a call or trained beside them."""
    pytest.importorskip("gymnax")
    short, long = trained(512, 2048)
    alone = trained(2048)[0]
    assert {name: long[name] for name in SAME} == {name: alone[name] for name in SAME}
    assert trained(512)[0]["td_loss"] == short["td_loss"] != long["td_loss"]
    assert trained(512, seed=1)[0]["td_loss"] != short["td_loss"]
    assert trained(512, lr=1e-3)[0]["td_loss"] != short["td_loss"]
    assert short["random_return"] == long["random_return"] > 0
    assert all(short[metric.name] is not None for metric in TASK.metrics if metric.name != "dropped_frac")


@pytest.mark.long
def test_an_arm_with_experts_has_a_row_and_a_curve() -> None:
    pytest.importorskip("gymnax")
    from scaling.tasks.rl.training import train_cells

    done = next(iter(train_cells(cells(1000, arm="top1", n_experts=2))))
    assert (done.run["status"], done.run["frames"], done.run["n_experts"], done.run["arm"]) == ("ok", 1000, 2, "top1")
    assert 0 <= done.run["dropped_frac"] <= 1
    assert 0 <= done.run["silent_frac"] <= done.run["dormant_frac"] <= done.run["dormant_frac_worst"] <= 1
    assert 0 < done.run["decision_s"] < 1
    assert [row["frames"] for row in done.curves] == [512, 1024]  # 16 rounds of 64, eight a row


@pytest.mark.long
def test_a_reward_that_adapts_is_carried_from_budget_to_budget_and_leaves_the_returns_alone() -> None:
    """Bit for bit, and without weight it is learning from the own reward. `random_return` is of the same actions and
    rewards whatever is learnt from."""
    pytest.importorskip("gymnax")
    changes = {"reward": "adaptive", "d_expert": 4}
    short, long = trained(512, 1536, **changes)
    alone = trained(1536, **changes)[0]
    assert {name: long[name] for name in SAME} == {name: alone[name] for name in SAME}
    assert long["learnt_reward"] == alone["learnt_reward"] != short["learnt_reward"]
    unaided = trained(1536, **changes, reward_weight=0)[0]
    assert unaided["td_loss"] != long["td_loss"]
    assert unaided["random_return"] == long["random_return"]
    frames = 2 * 64  # of the last tenth, two of 24 rounds: own rewards are whole numbers, and helps are not
    assert (unaided["learnt_reward"] * frames) % 1 == 0 != (long["learnt_reward"] * frames) % 1


def test_a_training_stops_when_it_is_asked_to() -> None:
    pytest.importorskip("gymnax")
    from scaling.tasks.rl.training import train_cells

    class Impatient(Unobserved):
        def reason_to_stop(self) -> Any:
            return KeyboardInterrupt("enough")

    with pytest.raises(KeyboardInterrupt, match="enough"):
        next(iter(train_cells(cells(512), None, Impatient())))


def test_crossed_axes_give_an_arm_without_experts_once() -> None:
    assert len({cells(512, arm="dense", n_experts=e)[0].run_id() for e in (1, 2, 4)}) == 1
    assert len({cells(512, arm="dense", tokenisation=t)[0].run_id() for t in ("per-conv", "per-feat")}) == 1
    for arm in ("soft", "dense-wide", "dense-matched", "soft-one-wide"):
        assert len({cells(512, arm=arm, n_experts=e)[0].run_id() for e in (2, 4)}) == 2


def test_minibatches_must_divide_a_round() -> None:
    with pytest.raises(ValueError, match="`n_minibatches` 3 must divide `n_envs` 8 x `n_steps` 8"):
        cells(512, n_minibatches=3)


@pytest.mark.parametrize("rows", [PART // 2, PART, 4 * PART, 4 * PART + 1])
def test_the_gradient_by_parts_is_that_of_the_whole(rows: int) -> None:
    """Of a mean of squared errors, in closed form: x^T (x w - y) / rows. Up to float32 rounding of sums."""
    rng = np.random.default_rng(rows)
    x_BxD, y_B, w_D = rng.normal(size=(rows, 5)), rng.normal(size=rows), rng.normal(size=5)
    error_B = x_BxD @ w_D - y_B
    loss, gradient = mean_gradient(
        lambda w, batch: 0.5 * jnp.mean((batch[0] @ w - batch[1]) ** 2),
        jnp.asarray(w_D, jnp.float32),
        (jnp.asarray(x_BxD, jnp.float32), jnp.asarray(y_B, jnp.float32)),
    )
    np.testing.assert_allclose(loss, 0.5 * np.mean(error_B**2), rtol=1e-5)
    np.testing.assert_allclose(gradient, x_BxD.T @ error_B / rows, rtol=1e-4, atol=1e-6)


def test_flops_count_whole_rounds_of_acting_and_learning() -> None:
    """Dense: forward F = 2 (64 x 36 x 4 + 256 x 8 + 8 x 3); a frame acts F and learns twice 3 F less the convolution's
    gradient of its input; 100 frames are two rounds of 64."""
    cell = cells(100, arm="dense")[0]
    conv = 2 * 64 * 36 * 4
    forward = conv + 2 * (256 * 8 + 8 * 3)
    assert rounds(cell) == 2
    assert train_flops(cell) == 128 * (forward + 2 * (3 * forward - conv))


def curve(returns: list[float], episodes: list[int]) -> LearningCurve:
    made = LearningCurve(10)
    nothing = np.zeros(len(returns))
    made.add(Records(np.array(returns), np.array(episodes, float), nothing, nothing), len(returns))
    return made


def test_the_area_is_the_mean_of_the_latest_known_return() -> None:
    """Known from round 2 on: 4/2 for two rounds, 9/3 for one."""
    assert curve([0, 4, 0, 9], [0, 2, 0, 3]).metrics()["area"] == pytest.approx((2 + 2 + 3) / 3, rel=1e-12)


def test_without_an_ended_episode_nothing_is_known() -> None:
    metrics = curve([0, 0], [0, 0]).metrics()
    assert np.isnan(metrics["area"])
    assert np.isnan(metrics["train_return"])


def test_the_return_in_training_is_of_the_episodes_of_the_last_tenth() -> None:
    returns, episodes = [1.0] * 18 + [6.0, 8.0], [1] * 18 + [1, 3]
    assert curve(returns, episodes).metrics()["train_return"] == pytest.approx((6 + 8) / 4, rel=1e-12)
    assert [row["frames"] for row in curve(returns, episodes).rows()] == [80, 160, 200]
