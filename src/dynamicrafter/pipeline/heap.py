"""The C library's heap, which keeps what is freed: asked to give it back, where it can be asked (glibc)."""

from __future__ import annotations

import ctypes
import functools
import sys

_M_MMAP_THRESHOLD = -3  # of mallopt(3)
_LARGE = 2**20  # bytes; from here on the system is asked for memory, and gets it back, piece by piece


def return_freed_memory() -> bool:
    """Have every large piece of memory go back to the system once it is freed, for the rest of the process.

    By itself glibc raises the size that counts as large up to 32 MiB, and tensors below it lie in a heap whose gaps
    stay with the process. The price is high: new pages are mapped for every tensor (docs/benchmarks.md).

    Returns:
        Whether the C library knows how.
    """
    library = _glibc()
    return library is not None and bool(library.mallopt(_M_MMAP_THRESHOLD, _LARGE))


def give_back_heap() -> None:
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
