"""What walks say of a model: success, errors, corrections. One value an instance, NaN where it has none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scaling.tasks.world.instances import Instances
from scaling.tasks.world.rollout import Walks

Floats = NDArray[np.float64]
RANDOM_WALKS = 4  # of each instance


def measured(walks: Walks, held_out: Instances) -> dict[str, Floats]:
    """The metrics of `text-world` that greedy walks with feedback give, as its declaration states them.

    An action is right if it is feasible and brings the state one step closer to the goal. An infeasible attempt that
    was the last one has no next action and is left out of corrections.
    """
    live_NxS, feasible_NxS = (np.asarray(part) for part in (walks.live_NxS, walks.feasible_NxS))
    errs_NxS = live_NxS & ~feasible_NxS
    distance_Nx = np.take_along_axis(
        np.asarray(held_out.plans.distance_Z).astype(int), np.asarray(walks.number_Nx), axis=1
    )
    right_NxS = feasible_NxS & (distance_Nx[:, 1:] == distance_Nx[:, :-1] - 1)
    corrected_N, followed_N = (errs_NxS[:, :-1] & right_NxS[:, 1:]).sum(1), errs_NxS[:, :-1].sum(1)
    feasible_next_N = (errs_NxS[:, :-1] & feasible_NxS[:, 1:]).sum(1)
    reached_N, attempts_N = np.asarray(walks.reached_N), live_NxS.sum(1)
    return {
        "success_rate": reached_N.astype(float),
        "success_without_feedback": (reached_N & ~errs_NxS.any(1)).astype(float),
        "self_correction_rate": _share(corrected_N, followed_N),
        "recovery_rate": _share(feasible_next_N, followed_N),
        "infeasible_rate": _share(errs_NxS.sum(1), attempts_N),
        "feedback_accuracy": _share(np.asarray(walks.foreseen_NxS).sum(1), attempts_N),
        "plan_excess": np.where(reached_N, attempts_N - held_out.shortest_N, np.nan),
    }


def speculative(walks: Walks) -> dict[str, Floats]:
    """The metrics of walks in which the model thinks before it acts: attempts that were only thought do not count as
    actions, but take room."""
    acts_NxS = np.asarray(walks.live_NxS) & ~np.asarray(walks.imagined_NxS)
    errs_NxS = acts_NxS & ~np.asarray(walks.feasible_NxS)
    return {
        "success_speculative": np.asarray(walks.reached_N).astype(float),
        "infeasible_rate_speculative": _share(errs_NxS.sum(1), acts_NxS.sum(1)),
    }


def random_success(held_out: Instances, attempts: int) -> Floats:
    """Share of `RANDOM_WALKS` walks that reach the goal of each instance in so many attempts, each action drawn from
    those that can be feasible there. The same for every model."""
    rng = np.random.default_rng(0)
    after_NxZxA, distance_NxZ = (np.asarray(part) for part in (held_out.plans.after_ZxA, held_out.plans.distance_Z))
    count, actions = len(after_NxZxA), after_NxZxA.shape[2]
    each_N, total_N = np.arange(count), np.zeros(count)
    for _ in range(RANDOM_WALKS):
        number_N, done_N = np.asarray(held_out.plans.first), np.zeros(count, bool)
        for _ in range(attempts):
            number_N = after_NxZxA[each_N, number_N, rng.integers(actions, size=count)]
            done_N |= distance_NxZ[each_N, number_N] == 0
        total_N += done_N
    return total_N / RANDOM_WALKS


def _share(part_N: NDArray[np.int64], whole_N: NDArray[np.int64]) -> Floats:
    return np.where(whole_N > 0, part_N / np.maximum(whole_N, 1), np.nan)
