"""The C library's heap, which keeps some of what is freed: told what to keep, where it can be told (glibc).

A tensor on pages that the process has already costs nothing to make; new pages are mapped and cleared one by one, which
takes longer than most of what is then done to them.
"""

from __future__ import annotations

import ctypes
import functools
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of mallopt(3)
_LARGE = 2**20  # bytes; from here on the system is asked for memory, and gets it back, piece by piece
_LARGEST = (2**30, 2**25)  # the same where memory is kept; older versions refuse more than the second
_MOST_KEPT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the heap keep what is freed until `trim_heap`, for the next tensor, for the rest of the process.

    Threads share the one heap then, for those of their own are too small for large tensors.

    Returns:
        Whether the C library knows how.
    """
    library = _glibc()
    if library is None:
        return False
    large = any(library.mallopt(_M_MMAP_THRESHOLD, size) for size in _LARGEST)
    return bool(large and library.mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT) and library.mallopt(_M_ARENA_MAX, 1))


def return_freed_memory() -> bool:
    """Have every large piece of memory go back to the system once it is freed, for the rest of the process.

    By itself glibc raises the size that counts as large up to 32 MiB, and tensors below it lie in a heap whose gaps
    stay with the process. The price is high: new pages are mapped for every tensor (docs/benchmarks.md).

    Returns:
        Whether the C library knows how.
    """
    library = _glibc()
    if library is None:
        return False
    return bool(library.mallopt(_M_MMAP_THRESHOLD, _LARGE) and library.mallopt(_M_TRIM_THRESHOLD, _LARGE))


def trim_heap() -> None:
    """Return what the heap holds free at this moment."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
