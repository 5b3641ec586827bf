"""The registry of optimisers: each with its source, the fields of `train` that it uses, and the values it keeps.

Their transformations are in `scaling/training/optimiser.py`; this module does not need JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scaling.config.counts import Parameters
    from scaling.config.model import ModelConfig


@dataclass(frozen=True)
class Optimiser:
    """An optimiser of optax.

    source: arXiv number of the paper.
    options: fields of `train` that it uses; a cell's identity has no others of these.
    kept: values beside the weights, from the parameters by group and the model.
    """

    source: str
    options: tuple[str, ...]
    kept: Callable[[Parameters, ModelConfig], float]


def _blocks(counts: Parameters) -> int:
    """Weights of the matrices in blocks, without routers."""
    return counts.attention + counts.shared + counts.experts


def _muon(counts: Parameters, model: ModelConfig) -> float:
    """One momentum of the matrices in blocks; Adam's two moments of all others."""
    alone = counts.attention
    if model.n_experts == 1 or model.experts_kind.sizes is None:
        alone = _blocks(counts)
    return 2.0 * counts.allocated - alone


def _adafactor(counts: Parameters, model: ModelConfig) -> float:
    """A value a row and a column of matrices of at least FACTORED_FROM rows and columns, one a weight of others."""
    if model.n_experts > 1 and model.experts_kind.sizes is not None:
        return float(counts.allocated)  # factors and adapters are narrow

    def factored(n: float, rows: float, columns: float) -> float:
        """Of weights that make matrices of this shape."""
        each = rows + columns if min(rows, columns) >= FACTORED_FROM else rows * columns
        return n / (rows * columns) * each

    d, keys = model.d_model, model.n_kv_heads * model.d_head
    hidden = model.dense_width if model.n_experts == 1 else model.d_expert
    attention = 2 * factored(d * d, d, d) + 2 * factored(d * keys, d, keys)
    tables = 1 if model.tie_embeddings else 2
    kept = model.n_layers * attention + tables * factored(counts.embedding, counts.embedding / d, d)
    kept += factored(counts.experts, d, hidden) + factored(counts.router, d, model.n_experts) + counts.norms
    if counts.shared:
        kept += factored(counts.shared, d, model.shared_width)
    return kept


FACTORED_FROM = 128

OPTIMISERS = {
    "adamw": Optimiser("1711.05101", ("beta1", "beta2"), lambda counts, model: 2.0 * counts.allocated),
    "lion": Optimiser("2302.06675", ("beta1", "beta2"), lambda counts, model: 1.0 * counts.allocated),
    "adafactor": Optimiser("1804.04235", ("decay_power",), _adafactor),
    "muon": Optimiser("2502.16982", ("momentum", "newton_schulz_steps", "beta1", "beta2"), _muon),
}
OPTIONS = tuple(dict.fromkeys(name for optimiser in OPTIMISERS.values() for name in optimiser.options))
ABSENT = {"soap": "SOAP (arXiv 2409.11321) is not in optax", "shampoo": "Shampoo (arXiv 1802.09568) is not in optax"}
