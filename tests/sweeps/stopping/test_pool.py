"""What a driver makes of a lost call: whose fault it was, how often it is tried, and the rows that it writes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scaling.config.bench import Resources
from scaling.errors import InputError
from sweeps.job import Options
from sweeps.progress import Progress
from sweeps.ray_executor import nodes
from sweeps.ray_executor.pool import Pool
from sweeps.ray_executor.trainable import LEFT, memory_bytes
from sweeps.stopping.orders import Orders
from sweeps.stopping.signals import Signals
from sweeps.store import Store

HASH = "0" * 16


@dataclass
class Trial:
    """A trial of Tune as far as it is asked."""

    error_file: str
    max_failures: int = 1


@pytest.fixture
def made(tmp_path: Path, micro: Any) -> Any:
    """A pool of one call with two seeds side by side, what it printed, and how many outcomes it was told."""
    call = (micro(n_experts=1, seed=0), micro(n_experts=1, seed=1))
    store, printed, outcomes = Store(tmp_path), io.StringIO(), []
    labels = {cell: f"seed {cell.seed}" for cell in call}
    job: Any = SimpleNamespace(store=store, options=Options(), labels=labels, orders=Orders(tmp_path))
    pool = Pool(job, outcomes.append, Progress(printed), [(call, HASH)], tmp_path, Signals(), lambda *_: None)
    trial = Trial(str(tmp_path / "error.txt"))
    pool.started(0, trial)
    return SimpleNamespace(pool=pool, trial=trial, printed=printed, outcomes=outcomes, call=call)


def report(trial: Trial, *texts: str) -> None:
    said = "".join(f"Failure # {number} (occurred at noon)\n{text}\n" for number, text in enumerate(texts, 1))
    Path(trial.error_file).write_text(said)


@pytest.mark.parametrize("text", ["The actor died because its node has died.", f"WorkerLeft: {LEFT}"])
def test_a_call_that_is_lost_with_its_node_is_tried_as_often_as_it_takes(made: Any, text: str) -> None:
    for times in range(1, 20):
        report(made.trial, text)
        made.pool.lost(0, made.trial)
        assert made.trial.max_failures == 1 + times
    assert "seed 0: its node was lost; it is tried again" in made.printed.getvalue()


def test_where_ray_does_not_know_a_call_is_tried_a_few_times(made: Any) -> None:
    for _ in range(20):
        report(made.trial, "The actor 6a is unavailable: Socket closed")
        made.pool.lost(0, made.trial)
    assert made.trial.max_failures == 6


def test_a_worker_that_was_killed_is_replaced_once(made: Any) -> None:
    """An earlier failure with a node says nothing of a later one."""
    report(made.trial, "The actor died because its node has died.", "The actor died unexpectedly.")
    made.pool.lost(0, made.trial)
    assert made.trial.max_failures == 1
    assert "the worker was killed; it is tried again" in made.printed.getvalue()


def test_trunks_that_were_lost_together_are_tried_apart_but_not_after_their_time(made: Any) -> None:
    made.pool.failed(0, "Failure # 2\nThe actor died unexpectedly.")
    assert [call for call, _ in made.pool.calls[1:]] == [(cell,) for cell in made.call]
    assert made.outcomes == []
    made.pool.started(0, made.trial)
    made.pool.condemn(0, "timeout", "no end after 5 minutes (`resources.max_minutes`)")
    assert made.trial.max_failures == 0, "it is not tried again"
    made.pool.failed(0, "Failure # 1\nThe actor died unexpectedly.")
    assert len(made.pool.calls) == 3
    assert [(outcome.status, outcome.error) for outcome in made.outcomes] == 2 * [
        (
            "timeout",
            "the worker ended before its row was written: no end after 5 minutes (`resources.max_minutes`): "
            "the driver ended its worker",
        )
    ]


def test_after_a_signal_nothing_that_was_lost_becomes_a_row(made: Any) -> None:
    made.pool.signals.asked = 15
    made.pool.look()
    assert made.pool.job.orders.stop() == "SIGTERM"
    made.pool.failed(0, "Failure # 2\nThe actor died unexpectedly.")
    assert made.outcomes == []
    assert made.pool.over


def test_room_is_asked_of_one_node_not_of_all_together() -> None:
    two = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 1.0}}] * 2
    gone = [{"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]
    ray = SimpleNamespace(nodes=lambda: two + gone)
    nodes.require_room(ray, [Resources(cpus=4, gpus=1.0), Resources(cpus=1)])
    for needs in (Resources(cpus=8), Resources(gpus=2.0)):
        with pytest.raises(InputError, match=r"no such node \(4 CPUs, 1 GPUs\)"):
            nodes.require_room(ray, [needs])


def test_memory_is_reserved_in_few_sizes(micro: Any) -> None:
    """Tune reuses an actor for equal requests alone."""
    small, more = micro(), micro(d_model=64, n_experts=8)
    assert memory_bytes((small,)) == memory_bytes((more,)) == 2**30
    wide = micro(d_model=2048, d_head=64, n_layers=8, n_experts=8, d_expert=2048)
    assert memory_bytes((wide,)) > 2**33
    assert memory_bytes((wide,)).hex().startswith("0x1.0000000000000p"), "a power of two"
