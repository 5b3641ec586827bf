"""Fits: a law with estimated parameters, what they were fitted to, and how far they can be believed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from analysis import families, identify
from analysis.dual import Array
from analysis.families import Family
from analysis.identify import Pin
from analysis.laws import EXPERTS, TOKENS, Law
from analysis.laws import law as law_named
from analysis.objectives import Kind, Objective, Residual
from analysis.problem import FEW_AGREE, problem, search
from analysis.runs import COMPUTE, LOSS, RunTable
from scaling.errors import InputError

Status = Literal["ok", "at_bound", "unidentified", "failed", "published", "given"]
_POOR_RMSE = 0.015  # of ln loss; published laws reach .004 (2404.02852) to .008 (2404.10102) on their own runs
_CONFIGURATION = (
    "task",
    "n_experts",
    "top_k",
    "d_model",
    "n_layers",
    "n_heads",
    "d_expert",
    "vocab_size",
    "router",
    "dispatch",
    "experts",
    "n_active",
    "n_total",
    "tokens",
    "batch_tokens",
    "seq_len",
    "lr",
    "corpus_hash",
)


@dataclass(frozen=True)
class Fit:
    """A law and its parameters; `law` and `params` alone make a valid file, the rest says how they came about.

    `params` holds every parameter, the `pinned` ones too, and is empty where the status is "unidentified" or "failed":
    failure is a value, never a number. `objective` is the sum that was minimised; `rmse_log` is sqrt(mean r^2) of
    natural-log residuals. `intervals` are 95 %, from `draws` (one value per bootstrap resample of every free
    parameter). `condition` is that of the scaled Jacobian. `noise` is the deviation of ln loss between seeds, None
    where no configuration was repeated. `domain` is the range of every column fitted, `experts` the E studied,
    `corpus_tokens` the size of the text trained on (of the largest, where runs differ), None where unknown.
    """

    law: str
    params: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    objective: float | None = None
    objective_kind: Kind = "huber"
    residual: Residual = "log"
    delta: float = 1e-3
    rmse_log: float | None = None
    n_runs: int = 0
    n_trunks: int = 0
    n_starts: int = 0
    n_starts_at_minimum: int = 0
    condition: float | None = None
    status: Status = "given"
    warnings: tuple[str, ...] = ()
    pinned: Mapping[str, Pin] = field(default_factory=dict)
    at_bounds: tuple[str, ...] = ()
    domain: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    experts: tuple[int, ...] = ()
    noise: float | None = None
    family: Family | None = None
    corpus_tokens: float | None = None
    source: str = ""
    dropped: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    draws: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    draws_failed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def definition(self) -> Law:
        """The law itself."""
        return law_named(self.law)

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

    def require_experts(self, asked: Iterable[int]) -> None:
        """Raises InputError where the law knows no experts and others than those fitted are asked about."""
        only = self.only_experts
        if only is not None and any(e != only for e in asked):
            raise InputError(f"law {self.law} says nothing about experts: --n-experts can only be {only}")

    def require_params(self) -> None:
        """Raises InputError where the fit has no parameters to predict with."""
        if not self.params:
            raise InputError(f"the fit of {self.law} is {self.status} and predicts nothing: {'; '.join(self.warnings)}")

    def parameter_draws(self) -> dict[str, Any]:
        """The parameters as columns (draws, 1), the pinned ones as numbers; without draws, the estimate alone."""
        self.require_params()
        if not self.draws:
            return dict(self.params)
        return {
            name: np.array(self.draws[name])[:, None] if name in self.draws else self.params[name]
            for name in self.definition.names
        }

    def loss(self, columns: Mapping[str, Any]) -> Array:
        """Predicted loss, nats per token."""
        self.require_params()
        return self.definition.loss(self.params, columns)

    def loss_interval(self, columns: Mapping[str, Any]) -> tuple[Array, Array] | None:
        """95 % interval of the predicted loss from the draws (run-to-run noise not in it); None without draws."""
        if not self.draws:
            return None
        rows = {name: np.atleast_1d(np.asarray(value, dtype=float)) for name, value in columns.items()}
        low, high = np.percentile(self.definition.loss(self.parameter_draws(), rows), [2.5, 97.5], axis=0)
        return low, high

    def outside_domain(self, columns: Mapping[str, float]) -> list[str]:
        """One warning a column whose value lies outside what was fitted."""
        return [
            f"{name} = {columns[name]:.4g} is outside the fitted range {low:.4g} to {high:.4g}"
            for name, (low, high) in self.domain.items()
            if name in columns and not low * (1 - 1e-9) <= columns[name] <= high * (1 + 1e-9)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them back."""
        data = asdict(replace(self, family=None)) | {"family": families.to_json(self.family)}
        if self.condition is not None and not np.isfinite(self.condition):
            data["condition"] = None
        return data


def interval(draws: Array) -> tuple[float, float]:
    """95 % percentile interval of one quantity over the draws."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def from_json(data: Mapping[str, Any], origin: str) -> Fit:
    """The fit in a JSON document; `law` and `params` suffice. Raises InputError naming `origin` and what is wrong."""
    if not isinstance(data, Mapping) or "law" not in data or "params" not in data:
        raise InputError(f"{origin}: a fit needs at least the keys law and params")
    definition = law_named(str(data["law"]))
    known: dict[str, Any] = {f.name: data[f.name] for f in fields(Fit) if f.name in data}
    try:
        params = {str(name): float(value) for name, value in data["params"].items()}
        known["params"] = params
        for key in ("warnings", "at_bounds", "experts", "notes"):
            known[key] = tuple(known.get(key, ()))
        for key in ("intervals", "domain", "draws"):
            known[key] = {name: tuple(float(x) for x in values) for name, values in known.get(key, {}).items()}
        known["pinned"] = {name: Pin(**pin) for name, pin in known.get("pinned", {}).items()}
        known["dropped"] = tuple((str(reason), int(count)) for reason, count in known.get("dropped", ()))
        known["family"] = families.from_json(known.get("family"))
        loaded = Fit(**known)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{origin}: not a fit ({type(error).__name__}: {error})") from error
    missing = [name for name in definition.names if name not in params]
    if params and missing:
        raise InputError(f"{origin}: law {definition.name} needs the parameter {', '.join(missing)} in params")
    unusable = [name for name in params if not np.isfinite(params[name])]
    if unusable:
        raise InputError(f"{origin}: {', '.join(unusable)} in params is not a finite number")
    return loaded


def load(source: str) -> Fit:
    """The fit in a file, or `published:NAME`. Raises InputError when there is none."""
    if source.startswith("published:"):
        from analysis.published import published  # it imports this module for the type

        return published(source.removeprefix("published:"))
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{source}: no such fit; give a file that `scaling fit --out` wrote, or published:NAME")
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")), source)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: not JSON ({error})") from error


def fit(
    table: RunTable,
    law: Law,
    *,
    objective: Kind = "huber",
    residual: Residual = "log",
    delta: float = 1e-3,
    pin: Mapping[str, float] | None = None,
    auto_pin: bool = True,
    n_starts: int = 64,
    seed: int = 0,
) -> Fit:
    """The global minimum of a law's summed objective over a table's runs.

    `n_starts` starts are each driven to a minimum; where fewer than three reach the lowest, four times as many are
    tried. `pin` holds parameters at values; with `auto_pin` those the table cannot identify are held at published
    values too (`identify.automatic_pins`), each with a warning. Intervals come from `uncertainty.bootstrap`.
    Raises InputError for a missing column, an unknown parameter or objective.
    """
    goal = Objective(objective, residual, delta)
    columns = table.columns(law.columns)
    pins = {name: Pin(_checked_pin(law, name, value), "as asked") for name, value in (pin or {}).items()}
    n_trunks = len(np.unique(table.trunks))
    automatic = identify.automatic_pins(law, columns, n_trunks, pins) if auto_pin else {}
    pins = {name: (pins | automatic)[name] for name in law.names if name in pins or name in automatic}
    warnings = [*identify.design_warnings(law, columns), *identify.pin_warnings(automatic)]
    experts = tuple(int(e) for e in np.unique(_finite(table, EXPERTS)))
    if len(experts) > 1 and not law.uses_experts:
        warnings.append(
            f"the runs have n_experts = {', '.join(map(str, experts))}, which law {law.name} ignores: "
            "select one with --where, or fit a law with experts"
        )
    contradiction = families.contradiction(_counts(table))
    if contradiction:
        warnings.append(f"{contradiction}: total size and memory are not known; select one kind with --where")
    task = problem(table, law, {name: pin.value for name, pin in pins.items()}, goal)
    base = Fit(
        law=law.name,
        params={},
        objective_kind=objective,
        residual=residual,
        delta=delta,
        n_runs=len(table),
        n_trunks=n_trunks,
        status="unidentified",
        pinned=pins,
        domain=_domain(table, (*law.columns, COMPUTE)),
        experts=experts,
        noise=seed_noise(table),
        family=family_of(table),
        corpus_tokens=corpus_tokens(table),
        source=table.source,
        dropped=table.dropped,
        notes=table.notes,
        versions={"scaling": _version("scaling"), "numpy": np.__version__},
    )
    if len(table) < len(task.free):
        warnings.append(f"{len(table)} runs cannot determine {len(task.free)} parameters; add runs or pin some")
        return replace(base, warnings=tuple(warnings))
    if len(table) == len(task.free):
        warnings.append(
            f"{len(table)} runs for {len(task.free)} parameters: the law passes through them, nothing judges it"
        )
    refusals = identify.design_refusals(law, columns, task.free)
    if refusals:
        return replace(base, warnings=(*warnings, *refusals))
    rng = np.random.default_rng(seed)
    theta, value, tried, agreeing = search(task, n_starts, rng)
    if not np.isfinite(value):
        return replace(base, n_starts=tried, status="failed", warnings=(*warnings, f"none of {tried} starts converged"))
    if agreeing < FEW_AGREE:
        warnings.append(f"only {agreeing} of {tried} starts reached the lowest objective: it may not be the global one")
    log_loss, jacobian = law.log_loss_gradient(theta[None], task.free, task.pinned, task.columns)
    lower, upper = task.bounds
    inside = (theta > lower + 1e-6) & (theta < upper - 1e-6)
    at_bounds = tuple(name for name, within in zip(task.free, inside, strict=True) if not within)
    condition = identify.condition_number(jacobian[0][inside]) if inside.any() else 1.0
    estimate = {name: float(law.from_coordinates(name, x)) for name, x in zip(task.free, theta, strict=True)}
    params = {name: pins[name].value if name in pins else estimate[name] for name in law.names}
    rmse = float(np.sqrt(np.mean((log_loss[0] - np.log(task.loss)) ** 2)))
    if rmse > _POOR_RMSE:
        warnings.append(
            f"the law misses these runs by {rmse:.1%} (rmse of ln loss): look at the residuals before using it"
        )
    warnings += [f"{name} ended at its bound {estimate[name]:g}: these runs do not determine it" for name in at_bounds]
    status: Status = "at_bound" if at_bounds else "ok"
    if condition > identify.CONDITION_REFUSE:
        warnings.append(
            f"the runs cannot tell the parameters apart (condition number {condition:.0e}, above 1e6): no fit"
        )
        params, status = {}, "unidentified"
    elif condition > identify.CONDITION_WARN:
        warnings.append(f"the parameters are barely told apart (condition number {condition:.0f}, above 1e3)")
    return replace(
        base,
        params=params,
        status=status,
        at_bounds=at_bounds,
        condition=condition,
        objective=float(value),
        rmse_log=rmse,
        n_starts=tried,
        n_starts_at_minimum=agreeing,
        warnings=tuple(warnings),
    )


def seed_noise(table: RunTable) -> float | None:
    """Deviation of ln loss between runs that differ in their seed only, pooled over configurations and budgets.

    Runs of one `configuration` and one token budget are replicates; where the table does not name configurations,
    runs that agree in every column that describes one. None, "not estimated", where the table has no seeds or no
    configuration was repeated.
    """
    if "seed" not in table.frame:
        return None
    named = "configuration" in table.frame and bool(table.frame["configuration"].notna().all())
    same = [name for name in (("configuration", TOKENS) if named else _CONFIGURATION) if name in table.frame]
    spread = (
        table.frame.assign(log_loss=np.log(table.column(LOSS)))
        .groupby(same, dropna=False)
        .agg(variance=("log_loss", "var"), seeds=("seed", "nunique"), runs=("seed", "size"))
    )
    repeated = spread[(spread["seeds"] == spread["runs"]) & (spread["runs"] > 1)]
    freedom = repeated["runs"] - 1
    return float(np.sqrt((repeated["variance"] * freedom).sum() / freedom.sum())) if len(repeated) else None


def corpus_tokens(table: RunTable) -> float | None:
    """Tokens of the text that was trained on, tokens/epochs; the largest where runs differ, None where unknown."""
    if "epochs" not in table.frame or TOKENS not in table.frame:
        return None
    epochs, tokens = table.column("epochs"), table.column(TOKENS)
    known = np.isfinite(tokens) & np.isfinite(epochs) & (epochs > 0)
    return float((tokens[known] / epochs[known]).max()) if known.any() else None


def family_of(table: RunTable) -> Family | None:
    """How the counts of the table's models hang together (`analysis.families`)."""
    return families.from_rows(_counts(table))


def _counts(table: RunTable) -> dict[str, Array]:
    return table.columns(f.name for f in fields(families.Sizes) if f.name in table.frame)


def _checked_pin(definition: Law, name: str, value: float) -> float:
    parameter = definition.parameter(name)
    if not np.isfinite(value) or (parameter.scale == "log" and value <= 0):
        kind = "positive number" if parameter.scale == "log" else "number"
        raise InputError(f"--pin {name}={value}: {name} of law {definition.name} must be a {kind}")
    return float(value)


def _domain(table: RunTable, names: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    values = {name: _finite(table, name) for name in names}
    return {name: (float(found.min()), float(found.max())) for name, found in values.items() if found.size}


def _finite(table: RunTable, name: str) -> Array:
    """The finite values of a column; none where the table lacks it."""
    values = table.column(name) if name in table.frame else np.empty(0)
    return values[np.isfinite(values)]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that was never installed
        return "unknown"
