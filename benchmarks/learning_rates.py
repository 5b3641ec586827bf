"""Where the best learning rate lies, by shape and budget, and how far a rule's loss is from the best found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from scaling.arrays import Array
from scaling.errors import InputError

SHAPE = ("d_model", "n_layers", "n_experts", "top_k", "batch_tokens", "warmup_tokens", "weight_decay", "seed")


def rate_optima(runs: pd.DataFrame, rule: Callable[[pd.Series], float], by: Sequence[str] = SHAPE) -> pd.DataFrame:
    """One row per group of `by` and token budget with at least three rates.

    best_lr, best_loss: of the runs. lr_optimum: minimum of the parabola in ln lr through the best run and its two
    neighbours; at the edge of the rates it is not known and missing. rule_lr, and rule_loss: the same parabolas taken
    at the rule's rate (linear in ln lr between the last two rates, never beyond them: then missing). excess: rule_loss
    - best_loss in nats per token; it can be below zero, for the rule's rate may lie between two runs.

    Raises InputError when no group has three rates.
    """
    rows = []
    for key, group in runs.groupby([*by, "tokens"], sort=True):
        group = group.drop_duplicates("lr").sort_values("lr")
        if len(group) < 3:
            continue
        rate, loss = group["lr"].to_numpy(float), group["loss_val"].to_numpy(float)
        best = int(np.argmin(loss))
        rule_lr = float(rule(group.iloc[0]))
        rows.append(
            dict(zip([*by, "tokens"], key, strict=True))
            | {
                "rates": len(group),
                "best_lr": rate[best],
                "best_loss": loss[best],
                "lr_optimum": _vertex(np.log(rate), loss, best),
                "rule_lr": rule_lr,
                "rule_loss": _between(np.log(rate), loss, np.log(rule_lr)),
            }
        )
    if not rows:
        raise InputError("no shape and budget with three learning rates: sweep `lr`")
    return pd.DataFrame(rows).assign(excess=lambda frame: frame["rule_loss"] - frame["best_loss"])


def power_of_width(optima: pd.DataFrame) -> tuple[float, float, float]:
    """Rate at d_model = 64, exponent p and its standard error in lr = rate (64 / d)^p, by least squares of ln lr.

    Each row with a known optimum counts once, though budgets of one trunk and rows of one seed are not independent: the
    error is that of the scatter, not an interval for a new width. Raises InputError with fewer than two widths.
    """
    known = optima.dropna(subset=["lr_optimum"])
    if known["d_model"].nunique() < 2:
        raise InputError("an optimum at two widths at least is needed for the exponent of the width")
    x = np.log(64.0 / known["d_model"].to_numpy(float))
    design = np.column_stack([np.ones_like(x), x])
    y = np.log(known["lr_optimum"].to_numpy(float))
    coefficient, *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ coefficient
    variance = residual @ residual / max(1, len(y) - 2)
    error = np.sqrt(variance * np.linalg.inv(design.T @ design)[1, 1])
    return float(np.exp(coefficient[0])), float(coefficient[1]), float(error)


def _vertex(x: Array, y: Array, best: int) -> float:
    """exp of where the parabola through three points is least; NaN at the edge."""
    if best in (0, len(x) - 1):
        return float("nan")
    curvature, slope, _ = np.polyfit(x[best - 1 : best + 2] - x[best], y[best - 1 : best + 2], 2)
    return float(np.exp(x[best] - slope / (2 * curvature)))


def _between(x: Array, y: Array, at: float) -> float:
    """The loss at a rate between those measured: a parabola through the nearest three; NaN beyond them."""
    if at < x[0] - 1e-9 or at > x[-1] + 1e-9:
        return float("nan")
    middle = int(np.clip(np.argmin(np.abs(x - at)), 1, len(x) - 2))
    near = slice(middle - 1, middle + 2)
    if not x[near][0] <= at <= x[near][-1]:
        return float(np.interp(at, x, y))
    return float(np.polyval(np.polyfit(x[near] - at, y[near], 2), 0.0))
