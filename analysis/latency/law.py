"""The latency law: what a device reaches of its data sheet, by robust regression of measured times on what a step asks.

    seconds = overhead + layers + prompts + experts + activations + bytes / bandwidth + rereads + FLOPs / peak

each with one coefficient (`scaling.serving.step_time.Efficiency`). Errors of time are relative, so relative residuals
are what is made small: rows are divided by their time, and the target is 1. What these few terms leave over is carried
to steps near those measured by kriging (`analysis.latency.kriging`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.latency.kriging import MeasuredSteps, measured_steps, told
from analysis.latency.plausibility import doubts_of_counts, doubts_of_residuals, doubts_of_times, floor_seconds
from analysis.latency.robust import robust
from analysis.latency.speeds import Speeds
from analysis.latency.table import LOOP, LatencyTable, works
from analysis.tables.reading_log import ALL_AS_NAMED, Selection
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import listed
from scaling.progress import Progress, silent
from scaling.serving.departures import NONE_MEASURED
from scaling.serving.device import Device
from scaling.serving.measured_range import MeasuredRange
from scaling.serving.service import NUMBER_BYTES, Service
from scaling.serving.step_time import ASSUMED, LEAST, TERMS, Efficiency, StepWork
from scaling.summary import Summarised, summary_table
from scaling.table import Table
from scaling.values import LATENCY_LAW

AXES = ("batch", "context", "d_model", "n_experts")
FITTED = len(TERMS) - 1  # all but communication, which one device has none of
_TERMS = TERMS[:FITTED]
_WHAT = "the latency law"
_UNKNOWN_RANGE = MeasuredRange(_WHAT)
_BOUNDS = LEAST[:FITTED]
_WIDEST = 1e6  # of a head
_ROUNDED = 1e-9  # relative: a share of 1 that was written and read
_QUANTILES = (np.arange(101) + 0.5) / 101


@dataclass(frozen=True)
class HeldOutTimes:
    """Errors of predictions, |modelled / measured - 1|: median, 90th percentile, over `rows` rows; `levels` left out in
    turn."""

    median: float
    p90: float
    rows: int
    levels: tuple[float, ...] = ()

    @classmethod
    def of(cls, errors: npt.ArrayLike, levels: tuple[float, ...] = ()) -> HeldOutTimes:
        """The summary of signed errors."""
        size = np.abs(np.asarray(errors, dtype=float))
        return cls(float(np.median(size)), float(np.quantile(size, 0.9)), len(size), levels)


@dataclass(frozen=True, repr=False)
class LatencyLaw(Summarised):
    """What a device reaches, and how sure that is.

    `draws`: coefficients refitted to bootstrap samples of shapes, one a row, in the order of `TERMS` without
    communication. `ratios`: measured over modelled time of shapes that were left out, 101 of their quantiles.
    `at_bound`: terms whose coefficient the data would have below what is possible, `absent`: those that no row has.
    `held_out`: errors by axis and over all of them. `head_width`: of the attention that was measured, where it writes
    its scores (0: fused). `reads_all`: whether the kernel of the experts reads all of them, `loops`: whether it takes
    their rows block by block (`scaling.serving.step_time.looped`). `before`: errors of the efficiency assumed without a
    measurement, `after`: of this one, in sample. `made_from`: the digest of the table (`CheckedTable.digest`).
    `measured_range`: the E, k and ranges of its rows; unknown in files of older versions. `steps`: the rows that steps
    near them are corrected by; None where too few were measured. `terms_alone`: errors of the terms without that, on
    what was left out. `source`, `selection`, `seed`: the table, how it was read, and the seed of the draws; unknown in
    files of older versions.
    """

    device: Device
    efficiency: Efficiency
    draws: Array
    ratios: Array
    at_bound: tuple[str, ...]
    absent: tuple[str, ...]
    n_rows: int
    n_shapes: int
    dtype: str
    versions: str
    held_out: Mapping[str, HeldOutTimes]
    before: HeldOutTimes
    after: HeldOutTimes
    warnings: tuple[str, ...] = ()
    head_width: float = 0.0
    reads_all: bool = False
    loops: bool = False
    terms: tuple[str, ...] = _TERMS
    made_from: str = ""
    measured_range: MeasuredRange = _UNKNOWN_RANGE
    steps: MeasuredSteps | None = None
    terms_alone: HeldOutTimes | None = None
    source: str = ""
    selection: Selection = ALL_AS_NAMED
    seed: int = 0

    def __post_init__(self) -> None:
        if self.terms != _TERMS:
            raise InputError(f"`terms` are {listed(self.terms):.200}; this version knows {listed(_TERMS)}")
        if self.draws.ndim != 2 or self.draws.shape[1] != FITTED or not len(self.draws):
            raise InputError(f"`draws` have the shape {self.draws.shape}; they are rows of {FITTED} coefficients")
        below = np.argwhere(~(self.draws >= _BOUNDS * (1 - _ROUNDED)))
        if len(below):
            row, term = below[0]
            raise InputError(f"`draws`[{row}][{term}] is {self.draws[row, term]:g}, below {_BOUNDS[term]:g}")
        for row, draw in enumerate(self.draws):
            try:
                Efficiency.of(draw, "")
            except InputError as error:
                raise InputError(f"`draws`[{row}]: {error}") from error
        if self.ratios.ndim != 1 or not len(self.ratios) or not np.all((self.ratios > 0) & np.isfinite(self.ratios)):
            raise InputError("`ratios` are a list of positive numbers")
        if self.dtype not in NUMBER_BYTES:
            raise InputError(f"`dtype` is {self.dtype!r}; allowed: {', '.join(NUMBER_BYTES)}")
        if self.steps is not None and self.steps.design.shape[1] != FITTED:
            raise InputError(f"`steps`: `design` has {self.steps.design.shape[1]} terms a row; they are {FITTED}")
        if not 0 <= self.head_width <= _WIDEST or self.n_rows < 0 or self.n_shapes < 0:
            raise InputError(f"`head_width` (up to {_WIDEST:g}), `n_rows` and `n_shapes` must be at least 0")

    def seconds(self, work: StepWork) -> Array:
        """Time by the terms alone. Never below the roofline floor, because no share is above 1."""
        return np.asarray(work.seconds(self.device, self.efficiency), dtype=float)

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the fields of `efficiency`, percentiles of the draws."""
        drawn = pd.DataFrame([asdict(Efficiency.of(draw, "")) for draw in self.draws]).drop(columns="source")
        limits = {str(name): np.quantile(drawn[name], [0.025, 0.975]) for name in drawn}
        return {name: (float(low), float(high)) for name, (low, high) in limits.items()}

    @property
    def speeds(self) -> Speeds:
        """The draws, and the scatter of shapes that were left out or what was measured near those priced, for whoever
        carries their uncertainty on."""
        return Speeds(self.draws, self.ratios, self.steps)

    def measured(self, service: Service) -> Service:
        """The service with what was measured: efficiency, departures from it, attention, the kernel of the experts,
        bytes of a number, and the range of it all."""
        width = NUMBER_BYTES[self.dtype]
        covered = replace(self.measured_range, dtype=self.dtype, doubts=self.warnings)
        if not covered.n_experts and "experts" in self.absent:  # an older file, of dense rows alone
            covered = replace(covered, n_experts=(1,))
        return replace(
            service,
            efficiency=self.efficiency,
            head_width=self.head_width,
            reads_all=self.reads_all,
            loops=self.loops,
            bytes_per_weight=width,
            bytes_per_kv=width,
            measured_range=covered,
            departures=NONE_MEASURED if self.steps is None else self.steps.mean(self._fitted),
        )

    @property
    def _fitted(self) -> Array:
        """The coefficients of the terms."""
        return self.efficiency.coefficients()[:FITTED]

    def summary(self) -> Table:
        """What the device reaches, with 95 % intervals; then the warnings."""
        title = f"Latency law of {self.device.title}: {self.n_rows} rows of {self.n_shapes} shapes, {self.dtype}"
        if "all" in self.held_out:
            title += f"; median error on what was left out {self.held_out['all'].median:.1%}"
        rows = [
            (name, f"{getattr(self.efficiency, name):.4g}", f"{low:.4g} to {high:.4g}")
            for name, (low, high) in self.intervals.items()
        ]
        return summary_table(title, ("coefficient", "value", "95 % interval"), rows, self.warnings)


def fit_latency(
    table: LatencyTable,
    on: Device,
    rng: np.random.Generator,
    resamples: int = 400,
    progress: Progress = silent,
) -> LatencyLaw:
    """The latency law of a table, with `resamples` bootstrap draws of its shapes and the errors of what was left out.

    Raises InputError with fewer shapes or rows than coefficients need.
    """
    design, shapes = design_matrix(table, on), table.shapes.to_numpy()
    n_shapes = len(np.unique(shapes))
    if n_shapes < 3 or len(table) < 2 * FITTED:
        raise InputError(
            f"{table.source}: {len(table)} rows of {n_shapes} shapes; a latency law of {FITTED} coefficients needs "
            f"{2 * FITTED} rows of 3 shapes at least: `scaling bench` (comma lists) or a sweep of the grid latency "
            "measure more"
        )
    doubts = [*doubts_of_counts(table), *doubts_of_times(table, on)]
    (coefficients, at_bound), present = robust(design, _BOUNDS), np.any(design != 0, axis=0)
    doubts += doubts_of_residuals(table, design @ coefficients)
    members = [np.flatnonzero(shapes == shape) for shape in np.unique(shapes)]
    draws = []
    for number in range(resamples):
        progress(0.9 * number / resamples)
        rows = np.concatenate([members[shape] for shape in rng.integers(n_shapes, size=n_shapes)])
        draws.append(robust(design[rows], _BOUNDS, coefficients)[0])
    ratios = 1 / (1 + left_out(table, on, "shape")["error"].to_numpy(float))
    steps, terms = measured_steps(table, design, coefficients), np.array(_TERMS)
    held_out, terms_alone = _held_out(table, on, steps)
    return LatencyLaw(
        device=on,
        efficiency=Efficiency.of(
            coefficients, f"measured: {len(table)} rows of {n_shapes} shapes, {table.dtype}, {on.title}"
        ),
        draws=np.array(draws),
        ratios=np.quantile(ratios, _QUANTILES),
        at_bound=tuple(terms[at_bound & present]),
        absent=tuple(terms[~present]),
        n_rows=len(table),
        n_shapes=n_shapes,
        dtype=table.dtype,
        versions=str(table.frame["versions"].iloc[0]) if "versions" in table.frame else "",
        held_out=held_out,
        before=HeldOutTimes.of(design @ ASSUMED.coefficients()[:FITTED] - 1),
        after=HeldOutTimes.of(design @ coefficients - 1),
        warnings=(*table.notes, *_warnings(table), *doubts),
        head_width=_head_width(table),
        reads_all=bool(table.frame["reads_all"].any()),
        loops=bool((table.frame["kernel"] == LOOP).any()),
        made_from=table.digest,
        measured_range=_range_of(table),
        steps=steps,
        terms_alone=terms_alone if steps else None,
        source=table.source,
        selection=table.selection,
    )


def latency_document(law: LatencyLaw) -> dict[str, Any]:
    """The content of a latency law's file: its fields, and the 95 % intervals of its coefficients."""
    return {**LATENCY_LAW.document(law), "intervals": {name: list(ends) for name, ends in law.intervals.items()}}


def load_latency_law(path: str | Path) -> LatencyLaw:
    """The law in a file that `scaling latency` wrote. Raises InputError naming file, field and remedy."""
    return LATENCY_LAW.value(LatencyLaw, LATENCY_LAW.read(path), str(path))


def _head_width(table: LatencyTable) -> float:
    """The median width of a head, 0 where attention is taken for fused."""
    heads = table.column("n_heads")
    return float(np.median(table.column("d_model")[heads > 0] / heads[heads > 0])) if np.any(heads > 0) else 0.0


def _held_out(
    table: LatencyTable, on: Device, steps: MeasuredSteps | None
) -> tuple[dict[str, HeldOutTimes], HeldOutTimes | None]:
    """Errors by axis that has several levels, each left out in turn, and over all of them; then those of the terms
    alone over all of them."""
    predicted = {axis: left_out(table, on, axis, steps) for axis in AXES if len(np.unique(table.column(axis))) > 1}
    errors = {
        axis: HeldOutTimes.of(rows["error"], tuple(float(level) for level in sorted(rows[axis].unique())))
        for axis, rows in predicted.items()
    }
    if not predicted:
        return errors, None
    every = pd.concat(predicted.values())
    return errors | {"all": HeldOutTimes.of(every["error"])}, HeldOutTimes.of(every["error_of_terms"])


def left_out(table: LatencyTable, on: Device, by: str, steps: MeasuredSteps | None = None) -> pd.DataFrame:
    """The rows with `modelled_ms` and `error` (modelled / measured - 1) of a law fitted without their level of `by`,
    and `error_of_terms`, that of its terms alone.

    `by`: a column, each of whose values is left out in turn; or "shape", where ten parts of the shapes are. With
    `steps` the law is corrected by the rows that are not left out, with the covariances of all. Raises InputError with
    a single level.
    """
    design = design_matrix(table, on)
    levels = table.shapes.to_numpy() % 10 if by == "shape" else table.column(by)
    if len(np.unique(levels)) < 2:
        raise InputError(f"{table.source}: a single {by}; leaving one out takes at least two")
    error, of_terms = np.full((2, len(table)), np.nan)
    for level in np.unique(levels):
        out = levels == level
        if len(np.unique(table.shapes[~out])) >= 2:
            coefficients = robust(design[~out], _BOUNDS)[0]
            factor = 1.0 if steps is None else told(steps.covariances, table, design, coefficients, out)
            of_terms[out] = design[out] @ coefficients - 1
            error[out] = (1 + of_terms[out]) * factor - 1
    modelled_ms = table.column("time_ms") * (1 + error)
    return table.frame.assign(error=error, error_of_terms=of_terms, modelled_ms=modelled_ms).dropna(subset=["error"])


def modelled(table: LatencyTable, law: LatencyLaw) -> pd.DataFrame:
    """The rows with `modelled_ms`, `error` (modelled / measured - 1) and `floor_ms`, the roofline of the device."""
    seconds, floor = law.seconds(works(table)), floor_seconds(table, law.device)
    return table.frame.assign(modelled_ms=1e3 * seconds, error=seconds / table.seconds - 1, floor_ms=1e3 * floor)


def design_matrix(table: LatencyTable, on: Device) -> Array:
    """Terms of the model over the measured time, rows x terms."""
    return np.ascontiguousarray((works(table).terms(on)[:FITTED] / table.seconds).T)


def _range_of(table: LatencyTable) -> MeasuredRange:
    """The values of E and k, and the ranges of the rest, that the rows cover."""
    experts, top_k = table.column("n_experts"), table.column("top_k")

    decoded = table.frame["phase"].eq("decode").to_numpy()
    batch = table.column("batch")

    def ends(values: Array) -> tuple[float, ...]:
        return tuple(np.unique(values)[[0, -1]].tolist()) if len(values) else ()

    return MeasuredRange(
        what=_WHAT,
        n_experts=tuple(np.unique(experts).astype(int).tolist()),
        top_k=tuple(np.unique(top_k[experts > 1]).tolist()),
        batch=ends(batch[decoded] if decoded.any() else batch),
        prompt_batch=ends(batch[~decoded]),
        context=ends(table.column("context")),
        d_model=ends(table.column("d_model")),
        n_layers=ends(table.column("n_layers")),
        phases=tuple(sorted(set(table.frame["phase"]))),
        dtype=table.dtype,
    )


def _warnings(table: LatencyTable) -> list[str]:
    warnings = []
    single = [name for name in (*AXES, "n_layers") if len(np.unique(table.column(name))) < 2]
    if single:
        warnings.append(f"a single {', '.join(single)}: its cost cannot be distinguished from the rest")
    phases = set(table.frame["phase"])
    if len(phases) < 2:
        warnings.append(f"only {phases.pop()} was measured")
    return warnings
