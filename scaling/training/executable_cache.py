"""A cache of compiled programs on disk, so that a host traces and compiles each program once.

Reading a program is running what is in the file, so a file counts only where nobody but this user can have written it
(`scaling/data/own_folder.py`). Where that cannot be known, programs are compiled anew and none is written.
"""

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
import jax.numpy as jnp
from jax.experimental import serialize_executable

from scaling.config.run_row import code_version
from scaling.data.cache import programs_folder
from scaling.data.own_folder import NotOursError, OwnFolder

# Environment variables that affect the machine code.
_SETTINGS = ("XLA_FLAGS", "NPROC", "JAX_PLATFORMS")
_LAPACK = "lapack_"  # how the targets of such calls begin on a CPU


def load_or_compile(
    name: str, key: Any, devices: Sequence[jax.Device], compile_: Callable[[], tuple[Any, ...]]
) -> tuple[Any, ...]:
    """The result of `compile_`, compiled programs and plain values, read from disk if an earlier process wrote it.

    `key` is everything that `compile_` depends on, as a value with a complete `repr`. An entry also depends on the code
    of training and of the compiling module, the version of JAX, devices, processor features and settings. JAX's own
    cache saves only XLA's work; tracing and lowering take as long for small models. If that cache is on, nothing is
    written here, because executables loaded from it lack the code of their kernels and their copies fail.
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
    try:
        folder = OwnFolder(programs_folder())
    except NotOursError:  # `data.cache.programs_doubt` says why
        return compile_()
    with folder:
        entry = hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
        # Without a file; one of somebody else; damaged; of another host: compile again.
        with contextlib.suppress(Exception):
            return _loaded(folder.read(entry), devices)
        programs = compile_()
        with contextlib.suppress(OSError, ValueError, TypeError, pickle.PicklingError):  # full disk, unsupported device
            folder.write(entry, pickle.dumps([_packed(value) for value in programs]))
    return programs


def is_enabled() -> bool:
    """Whether programs are written to disk, which they are unless JAX's own cache is on."""
    return not jax.config.values.get("jax_compilation_cache_dir")


def _packed(value: Any) -> tuple[int, bool, Any]:
    """A plain value with 0, or a serialised program with its number of devices; whether the program calls LAPACK."""
    if not isinstance(value, jax.stages.Compiled):
        return 0, False, value
    executable: Any = value.runtime_executable()
    return len(executable.local_devices()), _LAPACK in (value.as_text() or ""), serialize_executable.serialize(value)


def _loaded(content: bytes, devices: Sequence[jax.Device]) -> tuple[Any, ...]:
    def program(count: int, serialised: bytes, in_tree: Any, out_tree: Any) -> Any:
        on = tuple(devices[:count])
        return serialize_executable.deserialize_and_load(serialised, in_tree, out_tree, execution_devices=on)

    packed = pickle.loads(content)
    if any(calls_lapack for _, calls_lapack, _ in packed):
        _find_lapack()
    return tuple(program(count, *value) if count else value for count, _, value in packed)


def _find_lapack() -> None:
    """Have JAX look up the routines of LAPACK, which it does when it first lowers a call of one: a program from disk
    that calls them (orthogonal initial values, for example) would otherwise jump to nowhere."""
    jax.jit(jnp.linalg.qr).lower(jnp.ones((1, 1)))


def _processor() -> str:
    """The instruction set, for a cache shared by several hosts."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")
