"""`scaling.worth`: what experts, or a method, are worth, as a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.decision.answer import study_fit
from analysis.fitting.fit import Fit
from analysis.fitting.fit_file import load_fit
from analysis.fitting.published import PUBLISHED
from analysis.latency.speeds import with_speed
from analysis.tables.runs import RunTable, read_runs
from analysis.tables.study import Study
from analysis.training_speed.law import FittedTrainingLaw
from analysis.worth.asked import checked_budgets, question_of, read_source
from analysis.worth.candidate import Against
from analysis.worth.worth import Worth, with_pairs, worth_of_candidate, worth_of_fit, worth_of_runs
from scaling.arguments import checked
from scaling.errors import InputError
from scaling.serving.device import Device
from scaling.serving.families import ArchitectureFamily, architecture_family
from scaling.serving.service import SERVICE, Service
from scaling.serving.training_speed import TrainingSpeed


@checked({"of": "a fit, its file or published:NAME, a study, or a table that scaling.load(...) gave"})
def worth(
    of: Fit | RunTable | Study | str | Path,
    train_flops: float | Sequence[float] = (),
    *,
    candidate: RunTable | None = None,
    against: Against = "own shape",
    n_experts: int | Sequence[int] = (),
    baseline_experts: int = 1,
    serve_tokens: float = 0.0,
    device: str | Device | None = None,
    usd_per_hour: float | None = None,
    training_speed: TrainingSpeed | FittedTrainingLaw | str | Path | None = None,
    mfu: float | None = None,
    settings: Mapping[str, float] | None = None,
    family: str | ArchitectureFamily | None = None,
    service: Service | None = None,
) -> Worth:
    """By which factor a dense model of equal loss takes more compute, device time and money than each E.

    `of` is a fit, asked at budgets of `train_flops`; a table of runs, whose cells are compared without a law; or a
    study: its cells, and with `train_flops` its one fit. With a `candidate`, the runs of a method, `of` is the fit of
    the baseline, and the answer is whether the method beats it, alone and at `train_flops`; `against` is what a run is
    compared with (`analysis.worth.candidate.matched`). `baseline_experts` is the E that others are compared with.
    `training_speed` says what training takes (as in `recommend`; None: assumed, MFU falls with E as published), `mfu`
    its share at E = 1. With `serve_tokens` and a `device` money includes serving. `settings` are other columns of the
    law. The answer has `.table()`, `.plot()` and `.to_json()`. Raises InputError where models cannot be compared.
    """
    budgets = checked_budgets(train_flops if isinstance(train_flops, Sequence) else (train_flops,))
    name = device.name if isinstance(device, Device) else device
    used, speeds = service or SERVICE, None
    if name is not None:
        used, speeds = with_speed(used, name)
    question = question_of(
        budgets,
        device=name,
        speed=training_speed.law if isinstance(training_speed, FittedTrainingLaw) else training_speed,
        mfu=mfu,
        rented=device if isinstance(device, Device) else None,
        usd_per_hour=usd_per_hour,
        n_experts=tuple(map(int, n_experts if isinstance(n_experts, Sequence) else (n_experts,))),
        reference_experts=baseline_experts,
        serve_tokens=serve_tokens,
        settings=settings or {},
        family=architecture_family(family) if isinstance(family, str) else family,
        service=used,
    )
    fit, table, source = _read(of, by_law=bool(budgets) or candidate is not None)
    if candidate is not None:
        if fit is None:
            raise InputError("a `candidate` is tested against the fit of a baseline: `of` must be a fit, or name one")
        return worth_of_candidate(fit, candidate, question, budgets, against=against, name=source)
    if fit is not None:
        return with_pairs(worth_of_fit(fit, question, budgets, speeds, name=source), table)
    if table is None:
        raise InputError(f"{source} is a law: give the training budget to compare at with `train_flops`")
    if budgets:
        raise InputError("`train_flops` asks a law, and runs have none: give a fit of them (scaling.fit)")
    return worth_of_runs(table, baseline_experts)


def _read(of: Fit | RunTable | Study | str | Path, *, by_law: bool) -> tuple[Fit | None, RunTable | None, str]:
    """The fit, the runs, and their name."""
    if isinstance(of, Fit):
        published = (f"published:{name}" for name, known in PUBLISHED.items() if known is of)
        return (of, None, next(published, of.source)) if by_law else (None, None, of.source or of.law)
    if isinstance(of, RunTable):
        return None, of, of.source
    if isinstance(of, Study):
        found = load_fit(str(study_fit(of.path))) if by_law else None
        return found, read_runs(of.path), str(of.path)
    read = read_source(of, by_law=by_law)
    return read.fit, read.table, read.name
