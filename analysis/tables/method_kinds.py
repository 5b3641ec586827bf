"""Kinds of methods among the runs of a table."""

from __future__ import annotations

import json

import pandas as pd

from analysis.tables.config_column import configuration_parts
from scaling.columns import EXPERTS

# Fields of the model configuration about size or computation; the others tell kinds of methods apart.
_SIZE_FIELDS = (
    "d_model", "n_layers", "n_heads", "d_head", "n_kv_heads", "d_expert", "d_mlp", "n_experts", "top_k", "rank",
    "slots", "dtype", "dispatch",
)  # fmt: skip


def kinds_of_method(frame: pd.DataFrame) -> list[str]:
    """Kinds of routed models, sizes aside: `router + experts`, numbered where runs of one such pair differ in other
    fields of the model. Empty where the table does not name them."""
    if not {"router", "experts", EXPERTS} <= set(frame.columns):
        return []
    routed = frame[(frame[EXPERTS] > 1) & frame["router"].notna()]
    settings = routed["config"].map(_settings) if "config" in routed else pd.Series("", index=routed.index)
    methods = routed["router"].map(str) + " + " + routed["experts"].map(str)
    counts = settings.groupby(methods).nunique()
    return [
        str(name) if count == 1 else f"{name} (setting {number})"
        for name, count in counts.items()
        for number in range(1, count + 1)
    ]


def _settings(config: object) -> str:
    model = configuration_parts(config).get("model", {})
    return json.dumps({name: value for name, value in model.items() if name not in _SIZE_FIELDS}, sort_keys=True)
