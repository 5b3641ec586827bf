"""Time limits and requests to stop, as the process that trains sees them; orders, and signals to a driver."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest
from places import Place, sweep, table

from scaling.errors import InputError, Stopped
from scaling.observer import UNOBSERVED
from sweeps.job import Options
from sweeps.stopping import interruption
from sweeps.stopping.interruption import Interrupted, Interruption, TimeLimit, limit_s
from sweeps.stopping.orders import Orders
from sweeps.stopping.signals import Signals


def limited(micro: Any, minutes: float | None, **changes: Any) -> Any:
    cell = micro(**changes)
    return cell.model_copy(update={"resources": cell.resources.model_copy(update={"max_minutes": minutes})})


def wait_until(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def send(number: int) -> None:
    """To this process, and wait for what it does."""
    os.kill(os.getpid(), number)
    time.sleep(1.2)


def test_trunks_side_by_side_have_the_time_of_all_of_them(micro: Any) -> None:
    one, more = limited(micro, 2.0), limited(micro, 2.0, tokens=4096)
    other = limited(micro, 2.0, seed=1)
    assert limit_s([one]) == limit_s([more, one]) == 120
    assert limit_s([one, other]) == 240
    assert limit_s([limited(micro, None)]) == float("inf")


def test_the_clock_runs_while_a_cell_trains_and_no_longer(micro: Any) -> None:
    with Interruption(UNOBSERVED, [limited(micro, 0.3 / 60)], lambda: "") as call:
        time.sleep(1.0)
        assert call.reason_to_stop() is None
        for _ in range(2):
            began = time.monotonic()
            assert call.timed(iter([wait_until(lambda: True)])) is None

        def train() -> Any:
            wait_until(call.reason_to_stop)
            yield call.reason_to_stop()

        assert isinstance(call.timed(train()), TimeLimit)
        assert time.monotonic() - began < 3


def test_a_cell_that_sleeps_is_interrupted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never asks; what it waits for is Python's, so the alarm reaches it. The sweep goes on."""
    monkeypatch.setattr(interruption, "_SLACK_S", 0.2)
    before = signal.getsignal(signal.SIGALRM)
    path = place.grid(f"{{d_model: 16, tokens: 1K, seed: [0, {fakes.HANGS}]}}", more="resources: {max_minutes: 0.01}\n")
    summary = sweep(path, place)
    assert (summary.ok, summary.failed) == (1, {"timeout": 1})
    (row,) = [row for row in table(place.out, "runs") if row["status"] == "timeout"]
    assert row["error"] == "no end after 0.01 minutes (`resources.max_minutes`): it had taken no step"
    assert row["loss_val"] is None
    assert signal.getsignal(signal.SIGALRM) == before
    place.mercy.touch()
    assert sweep(path, place).trained_now == 0
    assert sweep(path, place, retry_failed=True).ok == 2


def test_a_cell_over_its_time_writes_a_checkpoint_from_which_a_retry_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STEPS", "50")
    block = f"{{d_model: 16, tokens: 1K, seed: [0, {fakes.STEPS}]}}"
    summary = sweep(place.grid(block, more="resources: {max_minutes: 0.01}\n"), place)
    assert summary.failed == {"timeout": 1}
    (failure,) = summary.failures
    taken = len(place.noted("step"))
    assert 0 < taken < 50
    assert f"it had taken {taken} steps" in failure["error"]
    assert sweep(place.grid(block), place, retry_failed=True).ok == 2
    assert [int(line.split()[1]) for line in place.noted("step")] == list(range(50))


def test_orders_reach_a_worker_that_sees_the_folder(tmp_path: Path) -> None:
    orders = Orders(tmp_path)
    assert f"has a folder {tmp_path}, but not the one of the driver" in orders.unseen()
    assert orders.stop() == "", "a file that is not there says nothing"
    orders.give()
    assert orders.unseen() == orders.stop() == ""
    orders.give(stop="SIGTERM")
    assert (orders.unseen(), orders.stop()) == ("", "SIGTERM")
    Orders(tmp_path).give()
    assert "another sweep" in orders.stop(), "a worker of a dead driver makes way"
    assert "has no folder" in Orders(tmp_path / "nowhere").unseen()
    (tmp_path / ".orders").write_bytes(b"\xff{")
    assert orders.stop() == ""
    orders.withdraw()
    orders.withdraw()


@pytest.fixture
def heard() -> Iterator[None]:
    """SIGHUP and SIGINT are not ignored, as they are under nohup and in the background of a script."""
    usual = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
def test_a_signal_raises_at_once_or_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        with pytest.raises(Stopped) as stopped:
            send(signal.SIGTERM)
        assert stopped.value.number == signal.SIGTERM
        assert signals.name == "SIGTERM"
    with Signals() as signals:
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGHUP)  # some send it to a process and again to its group
            time.sleep(0.05)
            assert signals.name == "SIGHUP"
        with pytest.raises(Stopped, match="stopped by SIGHUP"):
            signals.require_none()
    with Signals() as signals, signals.deferred():
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):  # again: now
            send(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            assert not signals.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_leaves_signals_alone() -> None:
    seen = []

    def elsewhere() -> None:
        with Signals() as signals, signals.blocked(), signals.deferred():
            seen.append(signals.asked)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [0]


def test_interrupted_cells_have_no_row(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Orders, "stop", lambda self: "")
    monkeypatch.setattr(Interruption, "reason_to_stop", lambda self: Interrupted("asked"))
    path = place.grid(f"{{d_model: 16, tokens: 1K, seed: {fakes.STEPS}}}")
    with pytest.raises(Exception, match="1 cells left"):
        sweep(path, place)
    assert not list(place.out.glob("runs/*"))


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_grace_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="`grace_s`"):
        Options(grace_s=seconds)
