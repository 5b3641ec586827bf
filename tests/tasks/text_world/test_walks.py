"""Walks, lessons and measures of text-world: what a model is shown, and what is said of what it did."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import pytest

from scaling.model.transformer import apply
from scaling.tasks.cell import TaskCell
from scaling.tasks.text_world import TASK, TextWorld, train_flops
from scaling.tasks.world import lessons, measures
from scaling.tasks.world.instances import Instances
from scaling.tasks.world.learning import rate_of
from scaling.tasks.world.planner import Plans
from scaling.tasks.world.programs import learning_of, programs_of
from scaling.tasks.world.rollout import FREE, GUIDED, TAUGHT, Walks
from scaling.tasks.world.training import Training, train_cells, walks
from scaling.tasks.world.vocabulary import ID, PAD

MICRO: dict[str, Any] = {
    "layout": "flat", "n_trajectories": 12, "attempts": 10, "n_experts": 2, "d_model": 16, "d_head": 8, "n_layers": 1,
    "d_expert": 16, "batch_texts": 8, "n_heldout": 12, "lr": 1e-2,
}  # fmt: skip


def settings(**changes: Any) -> TextWorld:
    return TextWorld(**(MICRO | changes))


def cells(*updates: int, seed: int = 0, **changes: Any) -> list[TaskCell]:
    made = settings(**changes)
    return [TaskCell(task="text-world", settings=made, seed=seed, budget=budget) for budget in updates]


@functools.cache
def training() -> Training:
    """A training before its first update: a model that errs nearly always."""
    return Training(settings(), 0, 20, programs_of(settings()))


@functools.cache
def walked(mode: int, speculates: bool = False) -> Walks:
    made = training()
    return walks(made.state.params, made.programs, made.instances, mode, 0.0, speculates=speculates)


# ------------------------------------------------------------------------------------------------------------- walks


def test_the_teacher_reaches_every_goal_by_a_shortest_plan() -> None:
    made, walk = training(), walked(TAUGHT)
    assert walk.reached_N.all()
    np.testing.assert_array_equal(walk.live_NxS.sum(1), made.instances.shortest_N)
    np.testing.assert_array_equal(walk.feasible_NxS, walk.live_NxS)


def test_beside_a_teacher_each_error_is_followed_by_the_teacher_and_only_the_teacher_moves() -> None:
    walk, taught = walked(GUIDED), walked(TAUGHT)
    errs = walk.live_NxS & ~walk.feasible_NxS
    assert errs.any()
    assert walk.taught_NxS[:, 1:][errs[:, :-1]].all()
    np.testing.assert_array_equal(walk.feasible_NxS, walk.taught_NxS)
    for ours, theirs, times in zip(walk.number_Nx, taught.number_Nx, walk.feasible_NxS, strict=True):
        steps = int(times.sum())  # the states are those of the teacher's walk, each error staying in its own
        np.testing.assert_array_equal(ours[np.r_[0, 1 + np.flatnonzero(times)]], theirs[: steps + 1])


@pytest.mark.parametrize("speculates", [False, True])
def test_words_decoded_against_a_cache_are_those_of_the_whole_text(speculates: bool) -> None:
    """The likeliest words of actions, and where the model thinks first, of the feedback that it imagined."""
    made, walk = training(), walked(FREE, speculates)
    network = learning_of(made.settings).network
    logits = jax.jit(functools.partial(apply, network))(made.state.params, walk.text_NxT[:, :-1]).logits_BxTxV
    likeliest = np.pad(np.asarray(logits).argmax(-1), ((0, 0), (1, 0)))
    shape = (*walk.live_NxS.shape, 4)
    prompt = made.settings.facts.prompt_tokens
    ours, theirs = (text[:, prompt:].reshape(shape) for text in (walk.text_NxT, likeliest))
    np.testing.assert_array_equal(ours[walk.live_NxS][:, :2], theirs[walk.live_NxS][:, :2])
    np.testing.assert_array_equal(ours[walk.imagined_NxS], theirs[walk.imagined_NxS])
    assert (ours[~walk.live_NxS] == ID[PAD]).all()
    assert walk.imagined_NxS.any() == speculates
    assert not (walk.imagined_NxS[:, 1:] & walk.imagined_NxS[:, :-1]).any()  # it thinks once, then acts
    assert not (walk.imagined_NxS & walk.feasible_NxS).any()


# ----------------------------------------------------------------------------------------------------------- lessons


def words_of(lesson: lessons.Lessons, attempts: int) -> np.ndarray:
    """The weights of the words of attempts, [N, S, 4]; those of descriptions are 0."""
    prompt = lesson.text_NxT.shape[1] - 4 * attempts
    assert not lesson.weight_NxT[:, :prompt].any()
    return lesson.weight_NxT[:, prompt:].reshape(len(lesson), attempts, 4) > 0


def test_of_the_expert_actions_are_learnt_and_of_exploration_feedback_and_corrections() -> None:
    expert = words_of(lessons.of_expert(walked(TAUGHT)), 10)
    np.testing.assert_array_equal(expert, walked(TAUGHT).live_NxS[..., None] & np.array([True, True, False, False]))
    guided, walk = words_of(lessons.of_exploration(walked(GUIDED)), 10), walked(GUIDED)
    np.testing.assert_array_equal(guided[..., 0], walk.taught_NxS)
    np.testing.assert_array_equal(guided[..., 2], walk.live_NxS)
    assert not guided[walk.live_NxS & ~walk.feasible_NxS][:, :2].any()


def test_without_a_teacher_the_first_feasible_action_after_an_error_is_learnt() -> None:
    live = np.array([[1, 1, 1, 1, 1, 0]], bool)
    feasible = np.array([[1, 0, 0, 1, 1, 0]], bool)
    none = np.zeros_like(live)
    walk = Walks(np.zeros((1, 30), np.int32), live, feasible, none, none, none, np.zeros((1, 7)), np.array([True]))
    learnt = words_of(lessons.of_exploration(walk), 6)
    assert learnt[0, :, 0].tolist() == [False, False, False, True, False, False]
    assert learnt[0, :, 3].tolist() == [True] * 5 + [False]


def test_a_step_reports_the_mean_loss_of_the_words_to_be_predicted() -> None:
    made = training()
    text, weight = made.batch()
    state, reported = made.programs.learn(made.state, text, weight, np.float32(0.1))
    network = learning_of(made.settings).network
    logits = np.asarray(jax.jit(functools.partial(apply, network))(made.state.params, text[:, :-1]).logits_BxTxV, float)
    log_share = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_share, text[:, 1:, None], axis=2)[..., 0]
    assert reported[0] == pytest.approx((losses * weight[:, 1:]).sum() / weight.sum(), rel=1e-5)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), state.params, made.state.params)
    assert min(jax.tree.leaves(moved)) > 0


# ---------------------------------------------------------------------------------------------------------- measures


def test_measures_by_hand() -> None:
    """Three instances in which state n is n steps from the goal: reached with one error that is corrected; given up
    with errors followed by an error, a detour and nothing; reached at once."""
    live = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]], bool)
    feasible = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [1, 0, 0, 0]], bool)
    number = np.array([[2, 1, 1, 0, 0], [1, 1, 1, 2, 2], [1, 0, 0, 0, 0]])
    none = np.zeros_like(live)
    foreseen = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]], bool)
    walk = Walks(np.zeros((3, 20)), live, feasible, none, none, foreseen, number, np.array([True, False, True]))
    plans = Plans(np.tile(np.arange(4, dtype=np.uint8), (3, 1)), np.zeros((3, 4, 1)), number[:, 0], np.zeros((3, 4, 2)))
    found = measures.measured(walk, Instances(None, plans))  # type: ignore[arg-type]
    nan = np.nan
    expected = {
        "success_rate": [1, 0, 1],
        "success_without_feedback": [0, 0, 1],
        "self_correction_rate": [1, 0, nan],
        "recovery_rate": [1, 0.5, nan],
        "infeasible_rate": [1 / 3, 3 / 4, 0],
        "feedback_accuracy": [2 / 3, 1 / 4, 1],
        "plan_excess": [1, nan, 0],
    }
    assert {*found} == {*expected}
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


# ---------------------------------------------------------------------------------------------------------- training

SAME = ("success_rate", "infeasible_rate", "action_loss", "train_loss", "feedback_accuracy", "utilisation")


@pytest.mark.long
def test_a_cell_follows_from_its_settings_seed_and_updates() -> None:
    """Bit for bit, whatever cells share the call; exploration changes it, and the table has all that is declared."""
    short, long = (one.run for one in train_cells(cells(6, 10)))
    alone = next(iter(train_cells(cells(10)))).run
    assert (long["status"], long["updates"], long["n_experts"]) == ("ok", 10, 2)
    assert {name: long[name] for name in SAME} == {name: alone[name] for name in SAME}
    others = [next(iter(train_cells(cells(10, **one)))).run for one in ({"seed": 1}, {"exploration": "none"})]
    assert len({run["action_loss"] for run in (short, long, *others)}) == 4
    assert all(long[m.name] is not None for m in TASK.metrics if m.name != "plan_excess")
    assert long["random_success"] == others[0]["random_success"]


def test_the_control_takes_as_many_updates_on_as_many_words() -> None:
    """Before exploration the texts of all ways are the same; after it a share of them is explored."""
    made = {way: Training(settings(exploration=way), 0, 20, programs_of(settings())) for way in ("none", "both")}
    (text, weight), (same, weight_same) = (one.batch() for one in made.values())
    np.testing.assert_array_equal(text, same)
    np.testing.assert_array_equal(weight, weight_same)
    made["both"]._explore(0)
    explored = made["both"].explored
    assert explored is not None
    assert len(explored) == 2 * 12
    batches = [one.batch() for one in made.values()]
    assert batches[0][0].shape == batches[1][0].shape == (8, 20 + 4 * 10)  # a description of 20 words, ten attempts
    rows = {text.tobytes() for text in explored.text_NxT}
    assert [sum(row.tobytes() in rows for row in batch[0]) for batch in batches] == [0, 4]
    assert settings(exploration="none").explores_at(20) == ()
    assert settings(rounds=2).explores_at(20) == (10, 15)


def test_flops_are_those_of_texts_and_of_walks() -> None:
    """A walk costs the same with a teacher and without; the control has none."""
    none, one, both = (train_flops(cells(10, exploration=way)[0]) for way in ("none", "teacher-free", "both"))
    assert both - one == pytest.approx(one - none, rel=1e-12)
    assert one > none
    assert train_flops(cells(20, exploration="none")[0]) == pytest.approx(2 * none, rel=1e-12)


def test_the_rate_rises_stays_and_falls() -> None:
    rates = [rate_of(update, 100, 1.0) for update in range(100)]
    assert rates[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert rates[70:72] == pytest.approx([30 / 31, 29 / 31])
    assert rates[-1] == pytest.approx(1 / 31)


# ---------------------------------------------------------------------------------------------------------- settings


def test_settings_that_others_make_unused_are_no_part_of_a_cell() -> None:
    for unused in ({"rounds": 5}, {"temperature": 0.3}, {"explored_share": 0.2}, {"pretrain_share": 0.2}):
        assert len({cells(10, exploration="none", **one)[0].run_id() for one in ({}, unused)}) == 1
        assert len({cells(10, **one)[0].run_id() for one in ({}, unused)}) == 2
    assert len({cells(10, n_experts=1, router=router)[0].run_id() for router in ("switch", "topk")}) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"router": "expert-choice"}, "depend on later tokens"),
        ({"router": "dense-to-sparse"}, "begins with a dense model"),
        ({"router": "topk", "top_k": 4}, "cannot exceed n_experts=2"),
        ({"router": "swich"}, "did you mean `switch`"),
        ({"d_model": 20}, "n_heads"),
    ],
)
def test_a_model_that_cannot_be_is_refused_at_once(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"router|top_k|d_model") as caught:
        settings(**changes)
    assert said in str(caught.value)
