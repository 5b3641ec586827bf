"""Public tables of runs that fits are judged on, and what others got from them.

Tables are looked for in $SCALING_DATA, as by the tests; they are never part of this repository. Figures of others
without a printed source were recomputed: their own code, run once on the same points, one thread.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pandas as pd

from analysis import laws
from analysis.tables import runs
from analysis.tables.runs import RunTable
from benchmarks.peer import ROOT

# 245 runs digitised from a figure of arXiv 2203.15556 by epoch-research/analyzing-chinchilla (arXiv 2404.10102); the
# five highest losses are left out by its own rule. Objective: sum of Huber(1e-3) of log residuals, by one function for
# all.
EPOCH = "epoch_chinchilla.csv"
EPOCH_MAP = {"n_active": "Model Size", "train_flops": "Training FLOP", "loss_val": "loss"}
EPOCH_MINIMUM = {"E": 1.81722, "alpha": 0.34731, "beta": 0.36717}  # where the lowest of the peers' objectives is
EPOCH_OBJECTIVES = {
    "hadasah/scaling_laws, BFGS, 200 starts": 1.0182740178e-3,
    "analyzing-chinchilla notebook, L-BFGS-B, 4,500 starts": 1.0182740322e-3,
    "hadasah/scaling_laws, L-BFGS-B, 1,600 starts": 1.0182740322e-3,
    "allenai/OLMo-core, N/1e6 and D/1e9, 1,024 starts": 1.018274e-3,
    "kyo-takano/chinchilla 0.2.0, 3,125 starts": 1.018469e-3,
    "Open-Athena/vpnls, grid .001": 1.019248e-3,
    "Open-Athena/vpnls, grid .01": 1.019571e-3,
}
EPOCH_CPU_S = {
    "hadasah/scaling_laws, BFGS, 200 starts": 7.0,
    "analyzing-chinchilla notebook, L-BFGS-B, 4,500 starts": 59.8,
    "hadasah/scaling_laws, L-BFGS-B, 1,600 starts": 25.2,
    "allenai/OLMo-core, N/1e6 and D/1e9, 1,024 starts": 43.0,
    "kyo-takano/chinchilla 0.2.0, 3,125 starts": 68.2,
    "Open-Athena/vpnls, grid .001": 2.2,
    "Open-Athena/vpnls, grid .01": 0.17,
}
BOOTSTRAP_CPU_S = {"analyzing-chinchilla notebook, 4,000 resamples of one start": 97.3}
EPOCH_ERRORS = {"E": 0.02566, "alpha": 0.01540, "beta": 0.02060}  # arXiv 2404.10102: 4,000 resamples, in effect LAD

# Routed language models of Clark et al., arXiv 2202.01169 (google-deepmind/scaling_laws_for_routing, data CC-BY 4.0).
CLARK = "clark_routed_curves.csv.gz"
CLARK_GOALS = {"Hash": 8.8903e-6, "RL-R": 1.04281e-5, "S-Base": 1.04170e-5}  # minima by variable projection, rounded up
CLARK_NOTEBOOK = {"Hash": 9.568115e-6, "RL-R": 1.0449586e-5, "S-Base": 1.0464497e-5}  # the authors', 500 starts each
CLARK_CPU_S = {"the authors' notebook, 500 starts each": 10.8}


class Absent(RuntimeError):
    """Something a part needs is not on this computer; says what and how to have it."""


def public_data(name: str) -> Path:
    """A file of public data. Raises Absent."""
    folder = Path(os.environ.get("SCALING_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / name).is_file():
        raise Absent(f"public data {name} is not in {folder}: set SCALING_DATA")
    return folder / name


def epoch_table() -> RunTable:
    """Epoch's digitised Chinchilla runs by its own rule, n = 240."""
    return _epoch(public_data(EPOCH))


@functools.cache
def _epoch(path: Path) -> RunTable:
    return runs.read_runs(path, EPOCH_MAP, law=laws.HOFFMANN, drop_highest_loss=5)


def clark_table(router: str) -> RunTable:
    """The runs of one router of Clark et al. and the dense ones as E = 1, by the rule of the authors' notebook.

    The last step of each run; routing frequency 1/2, k = 1, seed 42; N is `dense_parameter_count`, the loss
    `loss_validation`.
    """
    return _clark(public_data(CLARK), router)


@functools.cache
def _clark(path: Path, router: str) -> RunTable:
    curves = pd.read_csv(path)
    last = curves.loc[curves.groupby("hyper_id")["step"].idxmax()]
    kept = last.query("routing_frequency == 0.5 and k == 1 and seed == 42 and router_type in [@router, 'Dense']")
    named = {"num_experts": "n_experts", "dense_parameter_count": "n_dense_nonembed", "loss_validation": "loss_val"}
    return RunTable(kept.rename(columns=named).reset_index(drop=True), f"{CLARK}: {router} and Dense")
