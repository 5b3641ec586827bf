"""Where the speed of a device was measured: what later questions are held against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MeasuredRange:
    """What a measurement of a device's speed covers. An empty field is not known.

    `what`: the measurement in words. `n_experts`, `top_k`: the values that were measured, k of routed models alone.
    `batch`, `context`, `d_model`, `n_layers`: the least and the largest; `batch` is that of decode where that was
    measured, `prompt_batch` the prompts that were read at once. `phases`: prefill, decode. `dtype`: of weights
    and cache. `experts_cost`: whether it prices what activated experts cost beyond their bytes. `doubts`: what its
    rows leave open.
    """

    what: str
    n_experts: tuple[int, ...] = ()
    top_k: tuple[float, ...] = ()
    batch: tuple[float, ...] = ()
    prompt_batch: tuple[float, ...] = ()
    context: tuple[float, ...] = ()
    d_model: tuple[float, ...] = ()
    n_layers: tuple[float, ...] = ()
    phases: tuple[str, ...] = ()
    dtype: str = ""
    experts_cost: bool = True
    doubts: tuple[str, ...] = ()
