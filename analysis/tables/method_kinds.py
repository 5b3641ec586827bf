"""Kinds of methods among the runs of a table."""

from __future__ import annotations

import json

import pandas as pd

from scaling.columns import COMPUTE as COMPUTE
from scaling.columns import EXPERTS
from scaling.columns import LOSS as LOSS

# What of a model's configuration says how large it is; the rest says what kind it is.
SHAPE = (
    "d_model",
    "n_layers",
    "d_head",
    "d_expert",
    "d_mlp",
    "n_experts",
    "top_k",
    "rank",
    "slots",
    "dtype",
    "dispatch",
)


def kinds_of_method(frame: pd.DataFrame) -> list[str]:
    """What kinds of routed models there are, whatever their size: `router + experts`, and a numbered setting
    where the runs of such a pair differ in anything else of the model but `SHAPE`. Empty where the rows do not say."""
    if not {"router", "experts", EXPERTS} <= set(frame.columns):
        return []
    routed = frame[(frame[EXPERTS] > 1) & frame["router"].notna()]
    settings = routed["config"].map(_settings) if "config" in routed else pd.Series("", index=routed.index)
    found: dict[str, set[str]] = {}
    for router, experts, setting in zip(routed["router"], routed["experts"], settings, strict=True):
        found.setdefault(f"{router} + {experts}", set()).add(setting)
    return [
        name if len(each) == 1 else f"{name} (setting {number})"
        for name, each in sorted(found.items())
        for number in range(1, len(each) + 1)
    ]


def _settings(config: object) -> str:
    model = json.loads(config).get("model", {}) if isinstance(config, str) and config else {}
    return json.dumps({name: value for name, value in model.items() if name not in SHAPE}, sort_keys=True)
