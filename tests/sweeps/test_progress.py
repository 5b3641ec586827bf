"""The progress display: plain lines, a live line on a terminal, and the time left."""

from __future__ import annotations

import io

import pytest

from sweeps import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_time_left_follows_the_planned_work_and_the_clock_starts_with_the_first_cell(clock: list[float]) -> None:
    lines = io.StringIO()
    display = progress.Progress(lines)
    display.begin("training", 3, 100.0)
    clock[0] = 50.0  # Ray starts
    display.cell_started()
    clock[0] = 60.0
    display.cell_ended("first", "ok", tokens=1000, work=25.0, wall_s=10.0)
    # A quarter of the work took 10 s, so three quarters take 30 s; 1,000 tokens in 10 s.
    assert lines.getvalue().splitlines()[-1] == "[1/3] first: ok in 10 s | 100 tokens/s, about 30 s left"
    display.cell_ended("second", "error")
    assert "1 failed" in lines.getvalue().splitlines()[-1]


def test_a_failed_cell_counts_as_no_tokens_trained(clock: list[float]) -> None:
    """Nor is its share of the work left to do."""
    lines = io.StringIO()
    display = progress.Progress(lines)
    display.begin("training", 3, 100.0)
    display.cell_started()
    clock[0] = 10.0
    display.cell_ended("first", "error", tokens=7_000_000, work=50.0)
    assert "tokens/s" not in lines.getvalue()
    clock[0] = 20.0
    display.cell_ended("second", "ok", tokens=1000, work=25.0)
    # 25 of 50 took 20 s.
    assert lines.getvalue().splitlines()[-1] == "[2/3] second: ok | 1 failed, 50 tokens/s, about 20 s left"


def test_a_terminal_shows_a_live_line_and_keeps_only_failures() -> None:
    screen = Terminal()
    with progress.Progress(screen) as display:
        display.begin("training", 2, 1.0)
        display.cell_started()
        display.cell_ended("good", "ok", tokens=1, work=0.5)
        display.cell_ended("bad", "oom")
    assert "bad: oom" in screen.getvalue()
    assert "good: ok" not in screen.getvalue()
    assert "2/2 done" in screen.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(8, "8 s"), (89, "89 s"), (240, "4 min"), (9000, "2.5 h")])
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


def test_before_a_cell_has_ended_the_plan_says_how_long_it_takes(clock: list[float]) -> None:
    """Planned 40 s; then cells take twice as long as planned, and so will the rest."""
    lines = io.StringIO()
    display = progress.Progress(lines)
    display.begin("training", 3, 40.0, expected_s=40.0)
    display.cell_started()
    clock[0] = 5.0
    assert display._rates() == "about 35 s left"
    clock[0] = 20.0
    display.cell_ended("first", "ok", work=10.0)
    assert lines.getvalue().splitlines()[-1].endswith("about 60 s left")


def test_running_cells_are_printed_once_a_minute_and_shown_live_on_a_terminal(clock: list[float]) -> None:
    lines = io.StringIO()
    display = progress.Progress(lines)
    display.begin("training", 2, 1.0)
    for second in range(0, 181, 2):
        clock[0] = float(second)
        display.cells_run([f"first: step {second}"])
    assert lines.getvalue().splitlines()[1:] == [f"  first: step {second}" for second in (60, 120, 180)]

    many = progress.Progress(Terminal())
    many.begin("training", 100, 1.0)
    many.cells_run([f"cell {number}" for number in range(100)])
    shown = many._line().plain.splitlines()
    assert len(shown) == 12  # the phase, ten cells, and how many more there are
    assert "cell 9" in shown[10]
    assert "90 more" in shown[11]
