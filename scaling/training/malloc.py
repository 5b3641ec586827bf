"""How this process keeps its memory, which decides how fast a CPU trains; nothing here changes a number."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def keep() -> None:
    """Let freed memory stay mapped, from the first step on; before or after JAX is imported.

    XLA allocates its temporaries afresh in every step. With glibc's defaults large ones are mapped and returned each
    time, and the page faults cost a third of a step (results/LOG.md): so nothing is mapped apart and nothing is given
    back. Arenas of threads hold no block above 64 MB, so programs run on the thread that calls them where that can be
    had (`sweeps.worker.environment`); one arena for all would do too, but its lock costs small models a fifth of a
    step, and compilation a third. Without effect elsewhere than on Linux.
    """
    if platform.system() != "Linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):  # another C library: slower, not wrong
        pass
