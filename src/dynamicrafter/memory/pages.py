"""Pages of mapped files that nothing reads any more, which count as resident until the system wants them back."""

from __future__ import annotations

import bisect
import ctypes
import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

_MAPS = Path("/proc/self/maps")
_DONT_NEED = getattr(mmap, "MADV_DONTNEED", None)

Range = tuple[int, int]  # addresses, the second one past the end


def drop_pages(ranges: Iterable[Range]) -> int:
    """Let go of what mapped files hold in these ranges; whoever reads them again reads the file again.

    Only whole pages of files go, and only where the system tells what is mapped (Linux): memory that is a program's own
    would lose what is in it, as pages of files would that were changed in memory.

    Returns:
        Bytes let go of.
    """
    if not sys.platform.startswith("linux") or not _MAPS.exists():
        return 0
    files, library, forgotten = _mapped_files(), ctypes.CDLL(None), 0
    starts = [start for start, _ in files]
    for start, end in ranges:
        found = bisect.bisect_right(starts, start) - 1
        if found < 0 or end > files[found][1]:
            continue
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        size = end // mmap.PAGESIZE * mmap.PAGESIZE - first
        if size > 0 and library.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), _DONT_NEED) == 0:
            forgotten += size
    return forgotten


def _mapped_files() -> list[Range]:
    """Where files are mapped, in the order of addresses."""
    found = []
    for line in _MAPS.read_text().splitlines():
        addresses, _, _, _, inode = line.split()[:5]
        if inode != "0":
            start, end = (int(address, 16) for address in addresses.split("-"))
            found.append((start, end))
    return sorted(found)
