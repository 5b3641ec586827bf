"""Identifiability: what a table can say about a law, and which parameters must be pinned because it cannot say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.laws import Law
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS

EXPERTS_FOR_SATURATION = 5
EXPERTS_FOR_INTERACTION = 4
TRUNKS_PER_PARAMETER = 3
CONDITION_WARN, CONDITION_REFUSE = 1e3, 1e6
_COLLINEAR = 0.98
_AXIS = {"size": "N", "data": "tokens", "expert": "n_experts", "saturation": "n_experts", "interaction": "n_experts"}


@dataclass(frozen=True)
class IdentifiabilityFinding:
    """Something the runs cannot say: its name, what it means, and the axis to vary; `refused` where no fit is given."""

    name: str
    told: str
    vary: str
    refused: bool = False

    def __str__(self) -> str:
        return f"{self.told}; vary {self.vary}" if self.vary else self.told


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


def design_findings(
    law: Law, columns: Mapping[str, Array], free: Sequence[str], n_total: Array | None
) -> list[IdentifiabilityFinding]:
    """What the design leaves open whatever the losses are. `columns` are the law's, `n_total` the table's where known.

    Refused are: fewer runs than parameters; one N, one D, or tokens per parameter that are constant to 5 %, where the
    exponents concerned are free; and what the law itself needs (`Law.needs`).
    """
    runs = len(next(iter(columns.values())))
    found: list[IdentifiabilityFinding] = []
    if runs < len(free):
        told = f"{runs} runs cannot determine {len(free)} parameters; add runs or pin some"
        return [IdentifiabilityFinding("too-few-runs", told, "", refused=True)]
    if runs == len(free):
        told = f"{runs} runs for {len(free)} parameters: the law passes through them, nothing judges it"
        found.append(IdentifiabilityFinding("no-run-to-spare", told, ""))
    lacking = law.needs(columns) if law.needs is not None and free else ""
    if lacking:
        found.append(IdentifiabilityFinding("too-few-levels", lacking, "", refused=True))
    found += _lacking_axes(law, columns, free)
    found += _joined_axes(law, columns)
    experts = columns.get(EXPERTS)
    if experts is not None and n_total is not None and _move_together(np.log(n_total), np.log(experts)):
        told = "n_experts and n_total move together: what experts do and what total size does are one effect here"
        found.append(IdentifiabilityFinding("experts-with-total-size", told, "n_experts at a fixed n_total"))
    return found


def _lacking_axes(law: Law, columns: Mapping[str, Array], free: Sequence[str]) -> list[IdentifiabilityFinding]:
    """Axes that do not vary at all."""
    found: list[IdentifiabilityFinding] = []
    if {law.n_column, TOKENS} <= set(columns):
        size, tokens = np.log(columns[law.n_column]), np.log(columns[TOKENS])
        shaped = {
            role: any(law.parameter(n).role == role and not law.parameter(n).linear for n in free)
            for role in ("size", "data")
        }
        for name, values, role in ((law.n_column, size, "size"), (TOKENS, tokens, "data")):
            if np.ptp(values) < 0.01 and shaped[role]:
                told = f"every run has the same {name}: its exponent cannot be identified"
                found.append(IdentifiabilityFinding(f"one-{name}", told, name, refused=True))
        if not found and all(shaped.values()) and np.ptp(tokens - size) < 0.05:
            told = "tokens per parameter are constant: the exponents of N and D cannot be told apart"
            found.append(
                IdentifiabilityFinding("constant-tokens-per-parameter", told, "tokens at a fixed size", refused=True)
            )
    others = [name for name in law.columns if name not in (law.n_column, TOKENS)]
    for name in others:
        values = columns[name]
        if np.ptp(values) <= 1e-9 * np.abs(values).max():
            subject = "nothing says what experts do" if name == EXPERTS else f"nothing says what {name} does"
            found.append(
                IdentifiabilityFinding(f"one-{name}", f"every run has {name} = {values[0]:g}: {subject}", name)
            )
    return found


def _joined_axes(law: Law, columns: Mapping[str, Array]) -> list[IdentifiabilityFinding]:
    """Axes of which one follows from the others: correlation, or multiple correlation, of logarithms above .98."""
    axes = {
        name: np.log(columns[name])
        for name in (law.n_column, TOKENS, EXPERTS)
        if name in columns and np.ptp(np.log(columns[name])) >= 0.01
    }
    found: list[IdentifiabilityFinding] = []
    pairs = [(a, b) for index, a in enumerate(axes) for b in list(axes)[index + 1 :]]
    for a, b in pairs:
        if _move_together(axes[a], axes[b]):
            if b == EXPERTS:
                told, vary = f"n_experts and {a} move together", f"n_experts at a fixed {a}"
            else:
                told, vary = "N and D move together: their exponents are hardly told apart", "tokens at a fixed size"
            found.append(IdentifiabilityFinding(f"{a}-with-{b}", told, vary))
    if len(axes) == 3 and not found:
        names = list(axes)
        basis = np.column_stack([np.ones(len(axes[names[0]])), axes[names[0]], axes[names[1]]])
        rest = axes[EXPERTS] - basis @ np.linalg.lstsq(basis, axes[EXPERTS], rcond=None)[0]
        if np.std(rest) < np.sqrt(1 - _COLLINEAR**2) * np.std(axes[EXPERTS]):
            told = f"n_experts follows from {names[0]} and {names[1]}: its effect is not told from theirs"
            found.append(IdentifiabilityFinding("experts-with-the-rest", told, "n_experts at a fixed size and tokens"))
    return found


def flat_valley(law: Law, free: Sequence[str], jacobian: Array) -> IdentifiabilityFinding | None:
    """The direction in which the runs hardly tell parameters apart, where the condition number is above 1e3.

    `jacobian` (P, n) is that of the log loss by the free parameters' coordinates. Named are the parameters that take
    part in the flattest direction (right singular vector of the scaled Jacobian), and the axis of their roles.
    """
    condition = condition_number(jacobian)
    if condition <= CONDITION_WARN:
        return None
    part = list(free)
    if np.isfinite(condition):
        norms = np.linalg.norm(jacobian, axis=1)
        flattest = np.linalg.svd((jacobian / norms[:, None]).T, full_matrices=False)[2][-1]
        part = [name for name, share in zip(free, flattest, strict=True) if abs(share) > 0.3 * np.abs(flattest).max()]
    axes = [_AXIS.get(law.parameter(name).role, "") for name in part]
    axes = ["" if axis == EXPERTS and not law.uses_experts else axis for axis in axes]
    vary = " and ".join(dict.fromkeys(axis for axis in axes if axis)) or "N and tokens"
    if condition > CONDITION_REFUSE:
        told = (
            f"the runs cannot tell the parameters apart (condition number {condition:.0e}, above 1e6; a flat valley "
            f"along {', '.join(part)}): no fit"
        )
        return IdentifiabilityFinding("flat-valley", told, f"{vary} more widely", refused=True)
    told = (
        f"the parameters are barely told apart (condition number {condition:.0f}, above 1e3): "
        f"{', '.join(part)} trade off along a flat valley"
    )
    return IdentifiabilityFinding("flat-valley", told, f"{vary} more widely")


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
