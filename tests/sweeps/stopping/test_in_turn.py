"""Signals to a driver, and a worker that is stopped or hangs: the same tables at the end, nothing left running."""

from __future__ import annotations

import json
import os
import signal
import time

import fakes
import pytest
from families import finish, start, start_training
from in_turn import require_same_as_undisturbed, said, steps_of
from places import Place, table

GRID = f"{{d_model: 16, tokens: 1K, seed: [0, {fakes.STEPS}]}}"
STATUS = {signal.SIGTERM: 143, signal.SIGHUP: 129}
PATIENT = json.dumps({"patience": [8, 8]})


def disturb(place: Place, executor: str, number: int) -> list[str]:
    """Send a signal to the driver while a cell takes steps, then run the sweep again; returns what the first said."""
    path = place.grid(GRID)
    family = start_training(place, path, executor, FAKE_SECONDS="0", FAKE_STEPS="100")
    try:
        os.kill(family.driver.pid, number)
        sent = time.monotonic()
        status = family.ended()
    finally:
        family.kill()
    assert status == STATUS.get(number, -number)
    assert number == signal.SIGKILL or time.monotonic() - sent < 15, "it need not wait for the whole grace"
    lines = said(place)
    finish(place, path, executor, FAKE_SECONDS="0", FAKE_STEPS="100")
    return lines


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_signal_writes_a_checkpoint_and_ends_with_one_line(place: Place, number: int) -> None:
    lines = disturb(place, "inline", number)
    assert [line for line in lines if "stopped by" in line] == lines[-1:]
    assert steps_of(place) == list(range(100)), "no step is taken twice"
    require_same_as_undisturbed(place, GRID)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_a_driver_of_ray(place: Place, number: int) -> None:
    lines = disturb(place, "ray", number)
    if number != signal.SIGKILL:
        assert [line for line in lines if "stopped by" in line] == lines[-1:]
        assert steps_of(place) == list(range(100)), "no step is taken twice"
    assert not any("***" in line or "Traceback" in line for line in lines), "no native stack, no Python one"
    require_same_as_undisturbed(place, GRID)


@pytest.mark.slow
def test_a_signal_while_ray_starts_does_not_wait_for_it(place: Place) -> None:
    family = start(place, place.grid(GRID), "ray", FAKE_STEPS="4")
    try:
        while not family.of_kind("gcs"):
            time.sleep(0.02)
        os.kill(family.driver.pid, signal.SIGTERM)
        sent = time.monotonic()
        assert family.ended() == STATUS[signal.SIGTERM]
        assert time.monotonic() - sent < 15
    finally:
        family.kill()
    assert "stopped by SIGTERM" in said(place)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_processes_of_the_sweep(place: Place, number: int) -> None:
    """As Slurm sends to a job and a terminal to its group."""
    path = place.grid(GRID)
    family = start_training(place, path, "ray", FAKE_SECONDS="0", FAKE_STEPS="100")
    try:
        for pid in family.alive():
            os.kill(pid, number)
        assert family.ended() == STATUS[number]
    finally:
        family.kill()
    assert [line for line in said(place) if "stopped by" in line] == said(place)[-1:]
    finish(place, path, "ray", FAKE_SECONDS="0", FAKE_STEPS="100")
    assert steps_of(place) == list(range(100))
    require_same_as_undisturbed(place, GRID)


@pytest.mark.slow
def test_a_worker_that_is_stopped_is_replaced(place: Place) -> None:
    path = place.grid(GRID)
    family = start_training(place, path, "ray", FAKE_SECONDS="0", FAKE_STEPS="100", FAKE_OPTIONS=PATIENT)
    try:
        for pid in family.of_kind("training"):
            os.kill(pid, signal.SIGSTOP)
        assert family.ended() == 0
    finally:
        family.kill()
    assert any("no sign of life" in line and "tried again" in line for line in said(place))
    require_same_as_undisturbed(place, GRID)


@pytest.mark.slow
def test_a_worker_that_hangs_is_replaced_and_fails_the_second_time(place: Place) -> None:
    """Its process lives and beats, but takes no step. A compilation of the same length is left alone."""
    path = place.grid(f"{{d_model: 16, tokens: 1K, seed: [0, {fakes.HANGS}, {fakes.COMPILES}]}}")
    finish(place, path, "ray", FAKE_SECONDS="0", FAKE_STEPS="400", FAKE_OPTIONS=PATIENT)
    rows = {row["seed"]: row for row in table(place.out, "runs")}
    assert {seed: row["status"] for seed, row in rows.items()} == {0: "ok", fakes.COMPILES: "ok", fakes.HANGS: "error"}
    assert "it hangs: no step for" in rows[fakes.HANGS]["error"]
    assert len(place.noted("hangs")) == 2
