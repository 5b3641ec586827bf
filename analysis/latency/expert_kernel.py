"""Time of one layer's routed experts alone, by shape, tokens and how unevenly the tokens choose.

    seconds = a + sum over experts ((c_w bytes)^p + (c_f FLOPs (1 + x/m))^p)^(1/p) + c_d experts + c_a bytes of
              activations

Each expert that has tokens (m of them) reads its weights and multiplies, and the two hide each other in part (p = 1:
they add up; p large: the slower decides). A small m fills a tile of the product badly, as x further tokens would: what
fine-grained experts pay in a prefill. Bytes and FLOPs count in seconds at the device's data sheet. Uneven routing has
no coefficient: fewer experts with tokens read less, and full ones multiply more.

The tables are those of ai-dynamo/aiconfigurator: `num_tokens`, `hidden_size`, `inter_size`, `topk`, `num_experts`,
`moe_tp_size`, `moe_ep_size`, `distribution`, `moe_dtype`, `kernel_source`, `latency` (ms).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from analysis.tables.readers import read_table
from scaling.arrays import Array, Booleans, Integers
from scaling.errors import InputError
from scaling.serving.device import Device

COEFFICIENTS = ("fixed_us", "weights", "products", "expert_us", "activations", "sharpness", "half_full")
_START = (20.0, 1.1, 1.5, 0.3, 0.5, 2.0, 30.0)
_CORNER = 0.05  # of ln(time): larger residuals count linearly
_NEEDED = ("num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size",
           "distribution", "moe_dtype", "kernel_source", "latency")  # fmt: skip
# Of one width in and out but not gated, so that an expert has two matrices and not three.
_PLAIN_WIDTHS, _PLAIN_SHAPE = (1856, 2688), (2048, 5120)
_WAYS = 16  # ways in which uneven counts are dealt to devices


@dataclass(frozen=True)
class Kernel:
    """A kernel of a table: its `dtype` there, a part of its `source`, and the bytes and arithmetic of its weights."""

    name: str
    dtype: str
    source: str
    weight_bytes: float
    arithmetic: str | None


BF16 = Kernel("bf16", "bfloat16", "unquantized", 2.0, None)
FP8 = Kernel("fp8", "fp8_block", "triton", 1.0, "fp8")
FP8_CUTLASS = Kernel("fp8 cutlass", "fp8", "cutlass", 1.0, "fp8")
WIDE = Kernel("wide expert parallelism", "fp8_block", "deepepmoe", 1.0, "fp8")


@dataclass(frozen=True, eq=False)
class KernelRows:
    """Measured times: `frame` with `shape`, `tokens`, `distribution`, `seconds`; and flat over the different numbers of
    tokens `of_expert` in a `row`, how many experts have it: `experts`, mean over ways to deal them."""

    frame: pd.DataFrame
    row: Integers
    of_expert: Array
    experts: Array
    weights_s: Array  # of one expert, a row
    token_s: Array  # of one token in one expert, a row
    activation_s: Array  # of all tokens, a row

    def __len__(self) -> int:
        return len(self.frame)


@dataclass(frozen=True)
class ExpertKernelLaw:
    """Coefficients of `COEFFICIENTS`, in their order."""

    coefficients: tuple[float, ...]

    def seconds(self, rows: KernelRows) -> Array:
        """Modelled time of each row."""
        return _seconds(np.array(self.coefficients), rows)

    def __getitem__(self, name: str) -> float:
        return self.coefficients[COEFFICIENTS.index(name)]


def tokens_of_experts(tokens: int, top_k: int, n_experts: int, alpha: float = 0.0) -> Array:
    """Tokens of each expert that has some, the fewest first, when `tokens` choose `top_k` each.

    Evenly (alpha 0), or as the tables draw them: x from a density x^-alpha between 1 and .8 of the tokens (.01 and 2
    where there are fewer choices than experts), here at its quantiles; scaled to the number of choices, rounded, at
    most one of an expert a token, the remainder to the experts that have least.
    """
    choices = tokens * top_k
    if alpha == 0:
        touched = min(n_experts, choices)
        return np.full(touched, choices / touched)
    low, high = (1.0, 0.8 * tokens) if choices > n_experts else (0.01, 2.0)
    places = (np.arange(n_experts) + 0.5) / n_experts
    drawn = ((high ** (1 - alpha) - low ** (1 - alpha)) * places + low ** (1 - alpha)) ** (1 / (1 - alpha))
    counts = np.minimum(np.round(drawn / drawn.sum() * choices), tokens)
    while missing := int(choices - counts.sum()):
        changed = np.flatnonzero(counts < tokens if missing > 0 else counts > 0)[: abs(missing)]
        counts[changed] += np.sign(missing)
    return np.sort(counts[counts > 0])


def read_kernel_rows(path: str | Path, kernel: Kernel, on: Device) -> KernelRows:
    """The rows of one kernel in a table that were measured on `on`: whole experts, gated ones alone.

    Rows of experts that are split, or of one device among several, are left out but for those of wide expert
    parallelism, whose tokens are those of all devices. Raises InputError for a missing column.
    """
    table = read_table(Path(path))
    if missing := [name for name in _NEEDED if name not in table]:
        raise InputError(f"{path}: the column {missing[0]} is missing; tables of kernels have {', '.join(_NEEDED)}")
    alone = (table["moe_tp_size"] == 1) & ((table["moe_ep_size"] == 1) | (kernel == WIDE))
    plain = table["inter_size"].isin(_PLAIN_WIDTHS) | (
        (table["hidden_size"] == _PLAIN_SHAPE[0]) & (table["inter_size"] == _PLAIN_SHAPE[1])
    )
    of_kernel = (table["moe_dtype"] == kernel.dtype) & table["kernel_source"].str.contains(kernel.source)
    return kernel_rows(table[alone & of_kernel & ~plain].reset_index(drop=True), kernel, on)


def kernel_rows(table: pd.DataFrame, kernel: Kernel, on: Device) -> KernelRows:
    """Rows with the tokens of each expert worked out."""
    hidden, inter = (table[name].to_numpy(float) for name in ("hidden_size", "inter_size"))
    dealt = [_dealt(*values) for values in zip(*(table[name] for name in _DEALT), strict=True)]
    row = np.repeat(np.arange(len(dealt)), [len(counts) for counts, _ in dealt])
    of_expert, experts = (np.concatenate([one[part] for one in dealt] or [np.zeros(0)]) for part in (0, 1))
    processed = np.bincount(row, experts * of_expert, minlength=len(table))
    shape = table[["hidden_size", "inter_size", "topk", "num_experts"]].astype(str).agg("-".join, axis=1)
    frame = pd.DataFrame(
        {
            "shape": shape,
            "tokens": table["num_tokens"],
            "devices": table["moe_ep_size"],
            "distribution": table["distribution"],
            "seconds": table["latency"] / 1e3,
        }
    )
    return KernelRows(
        frame, row, of_expert, experts,
        weights_s=kernel.weight_bytes * 3 * hidden * inter / on.bandwidth,
        token_s=6 * hidden * inter / on.peak(kernel.arithmetic),
        activation_s=processed * 2.0 * (2 * hidden + 3 * inter) / on.bandwidth,
    )  # fmt: skip


_DEALT = ("num_tokens", "topk", "num_experts", "moe_ep_size", "distribution")


def _dealt(tokens: int, top_k: int, n_experts: int, devices: int, distribution: str) -> tuple[Array, Array]:
    """Tokens of the experts of the busiest of the devices, and how many experts have so many, mean over several ways to
    deal them."""
    alpha = float(distribution.removeprefix("power_law_")) if distribution.startswith("power_law") else 0.0
    counts, ways = tokens_of_experts(tokens, top_k, n_experts, alpha), 1
    if devices > 1:
        everyone = np.zeros(n_experts)
        everyone[np.linspace(0, n_experts - 1, len(counts)).round().astype(int)] = counts
        if alpha == 0:
            counts = everyone.reshape(-1, devices).T[0]  # dealt in turn, they are alike
        else:
            random, ways = np.random.default_rng(tokens), _WAYS
            groups = [random.permutation(everyone).reshape(devices, -1) for _ in range(ways)]
            counts = np.concatenate([one[np.argmax(one.sum(axis=1))] for one in groups])
    different, experts = np.unique(counts[counts > 0], return_counts=True)
    return different, experts / ways


def fit_expert_kernel(rows: KernelRows) -> ExpertKernelLaw:
    """The coefficients, all positive, of least robust misfit of ln(time). Raises InputError for too few rows."""
    if len(rows) < len(COEFFICIENTS):
        raise InputError(f"a law of an expert kernel needs {len(COEFFICIENTS)} rows, found {len(rows)}")
    observed = np.log(rows.frame["seconds"].to_numpy())

    def misfit(log_c: Array) -> Array:
        return np.log(_seconds(np.exp(log_c), rows)) - observed

    found = least_squares(misfit, np.log(_START), loss="soft_l1", f_scale=_CORNER, max_nfev=300)
    return ExpertKernelLaw(tuple(map(float, np.exp(found.x))))


def left_out_predictions(rows: KernelRows, fitted: Booleans) -> Array:
    """Predicted seconds of every row by a law of the rows `fitted` of all other shapes."""
    shapes = rows.frame["shape"].to_numpy(dtype=object)
    predicted = np.empty(len(rows))
    for shape in pd.unique(pd.Series(shapes)):
        out = shapes == shape
        predicted[out] = fit_expert_kernel(some(rows, ~out & fitted)).seconds(some(rows, out))
    return predicted


def some(rows: KernelRows, kept: Booleans) -> KernelRows:
    """Some of the rows."""
    place = np.cumsum(kept) - 1
    flat = kept[rows.row]
    return replace(
        rows,
        frame=rows.frame[kept].reset_index(drop=True),
        row=place[rows.row[flat]],
        of_expert=rows.of_expert[flat],
        experts=rows.experts[flat],
        weights_s=rows.weights_s[kept],
        token_s=rows.token_s[kept],
        activation_s=rows.activation_s[kept],
    )


def _seconds(coefficients: Array, rows: KernelRows) -> Array:
    fixed, weights, products, an_expert, activations, sharpness, half_full = coefficients
    reading = weights * rows.weights_s[rows.row]
    multiplying = products * rows.token_s[rows.row] * (rows.of_expert + half_full)
    larger, smaller = np.maximum(reading, multiplying), np.minimum(reading, multiplying)
    both = larger * (1.0 + (smaller / larger) ** sharpness) ** (1.0 / sharpness)
    experts = np.bincount(rows.row, rows.experts * (both + an_expert * 1e-6), minlength=len(rows))
    return np.asarray(fixed * 1e-6 + experts + activations * rows.activation_s)
