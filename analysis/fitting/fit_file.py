"""Fits on disk and by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from analysis.fitting.fit import Fit
from analysis.fitting.identifiability import IdentifiabilityFinding, Pin
from analysis.laws import law_named, model_family
from scaling.errors import InputError


def from_json(data: Mapping[str, Any], origin: str) -> Fit:
    """The fit in a JSON document; `law` and `params` suffice. Raises InputError naming `origin` and what is wrong."""
    if not isinstance(data, Mapping) or "law" not in data or "params" not in data:
        raise InputError(f"{origin}: a fit needs at least the keys law and params")
    definition = law_named(str(data["law"]))
    known: dict[str, Any] = {f.name: data[f.name] for f in fields(Fit) if f.name in data}
    try:
        params = {str(name): float(value) for name, value in data["params"].items()}
        known["params"] = params
        for key in ("warnings", "at_bounds", "experts", "notes", "residuals", "strata"):
            known[key] = tuple(known.get(key, ()))
        for key in ("intervals", "domain", "draws", "jackknife"):
            known[key] = {name: tuple(float(x) for x in values) for name, values in known.get(key, {}).items()}
        known["pinned"] = {name: Pin(**pin) for name, pin in known.get("pinned", {}).items()}
        known["findings"] = tuple(IdentifiabilityFinding(**finding) for finding in known.get("findings", ()))
        known["dropped"] = tuple((str(reason), int(count)) for reason, count in known.get("dropped", ()))
        known["family"] = model_family.from_json(known.get("family"))
        loaded = Fit(**known)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{origin}: not a fit ({type(error).__name__}: {error})") from error
    missing = [name for name in definition.names if name not in params]
    if params and missing:
        raise InputError(f"{origin}: law {definition.name} needs the parameter {', '.join(missing)} in params")
    unusable = [name for name in params if not np.isfinite(params[name])]
    if unusable:
        raise InputError(f"{origin}: {', '.join(unusable)} in params is not a finite number")
    return loaded


def load_fit(source: str) -> Fit:
    """The fit in a file, or `published:NAME`. Raises InputError when there is none."""
    if source.startswith("published:"):
        from analysis.fitting.published import published  # it imports this module for the type

        return published(source.removeprefix("published:"))
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{source}: no such fit; give a file that `scaling fit --out` wrote, or published:NAME")
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")), source)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: not JSON ({error})") from error
