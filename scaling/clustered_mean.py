"""The mean over documents and its standard error, as both training and analysis compute them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clustered_mean(values: NDArray[np.float64], sizes: NDArray[np.float64]) -> tuple[float, float]:
    """Size-weighted mean of cluster values, and its standard error.

    se^2 = n/(n-1) sum_i s_i^2 (v_i - mean)^2 / (sum_i s_i)^2, the linearised ratio estimator (Cochran, Sampling
    Techniques, 3rd ed., eq. 2.39 in another notation); NaN for a single cluster. Clusters are documents, because the
    tokens of a document are not independent.
    """
    count, total = len(values), float(sizes.sum())
    mean = float(sizes @ values) / total
    if count < 2:
        return mean, float("nan")
    return mean, float(np.sqrt(count / (count - 1) * np.sum((sizes * (values - mean)) ** 2))) / total
