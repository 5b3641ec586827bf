"""The registry of optimisers: each with its source and the fields of `train` that it uses.

Their transformations are in `scaling/training/optimiser.py`, what they keep is counted in `training_memory.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Optimiser:
    """An optimiser of optax.

    source: arXiv number of the paper.
    options: fields of `train` that it uses; a cell's identity has no others of these.
    """

    source: str
    options: tuple[str, ...]


FACTORED_FROM = 128  # rows and columns of a matrix, from which on adafactor factors it

OPTIMISERS = {
    "adamw": Optimiser("1711.05101", ("beta1", "beta2")),
    "lion": Optimiser("2302.06675", ("beta1", "beta2")),
    "adafactor": Optimiser("1804.04235", ("decay_power",)),
    "muon": Optimiser("2502.16982", ("momentum", "newton_schulz_steps", "beta1", "beta2")),
}
OPTIONS = tuple(dict.fromkeys(name for optimiser in OPTIMISERS.values() for name in optimiser.options))
ABSENT = {"soap": "SOAP (arXiv 2409.11321) is not in optax", "shampoo": "Shampoo (arXiv 1802.09568) is not in optax"}
