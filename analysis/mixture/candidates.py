"""Candidates: the laws that a table can bear, with what is held where the runs say nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from analysis.fitting.identifiability import Pin
from analysis.laws import COUPLED, COUPLED_MOE, HOFFMANN, JOINT_MOE, Law
from analysis.tables.runs import RunTable
from scaling.columns import TOKENS

_ALIKE = 0.01  # of ln D: what runs of one token budget differ by
_NOTHING = 1e-9  # nats per token, or the factor of a term that is left out

# With one token budget the term in D is a part of the floor: its factor is held at nothing, and its shape anywhere.
_ONE_BUDGET: dict[str, dict[str, float]] = {
    HOFFMANN.name: {"B": _NOTHING, "beta": 1.0},
    JOINT_MOE.name: {"b": _NOTHING, "beta": -1.0, "omega": 0.0, "zeta": 0.0},
}
_FLOORS = {HOFFMANN.name: "E", JOINT_MOE.name: "c"}


@dataclass(frozen=True)
class Candidate:
    """A law that may become a member of a mixture, by a name of its own, and the parameters that are held."""

    name: str
    law: Law
    held: Mapping[str, Pin] = field(default_factory=dict)


def candidates(table: RunTable) -> tuple[Candidate, ...]:
    """The laws to take together for these runs, the simplest first.

    Two that agree within the runs and part beyond them: the sum of a term in size and one in data, and the same terms
    coupled by an exponent. With several E they are laws in E. Runs of one token budget show no coupling and no term in
    D, so there they part in the floor: one law has a floor and the other none (a power law, as clark's).
    """
    several = len(np.unique(table.experts)) > 1
    simple, coupled = (JOINT_MOE, COUPLED_MOE) if several else (HOFFMANN, COUPLED)
    if not one_budget(table):
        return Candidate(simple.name, simple), Candidate(coupled.name, coupled)
    source = "every run has the same tokens, so the term in D is a part of the floor"
    held = {name: Pin(value, source) for name, value in _ONE_BUDGET[simple.name].items()}
    floor = _FLOORS[simple.name]
    least = simple.parameter(floor).bounds[0]
    without = {**held, floor: Pin(least, "no irreducible loss, as in clark")}
    return Candidate(simple.name, simple, held), Candidate(f"{simple.name} without a floor", simple, without)


def one_budget(table: RunTable) -> bool:
    """Whether all runs have the same tokens."""
    return len(table) > 0 and bool(np.ptp(np.log(table.column(TOKENS))) < _ALIKE)


def family_of_laws(table: RunTable) -> Law:
    """The simplest law of those that a table can bear, whose columns the others share."""
    return JOINT_MOE if len(np.unique(table.experts)) > 1 else HOFFMANN
