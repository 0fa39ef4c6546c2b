"""The C library's heap, in a process of its own, as the setting is the whole process's."""

import subprocess
import sys

import pytest
import torch

from dynamicrafter.memory import malloc, offload
from tiny import pipeline

_LEFT_BEHIND = """
import importlib.util, sys
from pathlib import Path

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

spec = importlib.util.spec_from_file_location("malloc", sys.argv[1])
malloc = importlib.util.module_from_spec(spec)
spec.loader.exec_module(malloc)
told = {"return": malloc.return_freed_memory, "keep": malloc.keep_freed_memory, "nothing": lambda: None}[sys.argv[2]]()
bytearray(24 << 20)  # glibc learns from this one that such sizes are not large
before = resident()
pieces = [bytearray(8 << 20) for _ in range(20)]
kept = pieces[-1]
del pieces
print(told, resident() - before - len(kept))
malloc.trim_heap()
print(resident() - before - len(kept))
"""


_PAGES_A_ROUND = """
import importlib.util, resource, sys, threading

spec = importlib.util.spec_from_file_location("malloc", sys.argv[1])
malloc = importlib.util.module_from_spec(spec)
spec.loader.exec_module(malloc)
told = sys.argv[2] == "keep" and malloc.keep_freed_memory()

def work():
    for size in (48, 8, 40):
        bytearray(size << 20)

def rounds():
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        work()
    print(told, (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)

rounds()
thread = threading.Thread(target=rounds)
thread.start()
thread.join()
"""

needs_glibc = pytest.mark.skipif(malloc._glibc() is None, reason="asks glibc")


def told(program, asked):
    words = [sys.executable, "-c", program, malloc.__file__, asked]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()


@needs_glibc
def test_freed_memory_goes_back_at_once_where_it_is_asked_to_and_otherwise_when_it_is_trimmed():
    answer, left_at_once, left_after = told(_LEFT_BEHIND, "return")
    assert answer == "True"
    assert int(left_at_once) < 2**21
    assert int(left_after) < 2**21
    for asked in ("nothing", "keep"):
        _, kept, trimmed = told(_LEFT_BEHIND, asked)
        assert int(kept) > 100 * 2**20
        assert int(trimmed) < 2**21


@needs_glibc
def test_memory_that_is_kept_needs_no_new_pages_in_any_thread():
    _, usual, _, usual_in_thread = told(_PAGES_A_ROUND, "nothing")
    assert min(float(usual), float(usual_in_thread)) > 1000
    answer, pages, _, pages_in_thread = told(_PAGES_A_ROUND, "keep")
    assert answer == "True"
    assert max(float(pages), float(pages_in_thread)) < 10


def test_memory_is_kept_within_a_phase_and_goes_back_between_phases(monkeypatch):
    said = []
    for name in ("keep_freed_memory", "return_freed_memory", "trim_heap"):
        monkeypatch.setattr(offload, name, lambda name=name: said.append(name))
    pipe = pipeline("tiny512")
    pipe.apply_plan(None, torch.device("cpu"))
    assert said == ["keep_freed_memory", "trim_heap"]
    said.clear()
    pipe.onload("vae")
    pipe.onload("vae")
    assert said == ["keep_freed_memory", "trim_heap"]
    pipe.onload("unet")
    assert said == ["keep_freed_memory", "trim_heap"] * 2
