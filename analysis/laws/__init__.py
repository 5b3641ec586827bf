"""The laws: what each predicts, in what parameters, from which columns, and where it was established.

A law is one declaration: its parameters, its formula for the natural log of the loss (nats per token), and, where one
exists, its closed-form optimum. Gradients follow from the formula (`analysis.laws.autodiff`). Parameters keep their
paper's letters, so `E` is hoffmann's irreducible loss while the column `n_experts` is the number of experts. To add a
law, declare it in a module here and name it in `LAWS`, or declare it in a distribution of your own as an entry point of
the group `scaling.laws`; fits, intervals, validation, recommendation and `scaling laws` then know it.
"""

from __future__ import annotations

from analysis.laws.dense import COUPLED, FARSEER, HOFFMANN, KAPLAN, OVERTRAINING
from analysis.laws.law import Law, Parameter
from analysis.laws.moe import CLARK, COUPLED_MOE, JOINT_MOE, YUN, saturated_experts
from analysis.laws.moe_shape import FINE_GRAINED, LEVERAGE, SPARSITY, TENCENT
from scaling.distribution import Registry
from scaling.errors import InputError

__all__ = [
    "COUPLED",
    "COUPLED_MOE",
    "HOFFMANN",
    "JOINT_MOE",
    "LAWS",
    "YUN",
    "Law",
    "Parameter",
    "law_named",
    "saturated_experts",
]

_ALL = (
    KAPLAN, HOFFMANN, COUPLED, CLARK, FINE_GRAINED, JOINT_MOE, COUPLED_MOE, SPARSITY, LEVERAGE, YUN, OVERTRAINING,
    TENCENT, FARSEER,
)  # fmt: skip
LAWS = Registry("scaling.laws", Law, {law.name: law for law in _ALL})


def law_named(name: str) -> Law:
    """The law of that name. Raises InputError listing the names there are."""
    if name not in LAWS:
        raise InputError(f"no law is called {name!r}; the laws are {', '.join(LAWS)}")
    return LAWS[name]
