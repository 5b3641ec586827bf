"""Fits on disk and by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from analysis.fitting.fit import Fit
from analysis.fitting.identifiability import IdentifiabilityFinding
from analysis.laws import law_named
from scaling.errors import InputError

_FINDING = tuple(f.name for f in fields(IdentifiabilityFinding))


@cache
def _fit_type() -> TypeAdapter[Fit]:
    return TypeAdapter(Fit)


def from_json(data: Mapping[str, Any], origin: str) -> Fit:
    """The fit in a JSON document; `law` and `params` suffice. Raises InputError naming `origin` and what is wrong."""
    if not isinstance(data, Mapping) or "law" not in data or "params" not in data:
        raise InputError(f"{origin}: a fit needs at least the keys law and params")
    law = law_named(str(data["law"]))
    try:
        # By position, because files of older versions name the message otherwise.
        findings = [dict(zip(_FINDING, finding.values(), strict=True)) for finding in data.get("findings", ())]
        loaded = _fit_type().validate_python({**data, "findings": findings})
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors())
        raise InputError(f"{origin}: not a fit ({'; '.join(wrong)})") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{origin}: not a fit (findings: {error})") from error
    missing = [name for name in law.names if name not in loaded.params]
    if loaded.params and missing:
        raise InputError(f"{origin}: law {law.name} needs the parameter {', '.join(missing)} in params")
    unusable = [name for name, value in loaded.params.items() if not np.isfinite(value)]
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
        raise InputError(f"{source}: no such fit; give a file that `scaling fit` wrote, or published:NAME")
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")), source)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: not JSON ({error})") from error
