"""The shape of the experts of a layer, by the columns that laws read: granularity, experts of a token, shared ones.

One definition each, for run tables, families and lineages. With E routed experts of hidden width d_e, k of which a
token takes, and shared experts that are s of that width together:
- `granularity` G = 2 d_model / d_e, as in the run table and in the law `leverage` (arXiv 2507.17702, section 2.1).
  Krajewski et al. (arXiv 2402.07871, section 3) write d_ff / d_e, the same for a dense MLP of d_ff = 2 d_model;
  a published family with another d_ff says so.
- `active_experts` k + s, shared ones in it, and `shared_share` s / (k + s): G and S of the law `tencent`, arXiv
  2509.23678.
- `activation_ratio` (k + s) / (E + s): A of the law `leverage`. The law `sparsity` counts k / E alone.
A dense model is one expert as wide as its MLP: k = E = 1, s = 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scaling.architecture import Architecture, Experts, Layers
from scaling.arrays import Array, Booleans

SHAPE_COLUMNS = ("granularity", "active_experts", "shared_share", "activation_ratio")


def shape_of_architecture(model: Architecture) -> dict[str, Array]:
    """The columns of described models and `d_expert`, as arrays over them; of the routed layers, where some are
    dense."""
    layers: Layers = (model.routed or model.groups)[-1]
    mlp, one = layers.mlp, np.ones(np.shape(model.d_model))
    width = {"granularity": 2.0 * np.asarray(model.d_model, dtype=float) / mlp.width, "d_expert": mlp.width * one}
    if not isinstance(mlp, Experts):
        return {**width, "active_experts": one, "shared_share": 0.0 * one, "activation_ratio": one}
    shared = mlp.shared_width / mlp.width * one
    active = mlp.top_k + shared
    return {
        **width,
        "active_experts": active,
        "shared_share": shared / active,
        "activation_ratio": active / (mlp.n_experts + shared),
    }


def common_shape(columns: Mapping[str, Array], rows: Booleans) -> dict[str, float]:
    """The columns of a table that these of its rows agree in."""
    values = {name: columns[name][rows] for name in SHAPE_COLUMNS if name in columns and rows.any()}
    return {name: float(each[0]) for name, each in values.items() if np.ptp(each) <= 1e-9 * abs(each[0])}


def shape_columns(shape: Mapping[str, float], n_experts: int, like: Array) -> dict[str, Array | None]:
    """The columns of models of one shape and E, as arrays like `like`; None where unknown.

    A, which changes with E, follows from the shared experts, where they are known.
    """
    known = dict(shape)
    if "activation_ratio" not in known and {"active_experts", "shared_share"} <= set(known):
        shared = known["active_experts"] * known["shared_share"]
        known["activation_ratio"] = known["active_experts"] / (n_experts + shared)
    return {name: known[name] + 0.0 * like if name in known else None for name in SHAPE_COLUMNS}
