"""Identifiability: what a table can say about a law, and which parameters must be pinned because it cannot say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.dual import Array
from analysis.laws import EXPERTS, TOKENS, Law

EXPERTS_FOR_SATURATION = 5
EXPERTS_FOR_INTERACTION = 4
TRUNKS_PER_PARAMETER = 3
CONDITION_WARN, CONDITION_REFUSE = 1e3, 1e6
_COLLINEAR = 0.98


@dataclass(frozen=True)
class Pin:
    """A parameter held at a value that was not estimated, and whose value it is."""

    value: float
    source: str


def automatic_pins(law: Law, columns: Mapping[str, Array], n_trunks: int, pinned: Mapping[str, Pin]) -> dict[str, Pin]:
    """Published values for the parameters that the table cannot identify; `pinned` are the user's, which win.

    The rule, in this order, each step counting what is still free:
    * saturation (E_start, E_max) is pinned with fewer than 5 distinct E, or fewer than 3 trunks a free parameter;
    * interactions of E with N or D are pinned with fewer than 4 distinct E, or fewer than 3 trunks a free parameter;
    * with a single E every parameter of E's effect that has a published value is pinned.
    A trunk counts once, whatever number of token budgets it was branched into.
    """
    if EXPERTS not in columns:
        return {}
    distinct = len(np.unique(columns[EXPERTS]))
    pins: dict[str, Pin] = {}

    def pin(role: str, needed: int) -> None:
        free = [p for p in law.parameters if p.name not in pinned and p.name not in pins]
        if distinct < needed or n_trunks < TRUNKS_PER_PARAMETER * len(free):
            pins.update({p.name: Pin(p.pin, p.pin_source) for p in free if p.role == role and p.pin is not None})

    pin("saturation", EXPERTS_FOR_SATURATION)
    pin("interaction", EXPERTS_FOR_INTERACTION)
    if distinct == 1:
        pin("expert", 2)
    return pins


def pin_warnings(pins: Mapping[str, Pin]) -> list[str]:
    """One warning a pinned parameter: value and source."""
    told = "is not identified by these runs and was pinned to"
    return [f"{name} {told} {pin.value:g} ({pin.source})" for name, pin in pins.items()]


def design_refusals(law: Law, columns: Mapping[str, Array], free: Sequence[str]) -> list[str]:
    """Why no fit of these free parameters means anything on this design, and the axis to vary; empty where one does.

    One N, one D, or tokens per parameter that are constant to 5 %: an exponent then cannot be told from another term,
    however well the losses are matched.
    """
    size, tokens = np.log(columns[law.n_column]), np.log(columns[TOKENS])
    shaped = {
        role: any(law.parameter(n).role == role and not law.parameter(n).linear for n in free)
        for role in ("size", "data")
    }
    found = [
        f"every run has the same {name}: its exponent cannot be identified; vary {name}"
        for name, values, role in ((law.n_column, size, "size"), (TOKENS, tokens, "data"))
        if np.ptp(values) < 0.01 and shaped[role]
    ]
    if not found and all(shaped.values()) and np.ptp(tokens - size) < 0.05:
        found.append(
            "tokens per parameter are constant: the exponents of N and D cannot be told apart; vary tokens at a fixed size"
        )
    return found


def design_warnings(law: Law, columns: Mapping[str, Array]) -> list[str]:
    """What the design of the table leaves nearly open whatever the losses are, and the axis to vary."""
    found: list[str] = []
    size, tokens = np.log(columns[law.n_column]), np.log(columns[TOKENS])
    if _move_together(size, tokens):
        found.append("N and D move together: their exponents are hardly told apart; vary tokens at a fixed size")
    if law.uses_experts:
        experts = columns[EXPERTS]
        if np.ptp(experts) == 0:
            found.append(f"every run has n_experts = {experts[0]:g}: nothing says what experts do; vary n_experts")
        if _move_together(size, np.log(experts)):
            found.append(f"n_experts and {law.n_column} move together: vary n_experts at a fixed {law.n_column}")
    return found


def _move_together(x: Array, y: Array) -> bool:
    return bool(np.ptp(x) >= 0.01 and np.ptp(y) >= 0.01 and abs(np.corrcoef(x, y)[0, 1]) > _COLLINEAR)


def condition_number(jacobian: Array) -> float:
    """Condition number of the Jacobian (P, n) of the log loss with every parameter's row scaled to unit norm.

    Infinite where a parameter moves no prediction or there are fewer rows than parameters. Free of the parameters'
    units. For hoffmann about 200 on a 6 x 6 grid of N and D, above 1e6 where tokens per parameter are constant.
    """
    norms = np.linalg.norm(jacobian, axis=1)
    if jacobian.shape[1] < jacobian.shape[0] or not np.all(np.isfinite(norms)) or norms.min() == 0:
        return float("inf")
    return float(np.linalg.cond(jacobian / norms[:, None]))
