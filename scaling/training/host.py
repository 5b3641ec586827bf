"""Settings of this process that decide how fast a CPU trains; nothing here changes a number."""

from __future__ import annotations

import ctypes
import os
import platform

import jax

from scaling.data.cache import cache_folder

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def set_up() -> None:
    """Keep freed memory mapped, and compiled programs on disk.

    XLA allocates its temporaries afresh in every step; with glibc's defaults each large one is mapped and returned, and
    the page faults cost a third of a step (results/LOG.md). Elsewhere than on Linux this does nothing.
    """
    if platform.system() == "Linux":
        try:
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        except (OSError, AttributeError):  # another C library: slower, not wrong
            pass
    if jax.config.values.get("jax_compilation_cache_dir") is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def threads() -> int:
    """CPU threads that XLA uses: what NPROC reserves for this process, else the cores it may run on."""
    reserved = os.environ.get("NPROC", "")
    if reserved.isdigit() and int(reserved) > 0:
        return int(reserved)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
