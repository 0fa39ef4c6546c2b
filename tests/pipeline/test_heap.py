"""The C library's heap, in a process of its own, as the setting is the whole process's."""

import subprocess
import sys

import pytest

from dynamicrafter.pipeline import heap

_LEFT_BEHIND = """
import importlib.util, sys
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

spec = importlib.util.spec_from_file_location("heap", sys.argv[1])
heap = importlib.util.module_from_spec(spec)
spec.loader.exec_module(heap)
told = sys.argv[2] == "yes" and heap.return_freed_memory()
bytearray(24 << 20)  # glibc learns from this one that such sizes are not large
before = resident()
pieces = [bytearray(8 << 20) for _ in range(20)]
kept = pieces[-1]
del pieces
print(told, resident() - before - len(kept))
heap.give_back_heap()
print(resident() - before - len(kept))
"""


@pytest.mark.skipif(heap._glibc() is None, reason="asks glibc")
def test_freed_memory_goes_back_at_once_where_it_is_asked_to_and_otherwise_when_it_is_trimmed():
    def left(asked):
        words = [sys.executable, "-c", _LEFT_BEHIND, heap.__file__, asked]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
        return said[0], int(said[1]), int(said[2])

    told, left_at_once, left_after = left("yes")
    assert told == "True"
    assert left_at_once < 2**21
    _, kept, trimmed = left("no")
    assert kept > 100 * 2**20
    assert trimmed < 2**21
    assert left_after < 2**21
