"""The training-speed law: device-seconds a token by robust regression on what a token asks of its device.

    seconds = sum_i c_i x_i        (`scaling.serving.training_work.TERMS`)

Errors of time are relative, so rows are divided by their time and the target is 1 (`analysis.latency.robust`).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.latency.law import HeldOutTimes
from analysis.latency.robust import robust
from analysis.training_speed.table import LOOP, SETTING, TrainingTable
from scaling.arrays import Array
from scaling.columns import EXPERTS
from scaling.errors import InputError
from scaling.formatting import listed, plural, si
from scaling.progress import Progress, silent
from scaling.serving.device import BUSY
from scaling.serving.measured_range import MeasuredRange
from scaling.serving.published_training import assumed_training_speed
from scaling.serving.training_speed import TrainingLaw
from scaling.serving.training_work import LEAST, TERMS
from scaling.summary import Summarised, summary_table
from scaling.table import Table
from scaling.values import TRAINING_LAW

AXES = ("d_model", EXPERTS, "n_layers", "top_k", "batch_tokens")
_FEWEST, _FEW = 4, 12  # configurations without which there is no law, and below which it is doubted
_PARTS = 10
_APART = 1.3  # times the time of another row of the same configuration, from which the machine is called busy
_INNER = (0.16, 0.84)
_WHAT = "the training-speed law"
_NEEDED = {"n_layers": ("activations", "layers"), "d_model": ("activations",), "seq_len": ("attention scores",),
           "batch_tokens": ("step", "optimiser")}  # fmt: skip


@dataclass(frozen=True, repr=False)
class FittedTrainingLaw(Summarised):
    """A training-speed law and how well it predicts.

    `held_out`: errors by axis, each level left out in turn, of configurations left out in ten parts, and over all of
    these. `after`: in sample; `assumed`: of the speed assumed without a measurement. `at_bound`: terms that the data
    would have below what is possible. `doubts`: what the rows leave open; `notes`: what was assumed of them.
    """

    law: TrainingLaw
    held_out: Mapping[str, HeldOutTimes]
    after: HeldOutTimes
    assumed: HeldOutTimes
    at_bound: tuple[str, ...]
    n_rows: int
    n_configurations: int
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    made_from: str = ""

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the coefficients, percentiles of the draws; none without draws."""
        if not self.law.drawn:
            return {}
        low, high = np.quantile(np.array(self.law.drawn), [0.025, 0.975], axis=0).tolist()
        return {name: (low[place], high[place]) for place, name in enumerate(TERMS)}

    def document(self) -> dict[str, Any]:
        """The law as the content of a file, with its errors."""
        errors = {"held_out": self.held_out, "in_sample": {"": self.after}, "assumed": {"": self.assumed}}
        told = {
            name: {level or "all": vars(error) | {"levels": list(error.levels)} for level, error in of.items()}
            for name, of in errors.items()
        }
        return {
            **TRAINING_LAW.document(self.law),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            **told,
            "at_bound": list(self.at_bound),
            "rows": self.n_rows,
            "configurations": self.n_configurations,
            "warnings": [*self.doubts, *self.notes],
            "made_from": self.made_from,
        }

    def summary(self) -> Table:
        """The coefficients with 95 % intervals; then the warnings."""
        rows = [
            (name, f"{value:.4g}", " to ".join(f"{end:.4g}" for end in self.intervals.get(name, ())))
            for name, value in zip(TERMS, self.law.coefficients, strict=True)
            if name not in self.law.absent
        ]
        title = f"Training-speed law of {self.law.source}"
        if self.law.error is not None:
            title += f"; median error on what was left out {self.law.error:.1%}"
        return summary_table(title, ("coefficient", "value", "95 % interval"), rows, (*self.doubts, *self.notes))


def fit_training_speed(
    table: TrainingTable, rng: np.random.Generator, resamples: int = 400, progress: Progress = silent
) -> FittedTrainingLaw:
    """The law of a table, with so many bootstrap draws of its configurations and the errors of what was left out.

    Raises InputError with fewer than four configurations.
    """
    count = len(table)
    if count < _FEWEST:
        raise InputError(
            f"{table.source}: {plural(count, 'configuration')} of width, depth, E and batch; a training-speed law "
            f"needs {_FEWEST} at least, and {_FEW} to be of use. Without one the speed is `assumed`"
        )
    design = table.terms() / table.seconds[:, None]
    coefficients, at_bound = robust(design, LEAST)
    rows = int(table.column("rows").sum())
    present = np.any(design != 0, axis=0)
    draws = []
    for number in range(resamples):
        progress(0.9 * number / resamples)
        draws.append(robust(design[rng.integers(count, size=count)], LEAST, coefficients)[0])
    held_out, ratios = _held_out(table, design)
    terms = np.array([*TERMS])
    tokens, length, devices = (_typical(table.column(name)) for name in SETTING)
    at = "" if tokens is None else f"; priced at {si(tokens / (devices or 1.0))} tokens a step and device"
    law = TrainingLaw(
        name=f"measured: {table.source}",
        coefficients=tuple(coefficients.tolist()),
        drawn=tuple(map(tuple, np.array(draws).reshape(-1, len(TERMS)).tolist())),
        scatter=_spread(ratios if len(ratios) else 1 / (design @ coefficients)),
        source=f"{plural(rows, 'row')} of {plural(count, 'configuration')}, {table.on.title}{at}",
        batch_tokens=None if tokens is None else tokens / (devices or 1.0),
        seq_len=length,
        domain=_domain(table),
        error=held_out["all"].median if "all" in held_out else None,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        devices=devices or 1.0,
        loops=bool(table.frame["loops"].any()),
        absent=tuple(terms[~present]),
        device=table.on,
    )
    return FittedTrainingLaw(
        law=law,
        held_out=held_out,
        after=HeldOutTimes.of(design @ coefficients - 1),
        assumed=HeldOutTimes.of(_assumed(table) / table.seconds - 1),
        at_bound=tuple(terms[at_bound & present]),
        n_rows=rows,
        n_configurations=count,
        doubts=tuple(_doubts(table, present)),
        notes=table.notes,
        made_from=table.digest,
    )


def left_out(table: TrainingTable, by: str) -> pd.DataFrame:
    """The rows with `error` (modelled / measured - 1) of a law fitted without their level of `by`, a column each of
    whose values is left out in turn; or "configuration", where ten parts of the rows are.

    Raises InputError with a single level.
    """
    levels = _parts(table) if by == "configuration" else table.column(by)
    if len(np.unique(levels)) < 2:
        raise InputError(f"{table.source}: a single {by}; leaving one out takes at least two")
    return table.frame.assign(error=_errors_without(table.terms() / table.seconds[:, None], levels)).dropna(
        subset=["error"]
    )


def modelled(table: TrainingTable, law: TrainingLaw) -> pd.DataFrame:
    """The rows with `modelled_seconds`, `error` (modelled / measured - 1), and the share of the peak that 6 n_active
    FLOPs a token reach, measured (`mfu`) and by the law (`modelled_mfu`)."""
    seconds = table.terms() @ np.array(law.coefficients)
    at_peak = 6 * table.column("n_active") / table.on.peak_flops
    return table.frame.assign(
        modelled_seconds=seconds,
        error=seconds / table.seconds - 1,
        mfu=at_peak / table.seconds,
        modelled_mfu=at_peak / seconds,
    )


def _parts(table: TrainingTable) -> Array:
    """Ten parts of the rows, each with rows of all levels as they stand in the table."""
    return np.arange(len(table), dtype=float) % _PARTS


def _errors_without(design: Array, levels: Array) -> Array:
    """Errors of each row by the fit to the other levels; NaN where a term of the row is in none of the others, and
    where too few rows are left."""
    error = np.full(len(design), np.nan)
    for level in np.unique(levels):
        out = levels == level
        if (~out).sum() < _FEWEST:
            continue
        unknown = np.any((design[out] != 0) & ~np.any(design[~out] != 0, axis=0), axis=1)
        error[out] = np.where(unknown, np.nan, design[out] @ robust(design[~out], LEAST)[0] - 1)
    return error


def _held_out(table: TrainingTable, design: Array) -> tuple[dict[str, HeldOutTimes], Array]:
    """Errors by axis that has several levels, and of configurations; measured over modelled times of all of them."""
    levels = {axis: table.column(axis) for axis in AXES}
    levels = {axis: column for axis, column in levels.items() if len(np.unique(column[~np.isnan(column)])) > 1}
    levels["configuration"] = _parts(table)
    errors = {axis: _errors_without(design, column) for axis, column in levels.items()}
    known = {axis: error[~np.isnan(error)] for axis, error in errors.items()}
    held_out = {
        axis: HeldOutTimes.of(
            error, () if axis == "configuration" else tuple(np.unique(levels[axis][~np.isnan(errors[axis])]).tolist())
        )
        for axis, error in known.items()
        if len(error)
    }
    every = np.concatenate([*known.values()])
    return (held_out | {"all": HeldOutTimes.of(every)} if len(every) else held_out), 1 / (1 + every)


def _spread(ratios: Array) -> float:
    """Half the width of the middle 68 % of ln(measured / modelled): the standard deviation, if it is normal."""
    low, high = np.quantile(np.log(np.maximum(ratios, 1e-9)), _INNER)
    return float((high - low) / 2)


def _assumed(table: TrainingTable) -> Array:
    """Device-seconds a token by the assumed speed."""
    speed = assumed_training_speed()
    shares = np.array([speed.mfu_at(int(n_experts)) for n_experts in table.column(EXPERTS)])
    return np.asarray(6 * table.column("n_active") / (table.on.peak_flops * shares))


def _typical(column: Array) -> float | None:
    """The median of what is known; None where nothing is."""
    known = column[~np.isnan(column)]
    return float(np.median(known)) if len(known) else None


def _domain(table: TrainingTable) -> MeasuredRange:
    """The E and k, and the ranges of the rest, that the rows cover."""
    experts, top_k = table.column(EXPERTS), table.column("top_k")

    def ends(column: Array) -> tuple[float, ...]:
        known = np.unique(column[~np.isnan(column)])
        return tuple(known[[0, -1]].tolist()) if len(known) else ()

    return MeasuredRange(
        what=_WHAT,
        n_experts=tuple(np.unique(experts).astype(int).tolist()),
        top_k=tuple(np.unique(top_k[experts > 1]).tolist()),
        batch=ends(table.column("batch_tokens") / table.column("devices")),
        context=ends(table.column("seq_len")),
        d_model=ends(table.column("d_model")),
        n_layers=ends(table.column("n_layers")),
    )


def _doubts(table: TrainingTable, present: Array) -> list[str]:
    """What the rows leave open: few or single levels, columns without which terms are absent, a busy machine."""
    doubts = []
    if len(table) < _FEW:
        doubts.append(f"only {plural(len(table), 'configuration')} for {plural(int(present.sum()), 'term')}")
    columns = {name: table.column(name) for name in ("d_model", EXPERTS, "n_layers", "batch_tokens")}
    single = [name for name, column in columns.items() if len(np.unique(column[~np.isnan(column)])) == 1]
    if single:
        doubts.append(f"a single {', '.join(single)}: its cost cannot be distinguished from the rest")
    for name, of in _NEEDED.items():
        if np.isnan(table.column(name)).all():
            doubts.append(f"{name} is not in the table: no term of {listed(of)}")
    loops = table.frame["loops"][table.column(EXPERTS) > 1]
    if loops.any() and not loops.all():
        doubts.append(f"kernels of the experts are mixed; a model is priced by that which goes block by block ({LOOP})")
    busy = table.column("busy_cores")
    if np.nan_to_num(busy).max() > BUSY:
        disturbed = int((np.nan_to_num(busy) > BUSY).sum())
        doubts.append(
            f"other processes used up to {np.nanmax(busy):.1f} cores during {disturbed} of {len(table)} measurements"
        )
    apart = table.column("spread") > _APART
    if apart.any():
        doubts.append(
            f"rows of one configuration differ by up to {table.column('spread').max():.2f} times in "
            f"{plural(int(apart.sum()), 'configuration')}: was the machine shared?"
        )
    return doubts
