"""The isoFLOP analysis of a table by E: minima, frontier, envelope and bias in one document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from analysis.fitting.fit import Fit
from analysis.isoflop.bias import Bias, bias
from analysis.isoflop.envelope import Envelope, envelope, training_curves
from analysis.isoflop.frontier import Frontier, Minimum, frontier, frontier_through
from analysis.isoflop.loss_frontier import LossFrontier
from analysis.isoflop.optima_table import ReportedOptimum
from analysis.isoflop.power_law import PowerLaw
from analysis.isoflop.valleys import Valleys
from scaling.errors import InputError

_OF_VALLEY = (
    "train_flops", "n_opt", "n_interval", "d_opt", "d_interval", "loss", "loss_interval", "n_points", "n_range", "width"
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class IsoFlopAnswer:
    """Minima, and the frontier, envelope and bias of every E that allows them; `warnings` give reasons for the others.

    `minima` are by E, from valleys or as reported (then there are no `log_loss` valleys, envelopes or biases).
    `train_flops` is the budget of predicted optima, if any; `surface` the fit that biases are measured on.
    """

    n_column: str
    log_loss: bool
    minima: Mapping[int, tuple[Minimum, ...]]
    left_out: tuple[tuple[str, tuple[int, ...]], ...]
    frontiers: Mapping[int, Frontier]
    envelopes: Mapping[int, Envelope]
    biases: Mapping[int, Bias]
    warnings: tuple[str, ...]
    train_flops: float | None
    surface: Fit | None

    def to_json(self) -> dict[str, Any]:
        """Plain values; a missing minimum is null."""
        surface = None if self.surface is None else {"law": self.surface.law, "params": dict(self.surface.params)}
        return {
            "n_column": self.n_column,
            "log_loss": self.log_loss,
            "surface": surface,
            "frontiers": [self._of_experts(e) for e in self.minima],
            "left_out": {reason: list(rows) for reason, rows in self.left_out},
            "warnings": list(self.warnings),
        }

    def _of_experts(self, e: int) -> dict[str, Any]:
        line, hull = self.frontiers.get(e), self.envelopes.get(e)
        return {
            "n_experts": e,
            "valleys": [_minimum(minimum) for minimum in self.minima[e]],
            "n_exponent": None if line is None else _exponent(line.n_opt),
            "d_exponent": None if line is None else _exponent(line.d_opt),
            "loss_law": None if line is None or line.loss is None else _loss_law(line.loss),
            "prediction": None if line is None or self.train_flops is None else _prediction(line, self.train_flops),
            "envelope": None if hull is None else _envelope(hull),
            "bias": asdict(self.biases[e]) if e in self.biases else None,
        }


def answer_of_optima(
    optima: Sequence[ReportedOptimum], source: str, *, n_column: str, train_flops: float | None = None
) -> IsoFlopAnswer:
    """The frontier of every E through optima that others report; an E with too few becomes a warning."""
    minima = {e: tuple(one for one in optima if one.n_experts == e) for e in sorted({o.n_experts for o in optima})}
    frontiers, warnings = {}, []
    for e, of_e in minima.items():
        try:
            frontiers[e] = frontier_through(of_e, of_e, source)
        except InputError as error:
            warnings.append(str(error))
    warnings += _without_loss(frontiers)
    return IsoFlopAnswer(
        n_column, False, minima, (), frontiers, {}, {}, tuple(warnings), train_flops, None
    )  # fmt: skip


def isoflop_answer(
    valleys: Valleys,
    *,
    train_flops: float | None = None,
    surface: Fit | None = None,
    include_flagged: bool = False,
    curves_of: Path | None = None,
    draws: int = 200,
    seed: int = 0,
) -> IsoFlopAnswer:
    """Frontier, envelope and, on a fitted surface, bias of every E (approaches 2 and 1 of arXiv 2203.15556).

    The bias is at `train_flops` (default: the largest budget). The envelope follows the training curves of the study
    `curves_of`, or the cells; its interval has `draws` resamples, seeded alike for every E. An analysis that an E does
    not allow becomes a warning. Raises InputError where the table lacks a column of the surface.
    """
    frontiers, envelopes, biases = {}, {}, {}
    warnings, numbers = [*map(str, valleys.table.doubts)], valleys.table.row_numbers
    warnings += [f"{len(rows)} runs left out: {reason}" for reason, rows in valleys.left_out]
    for e in valleys.experts:
        try:
            frontiers[e] = frontier(valleys, e, include_flagged=include_flagged)
        except InputError as error:
            warnings.append(str(error))
        if e in frontiers and surface is not None:
            budget = frontiers[e].used[-1].train_flops if train_flops is None else train_flops
            biases[e] = bias(surface, valleys, budget, e, include_flagged=include_flagged)
        try:
            table = valleys.table if curves_of is None else training_curves(curves_of, valleys.table)
            warnings += [note for note in table.notes if curves_of is not None and note not in warnings]
            rng = np.random.default_rng(seed) if draws else None
            envelopes[e] = envelope(table, e, n_column=valleys.n_column, rng=rng, draws=draws)
        except InputError as error:
            warnings.append(f"no envelope: {error}")
    warnings += _without_loss(frontiers)
    return IsoFlopAnswer(
        n_column=valleys.n_column,
        log_loss=valleys.log_loss,
        minima={e: valleys.of(e).valleys for e in valleys.experts},
        left_out=tuple((reason, tuple(numbers[rows].tolist())) for reason, rows in valleys.left_out),
        frontiers=frontiers,
        envelopes=envelopes,
        biases=biases,
        warnings=tuple(warnings),
        train_flops=train_flops,
        surface=surface,
    )


def _without_loss(frontiers: Mapping[int, Frontier]) -> list[str]:
    return [f"no loss of optimal models at E = {e}: {line.no_loss}" for e, line in frontiers.items() if line.no_loss]


def _prediction(line: Frontier, train_flops: float) -> dict[str, Any]:
    size, tokens = line.at(train_flops)
    loss = None if line.loss is None else line.loss.predict(train_flops)
    return {
        "train_flops": train_flops,
        "n_opt": float(size.mean[0]),
        "n_interval": [float(size.low[0]), float(size.high[0])],
        "d_opt": float(tokens.mean[0]),
        "d_interval": [float(tokens.low[0]), float(tokens.high[0])],
        "loss": None if loss is None else float(loss.mean[0]),
        "loss_interval": None if loss is None else [float(loss.low[0]), float(loss.high[0])],
    }


def _loss_law(law: LossFrontier) -> dict[str, Any]:
    """The middle of the draws of L(C) = E + A C^-g, with 95 % intervals."""
    named = {"irreducible": law.irreducible, "exponent": law.exponent}
    return {name: float(np.median(draws)) for name, draws in named.items()} | {
        f"{name}_interval": [float(end) for end in np.quantile(draws, [0.025, 0.975])] for name, draws in named.items()
    }


def _envelope(hull: Envelope) -> dict[str, Any]:
    return {
        "n_exponent": hull.n_law.exponent,
        "n_interval": hull.exponent_interval,
        "d_exponent": hull.d_law.exponent,
        "n_models": hull.n_models,
        "edge_share": float(hull.edge.mean()),
    }


def _exponent(law: PowerLaw) -> dict[str, Any]:
    return {"exponent": law.exponent, "interval": list(law.exponent_interval), "log_coefficient": law.log_coefficient}


def _minimum(minimum: Minimum) -> dict[str, Any]:
    values = {name: getattr(minimum, name, None) for name in _OF_VALLEY}
    numbers = {name: None if isinstance(v, float) and not isfinite(v) else v for name, v in values.items()}
    return numbers | {"flags": list(minimum.flags)}
