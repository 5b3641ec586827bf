"""What a serving engine reaches on a device: fitted coefficients of the terms of an iteration's time.

An engine (vLLM, SGLang, TensorRT-LLM) under load runs mixed iterations: b sequences decode while the prompts of those
that replace finished ones are read in chunks beside them. Its time is

    seconds = sum_i c_i x_i

over weights read, cache read, FLOPs, and counts of layers and sequences (`TERMS`; `scaling.serving.engine` gives x_i).
Weights and cache count in seconds at the peaks of the device's data sheet, so c = 1 is the peak; counts have c in
seconds. `analysis.latency.engines` fits the coefficients to end-to-end measurements of public models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaling.arrays import Array, Values
from scaling.errors import InputError

TERMS = (
    "shared weights",
    "expert weights",
    "cache",
    "products",
    "prompt attention",
    "decode attention",
    "layers",
    "routed layers",
    "communication",
    "sequences",
)
"""The terms of an iteration. The first six are seconds at the peaks of the device; `communication` is in seconds by
`scaling.serving.collectives`; the others are counts: layers, layers with experts, and sequences times layers."""
MEANINGS = {
    "shared weights": "of reading attention, dense and shared weights, over the data sheet's time",
    "expert weights": "of reading the activated experts, over the data sheet's time",
    "cache": "of reading keys and values, over the data sheet's time",
    "products": "of products with weights, of decode and prompt tokens, over the data sheet's time",
    "prompt attention": "of attention of prompt tokens, over the data sheet's time",
    "decode attention": "of attention of decoded tokens, over the data sheet's time",
    "layers": "seconds a layer (launches, norms, rotations)",
    "routed layers": "seconds more a layer with experts (routing, sorting)",
    "communication": "of all-reduces, or of dispatch and combine, over what their kernels take alone",
    "sequences": "seconds a sequence and layer (scheduling, sampling, small kernels)",
}


@dataclass(frozen=True)
class EngineSpeed:
    """What an engine reaches on a device: a coefficient for each of `TERMS`, and how far it may be off.

    `without` are the coefficients fitted without each model, one a row, which `draws` are made of. `scatter` is the
    standard deviation of ln(time) of a model that the fit has not seen; `error` the median relative error of time per
    token on models left out. `source` and `date` say what it was fitted to.
    """

    name: str
    coefficients: tuple[float, ...]
    without: tuple[tuple[float, ...], ...]
    scatter: float
    source: str
    date: str
    error: float

    def __post_init__(self) -> None:
        if any(len(row) != len(TERMS) for row in (self.coefficients, *self.without)):
            raise InputError(f"speed {self.name}: needs {len(TERMS)} coefficients: {', '.join(TERMS)}")
        if not all(np.isfinite(value) and value >= 0 for row in (self.coefficients, *self.without) for value in row):
            raise InputError(f"speed {self.name}: `coefficients` must be numbers of at least 0")

    def seconds(self, terms: Array) -> Values:
        """Seconds of an iteration of these terms (axis 0 in the order of `TERMS`)."""
        return np.tensordot(np.asarray(self.coefficients), terms, axes=1)[()]

    def draws(self, count: int, seed: int = 0) -> Array:
        """Coefficients (count, terms) about the estimate, log-normal with the jackknife covariance over models.

        That is (m - 1)/m sum (t_i - mean)(t_i - mean)' of their logarithms.
        """
        logs = np.log(np.maximum(np.array(self.without), 1e-300))
        models = len(logs)
        mixed = np.random.default_rng(seed).standard_normal((count, models)) @ (logs - logs.mean(axis=0))
        return np.asarray(self.coefficients) * np.exp(mixed * np.sqrt((models - 1) / models))
