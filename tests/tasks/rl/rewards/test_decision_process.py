"""Which rewards leave the optimal policies of a grid world what they were, by dynamic programming."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scaling.errors import InputError
from scaling.tasks.rl.rewards.decision_process import DecisionProcess, policy_change

SIDE, GAMMA, SLIP = 4, 0.9, 0.1
GOAL, PIT = SIDE * SIDE - 1, SIDE + 1  # the far corner, and a place inside
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
DISTANCE = np.array([2 * (SIDE - 1) - s // SIDE - s % SIDE for s in range(SIDE * SIDE)], float)  # to the goal


def grid_world() -> DecisionProcess:
    """A move goes where it should with probability 1 - SLIP and to one of four sides at random otherwise; walls stop
    it. Reward 1 on reaching the goal; goal and pit end the episode."""
    places = SIDE * SIDE
    transition = np.zeros((places, len(MOVES), places))
    for state in range(places):
        row, column = divmod(state, SIDE)
        ends = [
            min(max(row + down, 0), SIDE - 1) * SIDE + min(max(column + right, 0), SIDE - 1) for down, right in MOVES
        ]
        for action, end in enumerate(ends):
            transition[state, action, end] += 1 - SLIP
            for other in ends:
                transition[state, action, other] += SLIP / len(ends)
    reward = np.zeros_like(transition)
    reward[:, :, GOAL] = 1
    terminal = np.isin(np.arange(places), (GOAL, PIT))
    return DecisionProcess(transition, reward, terminal, GAMMA)


def iterated(process: DecisionProcess, reward: NDArray[np.float64]) -> set[tuple[int, int]]:
    """The optimal actions by value iteration, one state after another: another algorithm than the one under test."""
    states, actions = process.transition_SxAxS.shape[:2]
    value = np.zeros(states)

    def looked_ahead(state: int, action: int) -> float:
        chances = process.transition_SxAxS[state, action]
        return sum(chances[s] * (reward[state, action, s] + GAMMA * value[s]) for s in np.flatnonzero(chances))

    alive = [state for state in range(states) if not process.terminal_S[state]]
    change = 1.0
    while change > 1e-13:
        change = 0.0
        for state in alive:
            best = max(looked_ahead(state, action) for action in range(actions))
            change, value[state] = max(change, abs(best - value[state])), best
    return {(s, a) for s in alive for a in range(actions) if looked_ahead(s, a) > value[s] - 1e-9}


def shaping(process: DecisionProcess, phi: NDArray[np.float64]) -> NDArray[np.float64]:
    """gamma Phi(s') - Phi(s), [S, A, S']."""
    return np.broadcast_to(GAMMA * phi - phi[:, None, None], process.reward_SxAxS.shape)


@pytest.mark.parametrize("seed", range(3))
def test_a_potential_that_is_0_at_ends_changes_no_optimal_policy(seed: int) -> None:
    """Any potential, however large and misleading, by both algorithms."""
    world = grid_world()
    phi = 100 * np.random.default_rng(seed).normal(size=SIDE * SIDE)
    phi[world.terminal_S] = 0
    learnt = world.reward_SxAxS + shaping(world, phi)
    assert iterated(world, learnt) == iterated(world, world.reward_SxAxS)
    found = policy_change(world, learnt)
    assert not found.changed
    assert np.max(np.abs(found.loss_S)) < 1e-9


def test_a_potential_of_an_end_is_caught() -> None:
    """Where the pit keeps a potential, ending there is worth it."""
    world = grid_world()
    phi = np.where(np.arange(SIDE * SIDE) == PIT, 100.0, 0.0)
    learnt = world.reward_SxAxS + shaping(world, phi)
    assert policy_change(world, learnt).changed
    assert iterated(world, learnt) != iterated(world, world.reward_SxAxS)


def test_a_naive_dense_reward_is_caught() -> None:
    """A reward for being near the goal is earned for ever beside it: what is optimal then does not end the episode. The
    states are those of value iteration."""
    world = grid_world()
    naive = world.reward_SxAxS + (1 - DISTANCE / DISTANCE.max())
    found = policy_change(world, naive)
    own, other = iterated(world, world.reward_SxAxS), iterated(world, naive)
    assert found.states == tuple(sorted({state for state, _ in own ^ other}))
    beside = GOAL - 1
    assert beside in found.states
    assert found.loss_S[beside] > 0.1


@pytest.mark.parametrize(("bonus", "changed"), [(0.999, False), (1.001, True)])
def test_the_dense_reward_from_which_staying_pays(bonus: float, changed: bool) -> None:
    """One state: leave, for 1 and the end, or stay, for b. For ever that is b / (1 - gamma), which is more than 1 from
    b = 1 - gamma on; the policy that stays loses all of its 1."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 1] = transition[0, 1, 0] = 1
    reward = np.zeros_like(transition)
    reward[0, 0, 1] = 1
    process = DecisionProcess(transition, reward, np.array([False, True]), GAMMA)
    learnt = reward.copy()
    learnt[0, 1, 0] = bonus * (1 - GAMMA)
    found = policy_change(process, learnt)
    assert found.changed == changed
    assert found.loss_S[0] == pytest.approx(float(changed), abs=1e-9)


def test_action_values_have_a_closed_form_on_a_line() -> None:
    """Of a line of n states to the goal: Q(go) = gamma^(steps - 1)."""
    length = 5
    transition = np.zeros((length + 1, 1, length + 1))
    transition[np.arange(length), 0, np.arange(1, length + 1)] = 1
    reward = np.zeros_like(transition)
    reward[:, 0, length] = 1
    process = DecisionProcess(transition, reward, np.arange(length + 1) == length, GAMMA)
    expected = [GAMMA ** (length - 1 - state) for state in range(length)] + [0]
    np.testing.assert_allclose(process.action_values()[:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"transition_SxAxS": np.full((2, 1, 2), 0.4)}, "sum to 1"),
        ({"reward_SxAxS": np.zeros((2, 2, 2))}, "found (2, 2, 2)"),
        ({"terminal_S": np.zeros(3, bool)}, "found (2, 1, 2) and (3,)"),
        ({"discount": 1.0}, "found 1"),
    ],
)
def test_what_is_no_process_is_refused(change: dict[str, object], said: str) -> None:
    given = {
        "transition_SxAxS": np.full((2, 1, 2), 0.5),
        "reward_SxAxS": np.zeros((2, 1, 2)),
        "terminal_S": np.zeros(2, bool),
        "discount": 0.9,
    }
    with pytest.raises(InputError) as caught:
        DecisionProcess(**(given | change))  # type: ignore[arg-type]
    assert said in str(caught.value)
