"""Fits: a law with estimated parameters, what they were fitted to, and how far they can be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, InstanceOf
from scipy.special import ndtri

from analysis.fitting import bca, fit_tables, fitted_to, identifiability, limits
from analysis.fitting.bca import Resampled, Supply
from analysis.fitting.discrepancy import Discrepancy
from analysis.fitting.fit_options import FitOptions
from analysis.fitting.identifiability import IdentifiabilityFinding, Pin
from analysis.fitting.noise import NoiseTrend, leverage, noise_trend
from analysis.fitting.objective import HUBER, Kind, Objective, Residual
from analysis.fitting.outliers import outlier_doubts
from analysis.fitting.prior import Prior
from analysis.fitting.problem import Problem
from analysis.fitting.search import GlobalMinimum, search
from analysis.fitting.studied import Studied, studied
from analysis.laws import LAWS, Law, law_named, studied_family
from analysis.laws.model_family import Family
from analysis.tables.doubts import Doubt
from analysis.tables.rows import rows_of
from analysis.tables.runs import RunTable
from scaling import distribution
from scaling.arrays import Array
from scaling.columns import COMPUTE
from scaling.errors import InputError
from scaling.formatting import flops, plural, si
from scaling.summary import Summarised, summarised
from scaling.table import Table

if TYPE_CHECKING:
    from scaling.serving.families import ArchitectureFamily

Status = Literal["ok", "at_bound", "unidentified", "failed", "published", "given"]
AS_ASKED = "as asked"  # the source of a pin that is the user's own
FEW_TRUNKS, SCARCE_TRUNKS = 5, 3  # trunks a free parameter, below which intervals are made otherwise
MOST_RESIDUALS = 10_000
_LEVELS = 200  # quantiles of law and noise that are paired
_POOR_RMSE = 0.015  # of ln loss; published laws reach .004 (2404.02852) to .008 (2404.10102) on their own runs


@dataclass(frozen=True, repr=False)
class Fit(Summarised):
    """A law and its parameters; `law` and `params` alone make a valid file, the rest says how they came about.

    `params` holds every parameter, the `pinned` ones too, and is empty where the status is "unidentified" or "failed":
    failure is a value, never a number. `objective` is the sum that was minimised; `residuals` are prediction minus
    observation of the natural log in row order (empty for more than 10,000 rows), `rmse_log` is sqrt(mean r^2) of them.
    `intervals` are 95 %, BCa (`bca.quantiles`), from `draws`, one value per bootstrap resample of every free
    parameter, and `jackknife`, one value without each trunk (or group of trunks) of the stratum in `strata`.
    `condition` is that of the scaled Jacobian. `doubts` are those of the table, and runs far from the law; each stands
    among the `warnings` too, which every answer repeats. `noise` is the deviation of ln loss between seeds, None where
    no configuration was repeated. `noise_trend` says how noise changes with compute, where the runs show that it does;
    `prior` is that of the exponents, where there were too few trunks to resample. `domain` is the range of every column
    fitted, `experts` the E studied, `studied` how the runs of each E divided their compute, `settings` the columns of
    the law beside N, tokens and E that had one value in all runs, `corpus_tokens` the size of the text trained on (of
    the largest, where runs differ), `router_skew` how uneven the trained routers are (`fitted_to.router_skew`), None
    where unknown. `made_from` is the digest of the table (`CheckedTable.digest`).
    `discrepancy` is by how much larger runs missed this law in roll-out, None where that was not looked at: `intervals`
    and both kinds of predicted ones are of the law alone, `interval_beyond` allows for it. `options` are the choices
    behind the fit, None where they are not known. `own_law` is the law itself where it was made in Python; no file
    holds it.
    """

    law: str
    params: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    objective: float | None = None
    objective_kind: Kind = "huber"
    residual: Residual = "log"
    delta: float = 1e-3
    rmse_log: float | None = None
    residuals: tuple[float, ...] = ()
    n_runs: int = 0
    n_trunks: int = 0
    n_starts: int = 0
    n_starts_at_minimum: int = 0
    condition: float | None = None
    status: Status = "given"
    warnings: tuple[str, ...] = ()
    findings: tuple[IdentifiabilityFinding, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    pinned: Mapping[str, Pin] = field(default_factory=dict)
    at_bounds: tuple[str, ...] = ()
    domain: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    experts: tuple[int, ...] = ()
    studied: Mapping[int, Studied] = field(default_factory=dict)
    noise: float | None = None
    noise_trend: NoiseTrend | None = None
    prior: Prior | None = None
    family: Family | None = None
    corpus_tokens: float | None = None
    router_skew: float | None = None
    settings: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    dropped: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    draws: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    draws_failed: int = 0
    jackknife: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    strata: tuple[int, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    made_from: str = ""
    discrepancy: Discrepancy | None = None
    options: FitOptions | None = None
    own_law: Annotated[InstanceOf[Law] | None, Field(exclude=True)] = field(default=None, compare=False)

    @property
    def definition(self) -> Law:
        """The law itself."""
        return self.own_law or law_named(self.law)

    @property
    def of_one_law(self) -> Fit:
        """The fit of one law that its checks look at: itself, where it has no more."""
        return self

    @property
    def chooses_by_risk(self) -> bool:
        """Whether an E is chosen by its expected regret over the draws; otherwise by the estimate, which is a law."""
        return False

    @property
    def models(self) -> ArchitectureFamily | None:
        """How the models are built that it is asked about, where it has no family of its own."""
        return None

    @property
    def free(self) -> tuple[str, ...]:
        """The parameters that were estimated, in the law's order."""
        return tuple(name for name in self.definition.names if name not in self.pinned)

    @property
    def n_draws(self) -> int:
        return len(next(iter(self.draws.values()), ()))

    @property
    def largest_train_flops(self) -> float | None:
        """The compute of the largest run that was fitted."""
        return self.domain[COMPUTE][1] if COMPUTE in self.domain else None

    @property
    def only_experts(self) -> int | None:
        """The expert count that a law without experts speaks of (1 where several were mixed); None for other laws."""
        if self.definition.uses_experts:
            return None
        return self.experts[0] if len(self.experts) == 1 else 1

    def require_experts(self, n_experts: Iterable[int]) -> None:
        """Raises InputError where the law knows no experts and others than those fitted are asked about."""
        only = self.only_experts
        if only is not None and any(e != only for e in n_experts):
            raise InputError(f"law {self.law} says nothing about experts: `n_experts` can only be {only}")

    def require_params(self) -> None:
        """Raises InputError where the fit has no parameters to predict with."""
        if not self.params:
            raise InputError(f"the fit of {self.law} is {self.status} and predicts nothing: {'; '.join(self.warnings)}")

    def parameter_draws(self) -> dict[str, Any]:
        """The parameters as columns (draws, 1), the pinned ones as numbers; without draws, the estimate alone."""
        self.require_params()
        return self._as_columns(self.draws) if self.draws else dict(self.params)

    def parameter_jackknife(self) -> dict[str, Any]:
        """The parameters without each trunk as columns (m, 1), the pinned ones as numbers."""
        return self._as_columns(self.jackknife)

    def _as_columns(self, values: Mapping[str, tuple[float, ...]]) -> dict[str, Any]:
        return {
            name: np.array(values[name])[:, None] if name in values else self.params[name]
            for name in self.definition.names
        }

    def loss(self, columns: Mapping[str, Any]) -> Array:
        """Predicted loss, nats per token."""
        self.require_params()
        return self.definition.loss(self.params, columns)

    @property
    def criterion(self) -> Objective:
        """The objective that was minimised, as a function of residuals."""
        return Objective(self.objective_kind, self.residual, self.delta)

    def problem(self, table: RunTable) -> tuple[Problem, Array]:
        """What was minimised on the table that was fitted, and the coordinates of the estimate.

        Raises InputError for another table.
        """
        if len(table) != self.n_runs:
            raise InputError(f"the fit has {self.n_runs} runs, the table {len(table)}: give the table that was fitted")
        pinned = {name: pin.value for name, pin in self.pinned.items()}
        problem = Problem.of(table, self.definition, pinned, self.criterion)
        return problem, problem.coordinates(self.params)

    @property
    def exponents_at_bound(self) -> tuple[str, ...]:
        """Exponents of size, tokens or compute that ended at their bounds."""
        return tuple(name for name in self.at_bounds if name in limits.exponents(self.definition))

    def leverages(self, table: RunTable) -> Array:
        """The leverage of each run of the table that was fitted: the share of its residual that it takes out itself."""
        problem, estimate = self.problem(table)
        return leverage(problem.log_loss(estimate[None])[1][0])

    @property
    def resampled(self) -> Resampled:
        """How the draws were made."""
        per_parameter = self.n_trunks / max(1, len(self.free))
        supply: Supply = (
            "many" if per_parameter >= FEW_TRUNKS else "few" if per_parameter >= SCARCE_TRUNKS else "scarce"
        )
        if self.prior is not None or self.status == "published":  # draws of a posterior or of a rule: no resamples
            return Resampled(self.strata, self.n_trunks, plain=True)
        return Resampled(self.strata, self.n_trunks, supply if self.n_trunks > 1 else "many")

    def quantiles(self, probabilities: Sequence[float] | Array, quantity: Callable[[Mapping[str, Any]], Any]) -> Array:
        """BCa quantiles (`bca.quantiles`) of anything that parameters give, shape (len(probabilities), n).

        `quantity(params)` takes the parameters as numbers, or as columns (B, 1), and gives (n,) or (B, n). Raises
        InputError where the fit has no draws.
        """
        if not self.draws:
            raise InputError(f"the fit of {self.law} has no draws: fit with `bootstrap`")
        jackknife = quantity(self.parameter_jackknife()) if self.jackknife else None
        estimate = np.ravel(quantity(dict(self.params)))
        draws = np.asarray(quantity(self.parameter_draws()), dtype=float)
        return bca.quantiles(probabilities, estimate, draws, jackknife, self.resampled)

    def loss_interval(self, columns: Mapping[str, Any]) -> tuple[Array, Array] | None:
        """95 % interval of the predicted loss (run-to-run noise not in it); None without draws."""
        if not self.draws:
            return None
        low, high = self.quantiles(bca.ENDS, lambda params: self.definition.loss(params, _rows(columns)))
        return low, high

    @property
    def enlargement(self) -> float:
        """By how much residuals fall short of the noise, sqrt(n/(n - P)) for P parameters fitted to n runs; with n <= P
        sqrt(n), and 1 where the fit does not say of how many runs it is."""
        n = max(self.n_runs, len(self.residuals))
        return float(np.sqrt(n / max(1, n - len(self.free)))) if n else 1.0

    def prediction_interval(self, columns: Mapping[str, Any]) -> tuple[Array, Array] | None:
        """95 % interval of the loss that a new run would measure: law and run-to-run noise; None without draws.

        Noise is the fit's own residuals, each enlarged (`enlargement`); where seeds were repeated and spread more, by
        as much as they do; where it changes with compute, of the size that it has there (`noise_trend`). Every
        quantile of the law is paired with every residual, so that no seed is needed and heavy tails stay.
        """
        return self._run_interval(columns, None)

    def interval_beyond(self, columns: Mapping[str, Any]) -> tuple[Array, Array] | None:
        """`prediction_interval` with what larger runs missed the law by in roll-out; None where that is not known.

        Every quantile of the law meets one of the slope of the discrepancy, in an order of its own.
        """
        if self.discrepancy is None:
            return None
        slopes = self.discrepancy.slopes(_LEVELS, np.random.default_rng(0))
        return self._run_interval(columns, slopes[:, None] * self.discrepancy.reach(_rows(columns)))

    def _run_interval(self, columns: Mapping[str, Any], beyond: Array | None) -> tuple[Array, Array] | None:
        published = self.status == "published" and self.rmse_log is not None
        if not self.draws or not (self.residuals or published):
            return None
        levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
        law = self.quantiles(levels, lambda params: self.definition.log_loss(params, _rows(columns)))
        law = law if beyond is None else law + beyond
        trend = None if self.prior is not None else self.noise_trend
        noise = -np.sort(self.residuals if trend is None else trend.standardised) * self.enlargement
        spread = np.sqrt(np.mean(np.square(self.residuals))) * self.enlargement if self.residuals else 0.0
        if self.noise is not None and self.noise > spread > 0:
            noise = noise * (self.noise / spread)
        if self.prior is not None:
            noise = max(self.prior.noise, self.noise or 0.0) * ndtri(levels)
        elif published:  # of whose residuals only the size is known
            noise = (self.rmse_log or 0.0) * ndtri(levels)
        noise = np.quantile(noise, levels) if len(noise) > _LEVELS else noise
        scales = np.broadcast_to(1.0 if trend is None else trend.scale(columns), len(law.T))
        ends = [
            np.quantile((column[:, None] + scale * noise).ravel(), bca.ENDS)
            for column, scale in zip(law.T, scales, strict=True)
        ]
        low, high = np.exp(np.array(ends).T)
        of_law = self.loss_interval(columns) or (low, high)
        return np.minimum(low, of_law[0]), np.maximum(high, of_law[1])

    def summary(self) -> Table:
        """Every parameter with its value, 95 % interval and meaning; then the warnings, and what was assumed."""
        heading = f"Fit of {self.law} to {plural(self.n_runs, 'run')}, {self.n_draws} resamples: {self.status}"
        if self.status == "published" or (self.rmse_log is None and not self.n_runs):
            heading = f"{self.law}, {self.status}: {self.source}"
        elif self.rmse_log is not None:
            heading += f"; rmse of ln loss {self.rmse_log:.3g}"
        table = fit_tables.parameter_table(self.definition, self.params, self.intervals, self.pinned)
        left_out = [f"left out: {count} with {reason}" for reason, count in self.dropped]
        noise = () if self.noise_trend is None else (self.noise_trend.describe(),)
        return summarised(table, heading, (*self.warnings, *left_out, *self.notes, *noise, *table.notes))

    def predict(self, models: pd.DataFrame | Mapping[str, Any]) -> pd.DataFrame:
        """Predicted loss of models, one a row of a frame, with both 95 % intervals (NaN without draws).

        `models` is a DataFrame, or a mapping of its columns to one number or several. It has the law's columns, such as
        `n_active`, `tokens` and `n_experts`; one that all fitted runs agreed in (`settings`) may be missing. `loss` (or
        the law's target) is in nats per token, `loss_low` and `loss_high` bound the law's value, `run_low` and
        `run_high` the loss of one new run; `outside` names columns whose value lies outside the fitted range, `refused`
        says why a prediction is no answer ("" where it is one). Raises InputError for a missing column and for what is
        no positive number.
        """
        self.require_params()
        frame = fit_tables.frame_of_models(models)
        columns = fit_tables.columns_of_frame(frame, self.definition, self.settings)
        intervals = self.loss_interval(columns), self.prediction_interval(columns)
        outside = fit_tables.columns_outside(columns, self.domain)
        rows = [{name: float(values[row]) for name, values in columns.items()} for row in range(len(frame))]
        refused = [limits.refused_of_model(self, model) for model in rows]
        table = fit_tables.prediction_table(self.definition, self.loss(columns), *intervals, outside, refused)
        return table.set_index(frame.index)

    def outside_domain(self, columns: Mapping[str, float]) -> list[str]:
        """One warning a column whose value lies outside what was fitted."""
        return [
            f"{name} = {write(columns[name])} is outside the fitted range {write(low)} to {write(high)}"
            for name, (low, high) in self.domain.items()
            for write in [flops if name == COMPUTE else si]
            if name in columns and not low * (1 - 1e-9) <= columns[name] <= high * (1 + 1e-9)
        ]


def _rows(columns: Mapping[str, Any]) -> dict[str, Array]:
    return {name: np.atleast_1d(np.asarray(value, dtype=float)) for name, value in columns.items()}


def fit(
    table: RunTable,
    law: Law,
    *,
    objective: Objective = HUBER,
    pin: Mapping[str, float] | None = None,
    auto_pin: bool = True,
    n_starts: int = 64,
    seed: int = 0,
) -> Fit:
    """The global minimum of a law's summed objective over a table's runs.

    `n_starts` starts are each driven to a minimum; where few of them reach the lowest, independent searches by basin
    hopping follow (`search.search`). `pin` holds parameters at values; with `auto_pin` those the table cannot identify
    are held at published values too (`identifiability.automatic_pins`), each with a warning. Intervals come from
    `bootstrap.bootstrap`.
    The law need not be registered. Raises InputError for a missing column, an unknown parameter, and a law that has the
    name of another.
    """
    if law.name in LAWS and LAWS[law.name] is not law:
        raise InputError(f"the law {law.name!r} is not the one that `scaling laws` lists by this name: rename it")
    if n_starts < 1:
        raise InputError(f"`starts` must be at least 1, found {n_starts}")
    if seed < 0:
        raise InputError(f"`seed` must be at least 0, found {seed}")
    columns = table.columns(law.columns)
    asked = {name: identifiability.checked_pin(law, name, value) for name, value in (pin or {}).items()}
    by_user = {name: Pin(value, AS_ASKED) for name, value in asked.items()}
    n_trunks = len(np.unique(table.trunks))
    automatic = identifiability.automatic_pins(law, columns, n_trunks, by_user) if auto_pin else {}
    pins = {name: (by_user | automatic)[name] for name in law.names if name in by_user or name in automatic}
    free = [name for name in law.names if name not in pins]
    findings = identifiability.design_findings(law, columns, free, fitted_to.n_total(table))
    warnings = [
        *map(str, table.doubts),
        *map(str, findings),
        *identifiability.pin_warnings(automatic),
        *_mixture_warnings(table, law),
    ]
    unfitted = replace(
        _unfitted(table, law, objective),
        pinned=pins,
        n_trunks=n_trunks,
        warnings=tuple(warnings),
        findings=tuple(findings),
    )
    if identifiability.refusals(findings):
        return unfitted
    problem = Problem.of(table, law, {name: held.value for name, held in pins.items()}, objective)
    fitted = _fitted(unfitted, problem, search(problem, n_starts, np.random.default_rng(seed)))
    if not fitted.params or len(table) > MOST_RESIDUALS:
        return fitted
    trend = noise_trend(law, table, np.array(fitted.residuals), fitted.leverages(table), len(fitted.free))
    fitted = replace(fitted, noise_trend=trend)
    found = outlier_doubts(rows_of(table), problem, problem.coordinates(fitted.params))
    return replace(fitted, doubts=(*fitted.doubts, *found), warnings=(*map(str, found), *fitted.warnings))


def _unfitted(table: RunTable, law: Law, objective: Objective) -> Fit:
    """What a fit says of its table, without parameters."""
    return Fit(
        law=law.name,
        own_law=None if law.name in LAWS else law,
        params={},
        objective_kind=objective.kind,
        residual=objective.residual,
        delta=objective.delta,
        n_runs=len(table),
        status="unidentified",
        domain=fitted_to.domain(table, (*law.columns, COMPUTE)),
        experts=fitted_to.experts(table),
        studied=studied(table),
        family=fitted_to.family_of(table),
        versions={"scaling": distribution.version(), "numpy": np.__version__},
        **fitted_to.of_table(table, law),
    )


def _fitted(unfitted: Fit, problem: Problem, minimum: GlobalMinimum) -> Fit:
    """The fit at the minimum that the search reached, and how far it can be believed."""
    law, theta, warnings = problem.law, minimum.theta, list(unfitted.warnings)
    if not np.isfinite(minimum.objective):
        warnings.append(f"none of {minimum.n_starts} starts converged")
        return replace(unfitted, n_starts=minimum.n_starts, status="failed", warnings=tuple(warnings))
    if minimum.doubt:
        warnings.append(minimum.doubt)
    estimate = {name: float(value[0]) for name, value in problem.parameters(theta[None]).items()}
    log_loss, jacobian = problem.log_loss(theta[None])
    residuals = log_loss[0] - np.log(problem.loss)
    rmse = float(np.sqrt(np.mean(residuals**2)))
    if rmse > _POOR_RMSE:
        warnings.append(
            f"the law misses these runs by {rmse:.1%} (rmse of ln loss): look at the residuals before using it"
        )
    inside = problem.within_bounds(theta)
    at_bounds = tuple(name for name, within in zip(problem.free, inside, strict=True) if not within)
    warnings += [f"{name} ended at its bound {estimate[name]:g}: these runs do not determine it" for name in at_bounds]
    determined = [name for name in problem.free if name not in at_bounds]
    valley = identifiability.flat_valley(law, determined, jacobian[0][inside])
    refused = valley is not None and valley.refused
    valleys = () if valley is None else (valley,)
    params = {name: estimate[name] if name in estimate else problem.pinned[name] for name in law.names}
    return replace(
        unfitted,
        params={} if refused else params,
        status="unidentified" if refused else "at_bound" if at_bounds else "ok",
        at_bounds=at_bounds,
        condition=identifiability.condition_number(jacobian[0][inside]) if inside.any() else 1.0,
        objective=float(minimum.objective),
        rmse_log=rmse,
        residuals=tuple(residuals.tolist()) if len(residuals) <= MOST_RESIDUALS else (),
        n_starts=minimum.n_starts,
        n_starts_at_minimum=minimum.n_agreeing,
        warnings=(*warnings, *map(str, valleys)),
        findings=(*unfitted.findings, *valleys),
    )


def _mixture_warnings(table: RunTable, law: Law) -> list[str]:
    """What is wrong with fitting these runs together: several E for a law without, total sizes that contradict."""
    warnings, experts = [], fitted_to.experts(table)
    if len(experts) > 1 and not law.uses_experts:
        warnings.append(
            f"the runs have n_experts = {', '.join(map(str, experts))}, which law {law.name} ignores: "
            "select one with `where`, or fit a law with experts"
        )
    contradiction = studied_family.contradiction(fitted_to.counts(table))
    if contradiction:
        warnings.append(f"{contradiction}: total size and memory are not known; select one kind with `where`")
    return warnings
