"""A law of efficiency leverage put on a dense law, which gives a loss.

The law `leverage` (arXiv 2507.17702) says how many times the compute C a dense model takes for the loss of an MoE that
was trained with C, both divided between size and tokens as is best. That alone divides nothing. Here the leverage acts
on the size: an MoE of N active parameters on D tokens is worth a dense model of EL N parameters on the same D,

    L(N, D, A, G) = L_dense(EL N, D),   EL = EL(A, G, 6 N D),   EL = 1 of a dense model.

At a training budget C this is exactly what the law says, whatever it acts on: the least of L_dense(EL N, D) over
6 N D = C is the least loss of a dense model with EL C. Away from that optimum, for models trained on more tokens than
is best so that serving costs less, it is an assumption. The paper's own optima, M = .1915 C^.5095 of an MoE and
.0655 C^.5422 of a dense model (FLOPs a token), say that most of the leverage acts on the size: at 1e20 FLOPs their MoE
takes 1.5 times the tokens of a dense model, where this law gives about 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from analysis.laws.autodiff import exp, log
from analysis.laws.law import Law
from analysis.laws.moe_shape import LEVERAGE
from scaling.columns import COMPUTE, EXPERTS, TOKENS
from scaling.errors import InputError

_OF_DENSE = "dense."


def dense_parameter(name: str) -> str:
    """The name of a parameter of the dense law in the law with leverage."""
    return f"{_OF_DENSE}{name}"


@cache
def leveraged(dense: Law) -> Law:
    """The law with leverage over a dense law; raises InputError for a law that cannot be one."""
    size = dense.n_column
    if not dense.divides_compute or set(dense.columns) != {size, TOKENS} or not size.startswith("n_active"):
        raise InputError(f"law {dense.name} reads {', '.join(dense.columns)}: leverage needs one of size and tokens")
    of_dense = tuple(replace(parameter, name=dense_parameter(parameter.name)) for parameter in dense.parameters)

    def formula(p: Mapping[str, Any], x: Mapping[str, Any]) -> Any:
        compute = 6.0 * x[size] * x[TOKENS]
        gain = LEVERAGE.log_formula(p, {**x, COMPUTE: compute}) * (np.asarray(x[EXPERTS]) != 1)
        of_law = {parameter.name: p[dense_parameter(parameter.name)] for parameter in dense.parameters}
        return dense.log_formula(of_law, {size: exp(log(x[size]) + gain), TOKENS: x[TOKENS]})

    return Law(
        name=f"leverage-{dense.name}",
        formula=f"L = L_{dense.name}(EL N, D), {LEVERAGE.formula.partition(':')[0]}, C = 6 N D",
        typst=f'L = L_"{dense.name}" (E L dot N, D), {LEVERAGE.typst}',
        n_column=size,
        parameters=(*LEVERAGE.parameters, *of_dense),
        log_formula=formula,
        source=f"{LEVERAGE.source}; dense: {dense.source}",
        domain=LEVERAGE.domain,
        columns=(size, TOKENS, EXPERTS, "activation_ratio", "granularity"),
    )
