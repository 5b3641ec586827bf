"""Number formats of weights and cache: bits with their scales, and the arithmetic of their products."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scaling.errors import InputError
from scaling.serving.device import Device
from scaling.serving.service import Service


@dataclass(frozen=True)
class NumberFormat:
    """`bits` of a number with its share of the scales, and the `arithmetic` of products with such weights.

    The arithmetic is the name of a peak of a device (`Device.peaks`); empty: the device's own 16-bit one, because
    weights alone are stored so and are widened before they are multiplied.
    """

    name: str
    bits: float
    arithmetic: str
    meaning: str


_TABLE = (
    NumberFormat("fp32", 32.0, "", "float32"),
    NumberFormat("bf16", 16.0, "", "bfloat16"),
    NumberFormat("fp16", 16.0, "", "float16"),
    NumberFormat("fp8", 8.0, "fp8", "E4M3, scales of blocks of 128 x 128 left out (.002 bits)"),
    NumberFormat("int8", 8.0, "int8", "scales of whole rows left out"),
    NumberFormat("mxfp4", 4.25, "", "E2M1 with an 8-bit scale for each 32 (OCP Microscaling 1.0), weights alone"),
    NumberFormat("nvfp4", 4.5, "fp4", "E2M1 with an FP8 scale for each 16"),
    NumberFormat("fp4", 4.5, "fp4", "nvfp4"),
    NumberFormat("int4", 4.125, "", "a 16-bit scale for each 128 (AWQ, GPTQ), weights alone"),
)
FORMATS = {one.name: one for one in _TABLE}
"""Number formats by name."""
CACHE_FORMATS = ("bf16", "fp16", "fp8", "fp32", "int8", "nvfp4", "fp4")


def number_format(name: str, field: str) -> NumberFormat:
    """The format of this name. Raises InputError naming the field and the formats."""
    if name.lower() not in FORMATS:
        raise InputError(f"`{field}`: found {name!r}; allowed: {', '.join(FORMATS)}")
    return FORMATS[name.lower()]


def served_in(
    service: Service,
    on: Device | None,
    *,
    weights: str | None = None,
    experts: str | None = None,
    kv: str | None = None,
) -> Service:
    """The service with these number formats of weights, routed experts (default: as the weights) and cache.

    Products with weights run in the arithmetic of their format. Raises InputError for an unknown format, and where the
    device lacks the arithmetic of one.
    """
    if weights is not None:
        chosen = number_format(weights, "weights")
        service = replace(service, bytes_per_weight=chosen.bits / 8, arithmetic=_arithmetic(chosen, on, "weights"))
    if experts is not None:
        chosen = number_format(experts, "experts")
        arithmetic = _arithmetic(chosen, on, "experts") or ("" if service.arithmetic else None)
        service = replace(service, bytes_per_expert=chosen.bits / 8, expert_arithmetic=arithmetic)
    if kv is not None:
        chosen = number_format(kv, "kv")
        if chosen.name not in CACHE_FORMATS:
            raise InputError(f"`kv`: no engine caches keys and values in {kv}; allowed: {', '.join(CACHE_FORMATS)}")
        service = replace(service, bytes_per_kv=chosen.bits / 8)
    return service


def _arithmetic(chosen: NumberFormat, on: Device | None, field: str) -> str | None:
    if not chosen.arithmetic:
        return None
    if on is not None and chosen.arithmetic not in dict(on.peaks):
        has = ", ".join(sorted({on.dtype, *dict(on.peaks)}))
        raise InputError(f"`{field}`: device {on.name} multiplies no {chosen.name}; it has {has}")
    return chosen.arithmetic
