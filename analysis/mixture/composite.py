"""The composite law: several laws in one, with weights, and a discrepancy that grows beyond the largest run.

ln L = sum_k w_k ln L_k + s max(0, ln(C/C_max)) with C = 6 N D. Its parameters are those of the laws, each by the name
of its law, the weights w_k and the slope s. At the estimate the weights are those of the mixture and s is zero; in a
draw one law has weight 1 and s is that draw's. So whatever takes a law takes a mixture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from analysis.laws import Law, Parameter
from analysis.laws.autodiff import Dual, log
from analysis.laws.law import AlongTokens
from analysis.mixture.power_of_tokens import PowerOfTokens
from scaling.arrays import Array, Integers
from scaling.columns import EXPERTS, TOKENS

NAME = "mixture"
DISCREPANCY = "discrepancy"
_SIZE = "n_active"
_MOST_SLOPE = 10.0  # of the discrepancy; its draws have heavy tails


def parameter_name(member: str, parameter: str) -> str:
    """The name in the composite law of a parameter of one of its laws."""
    return f"{member}.{parameter}"


def weight_name(member: str) -> str:
    """The name in the composite law of the weight of one of its laws."""
    return parameter_name(member, "weight")


def composite(
    laws: Mapping[str, Law], largest: float | Mapping[str, float], tokens: float | None, *, powers: bool = False
) -> Law:
    """The composite of laws by name. `largest` is the compute 6 N D of the largest run, or that of each law's runs.

    The columns are those of all laws, of which each reads its own. `tokens` is the one token budget of all runs, where
    there is but one: the law then says nothing of others, and lacks that column. `powers` says that every law is a rest
    and a power of D, of which searches over D make use.
    """
    parameters = [
        replace(parameter, name=parameter_name(member, parameter.name), pin=None, pin_source="")
        for member, law in laws.items()
        for parameter in law.parameters
    ]
    for member in laws:
        meaning = f"weight of {member} in the mixture"
        parameters.append(Parameter(weight_name(member), "mixture", meaning, (0.0, 1.0), (0.0, 1.0)))
    meaning = "change of ln loss for each e-fold of compute beyond the largest run"
    parameters.append(Parameter(DISCREPANCY, "mixture", meaning, (-0.01, 0.01), (-_MOST_SLOPE, _MOST_SLOPE)))
    read = dict.fromkeys(name for law in laws.values() for name in law.columns)
    others = [name for name in read if name not in (_SIZE, TOKENS, EXPERTS)]
    columns = (_SIZE, *((TOKENS,) if tokens is None else ()), *((EXPERTS,) if EXPERTS in read else ()), *others)
    beyond = {name: float(np.log(largest[name] if isinstance(largest, Mapping) else largest)) for name in laws}
    return Law(
        name=NAME,
        formula=f"ln L = mean of {' and '.join(laws)} by weight, and a discrepancy beyond the largest run",
        typst="ln L = sum_k w_k ln L_k + s max(0, ln (C \\/ C_max))",
        n_column=_SIZE,
        parameters=tuple(parameters),
        log_formula=_formula(laws, beyond, tokens),
        source="laws taken together by how well each predicts larger runs from smaller ones",
        domain="that of the runs that were fitted",
        columns=columns,
        along=_along(laws, beyond) if powers else None,
    )


def _formula(
    laws: Mapping[str, Law], log_largest: Mapping[str, float], tokens: float | None
) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Any]:
    names = {member: {name: parameter_name(member, name) for name in law.names} for member, law in laws.items()}
    parts = {member: _with_discrepancy(law, log_largest[member]) for member, law in laws.items()}

    def formula(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
        columns = dict(x) if tokens is None else {**x, TOKENS: np.full(np.shape(x[_SIZE]), tokens)}
        weights = [p[weight_name(member)] for member in laws]
        evaluated = [
            (part, {**{name: p[named] for name, named in names[member].items()}, DISCREPANCY: p[DISCREPANCY]})
            for member, part in parts.items()
        ]
        chosen = _one_each(weights)
        return _of_rows(evaluated, columns, chosen) if chosen is not None else _mean(evaluated, columns, weights)

    return formula


def _along(laws: Mapping[str, Law], log_largest: Mapping[str, float]) -> Any:
    """`Law.along` of laws that are each a rest and a power of D, with their discrepancy."""
    names = {member: {name: parameter_name(member, name) for name in law.names} for member, law in laws.items()}
    beyond = np.array([log_largest[member] for member in laws])

    def along(p: Mapping[str, Any], x: Mapping[str, Any]) -> AlongTokens:
        shape = np.shape(x[TOKENS])
        weights = [p[weight_name(member)] for member in laws]
        evaluated = [
            (law.log_formula, {name: p[named] for name, named in names[member].items()}) for member, law in laws.items()
        ]
        chosen = _one_each(weights)

        def of(formula: Callable[[Mapping[str, Any]], Any]) -> PowerOfTokens:
            def at(log_tokens: float) -> tuple[Array, Array]:
                tokens = np.full(shape, np.exp(log_tokens))
                result = formula({**x, TOKENS: Dual(tokens, {TOKENS: tokens})})
                return result.value, np.asarray(result.partials[TOKENS])

            return PowerOfTokens.of(at)

        if chosen is not None:
            parts = [(1.0, of(lambda columns: _of_rows(evaluated, columns, chosen)), beyond[chosen][:, None])]
        else:
            each = [of(partial(formula, params)) for formula, params in evaluated]
            parts = list(zip(weights, each, beyond, strict=True))
        log_compute = np.log(6.0) + np.log(x[_SIZE])

        def log_loss(log_tokens: Array) -> tuple[Array, Array]:
            value = slope = np.zeros(())
            for weight, power, largest in parts:
                log_value, falls = power.at(log_tokens)
                past = log_compute + log_tokens - largest
                value = value + weight * (log_value + p[DISCREPANCY] * np.maximum(past, 0.0))
                slope = slope + weight * (falls + p[DISCREPANCY] * (past > 0))
            return value, slope

        return log_loss

    return along


LogFormula = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
Evaluated = Sequence[tuple[LogFormula, Mapping[str, Any]]]


def _with_discrepancy(law: Law, log_largest: float) -> LogFormula:
    """ln of a law, and s max(0, ln(C/C_max)) with the slope s among its parameters."""

    def formula(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
        log_compute = np.log(6.0) + np.log(x[_SIZE]) + log(x[TOKENS])
        return law.log_formula(p, x) + p[DISCREPANCY] * _positive(log_compute - log_largest)

    return formula


def _mean(evaluated: Evaluated, columns: Mapping[str, Any], weights: Sequence[Any]) -> Any:
    terms = [weight * formula(p, columns) for weight, (formula, p) in zip(weights, evaluated, strict=True)]
    return sum(terms[1:], start=terms[0])


def _one_each(weights: Sequence[Any]) -> Any:
    """Which law each row (rows, 1) of parameters chooses; None where weights are no rows, or not 0 and 1."""
    if any(isinstance(weight, Dual) or np.ndim(weight) != 2 for weight in weights):
        return None
    stacked = np.concatenate(weights, axis=1)
    whole = np.all((stacked == 0) | (stacked == 1)) and np.all(stacked.sum(axis=1) == 1)
    return stacked.argmax(axis=1) if whole else None


def _of_rows(evaluated: Evaluated, columns: Mapping[str, Any], chosen: Any) -> Any:
    """What `_mean` gives, with each law evaluated in the rows that choose it alone."""
    count, parts = len(chosen), []
    for number, (formula, p) in enumerate(evaluated):
        rows = _as_slice(np.flatnonzero(chosen == number))
        if rows is not None:
            inside = [{name: _rows(value, rows, count) for name, value in given.items()} for given in (p, columns)]
            parts.append((rows, formula(*inside)))
    if not any(isinstance(value, Dual) for _, value in parts):
        return _joined(parts, count)
    names = {name for _, value in parts for name in value.partials}
    partials = {name: _joined([(rows, value.partials[name]) for rows, value in parts], count) for name in names}
    return Dual(_joined([(rows, value.value) for rows, value in parts], count), partials)


def _as_slice(rows: Integers) -> slice | Integers | None:
    """Rows at equal steps as a slice, which copies nothing; None where there are none."""
    if not rows.size:
        return None
    step = int(rows[1] - rows[0]) if rows.size > 1 else 1
    return slice(int(rows[0]), int(rows[-1]) + 1, step) if np.all(np.diff(rows) == step) else rows


def _rows(value: Any, rows: Any, count: int) -> Any:
    """Some rows of what has a row for each draw; anything else as it is."""
    if isinstance(value, Dual):
        partials = {name: _rows(partial, rows, count) for name, partial in value.partials.items()}
        return Dual(_rows(value.value, rows, count), partials)
    return value[rows] if np.ndim(value) == 2 and len(value) == count else value


def _joined(parts: Sequence[tuple[Any, Any]], count: int) -> Any:
    width = max(np.shape(value)[-1] for _, value in parts)
    whole = np.empty((count, width))
    for rows, value in parts:
        whole[rows] = value
    return whole


def _positive(value: Any) -> Any:
    """max(0, value)."""
    above = (value.value if isinstance(value, Dual) else value) > 0
    return value * np.asarray(above, dtype=float)
