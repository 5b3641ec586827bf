"""Dense models on a grid of sizes and tokens, with losses by a planted law."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.laws import HOFFMANN

DENSE = {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 1500.0, "beta": 0.36}
R = np.random.default_rng


def dense_runs(noise, seed=0, shared=0.0, sizes=10, budgets=6):
    """Dense models on a grid of N and D with losses by hoffmann; a trunk a size, with an error of its own
    (`shared`)."""
    rng, rows = R(seed), []
    for size in np.geomspace(1e8, 3e9, sizes):
        own = shared * rng.standard_normal()
        for tokens in np.geomspace(1e9, 3e10, budgets):
            rows.append({"trunk_id": f"{size:.4g}", "n_active": size, "tokens": tokens, "n_experts": 1,
                         "train_flops": 6 * size * tokens, "error": own + noise * rng.standard_normal()})  # fmt: skip
    frame = pd.DataFrame(rows)
    loss = HOFFMANN.loss(DENSE, {name: frame[name].to_numpy(copy=True) for name in HOFFMANN.columns})
    return frame.assign(loss_val=loss * np.exp(frame.pop("error")))
