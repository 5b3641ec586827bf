"""The parts of the benchmark: what each measures, its time, and how its process is started."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """A part runs in a process of its own, `benchmarks.gpu.<name>:measure`, and has so many seconds."""

    name: str
    title: str
    seconds: float


# In the order of what the others rest on. Together with the starts of their processes under nine minutes.
PARTS = (
    Part("equality", "kernels, dispatches, routers, attention and a step give what they should", 105),
    Part("utilisation", "MFU of training, dense and routed", 135),
    Part("experts", "tokens/s of the MoE layer against public kernels", 95),
    Part("cells", "small cells side by side against one at a time", 50),
    Part("serving", "prefill and decode, and the latency law before and after", 100),
)
# Of a CPU's programs, which run for milliseconds in a test: compiled in a third of the time.
_QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
TOTAL_S = 525.0
"""Of everything: a command on a lent machine has ten minutes, and the tree is carried there within them."""


def environment(*, gpu: bool) -> dict[str, str]:
    """Variables of a part's process, to be set before JAX is imported.

    `cuda` is named, because JAX otherwise takes the CPU without a word where its CUDA plugin does not start; `cpu`
    besides, as the judge of equality. Nearly all memory is taken at once, so that no measurement pays for growing.
    """
    if not gpu:
        return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": _QUICK}
    return {
        "JAX_PLATFORMS": "cuda,cpu",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "true",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
        "TF_CPP_MIN_LOG_LEVEL": "2",  # errors alone: tuning writes a warning for each kernel that does not fit
    }
