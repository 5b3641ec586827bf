"""Labels: each method named by its differences to the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from analysis.tables.config_column import configuration_parts
from scaling.config.model import ModelConfig
from scaling.config.registry import ROUTERS

_SIZES = ("n_experts", "top_k", "d_expert", "d_mlp")  # always shown: a size has no usual value


def method_labels(cells: pd.DataFrame) -> dict[str, str]:
    """A short name for each configuration: `router`, `+ experts` unless these are plain MLPs, and in brackets the
    settings in which methods of one pair differ, where they are not the default."""
    firsts = cells.drop_duplicates("configuration")
    dense = firsts["n_experts"] == 1
    names = firsts["router"] + firsts["experts"].map(lambda name: "" if name == "mlp" else f" + {name}")
    labels: dict[str, str] = {}
    for name, pair in firsts.groupby(names.where(~dense, "dense"), sort=False):
        settings = {key: _flat(config) for key, config in zip(pair["configuration"], pair["config"], strict=True)}
        fields = _distinguishing(settings.values())
        differences = {key: _unusual(values, fields) for key, values in settings.items()}
        for key, shown in differences.items():
            # Methods without a visible difference are distinguished by their hash.
            inside = ", ".join([*shown, *([key] if list(differences.values()).count(shown) > 1 else [])])
            labels[key] = f"{name} ({inside})" if inside else str(name)
    return labels


def _distinguishing(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """A minimal list of fields that distinguish these configurations, in their order."""
    settings = list(settings)
    chosen: list[str] = []
    groups = 1
    for name in dict.fromkeys(name for values in settings for name in values):
        split = len({tuple(str(values.get(field)) for field in (*chosen, name)) for values in settings})
        if split > groups:
            chosen, groups = [*chosen, name], split
    return chosen


def _unusual(settings: Mapping[str, Any], fields: list[str]) -> list[str]:
    """Fields and values that are not the default of the router or the model."""
    router = ROUTERS.get(str(settings.get("router")))
    usual = {name: field.default for name, field in ModelConfig.model_fields.items()}
    usual |= dict(router.defaults) if router else {}
    given = ((name, settings[name]) for name in fields if name in settings)
    return [f"{name} {_text(value)}" for name, value in given if name in _SIZES or value != usual.get(name)]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flat(config: object) -> dict[str, Any]:
    """Settings of model and training, those that name the method or its size first."""
    parts = configuration_parts(config)
    settings = {**parts.get("model", {}), **parts.get("train", {})}
    first = [name for name in ("n_experts", "top_k", "bias_rate", "balance_coef", "renormalise") if name in settings]
    return {name: settings[name] for name in [*first, *sorted(set(settings) - set(first))]}
