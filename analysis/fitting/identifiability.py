"""Identifiability: which parameters of a law a table determines, and which must be pinned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.laws import Law
from scaling.arrays import Array
from scaling.columns import EXPERTS, TOKENS
from scaling.errors import InputError
from scaling.formatting import listed

EXPERTS_FOR_SATURATION = 5
EXPERTS_FOR_INTERACTION = 4
TRUNKS_PER_PARAMETER = 3
CONDITION_WARN, CONDITION_REFUSE = 1e3, 1e6
_COLLINEAR = 0.98
_AXIS = {"size": "N", "data": "tokens", "expert": "n_experts", "saturation": "n_experts", "interaction": "n_experts"}


@dataclass(frozen=True)
class IdentifiabilityFinding:
    """A limitation of the runs: its name, its meaning, and the axis to vary; `refused` where it prevents a fit."""

    name: str
    message: str
    vary: str = ""
    refused: bool = False

    def __str__(self) -> str:
        return f"{self.message}; vary {self.vary}" if self.vary else self.message


def refusals(findings: Iterable[IdentifiabilityFinding | None]) -> list[str]:
    """The findings that prevent a fit, as text."""
    return [str(finding) for finding in findings if finding is not None and finding.refused]


@dataclass(frozen=True)
class Pin:
    """The fixed value of a parameter, and its source."""

    value: float
    source: str


def automatic_pins(law: Law, columns: Mapping[str, Array], n_trunks: int, pinned: Mapping[str, Pin]) -> dict[str, Pin]:
    """Published values for the parameters that the table cannot identify; those in `pinned` keep the user's values.

    Pinned are, in this order and while parameters remain free:
    * saturation (E_start, E_max), with fewer than 5 distinct E or fewer than 3 trunks per free parameter;
    * interactions of E with N or D, with fewer than 4 distinct E or fewer than 3 trunks per free parameter;
    * with a single E, every parameter of the effect of E that has a published value.
    A trunk counts once, whatever its number of token budgets.
    """
    if EXPERTS not in columns:
        return {}
    distinct = len(np.unique(columns[EXPERTS]))
    rules = {"saturation": EXPERTS_FOR_SATURATION, "interaction": EXPERTS_FOR_INTERACTION}
    pins: dict[str, Pin] = {}
    for role, needed in (rules | {"expert": 2} if distinct == 1 else rules).items():
        free = [p for p in law.parameters if p.name not in pinned and p.name not in pins]
        if distinct < needed or n_trunks < TRUNKS_PER_PARAMETER * len(free):
            pins |= {p.name: Pin(p.pin, p.pin_source) for p in free if p.role == role and p.pin is not None}
    return pins


def pin_warnings(pins: Mapping[str, Pin]) -> list[str]:
    """One warning for each source of pinned values."""
    by_source: dict[str, list[str]] = {}
    for name, pin in pins.items():
        by_source.setdefault(pin.source, []).append(name)
    return [
        f"{listed(names)} fixed at published values ({source}); these runs cannot estimate them"
        for source, names in by_source.items()
    ]


def design_findings(
    law: Law, columns: Mapping[str, Array], free: Sequence[str], n_total: Array | None
) -> list[IdentifiabilityFinding]:
    """The limitations of a design, whatever the losses. `columns` are those of the law; `n_total` where known.

    A fit is refused for fewer runs than parameters; for one N, one D, or tokens per parameter constant to 5 %, where
    their exponents are free; and where the law needs more (`Law.needs`).
    """
    runs = len(next(iter(columns.values())))
    if runs < len(free):
        message = f"{runs} runs cannot determine {len(free)} parameters; add runs or pin some"
        return [IdentifiabilityFinding("too-few-runs", message, refused=True)]
    findings: list[IdentifiabilityFinding] = []
    if runs == len(free):
        message = f"{runs} runs for {len(free)} parameters: the law passes through every run, so nothing tests it"
        findings.append(IdentifiabilityFinding("no-run-to-spare", message))
    lacking = law.needs(columns) if law.needs is not None and free else ""
    if lacking:
        findings.append(IdentifiabilityFinding("too-few-levels", lacking, refused=True))
    findings += [*_constant_axes(law, columns, free), *_constant_columns(law, columns), *_joined_axes(law, columns)]
    experts = columns.get(EXPERTS)
    if experts is not None and n_total is not None and _move_together(np.log(n_total), np.log(experts)):
        message = "n_experts and n_total move together: their effects cannot be separated"
        findings.append(IdentifiabilityFinding("experts-with-total-size", message, "n_experts at a fixed n_total"))
    return findings


def _constant_axes(law: Law, columns: Mapping[str, Array], free: Sequence[str]) -> list[IdentifiabilityFinding]:
    """N or D that do not vary, or vary only together, where their exponents are free."""
    if not {law.n_column, TOKENS} <= set(columns):
        return []
    size, tokens = np.log(columns[law.n_column]), np.log(columns[TOKENS])
    parameters = [law.parameter(name) for name in free]
    shaped = {p.role for p in parameters if not p.linear}  # roles whose exponents are free
    findings = [
        IdentifiabilityFinding(
            f"one-{name}", f"every run has the same {name}: its exponent cannot be identified", name, refused=True
        )
        for name, values, role in ((law.n_column, size, "size"), (TOKENS, tokens, "data"))
        if np.ptp(values) < 0.01 and role in shaped
    ]
    if not findings and {"size", "data"} <= shaped and np.ptp(tokens - size) < 0.05:
        message = "tokens per parameter are constant: the exponents of N and D cannot be distinguished"
        vary = "tokens at a fixed size"
        findings.append(IdentifiabilityFinding("constant-tokens-per-parameter", message, vary, refused=True))
    return findings


def _constant_columns(law: Law, columns: Mapping[str, Array]) -> list[IdentifiabilityFinding]:
    """Other columns than N and D that do not vary."""
    findings = []
    for name in law.columns:
        values = columns[name]
        if name not in (law.n_column, TOKENS) and np.ptp(values) <= 1e-9 * np.abs(values).max():
            effect = "the effect of experts" if name == EXPERTS else f"its effect on {law.target}"
            message = f"every run has {name} = {values[0]:g}: {effect} is not identified"
            findings.append(IdentifiabilityFinding(f"one-{name}", message, name))
    return findings


def _joined_axes(law: Law, columns: Mapping[str, Array]) -> list[IdentifiabilityFinding]:
    """Collinear axes: correlation, or multiple correlation, of logarithms above .98."""
    axes = {name: np.log(columns[name]) for name in (law.n_column, TOKENS, EXPERTS) if name in columns}
    axes = {name: values for name, values in axes.items() if np.ptp(values) >= 0.01}
    findings: list[IdentifiabilityFinding] = []
    for a, b in combinations(axes, 2):
        if _move_together(axes[a], axes[b]):
            if b == EXPERTS:
                message, vary = f"n_experts and {a} move together", f"n_experts at a fixed {a}"
            else:
                message = "N and D move together: their exponents can hardly be distinguished"
                vary = "tokens at a fixed size"
            findings.append(IdentifiabilityFinding(f"{a}-with-{b}", message, vary))
    if len(axes) == 3 and not findings:
        size, tokens, experts = axes.values()
        basis = np.column_stack([np.ones(len(size)), size, tokens])
        rest = experts - basis @ np.linalg.lstsq(basis, experts, rcond=None)[0]
        if np.std(rest) < np.sqrt(1 - _COLLINEAR**2) * np.std(experts):
            message = f"n_experts follows from {law.n_column} and {TOKENS}: its effect cannot be separated from theirs"
            vary = "n_experts at a fixed size and tokens"
            findings.append(IdentifiabilityFinding("experts-with-the-rest", message, vary))
    return findings


def flat_valley(law: Law, free: Sequence[str], jacobian: Array) -> IdentifiabilityFinding | None:
    """The direction in which parameters trade off, where the condition number is above 1e3.

    `jacobian` (P, n) is that of the log loss by the coordinates of the free parameters. Named are the parameters of the
    flattest direction (right singular vector of the scaled Jacobian) and the axes to vary. None without free
    parameters.
    """
    condition = condition_number(jacobian) if len(free) else 1.0
    if condition <= CONDITION_WARN:
        return None
    involved = list(free)
    if np.isfinite(condition):
        norms = np.linalg.norm(jacobian, axis=1)
        flattest = np.abs(np.linalg.svd((jacobian / norms[:, None]).T, full_matrices=False)[2][-1])
        involved = [name for name, share in zip(free, flattest, strict=True) if share > 0.3 * flattest.max()]
    axes = [_AXIS.get(law.parameter(name).role, "") for name in involved]
    axes = [axis for axis in axes if axis and (axis != EXPERTS or law.uses_experts)]
    vary = f"{' and '.join(dict.fromkeys(axes)) or 'N and tokens'} more widely"
    if condition > CONDITION_REFUSE:
        message = (
            f"the runs cannot distinguish the parameters (condition number {condition:.0e}, above 1e6; a flat valley "
            f"along {', '.join(involved)}): no fit"
        )
        return IdentifiabilityFinding("flat-valley", message, vary, refused=True)
    message = (
        f"the parameters are barely distinguishable (condition number {condition:.0f}, above 1e3): "
        f"{', '.join(involved)} trade off along a flat valley"
    )
    return IdentifiabilityFinding("flat-valley", message, vary)


def _move_together(x: Array, y: Array) -> bool:
    return bool(np.ptp(x) >= 0.01 and np.ptp(y) >= 0.01 and abs(np.corrcoef(x, y)[0, 1]) > _COLLINEAR)


def condition_number(jacobian: Array) -> float:
    """Condition number of the Jacobian (P, n) of the log loss with every parameter's row scaled to unit norm.

    Infinite where a parameter moves no prediction or there are fewer rows than parameters. Independent of units. For
    hoffmann about 200 on a 6 x 6 grid of N and D, above 1e6 where tokens per parameter are constant.
    """
    norms = np.linalg.norm(jacobian, axis=1)
    if jacobian.shape[1] < jacobian.shape[0] or not np.all(np.isfinite(norms)) or norms.min() == 0:
        return float("inf")
    return float(np.linalg.cond(jacobian / norms[:, None]))


def checked_pin(law: Law, name: str, value: float) -> float:
    """The value that a parameter is to be held at. Raises InputError where it is none of the parameter's."""
    parameter = law.parameter(name)
    low, high = parameter.bounds
    if not np.isfinite(value) or (parameter.scale == "log" and value <= 0):
        kind = "positive number" if parameter.scale == "log" else "number"
        raise InputError(f"`pin` {name}={value}: {name} of law {law.name} must be a {kind}")
    if not low <= value <= high:
        raise InputError(f"`pin` {name}={value}: {name} of law {law.name} lies within {low:g} to {high:g}")
    return float(value)
