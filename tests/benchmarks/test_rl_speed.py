"""The arithmetic of the speeds of value-rl, with clocks that are told what passes."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import rl_speed
from scaling.tasks.value_rl import ValueRL


def test_a_speed_is_frames_over_the_seconds_of_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 us of wall time a frame and 4 us of CPU time: 100,000 and 250,000 frames a second, whatever a round holds."""
    pytest.importorskip("gymnax")
    settings, frames = ValueRL(), 0

    def run(learner: Any, count: int) -> Any:
        nonlocal frames
        frames += count * settings.round_frames
        return learner

    monkeypatch.setattr(rl_speed.time, "perf_counter", lambda: 1e-5 * frames)
    monkeypatch.setattr(rl_speed.time, "process_time", lambda: 4e-6 * frames)
    monkeypatch.setattr(rl_speed, "others_busy", lambda: 1.5)
    found = rl_speed.timed("acting", settings, None, run)
    assert found.frames_per_s == pytest.approx(1e5, rel=1e-9)
    assert found.quartiles == pytest.approx((1e5, 1e5), rel=1e-9)
    assert found.frames_per_cpu_s == pytest.approx(2.5e5, rel=1e-9)
    assert (found.game, found.others_busy) == ("breakout", 1.5)
