"""The process of a part: `python -m benchmarks.gpu.child (device | PART FOLDER SECONDS) [--tiny]`.

`device` says as one line of JSON what JAX sees; a part measures and writes `FOLDER/PART.parquet` as its cases end.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.record import Record


def device() -> dict[str, Any]:
    """The first device as JAX sees it, versions, and what of the optional kernels is there."""
    import jax

    from scaling.config.run_row import code_version
    from scaling.model import attention
    from scaling.training import kernel_choice

    first = jax.devices()[0]
    found = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")}
    for name in ("tokamax", "jax-cuda12-plugin", "jax-cuda13-plugin"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    memory = (first.memory_stats() or {}).get("bytes_limit") if first.platform != "cpu" else None
    return {
        "kind": first.device_kind,
        "platform": first.platform,
        "platform_version": str(first.client.platform_version),
        "compute_capability": str(getattr(first, "compute_capability", "")),
        "memory_bytes": memory,
        "devices": len(jax.devices()),
        "attention": attention.implementation("bfloat16", 128),
        "kernels": kernel_choice.candidates(jax.devices()[0]),
        "python": platform.python_version(),
        "versions": found,
        "code_version": code_version(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def main(arguments: list[str]) -> None:
    tiny = "--tiny" in arguments
    names = [argument for argument in arguments if argument != "--tiny"]
    if names == ["device"]:
        print(json.dumps(device()))
        return
    part, folder, seconds = names[0], Path(names[1]), float(names[2])

    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {part}: {text}", file=sys.stderr, flush=True)

    record = Record.at(folder / f"{part}.parquet", seconds, say)
    importlib.import_module(f"benchmarks.gpu.{part}").measure(record, tiny)


if __name__ == "__main__":
    main(sys.argv[1:])
