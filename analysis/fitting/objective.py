"""Objectives: a penalty summed over residuals, never averaged (a mean makes optimisers stop early).

A residual is the prediction minus the observation, of the natural log of the loss ("log") or of the loss ("raw").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from scaling.arrays import Array
from scaling.bounds import outside
from scaling.errors import InputError

Kind = Literal["huber", "lad", "least-squares", "asymmetric"]
Residual = Literal["log", "raw"]
OVERESTIMATE_WEIGHT = 10.0
_CORNERS = (1e6, 1e-12)  # largest and least delta


@dataclass(frozen=True)
class Objective:
    """sum_i w_i rho(r_i).

    * huber: rho = r^2/2 within delta, delta (|r| - delta/2) beyond (Hoffmann et al., arXiv 2203.15556: delta 1e-3 on
      log residuals);
    * lad: |r|;
    * least-squares: r^2, so the sum is the residual sum of squares;
    * asymmetric: huber with weight 10 where the law predicts too high, because an under-tuned run only raises the loss
      (the overestimate penalty of allenai/OLMo-core).
    """

    kind: Kind = "huber"
    residual: Residual = "log"
    delta: float = 1e-3

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(f"objective {self.kind!r} is not known; use {', '.join(get_args(Kind))}")
        if self.residual not in get_args(Residual):
            raise InputError(f"residual {self.residual!r} is not known; use {' or '.join(get_args(Residual))}")
        if wrong := outside(self.delta, *_CORNERS):
            raise InputError(f"`delta` {wrong}")

    def penalty(self, residuals: Array) -> Array:
        """rho, elementwise."""
        if self.kind == "least-squares":
            return residuals * residuals
        size: Array = np.abs(residuals)
        if self.kind == "lad":
            return size
        within, beyond = 0.5 * residuals * residuals, self.delta * (size - 0.5 * self.delta)
        return self._side(residuals) * np.where(size <= self.delta, within, beyond)

    def rounded(self, delta: float) -> Objective:
        """The same objective with its corner rounded to width delta; lad becomes a multiple of huber."""
        return Objective("huber" if self.kind == "lad" else self.kind, self.residual, delta)

    def slope(self, residuals: Array) -> Array:
        """rho', elementwise."""
        if self.kind == "least-squares":
            return 2.0 * residuals
        return self._side(residuals) * np.clip(residuals, -self.delta, self.delta)

    def curvature(self, residuals: Array) -> Array:
        """rho'', elementwise (zero beyond delta)."""
        if self.kind == "least-squares":
            return np.full_like(residuals, 2.0)
        return self._side(residuals) * np.where(np.abs(residuals) <= self.delta, 1.0, 0.0)

    def majoriser(self, residuals: Array) -> Array:
        """rho'/r: the curvature of the parabola that touches rho at r and lies above it."""
        if self.kind == "least-squares":
            return np.full_like(residuals, 2.0)
        return self._side(residuals) * (self.delta / np.maximum(np.abs(residuals), self.delta))

    def _side(self, residuals: Array) -> Array | float:
        return np.where(residuals > 0, OVERESTIMATE_WEIGHT, 1.0) if self.kind == "asymmetric" else 1.0


HUBER = Objective()
"""The default: Huber penalty of log residuals beyond 1e-3."""
