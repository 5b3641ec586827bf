"""What the parts of an answer from a file must be together: counts, shares, intervals and shapes, each by its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from analysis.decision.what_if import Plane
from scaling.bounds import MOST_EXPERTS, MOST_FLOPS
from scaling.errors import InputError

_EXPERTS = ("n_experts", "before", "after")
_POSITIVE = (
    "top_k", "n_active", "n_total", "tokens", "train_flops", "tokens_per_param", "loss", "volume", "n_devices",
    "fewest_devices", "batch", "most_budget", "memory_bytes", "weight_gb",
)  # fmt: skip
_NOT_NEGATIVE = (
    "train",
    "serve",
    "total",
    "regret",
    "expected_regret",
    "n_draws",
    "usd_per_million",
    "ttft_ms",
    "tpot_ms",
    "train_device_hours",
    "train_mfu",
)
_SHARES = ("probability_best", "unanswered")


def require_sound(parts: Mapping[str, object], origin: str) -> None:
    """Raises InputError naming `origin` and the first place that cannot be; `parts` are by their place in the file."""
    for place, part in parts.items():
        for wrong in _contradictions(part, place):
            raise InputError(f"{origin}: {wrong}")


def _contradictions(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, Plane) and value.best.shape != (shape := (len(value.budgets), len(value.volumes))):
        yield f"{place}.best: its shape is {value.best.shape}, and budgets and volumes make {shape}"
    if is_dataclass(value):
        for field in fields(value):
            inner = getattr(value, field.name)
            step = f"{place}.{field.name}".removeprefix(".")
            if isinstance(inner, (int, float)) and not isinstance(inner, bool):
                yield from _number(step, field.name, inner)
            elif field.name.endswith("interval") and inner is not None:
                yield from _interval(step, inner)
            elif field.name in _SHARES and isinstance(inner, Mapping):
                for key, share in inner.items():
                    yield from _number(f"{step}.{key}", field.name, share)
                    yield from _number(f"{step}.{key}", "n_experts", key)
            else:
                yield from _contradictions(inner, step)
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _contradictions(item, f"{place}[{index}]")
    elif isinstance(value, np.ndarray) and value.dtype == float and not np.all(value > 0):
        yield f"{place}: must be positive numbers"


def _number(place: str, name: str, value: float) -> Iterator[str]:
    if name in _EXPERTS and not 1 <= value <= MOST_EXPERTS:
        yield f"{place}: must be from 1 to {MOST_EXPERTS:,}, found {value:g}"
    elif name in _POSITIVE and not 0 < value <= MOST_FLOPS:
        yield f"{place}: must be a positive number, found {value:g}"
    elif name in _NOT_NEGATIVE and not 0 <= value <= MOST_FLOPS:
        yield f"{place}: must be at least 0, found {value:g}"
    elif name in _SHARES and not 0 <= value <= 1:
        yield f"{place}: a share is from 0 to 1, found {value:g}"


def _interval(place: str, ends: tuple[float, float]) -> Iterator[str]:
    if not 0 <= ends[0] <= ends[1]:
        yield f"{place}: must be from a smaller to a larger positive number, found {ends[0]:g} to {ends[1]:g}"
