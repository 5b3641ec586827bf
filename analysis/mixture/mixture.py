"""Mixtures: a fit of several laws taken together, which stands wherever a fit of one law does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from analysis.fitting.bca import Resampled
from analysis.fitting.discrepancy import Discrepancy
from analysis.fitting.fit import Fit
from analysis.laws import Law
from analysis.mixture.composite import NAME, composite, parameter_name
from scaling.arrays import Array
from scaling.errors import InputError
from scaling.formatting import flops, plural
from scaling.summary import summarised
from scaling.table import Column, Table

_HALF = 0.5

_SAME = 1e-6  # of weights that add up to 1


@dataclass(frozen=True, repr=False)
class Member(Fit):
    """The fit of one law of a mixture: its `name` there, its `weight`, and its mean error in roll-out (of ln loss).

    Its draws stand in the mixture's.
    """

    name: str = ""
    weight: float = 0.0
    roll_out_error: float | None = None


@dataclass(frozen=True, repr=False)
class RollOutCut:
    """One roll-out behind the weights: the compute below which was fitted, and the largest ratio beyond it."""

    train_flops: float
    n_fitted: int
    n_predicted: int
    largest_ratio: float


@dataclass(frozen=True, repr=False)
class Mixture(Fit):
    """Several laws taken together, with weights by roll-out and a discrepancy beyond the largest run.

    `params`, `intervals`, `pinned` and `draws` are those of the members, by the names of the composite law
    (`analysis.mixture.composite`). A draw is a member, its parameters in one resample, and a slope of the discrepancy;
    quantiles are those of the draws as they are. `residuals` are those of the weighted prediction. `one_budget` is the
    token budget of all runs where there is but one. Without parameters no member could be fitted.
    """

    members: tuple[Member, ...] = ()
    discrepancy: Discrepancy = field(default_factory=Discrepancy)
    roll_outs: tuple[RollOutCut, ...] = ()
    one_budget: float | None = None

    def __post_init__(self) -> None:
        if self.params and not self.members:
            raise InputError("members: a mixture has at least one, with its law and weight")
        total = sum(member.weight for member in self.members)
        if self.params and abs(total - 1.0) > _SAME:
            raise InputError(f"members: their weights add up to {total:g}, and must to 1")

    @cached_property
    def _composite(self) -> Law:
        laws = {member.name: member.definition for member in self.members}
        return composite(laws, self.discrepancy.train_flops, self.one_budget)

    @property
    def definition(self) -> Law:
        """The composite of the members' laws."""
        return self._composite

    @property
    def of_one_law(self) -> Fit:
        """The member of most weight, with its draws; without members itself."""
        if not self.members:
            return self
        heaviest = max(self.members, key=lambda member: member.weight)
        names = {name: parameter_name(heaviest.name, name) for name in heaviest.free} if self.draws else {}
        return replace(heaviest, draws={name: self.draws[named] for name, named in names.items()})

    @property
    def exponents_at_bound(self) -> tuple[str, ...]:
        """As of a fit, where members with half of the weight have such exponents."""
        held = [member for member in self.members if member.exponents_at_bound]
        if sum(member.weight for member in held) < _HALF:
            return ()
        return tuple(parameter_name(member.name, name) for member in held for name in member.exponents_at_bound)

    @property
    def enlargement(self) -> float:
        """As of a fit, with the members' mean number of free parameters."""
        n, free = self.n_runs, sum(member.weight * len(member.free) for member in self.members)
        return float(np.sqrt(n / max(1.0, n - free))) if n else 1.0

    @property
    def resampled(self) -> Resampled:
        """How the draws were made; few trunks for the parameters of the members widen their quantiles."""
        several = self.members or (self,)
        supplies = [Fit.resampled.fget(member).supply for member in several]  # type: ignore[attr-defined]
        worst = next((supply for supply in ("scarce", "few") if supply in supplies), "many")
        return Resampled(self.strata, self.n_trunks, worst, plain=True)  # type: ignore[arg-type]

    def interval_beyond(self, columns: Mapping[str, Any]) -> tuple[Array, Array] | None:
        """`prediction_interval`, whose draws have met the discrepancy."""
        return self.prediction_interval(columns)

    def summary(self) -> Table:
        """Every member with its weight and error of roll-out; then the discrepancy, warnings, and what was assumed."""
        heading = f"Mixture of {plural(len(self.members), 'law')} fitted to {plural(self.n_runs, 'run')}, "
        heading += f"{self.n_draws} draws: {self.status}"
        return summarised(self.member_table(), heading, (*self.evidence(), *self.warnings, *self.notes))

    def member_table(self) -> Table:
        """A row for each member: law, weight, mean error in roll-out and on the runs fitted, parameters and status."""
        columns = (
            Column("member", "law", text=True),
            Column("weight", "weight", "{:.2f}".format),
            Column("roll_out_error", "roll-out error", "{:.2%}".format),
            Column("rmse_log", "rmse of ln loss", "{:.3g}".format),
            Column("parameters", "parameters", text=True),
            Column("status", "status", text=True),
        )
        rows = tuple(
            (
                member.name,
                member.weight,
                member.roll_out_error,
                member.rmse_log,
                ", ".join(f"{name} {member.params[name]:.4g}" for name in member.free),
                member.status,
            )
            for member in self.members
        )
        return Table(f"{NAME}: {self.definition.formula}", columns, rows)

    def evidence(self) -> tuple[str, ...]:
        """What weights and discrepancy rest on, in a sentence each."""
        if not self.members:
            return ()
        if not self.roll_outs:
            told = "weights are equal and the discrepancy is assumed: these runs leave no compute cut to predict beyond"
        else:
            cuts = plural(len(self.roll_outs), "compute cut")
            told = (
                f"weights by roll-out over {cuts}, {flops(self.roll_outs[-1].train_flops)} to "
                f"{flops(self.roll_outs[0].train_flops)} FLOPs, predicting up to "
                f"{max(cut.largest_ratio for cut in self.roll_outs):.2g} times the compute"
            )
        beyond = (
            f"beyond {flops(self.discrepancy.train_flops)} FLOPs draws part from the laws by "
            f"{100 * self.discrepancy.scale:.2g} % of the loss for each factor 2.7 of compute (scale of a Student t)"
        )
        return told, beyond
