"""Runs for isoFLOP analyses: on surfaces of known optima, on exact parabolas, and training curves."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.fitting.fit import Fit
from analysis.fitting.published import published

DENSE = published("chinchilla-tex")
BUDGETS = np.geomspace(1e17, 1e21, 5)


def surface(alpha, beta, a=406.4, b=410.7):
    return Fit(law="hoffmann", params={"E": 1.69, "A": a, "alpha": alpha, "B": b, "beta": beta})


def optimum(fit, train_flops, e=1):
    return fit.definition.optimum(fit.params, train_flops, e)[0]


def design(fit=DENSE, width=4.0, points=9, budgets=BUDGETS, drift=None, noise=0.0, seed=0, e=1, kappa=6.0):
    """Sizes within a factor `width` of the optimum of each budget, times a drift; losses by the fit."""
    rng = np.random.default_rng(seed)
    rows = []
    for budget, off in zip(budgets, np.ones(len(budgets)) if drift is None else drift, strict=True):
        size = optimum(fit, 6 * budget / kappa, e) * off * np.geomspace(1 / width, width, points)
        rows.append(
            pd.DataFrame({"n_active": size, "tokens": budget / (kappa * size), "train_flops": budget, "n_experts": e})
        )
    frame = pd.concat(rows, ignore_index=True)
    columns = {name: frame[name].to_numpy(dtype=float, copy=True) for name in fit.definition.columns}
    return frame.assign(loss_val=fit.loss(columns) * np.exp(noise * rng.standard_normal(len(frame))))


DRIFT = np.geomspace(1 / 3, 3, 5)


def parabolas(minima, *, width=4.0, points=7, budgets=BUDGETS, curvature=0.05, floor=2.0):
    """Losses that are exact parabolas in ln N with the given minima, amid centred windows."""
    rows = []
    for budget, best in zip(budgets, minima, strict=True):
        size = best * np.geomspace(1 / width, width, points)
        rows.append(
            pd.DataFrame(
                {
                    "n_active": size,
                    "tokens": budget / (6 * size),
                    "train_flops": budget,
                    "loss_val": floor + curvature * np.log(size / best) ** 2,
                }
            )
        )
    return pd.concat(rows, ignore_index=True)


def curves(fit=DENSE, models=60, points=12):
    rows = []
    for index, size in enumerate(np.geomspace(1e7, 1e11, models)):
        # Each model is trained from 1 to 600 tokens a parameter: curves that overlap with many others.
        tokens = size * np.geomspace(1, 600, points)
        rows.append(
            pd.DataFrame(
                {"trunk_id": f"t{index}", "n_active": size, "tokens": tokens, "train_flops": 6 * size * tokens}
            )
        )
    frame = pd.concat(rows, ignore_index=True)
    return frame.assign(loss_val=fit.loss({c: frame[c].to_numpy(copy=True) for c in ("n_active", "tokens")}))
