"""Speeds of engines by name, fitted to public end-to-end measurements; numbers, not data.

One set of coefficients serves vLLM, SGLang and TensorRT-LLM on H100, H200 and B200: deviations of an engine, a device
or a precision, shrunk as a hierarchical fit does, predicted models left out worse (13.5 to 22 % against 12.4 %), since
four models do not tell an engine's habits from a model's. `python -m benchmarks.serving` fits them again.
"""

from __future__ import annotations

from dataclasses import replace

from scaling.errors import InputError
from scaling.serving.engine_speed import EngineSpeed

ENGINES, DEVICES = ("vllm", "sglang", "trtllm"), ("h100", "h200", "b200")
PREFIX = "published:"
_POOLED = EngineSpeed(
    name="",
    coefficients=(1.104, 1.272, 0.9893, 1.208, 3.147, 1.504, 5.158e-05, 2.38e-05, 1.541, 1.098e-07),
    without=(
        (1.117, 1.282, 1.038, 1.128, 2.721, 1.458, 4.909e-05, 2.471e-05, 1.64, 9.91e-08),
        (1.059, 1.215, 1.046, 1.25, 3.082, 1.467, 5.503e-05, 3.106e-05, 1.385, 1.266e-07),
        (1.104, 1.236, 0.9406, 1.261, 3.038, 1.501, 5.264e-05, 2.232e-05, 1.466, 1.085e-07),
        (1.131, 1.268, 1.01, 1.257, 3.057, 1.537, 4.954e-05, 2.48e-05, 1.601, 1.022e-07),
    ),
    scatter=0.245,
    source="1,625 rows of DeepSeek-R1, gpt-oss-120b, Llama-3.1-70B and Qwen3-32B on H100, H200 and B200 with vLLM, "
    "SGLang and TensorRT-LLM (ai-dynamo/aiconfigurator at 095f58a, Apache-2.0)",
    date="2026-11-29",
    error=0.124,
)
SPEEDS = {
    f"{engine}-{device}": replace(_POOLED, name=f"{PREFIX}{engine}-{device}")
    for device in DEVICES
    for engine in ENGINES
}
"""Speeds by name: the engine and the device."""


def published_speed(name: str) -> EngineSpeed:
    """The speed of this name, such as `published:vllm-h100`. Raises InputError listing the names."""
    short = name.removeprefix(PREFIX)
    if short not in SPEEDS:
        raise InputError(f"`speed`: found {name!r}; allowed: assumed, {', '.join(PREFIX + each for each in SPEEDS)}")
    return SPEEDS[short]


def default_speed(device: str) -> EngineSpeed | None:
    """The speed that a device is priced with where none is named; None where none was measured on it."""
    return next((speed for name, speed in SPEEDS.items() if name.endswith(f"-{device}")), None)
