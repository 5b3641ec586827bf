"""How this process keeps its memory, which decides how fast a CPU trains; nothing here changes a number."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # from glibc's malloc.h


def keep() -> None:
    """Let freed memory stay mapped. To be called before JAX is imported: later its threads have arenas of their own.

    XLA allocates its temporaries afresh in every step. With glibc's defaults large ones are mapped and returned each
    time, and the page faults cost a third of a step (results/LOG.md): so nothing is mapped apart, nothing is given back,
    and threads share one arena, for those of threads hold no block above 64 MB. Without effect elsewhere than on Linux.
    """
    if platform.system() != "Linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    except (OSError, AttributeError):  # another C library: slower, not wrong
        pass
