"""The ensemble: published MoE laws taken together, none of which knows the runs of the one who asks.

A draw is one law and one of its draws (`published_draws`), with a slope of its discrepancy beyond its own largest run.
Laws were fitted to other corpora with other tokenizers, so that their losses cannot be compared. They need not be:
within a draw all losses are of one law, and so are the regrets of E, and the loss of the reference that a budget buys.
At the estimate ln L is the mean of the laws' by weight, whose optima no offset of a law moves. That mean is no law, so
the E that is recommended is that of least expected regret over the draws (`chooses_by_risk`), at the size and tokens
that the mean gives it. Weights are equal or, by `stacking`, as well as runs bear each law out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from analysis.fitting.fit import Fit
from analysis.fitting.identifiability import Pin
from analysis.fitting.published_draws import SHORTFALL
from analysis.laws import Law
from analysis.laws.expert_shape import shape_of_architecture
from analysis.mixture.composite import DISCREPANCY, composite, parameter_name, weight_name
from analysis.mixture.mixture import Member, Mixture
from analysis.mixture.readings import OFFSET, READINGS, Shape, reading_law
from scaling.arrays import Array, Integers
from scaling.columns import TOKENS
from scaling.formatting import listed, plural
from scaling.serving.families import ArchitectureFamily, architecture_family
from scaling.summary import summarised
from scaling.table import Table

NAME = "ensemble"
DRAWS = 400
ASSUMED_LINEAGE = "deepseek"
"""Whose models are asked about where nobody says: fine-grained experts and a shared one, as most MoE models have."""
_EXPANSIONS = (2, 4, 8, 16, 32)  # compared by default, beside dense models; all laws answer for them
RULE = (
    f"papers print no draws: here they are refits to as many runs, spread evenly over each paper's ranges, with "
    f"{SHORTFALL:g} times its residuals, and the rounding of its constants"
)
_TYPICAL = 1e10  # N_active at which the shape of a lineage is read, which hardly depends on it


@dataclass(frozen=True, repr=False)
class EnsembleMember(Member):
    """A published law in an ensemble."""

    @property
    def definition(self) -> Law:
        """The law as it reads models."""
        return reading_law(self.name)

    @property
    def own_draws(self) -> Mapping[str, tuple[float, ...]]:
        """The draws of the published law."""
        return READINGS[self.name].fit().draws


@dataclass(frozen=True, repr=False)
class Ensemble(Mixture):
    """Published laws taken together; `lineage` says how the models are built, `weighed_by` which runs weighed the laws.

    Without such runs (`weighed_by` "") all weights are equal, and losses are of no one corpus. `left_out` are laws that
    cannot speak of an E that is asked about. `selected` are the draws of each law that runs bear out, as often as they
    do, and `offsets` of ln L those that go with them.
    """

    members: tuple[EnsembleMember, ...] = ()
    lineage: ArchitectureFamily | None = None
    weighed_by: str = ""
    left_out: tuple[str, ...] = ()
    selected: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    offsets: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def built_as(self) -> ArchitectureFamily:
        """How the models are built: as was said, or assumed."""
        return self.lineage or architecture_family(ASSUMED_LINEAGE)

    @cached_property
    def _composite(self) -> Law:
        shape = shape_of(self.built_as)
        laws = {member.name: reading_law(member.name, shape) for member in self.members}
        largest = {m.name: m.discrepancy.train_flops for m in self.members if m.discrepancy is not None}
        return replace(composite(laws, largest, None, powers=True), name=NAME, source="published laws taken together")

    @property
    def of_one_law(self) -> Fit:
        """Itself: no law of it speaks for the others."""
        return self

    def prediction_interval(self, columns: Mapping[str, Any]) -> tuple[Array, Array] | None:
        """None: how far a run lies from its law differs between laws and corpora."""
        return None

    def row_of(self, name: str) -> dict[str, float]:
        """The parameters with all weight on one law."""
        return {**self.params, **{weight_name(m.name): float(m.name == name) for m in self.members}}

    def rows_of(self, name: str) -> Integers:
        """The draws that are of one law."""
        return np.flatnonzero(np.array(self.draws[weight_name(name)]) == 1.0)

    @property
    def chooses_by_risk(self) -> bool:
        """Where it has several laws: a mean of laws of several corpora is none of them."""
        return len(self.members) > 1

    @property
    def models(self) -> ArchitectureFamily:
        """How the models are built that it is asked about."""
        return self.built_as

    def without(self, names: Sequence[str], told: Sequence[str]) -> Ensemble:
        """The ensemble without some of its laws, of which `told` says why; the others keep their proportions."""
        kept = {member.name: member.weight for member in self.members if member.name not in names}
        total = sum(kept.values())
        weights = {name: weight / total for name, weight in kept.items()}
        levels = {member.name: member.params[OFFSET] for member in self.members}
        rest = together(tuple(kept), weights, self.selected, self.offsets, levels)
        return replace(
            self,
            params=rest.params,
            pinned=rest.pinned,
            draws=rest.draws,
            members=rest.members,
            warnings=(*self.warnings, *told),
            left_out=tuple(names),
        )

    def summary(self) -> Table:
        """Every law with its weight and what it was fitted to; then warnings, and what was assumed."""
        heading = f"Ensemble of {plural(len(self.members), 'published law')}, {self.n_draws} draws"
        return summarised(self.member_table(), heading, (*self.warnings, *self.notes))


def shape_of(lineage: ArchitectureFamily) -> Shape:
    """Experts of a token and the share of shared ones, of the routed models of a lineage."""
    found = shape_of_architecture(lineage.architecture(np.array([_TYPICAL]), 2 * lineage.k))
    return float(found["active_experts"][0]), float(found["shared_share"][0])


def usual_experts(k: int) -> tuple[int, ...]:
    """The E that are compared where nobody says: dense, and expansions that every law answers for."""
    return (1, *(k * each for each in _EXPANSIONS))


@cache
def published_moe() -> Ensemble:
    """The published MoE laws that divide compute, with equal weights."""
    return together(tuple(READINGS), {name: 1.0 / len(READINGS) for name in READINGS})


@cache
def alone(name: str) -> Ensemble:
    """One published law as it reads models of a lineage; "fine-grained-2024-e16" is one with "fine-grained-2024"."""
    return together((name,), {name: 1.0})


def together(
    names: Sequence[str],
    weights: Mapping[str, float],
    selected: Mapping[str, Sequence[int]] = MappingProxyType({}),
    offsets: Mapping[str, Sequence[float]] = MappingProxyType({}),
    levels: Mapping[str, float] = MappingProxyType({}),
) -> Ensemble:
    """Published laws by name, with weights. `selected` are the draws of each that count (all), with their `offsets`;
    `levels` those of the published constants."""
    members = tuple(_member(name, weights[name], levels.get(name, 0.0)) for name in names)
    fits = {name: READINGS[name].fit() for name in names}
    params = {parameter_name(m.name, key): value for m in members for key, value in m.params.items()}
    params |= {weight_name(m.name): m.weight for m in members} | {DISCREPANCY: 0.0}
    unshifted = [m.name for m in members if m.name not in offsets]
    pinned = {parameter_name(name, OFFSET): Pin(0.0, "no runs say another") for name in unshifted}
    return Ensemble(
        law=NAME,
        params=params,
        pinned=pinned,
        draws=_draws(members, fits, selected, offsets),
        domain=_domain(fits),
        experts=usual_experts(architecture_family(ASSUMED_LINEAGE).k),
        source=f"published laws: {listed(names)}",
        status="published",
        warnings=tuple(_warnings(members)),
        members=members,
        selected={name: tuple(selected[name]) for name in names if name in selected},
        offsets={name: tuple(offsets[name]) for name in names if name in offsets},
    )


def _warnings(members: Sequence[EnsembleMember]) -> list[str]:
    """By which rule draws were made, and what each law warns of and assumes beside."""
    told = [RULE]
    if len(members) > 1:
        told.append(
            "each law's loss is of its own corpus and tokenizer: the ensemble's is a mean of those, and means nothing "
            "by itself; sizes, tokens, costs and the best E are compared within each law"
        )
    several = len(members) > 1
    for member in members:
        others = [warning for warning in member.warnings if not warning.startswith("the paper prints no draws")]
        told += [f"{member.name}: {warning}" if several else warning for warning in others]
    return told


def _member(name: str, weight: float, level: float) -> EnsembleMember:
    fit = READINGS[name].fit()
    given = {each.name: getattr(fit, each.name) for each in fields(Fit)}
    given |= {"draws": {}, "own_law": None, "intervals": {}, "params": {**fit.params, OFFSET: level}}
    return EnsembleMember(**given, name=name, weight=weight)


def _draws(
    members: Sequence[EnsembleMember],
    fits: Mapping[str, Fit],
    selected: Mapping[str, Sequence[int]],
    offsets: Mapping[str, Sequence[float]],
) -> dict[str, tuple[float, ...]]:
    """Draws of the composite law: one law each, as often as its weight says, with a draw of it and of its slope."""
    rng = np.random.default_rng(0)
    chosen = in_turn([member.weight for member in members], DRAWS)
    draws: dict[str, tuple[float, ...]] = {}
    slopes = np.zeros(DRAWS)
    for number, member in enumerate(members):
        rows = np.flatnonzero(chosen == number)
        each = np.asarray(selected.get(member.name, range(fits[member.name].n_draws)), dtype=int)
        where = np.zeros(DRAWS, dtype=int)
        where[rows] = np.resize(each, len(rows))
        if member.name in offsets:
            shifts = np.zeros(DRAWS)
            shifts[rows] = np.resize(np.asarray(offsets[member.name]), len(rows))
            draws[parameter_name(member.name, OFFSET)] = tuple(shifts.tolist())
        for key, values in fits[member.name].draws.items():
            draws[parameter_name(member.name, key)] = tuple(np.array(values)[where].tolist())
        draws[weight_name(member.name)] = tuple((chosen == number).astype(float).tolist())
        if member.discrepancy is not None and len(rows):
            slopes[rows] = member.discrepancy.slopes(len(rows), rng)
    return {**draws, DISCREPANCY: tuple(slopes.tolist())}


def in_turn(weights: Sequence[float], count: int) -> Integers:
    """Which law each draw is of: each as often as its weight, to within one, and evenly among the others."""
    edges = np.cumsum(weights) * count
    counts = np.diff(np.round(edges).astype(int), prepend=0)
    places = [(np.arange(each) + 0.5) / max(each, 1) for each in counts]
    laws = np.repeat(np.arange(len(counts)), counts)
    return np.asarray(laws[np.lexsort((laws, np.concatenate(places)))])


def _domain(fits: Mapping[str, Fit]) -> dict[str, tuple[float, float]]:
    """The ranges of N_active and D that any of the laws was fitted to, as far as their papers print them."""
    found = {}
    for name, others in (("n_active", ("n_active", "n_active_nonembed")), (TOKENS, (TOKENS,))):
        known = [fit.domain[other] for fit in fits.values() for other in others if other in fit.domain]
        if known:
            found[name] = (min(low for low, _ in known), max(high for _, high in known))
    return found
