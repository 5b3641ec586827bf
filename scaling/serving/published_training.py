"""Training speeds by name: what others measured of MFU at several E, and what is assumed where nothing is known.

MFU is the share of a device's peak that 6 N_active FLOPs a token take (PaLM, arXiv 2204.02311, appendix B). Numbers
with their sources, not data; what is assumed follows from them by `expert_slopes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from scaling.errors import InputError
from scaling.serving.training_speed import MfuByExperts

PREFIX, ASSUMED, CONSTANT = "published:", "assumed", "constant"
MFU = 0.4
"""The share of its peak that a device is assumed to reach with a dense model."""
DENSE_MFU = {
    "GPT-3, 175 B on V100 (arXiv 2204.02311, table 3)": 0.213,
    "Gopher, 280 B on TPU v3 (arXiv 2204.02311, table 3)": 0.325,
    "Megatron-Turing NLG, 530 B on A100 (arXiv 2204.02311, table 3)": 0.302,
    "PaLM, 540 B on TPU v4 (arXiv 2204.02311, table 3)": 0.462,
    "Llama 3, 405 B on 8,192 H100 (arXiv 2407.21783, table 4)": 0.43,
    "Llama 3, 405 B on 16,384 H100 (arXiv 2407.21783, table 4)": 0.41,
    "Llama 3, 405 B on 16,384 H100, 131 k tokens (arXiv 2407.21783, table 4)": 0.38,
}
"""MFU of dense models: how far the assumed one may be off."""
_A100 = 312e12


@dataclass(frozen=True)
class MeasuredMfu:
    """MFU by E of one setting, for each of its models: a pair (E, MFU) or several."""

    models: tuple[tuple[tuple[int, float], ...], ...]
    source: str
    date: str


def _megablocks() -> tuple[tuple[tuple[int, float], ...], ...]:
    """Tokens/s of an A100 at E = 1 and at 2 of 8 experts, and active parameters of both, as MFU."""
    rows = (
        (141.2e3, 41e6, 69.5e3, 45.0e6),
        (106.0e3, 87e6, 66.6e3, 96.8e6),
        (95.5e3, 160e6, 66.2e3, 190.7e6),
        (30.3e3, 410e6, 18.5e3, 509.2e6),
        (16.0e3, 830e6, 9.2e3, 1.1e9),
    )
    return tuple(
        ((1, 6 * dense * n_dense / _A100), (8, 6 * routed * n_routed / _A100))
        for dense, n_dense, routed, n_routed in rows
    )


MEASURED = {
    "megablocks-57": MeasuredMfu(
        _megablocks(), "databricks/megablocks issue 57: E = 1 and 2 of 8, 41 M to 830 M, FSDP on 8 to 32 A100",
        "December 2023",
    ),
    "maxtext-1256": MeasuredMfu(
        (((8, 0.504), (56, 0.28)),), "AI-Hypercomputer/maxtext issue 1256: 2 of 8 and 14 of 56 experts of equal total "
        "and active size, v5p-64, without attention", "February 2025",
    ),
    "marin-7668": MeasuredMfu(
        (((128, 0.1472),),), "marin-community/marin issue 7668: 4 of 128 experts, 16 B active, a learned router, "
        "64 GB200", "July 2026",
    ),
    "marin-7668-balanced": MeasuredMfu(
        (((128, 0.32407), (256, 0.31127)),), "marin-community/marin issue 7668: 4 of 128 and 8 of 256 experts, 16 B "
        "active, routing forced to balance, 64 GB200", "July 2026",
    ),
    "marin-7201": MeasuredMfu((((256, 0.181),),), "marin-community/marin issue 7201: E = 256, 716 B", "2026"),
}  # fmt: skip
"""What was measured, by name."""
_ROUTED_AS_TRAINED = ("megablocks-57", "maxtext-1256", "marin-7668", "marin-7201")  # a forced balance trains nothing


def slope_of(measured: MeasuredMfu) -> float:
    """-d ln MFU / d ln E, the mean over its models; of one E alone against the assumed MFU at E = 1."""
    slopes = []
    for points in measured.models:
        (first, high), (last, low) = (points if len(points) > 1 else ((1, MFU), *points))[:2]
        slopes.append(np.log(high / low) / np.log(last / first))
    return float(np.mean(slopes))


@cache
def expert_slopes() -> tuple[float, float, float]:
    """How MFU falls with E: the mean slope over sources, its standard deviation between them, and that of ln(speed)
    between models of one source."""
    slopes = [slope_of(MEASURED[name]) for name in _ROUTED_AS_TRAINED]
    ratios = [np.log(low / high) for (_, high), (_, low) in MEASURED["megablocks-57"].models]
    return float(np.mean(slopes)), float(np.std(slopes, ddof=1)), float(np.std(ratios, ddof=1))


def assumed_training_speed(mfu: float | None = None) -> MfuByExperts:
    """What is assumed where no speed is known: `mfu` (.4) at E = 1, which falls with E as published."""
    slope, spread, scatter = expert_slopes()
    of_dense = f"{MFU:g} at E = 1" if mfu is None else f"the given {mfu:g} at E = 1"
    return MfuByExperts(
        name=ASSUMED,
        mfu=MFU if mfu is None else mfu,
        slope=slope,
        source=f"assumed: MFU {of_dense}, falling as E^-{slope:.2f}, as measured in {len(_ROUTED_AS_TRAINED)} public "
        "settings",
        mfu_spread=float(np.std(np.log([*DENSE_MFU.values()]), ddof=1)) if mfu is None else 0.0,
        slope_spread=spread,
        scatter=scatter,
    )


def constant_training_speed(mfu: float | None = None) -> MfuByExperts:
    """One MFU for all E, which favours many experts: measured training slows with E."""
    even = assumed_training_speed(mfu)
    source = f"assumed: MFU {even.mfu:g} for all E, which favours many experts: measured training slows with E"
    return replace(even, name=CONSTANT, slope=0.0, slope_spread=0.0, scatter=0.0, source=source)


def published_training_speed(name: str) -> MfuByExperts:
    """The speed of this name, such as `published:megablocks-57`. Raises InputError listing the names.

    The MFU at the first E that was measured, falling with E as there, else as assumed. `error` is the largest relative
    error of its measured points, None of a single one.
    """
    short = name.removeprefix(PREFIX)
    if short not in MEASURED:
        allowed = ", ".join((ASSUMED, CONSTANT, *(PREFIX + each for each in MEASURED)))
        raise InputError(f"`training_speed`: found {name!r}; allowed: {allowed}, or a file of `scaling training-speed`")
    measured, (slope, spread, scatter) = MEASURED[short], expert_slopes()
    paired = len(measured.models[0]) > 1
    levels = np.log([points[0][1] for points in measured.models])
    speed = MfuByExperts(
        name=PREFIX + short,
        mfu=float(np.exp(levels.mean())),
        slope=slope_of(measured) if paired else slope,
        source=measured.source + ("" if paired else f"; its fall with E^-{slope:.2f} is assumed"),
        date=measured.date,
        at=measured.models[0][0][0],
        measured_at=tuple(sorted({n_experts for points in measured.models for n_experts, _ in points})),
        mfu_spread=float(levels.std(ddof=1)) if len(levels) > 1 else 0.0,
        slope_spread=spread,
        scatter=scatter,
    )
    points = [point for points in measured.models for point in points]
    errors = [abs(mfu / speed.mfu_at(n_experts) - 1) for n_experts, mfu in points]
    return replace(speed, error=max(errors)) if len(points) > 2 else speed
