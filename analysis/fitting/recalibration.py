"""Recalibration: a published fit, or another, that a few runs of one's own move as far as they can tell.

Five runs do not determine a law, and a published one is of other models, tokens and data. Both together say more: the
level of the loss is the runs' own, exponents and the shares of terms are those of the fit where the runs say nothing
(`shrinkage.Shrinkage`), and draws of both together give intervals (`posterior.Posterior`). The more runs, the less of
the fit stays; with many it is the fit from scratch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analysis.fitting import fitted_to
from analysis.fitting.bca import ENDS
from analysis.fitting.fit import MOST_RESIDUALS, Fit
from analysis.fitting.objective import HUBER
from analysis.fitting.posterior import TAILS, Posterior
from analysis.fitting.prior import LEVEL, Prior
from analysis.fitting.problem import Problem
from analysis.fitting.published_spread import FITS
from analysis.fitting.shrinkage import TERMS, Shrinkage
from analysis.laws import LAWS
from analysis.tables.runs import RunTable
from scaling import distribution
from scaling.arrays import Array
from scaling.columns import COMPUTE, EXPERTS, TOKENS
from scaling.errors import InputError
from scaling.formatting import listed, plural

DRAWS = 1_000
_FEWEST_WORTH = 200.0  # independent draws
_AHEAD = (1.0, 10.0, 100.0)  # times the runs' compute, where the estimate is to be that of the draws together
_TILT = 3.0  # times N, and 1/D, either way
_SHAPE = ("top_k", "granularity", "shared_share")


def recalibrated(
    table: RunTable,
    start: Fit,
    count: int = DRAWS,
    *,
    name: str = "",
    seed: int = 0,
    papers: Sequence[str] = FITS,
) -> Fit:
    """The law of `start` with the parameters that it and the runs together give, and `count` draws of them.

    `name` is what `start` is called in warnings; `papers` are the published fits whose spread says how far a law may
    lie from `start`. The estimate predicts the median of the draws, at the runs and up to 100 times beyond.
    Raises InputError where the law is no sum of terms, where the runs lack one of its columns, and where they vary
    what it does not read.
    """
    law, name = start.definition, name or start.source or start.law
    start.require_params()
    if count < 1:
        raise InputError(f"`bootstrap` must be at least 1 to recalibrate, found {count}: the estimate is of draws")
    table = table.for_law(law)
    _require_read(table, start, name)
    columns, loss = table.columns(law.columns), table.column(law.target)
    shrinkage = Shrinkage.around(start, columns, papers)
    share = len(np.unique(table.trunks)) / len(table)
    posterior = Posterior(
        model=lambda c: shrinkage.log_loss(shrinkage.deviations(c), columns),
        deviations=shrinkage.deviations,
        observed=np.log(loss),
        covariance=shrinkage.covariance,
        share=share,
        tailed=TERMS,
        freedom=shrinkage.freedom,
    )
    rng = np.random.default_rng(seed)
    drawn, worth = posterior.draws(count, rng)
    deviations = shrinkage.deviations(drawn[:, :-1])
    before = shrinkage.drawn(max(count, DRAWS), rng)
    noise = float(np.exp(np.median(drawn[:, -1]))) * np.sqrt(TAILS / (TAILS - 2.0))
    prior = Prior(
        exponents=_exponents(shrinkage),
        noise=noise,
        n_fits=len(papers),
        start=name,
        shrunk=shrinkage.shrunk(before, deviations),
    )
    draws = {each: values[:, 0] for each, values in shrinkage.parameters(deviations).items()}
    params = _together(shrinkage, drawn[:, :-1], columns, _experts(table, start))
    ends = {each: np.quantile(values, ENDS) for each, values in draws.items()}
    problem = Problem.of(table, law, {}, HUBER)
    residuals = law.log_loss(params, columns) - np.log(loss)
    return _with_runs(
        Fit(
            law=law.name,
            own_law=None if law.name in LAWS else law,
            params=params,
            intervals={each: (float(low), float(high)) for each, (low, high) in ends.items()},
            draws={each: tuple(values.tolist()) for each, values in draws.items()},
            objective=problem.value(params),
            residuals=tuple(residuals.tolist()) if len(residuals) <= MOST_RESIDUALS else (),
            rmse_log=float(np.sqrt(np.mean(residuals**2))),
            status="ok",
            prior=prior,
            warnings=(*map(str, table.doubts), *_warnings(prior, table, worth)),
        ),
        table,
        start,
        name,
    )


def _require_read(table: RunTable, start: Fit, name: str) -> None:
    """Raises InputError where the runs vary what the law does not read."""
    law = start.definition
    varied = [
        column
        for column in (EXPERTS, *_SHAPE)
        if column not in law.columns and len(np.unique(fitted_to.finite(table, column))) > 1
    ]
    if EXPERTS not in varied and EXPERTS not in law.columns:
        varied = []  # k and granularity of dense runs mean nothing
    if varied:
        raise InputError(
            f"{table.source}: the runs vary {listed(varied)}, which law {law.name} of {name} does not read: select one "
            "with `where`, or start from a law that does"
        )


def _experts(table: RunTable, start: Fit) -> tuple[int, ...]:
    """The expert counts of the runs, or those that the law was fitted to where the runs have one."""
    found = fitted_to.experts(table)
    return found if len(found) > 1 or not start.definition.uses_experts else tuple({*found, *start.experts})


def _exponents(shrinkage: Shrinkage) -> dict[str, tuple[float, float]]:
    """Mean and deviation of the ln of the exponents of size and data."""
    spread = dict(zip(shrinkage.names, np.sqrt(np.diag(shrinkage.covariance)), strict=True))
    return {
        parameter.name: (
            float(np.log(abs(shrinkage.start.params[parameter.name]))),
            float(spread[f"{parameter.role} exponent"]),
        )
        for parameter in shrinkage.law.parameters
        if parameter.role in ("size", "data") and parameter.linear != "loss"
    }


def _together(
    shrinkage: Shrinkage, coordinates: Array, columns: Mapping[str, Array], experts: Sequence[int]
) -> dict[str, float]:
    """The parameters whose ln loss is nearest to the median of the draws, at the runs and beyond them.

    Not the mean: draws of few runs are skewed, and one run would bend the law.
    """
    places, middle = _places(shrinkage, columns, experts), np.median(coordinates, axis=0)
    predicted = shrinkage.log_loss(shrinkage.deviations(coordinates), places)
    spread = np.cov(coordinates, rowvar=False) + 1e-12 * np.eye(coordinates.shape[1])
    nearest = Posterior(
        model=lambda c: shrinkage.log_loss(shrinkage.deviations(c + middle), places),
        deviations=lambda c: c,
        observed=np.median(predicted, axis=0),
        covariance=spread,
    )
    found = nearest.mode()[0][:-1] + middle
    return {name: float(value[0, 0]) for name, value in shrinkage.parameters(shrinkage.deviations(found[None])).items()}


def _places(shrinkage: Shrinkage, columns: Mapping[str, Array], experts: Sequence[int]) -> dict[str, Array]:
    """The law's columns of the runs, and of models at their centre with up to 100 times their compute."""
    sizes = [name for name in columns if name.startswith("n_") and name != EXPERTS]
    rows: dict[str, list[float]] = {name: [] for name in columns}
    for times in _AHEAD:
        for tilt in (1.0 / _TILT, 1.0, _TILT):
            for n_experts in experts or (1,):
                moved = {name: np.sqrt(times) * tilt for name in sizes} | {TOKENS: np.sqrt(times) / tilt}
                for name, values in rows.items():
                    at = float(n_experts) if name == EXPERTS else shrinkage.centre[name] * moved.get(name, 1.0)
                    values.append(at)
    return {name: np.concatenate([columns[name], values]) for name, values in rows.items()}


def _with_runs(fit: Fit, table: RunTable, start: Fit, name: str) -> Fit:
    """The fit with what is to be said of its runs; where they lack it, what its start said."""
    law, experts = fit.definition, fitted_to.experts(table)
    domain = fitted_to.domain(table, (*law.columns, COMPUTE))
    kept: dict[str, Any] = {}
    told: list[str] = []
    if law.uses_experts and len(experts) < 2 and start.experts:
        kept["experts"] = tuple(sorted({*experts, *start.experts}))
        if EXPERTS in start.domain:
            domain[EXPERTS] = (1.0 * min(kept["experts"]), 1.0 * max(kept["experts"]))
        told.append(f"the runs have n_experts = {listed(experts)} alone: the effect of experts is that of {name}")
    family = fitted_to.family_of(table)
    if start.family is not None and (family is None or "experts" in kept):
        family = start.family
        told.append(f"the runs do not say the sizes of models with experts: models are those of {name}")
    return replace(
        fit,
        n_runs=len(table),
        n_trunks=len(np.unique(table.trunks)),
        domain=domain,
        experts=kept.get("experts", experts),
        family=family,
        warnings=(*fit.warnings, *told),
        versions={"scaling": distribution.version(), "numpy": np.__version__},
        **fitted_to.of_table(table, law),
    )


def _warnings(prior: Prior, table: RunTable, worth: float) -> list[str]:
    held = [name for name in prior.held if name != LEVEL]
    count = len(np.unique(table.trunks))
    told = []
    if held:
        few = (
            f"{plural(count, 'trunk')} {'says' if count == 1 else 'say'} less than {prior.start} does of {listed(held)}"
        )
        told.append(f"{few}: these are shrunk to its values, by the spread of {prior.n_fits} published fits")
    if worth < _FEWEST_WORTH:
        told.append(f"the draws are worth {worth:.0f} independent ones: intervals are rough")
    return told
