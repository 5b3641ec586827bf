"""The difference of two runs, paired by held-out document."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.tables.study import evaluation
from scaling.clustered_mean import clustered_mean
from scaling.errors import InputError


@dataclass(frozen=True)
class PairedDifference:
    """Loss of run a minus loss of run b, nats per token, over their common held-out documents."""

    difference: float
    standard_error: float
    n_documents: int
    n_tokens: int


def paired_difference(study: str | Path, run_a: str, run_b: str) -> PairedDifference:
    """The held-out loss of run a minus that of run b, paired by document.

    d = sum_i n_i (a_i - b_i) / sum_i n_i and se^2 = n/(n-1) sum_i n_i^2 (d_i - d)^2 / (sum_i n_i)^2, the ratio
    estimator with documents as clusters. Raises InputError when the evaluations do not pair.
    """
    a, b = (evaluation(Path(study), run) for run in (run_a, run_b))
    both = a.merge(b, on="document", suffixes=("_a", "_b"), validate="one_to_one")
    if len(both) < 2 or len(both) != len(a) or len(both) != len(b):
        raise InputError(f"{study}: {run_a} and {run_b} share {len(both)} of {len(a)} and {len(b)} held-out documents")
    n = both["n_tokens_a"].to_numpy(dtype=float, copy=True)
    if not np.array_equal(n, both["n_tokens_b"].to_numpy(dtype=float, copy=True)):
        raise InputError(f"{study}: runs {run_a} and {run_b} were evaluated on different tokens of the same documents")
    differences = (both["loss_a"] - both["loss_b"]).to_numpy(dtype=float, copy=True)
    mean, error = clustered_mean(differences, n)
    return PairedDifference(mean, error, len(both), int(n.sum()))
