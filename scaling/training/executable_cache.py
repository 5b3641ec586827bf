"""Compiled programs kept on disk, so that what this host has compiled once, to train or to measure, it neither traces
nor compiles again."""

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


def kept(what: str, about: Any, devices: Sequence[jax.Device], build: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
    """What `build` gives, a tuple of compiled programs and of plain values, from the disk where an earlier process kept
    it.

    `about` is everything that `build` depends on, as a value with a complete `repr`. Other code of a training or of the
    module that builds, another JAX, other devices, processor features or settings are another entry. JAX's own cache
    spares XLA's work alone: tracing and lowering are as long again for small models. Where that cache is on nothing is
    kept here: an executable that came out of it has lost the code of its kernels, and a copy of it fails when it is
    called.
    """
    if not keeps():
        return build()
    parts: tuple[Any, ...] = (
        what,
        repr(about),
        code_version(),
        hashlib.sha256(inspect.getsource(inspect.getmodule(build) or build).encode()).hexdigest(),
        jax.__version__,
        [str(d.device_kind) for d in devices],
        _processor(),
    )
    parts += tuple(os.environ.get(name) for name in _SETTINGS)
    path = cache_folder() / "programs" / hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    if path.is_file():
        with contextlib.suppress(Exception):  # damaged, or another host's after all: it is made again
            return _loaded(path, devices)
    made = build()
    with contextlib.suppress(OSError, ValueError, TypeError, pickle.PicklingError):  # a full disk, a device that cannot
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, pickle.dumps([_packed(one) for one in made]))
    return made


def keeps() -> bool:
    """Whether `kept` writes anything: not beside JAX's own cache."""
    return not jax.config.values.get("jax_compilation_cache_dir")


def _packed(one: Any) -> tuple[int, Any]:
    """A value, or a program with the number of its devices: the first state is made on one, whatever the step runs
    on."""
    if not isinstance(one, jax.stages.Compiled):
        return 0, one
    on: Any = one.runtime_executable()
    return len(on.local_devices()), serialize_executable.serialize(one)


def _loaded(path: Path, devices: Sequence[jax.Device]) -> tuple[Any, ...]:
    def program(on: int, serialised: bytes, in_tree: Any, out_tree: Any) -> Any:
        return serialize_executable.deserialize_and_load(
            serialised, in_tree, out_tree, execution_devices=tuple(devices[:on])
        )

    return tuple(program(on, *value) if on else value for on, value in pickle.loads(path.read_bytes()))


def _processor() -> str:
    """The instruction set, for caches that several hosts share."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")
