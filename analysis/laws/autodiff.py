"""Forward-mode automatic differentiation over NumPy arrays: exact gradients from the formula of a law.

A `Dual` is a value with its partial derivatives by named parameters. Parameters are columns of shape (B, 1) (B starts
or resamples) and data are rows of shape (n,), so operations broadcast to (B, n). Derivatives are broadcast as late as
possible: that of `alpha * log N` by alpha stays (n,). The functions below also map plain arrays to plain arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.arrays import Array


@dataclass(frozen=True, eq=False)
class Dual:
    """A value and its partial derivatives by parameter name."""

    value: Array
    partials: Mapping[str, Array | float]

    __array_ufunc__ = None  # NumPy arrays on the left defer to the methods below

    def __add__(self, other: Value) -> Dual:
        return _combine(_value(self) + _value(other), (self, 1.0), (other, 1.0))

    __radd__ = __add__

    def __sub__(self, other: Value) -> Dual:
        return _combine(_value(self) - _value(other), (self, 1.0), (other, -1.0))

    def __rsub__(self, other: Value) -> Dual:
        return _combine(_value(other) - self.value, (self, -1.0))

    def __neg__(self) -> Dual:
        return _combine(-self.value, (self, -1.0))

    def __mul__(self, other: Value) -> Dual:
        return _combine(self.value * _value(other), (self, _value(other)), (other, self.value))

    __rmul__ = __mul__

    def __truediv__(self, other: Value) -> Dual:
        quotient = self.value / _value(other)
        return _combine(quotient, (self, 1.0 / _value(other)), (other, -quotient / _value(other)))

    def __rtruediv__(self, other: Value) -> Dual:
        quotient = _value(other) / self.value
        return _combine(quotient, (self, -quotient / self.value))


Value = Dual | Array | float


def _value(x: Value) -> Any:
    return x.value if isinstance(x, Dual) else x


def _combine(value: Array, *parts: tuple[Value, Any]) -> Dual:
    """The chain rule: the derivative of the result by each part times the partials of that part."""
    partials: dict[str, Any] = {}
    for part, slope in parts:
        if isinstance(part, Dual):
            for name, partial in part.partials.items():
                term = partial * slope
                partials[name] = partials[name] + term if name in partials else term
    return Dual(value, partials)


def log(x: Any) -> Any:
    """Natural logarithm."""
    if not isinstance(x, Dual):
        return np.log(x)
    return _combine(np.log(x.value), (x, 1.0 / x.value))


def exp(x: Any) -> Any:
    """Exponential."""
    if not isinstance(x, Dual):
        return np.exp(x)
    value = np.exp(x.value)
    return _combine(value, (x, value))


def log_sum_exp(*terms: Any) -> Any:
    """log(sum_t exp(x_t)), shifted by the largest term against overflow."""
    values = [_value(term) for term in terms]
    largest = values[0]
    for value in values[1:]:
        largest = np.maximum(largest, value)
    powers = [np.exp(value - largest) for value in values]
    total = sum(powers[1:], start=powers[0])
    result = largest + np.log(total)
    if not any(isinstance(term, Dual) for term in terms):
        return result
    inverse = 1.0 / total
    return _combine(result, *((term, power * inverse) for term, power in zip(terms, powers, strict=True)))
