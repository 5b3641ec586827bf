"""Labels: each method by what sets it apart from the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from scaling.config.model import ModelConfig
from scaling.config.registry import ROUTERS


def method_labels(cells: pd.DataFrame) -> dict[str, str]:
    """A short name for each configuration: `router`, `+ experts` where they are not plain MLPs, and in brackets the
    settings in which methods of one pair differ, where they are not the default."""
    firsts = cells.drop_duplicates("configuration")
    dense = firsts["n_experts"] == 1
    names = firsts["router"] + firsts["experts"].map(lambda name: "" if name == "mlp" else f" + {name}")
    firsts = firsts.assign(name=names.where(~dense, "dense"))
    found: dict[str, str] = {}
    for name, pair in firsts.groupby("name", sort=False):
        settings = {row["configuration"]: _flat(row["config"]) for _, row in pair.iterrows()}
        told = {key: _shown(settings[key], fields) for fields in [_telling(settings)] for key in settings}
        for key, shown in told.items():
            # Two that differ in nothing that can be shown are told apart by their hash.
            extra = [key] if list(told.values()).count(shown) > 1 else []
            inside = ", ".join([*shown, *extra])
            found[key] = f"{name} ({inside})" if inside else str(name)
    return found


def _telling(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """As few fields as tell these configurations apart, the first in the order of the configuration."""
    names = list(dict.fromkeys(name for each in settings.values() for name in each))
    chosen: list[str] = []
    parted = 1
    for name in names:
        split = len({tuple(str(each.get(field)) for field in (*chosen, name)) for each in settings.values()})
        if split > parted:
            chosen, parted = [*chosen, name], split
    return chosen


def _shown(settings: Mapping[str, Any], fields: list[str]) -> list[str]:
    """Field and value where it is not what a grid that says nothing gets."""
    router = ROUTERS.get(str(settings.get("router")))
    usual = {name: field.default for name, field in ModelConfig.model_fields.items()}
    usual |= dict(router.defaults) if router else {}
    size = ("n_experts", "top_k", "d_expert", "d_mlp")  # always shown: it has no usual value
    given = ((name, settings[name]) for name in fields if name in settings)
    return [f"{name} {_text(value)}" for name, value in given if name in size or value != usual.get(name)]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _flat(config: object) -> dict[str, Any]:
    """Settings of model and training; what names the method or tells sizes apart comes first."""
    parts = configuration_parts(config)
    settings = {**parts.get("model", {}), **parts.get("train", {})}
    first = [name for name in ("n_experts", "top_k", "bias_rate", "balance_coef", "renormalise") if name in settings]
    return {name: settings[name] for name in [*first, *sorted(set(settings) - set(first))]}


def configuration_parts(config: object) -> dict[str, Any]:
    return dict(json.loads(config)) if isinstance(config, str) and config else {}
