"""Candidate runs against a baseline's law: what each is worth, at its own shape or against the baseline's frontier."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from analysis.decision.size_search import Optimum, least_cost
from analysis.fitting.fit import Fit
from analysis.tables.runs import RunTable
from analysis.worth.equal_loss import Comparison
from scaling.arrays import Array, Integers
from scaling.columns import LOSS, TOKENS
from scaling.errors import InputError

Against = Literal["own shape", "frontier"]
_MOST = np.log(1e9)  # times the compute of a run, either way, within which its match is looked for
_HALVINGS = 60


@dataclass(frozen=True)
class Candidates:
    """The runs of a method: E, N_active, tokens and ln loss of each, with the trunk that it belongs to."""

    experts: Integers
    n_active: Array
    tokens: Array
    log_loss: Array
    trunks: Integers

    @classmethod
    def of(cls, table: RunTable) -> Candidates:
        """The runs of a table. Raises InputError where it lacks n_active or tokens in a run."""
        for name in ("n_active", TOKENS):
            if name not in table.frame or not np.all(table.column(name) > 0):
                raise InputError(
                    f"{table.source}: a candidate's compute is 6 N_active D, and {name} is not a positive number in "
                    "every run: name it with `map`"
                )
        return cls(
            experts=table.experts.astype(np.int64),
            n_active=table.column("n_active"),
            tokens=table.column(TOKENS),
            log_loss=np.log(table.column(LOSS)),
            trunks=np.unique(table.trunks, return_inverse=True)[1],
        )

    def __len__(self) -> int:
        return len(self.experts)

    @property
    def train_flops(self) -> Array:
        """6 N_active D."""
        return 6.0 * self.n_active * self.tokens

    @property
    def one_experts(self) -> int | None:
        """The E of all runs; None where they have several."""
        return int(self.experts[0]) if len(np.unique(self.experts)) == 1 else None


def matched(
    compared: Comparison, runs: Candidates, against: Against, params: Mapping[str, Any], log_loss: Array
) -> Optimum:
    """The baseline model that has the loss of each run (rows, runs), by rows of parameters; its value is 6 N D.

    `own shape`: the baseline grown or shrunk at the run's own tokens per parameter, N sqrt(s) on D sqrt(s), to the s at
    which its law gives that loss. The ratio then holds nothing but the method: a run that is trained far longer than
    optimal is compared with a baseline trained as long. `frontier`: the least compute at which any size and number of
    tokens gives that loss, as for a law (`Comparison.at`): what is off the baseline's optimum counts against the run.
    Infinite where the baseline never has that loss.
    """
    if against == "frontier":
        return _on_frontier(compared, params, log_loss)
    space = compared.space(compared.baseline_experts, params)
    low, high = (np.full(log_loss.shape, end) for end in (-_MOST, _MOST))

    def model(log_scale: Array) -> tuple[Array, Array]:
        growth = np.exp(0.5 * log_scale)
        return runs.n_active * growth, runs.tokens * growth

    reached = np.log(space.loss(*model(high))) <= log_loss
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        too_small = np.log(space.loss(*model(middle))) > log_loss
        low, high = np.where(too_small, middle, low), np.where(too_small, high, middle)
    n_active, tokens = model(0.5 * (low + high))
    return Optimum(n_active, tokens, np.where(reached, 6.0 * n_active * tokens, np.inf))


def _on_frontier(compared: Comparison, params: Mapping[str, Any], log_loss: Array) -> Optimum:
    rows, runs = log_loss.shape
    each = {name: np.repeat(value, runs, axis=0) if np.ndim(value) else value for name, value in params.items()}
    space = compared.space(compared.baseline_experts, each)
    found = least_cost(space, np.exp(log_loss.ravel()), lambda sizes, tokens: 6.0 * sizes.n_active * tokens)
    return Optimum(*(values.reshape(rows, runs) for values in (found.n_active, found.tokens, found.value)))


def require_baseline(fit: Fit, baseline_experts: int) -> int:
    """The E of the baseline: that asked for, or of a law without experts the one that it was fitted to. Raises
    InputError where the law cannot say which model has a loss."""
    fit.require_params()
    if not fit.definition.divides_compute:
        raise InputError(
            f"law {fit.law} predicts {fit.definition.target} from {', '.join(fit.definition.columns)}: a baseline is a "
            "law of loss in size and tokens"
        )
    if fit.definition.uses_experts:
        return baseline_experts
    return fit.only_experts or 1
