"""Settings of the memory allocator, which affect the speed of training on a CPU but no results."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def keep() -> None:
    """Keep freed memory mapped, from the first step on; may be called before or after JAX is imported.

    XLA allocates its temporaries anew in every step. With glibc's defaults, large ones are mapped and returned each
    time, and the page faults cost a third of a step (results/LOG.md), so both are disabled. Since arenas of threads
    hold no block above 64 MB, programs run on the calling thread where possible (`sweeps.worker.environment`). A single
    arena would also work, but its lock costs small models a fifth of a step and compilation a third. No effect on
    systems other than Linux.
    """
    if platform.system() != "Linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):  # another C library: only slower
        pass
