"""Training tells its observer of every step once, also of those before a resumption, and stops for its reason."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scaling.config.run import RunConfig
from scaling.observer import Phase, Steps
from scaling.training import language_model, trunk


@dataclass
class Heard:
    """An observer that keeps what it hears, and wants training to stop after some reports."""

    stop_after: int | None = None
    phases: list[Phase] = field(default_factory=list)
    reports: list[Steps] = field(default_factory=list)

    def phase(self, name: Phase) -> None:
        self.phases.append(name)

    def trained(self, steps: Steps) -> None:
        self.reports.append(steps)

    def reason_to_stop(self) -> BaseException | None:
        return Enough() if self.stop_after is not None and len(self.reports) >= self.stop_after else None

    def steps_of(self, budget: int, cell: RunConfig) -> dict[int, float]:
        """The loss of each step of a cell: of the trunk until it leaves that, and of its own cooldown."""
        leaves_at = cell.steps - cell.cooldown_steps
        losses = {}
        for report in self.reports:
            if report.last <= leaves_at if report.shared else report.budget == budget:
                first = report.last - len(report.metrics)
                told = {
                    first + i + 1: float(step[0, report.names.index("loss")]) for i, step in enumerate(report.metrics)
                }
                assert not losses.keys() & told.keys()
                losses |= told
        return losses


class Enough(Exception):
    """The reason of `Heard`."""


def budgets(micro, *tokens: int):
    return [micro(n_experts=4, tokens=n) for n in tokens]


def losses_of(result) -> list[float]:
    return [row["loss"] for row in result.curves]


def test_reports_are_the_steps_of_the_curves(micro) -> None:
    """Curves of these cells have a row for each step, 16 and 32 of them."""
    heard, cells = Heard(), budgets(micro, 4096, 8192)
    results = list(language_model.train_cells(cells, None, heard))
    for budget, result in enumerate(results):
        assert heard.steps_of(budget, cells[budget]) == dict(enumerate(losses_of(result), start=1))
    rates = {report.last: report.rates for report in heard.reports if report.budget == 1 or report.shared}
    by_step = {row["step"]: row["lr"] for row in results[1].curves}
    assert all(rate == (by_step[step],) for step, rate in rates.items())
    assert [*dict.fromkeys(heard.phases)] == ["compile", "train", "evaluate"]
    assert sum(report.seconds for report in heard.reports) == pytest.approx(results[1].run["train_s"], rel=0.5)


@pytest.mark.slow
def test_a_training_that_is_stopped_writes_a_checkpoint_and_tells_its_past_when_it_resumes(
    micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunk, "_CHECK_EVERY", 4)
    cells = budgets(micro, 4096, 8192)
    whole = [json.dumps(result.curves) for result in language_model.train_cells(cells)]
    for stop_after in (2, 5):  # in the trunk, and in the cooldown of the first budget
        folder, first = tmp_path / str(stop_after), Heard(stop_after)
        with pytest.raises(Enough):
            list(language_model.train_cells(cells, folder, first))
        assert first.phases[-2:] == ["save", "train"]
        then = Heard()
        results = list(language_model.train_cells(cells, folder, then))
        assert [json.dumps(result.curves) for result in results] == whole
        past = [report for report in then.reports if report.past]
        assert past[-1].last == first.reports[-1].last
        for budget, result in enumerate(results):
            assert then.steps_of(budget, cells[budget]) == dict(enumerate(losses_of(result), start=1))


def test_slow_steps_are_told_one_by_one(micro, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report is due after `_TELL_S`, however many steps fit between two checks of the loss."""
    monkeypatch.setattr(trunk, "_TELL_S", 0.0)
    heard = Heard()
    list(language_model.train_cells(budgets(micro, 4096), None, heard))
    assert {len(report.metrics) for report in heard.reports} == {1}
