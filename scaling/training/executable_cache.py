"""Compiled programs on disk: what this host has compiled once is neither traced nor compiled again."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

from scaling.config.run_row import code_version
from scaling.data.cache import cache_folder
from scaling.files import write_atomically

# What decides the machine code beside the program itself.
_SETTINGS = ("XLA_FLAGS", "NPROC", "JAX_PLATFORMS")


def load_or_compile(
    name: str, key: Any, devices: Sequence[jax.Device], compile_: Callable[[], tuple[Any, ...]]
) -> tuple[Any, ...]:
    """What `compile_` returns, compiled programs and plain values: from disk if an earlier process wrote it there.

    `key` is everything that `compile_` depends on, as a value with a complete `repr`. Other code of a training or of
    the module that compiles, another JAX, other devices, processor features or settings are another entry. JAX's own
    cache spares XLA's work alone: tracing and lowering are as long again for small models. Where that cache is on
    nothing is written here: an executable that came out of it has lost the code of its kernels, so that copies fail.
    """
    if not is_enabled():
        return compile_()
    parts = (
        name,
        repr(key),
        code_version(),
        hashlib.sha256(inspect.getsource(inspect.getmodule(compile_) or compile_).encode()).hexdigest(),
        jax.__version__,
        [str(d.device_kind) for d in devices],
        _processor(),
        *(os.environ.get(setting) for setting in _SETTINGS),
    )
    path = cache_folder() / "programs" / hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    if path.is_file():
        with contextlib.suppress(Exception):  # damaged, or another host's after all: it is compiled again
            return _loaded(path, devices)
    programs = compile_()
    with contextlib.suppress(OSError, ValueError, TypeError, pickle.PicklingError):  # a full disk, a device that cannot
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, pickle.dumps([_packed(value) for value in programs]))
    return programs


def is_enabled() -> bool:
    """Whether programs are written to disk: not beside JAX's own cache."""
    return not jax.config.values.get("jax_compilation_cache_dir")


def _packed(value: Any) -> tuple[int, Any]:
    """A plain value, or a program with its number of devices: the first state is made on one, the step on all."""
    if not isinstance(value, jax.stages.Compiled):
        return 0, value
    executable: Any = value.runtime_executable()
    return len(executable.local_devices()), serialize_executable.serialize(value)


def _loaded(path: Path, devices: Sequence[jax.Device]) -> tuple[Any, ...]:
    def program(count: int, serialised: bytes, in_tree: Any, out_tree: Any) -> Any:
        on = tuple(devices[:count])
        return serialize_executable.deserialize_and_load(serialised, in_tree, out_tree, execution_devices=on)

    return tuple(program(count, *value) if count else value for count, value in pickle.loads(path.read_bytes()))


def _processor() -> str:
    """The instruction set, for caches that several hosts share."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")
