"""Seconds, memory in use, and the rate of plain matrix products, on any device."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from dynamicrafter.kernels.products import linear

MATMUL_WIDTH = 2048  # large enough for a machine's full rate, small enough to be a fair neighbour to the layers
_REPEATS = 10
_PERIOD = 0.005  # seconds between two looks at the memory


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, until the device is done with it."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def matmul_flop_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Rate of one square product: the best of several, by the faster of the libraries that the networks multiply by."""
    left, right = (torch.randn(MATMUL_WIDTH, MATMUL_WIDTH, device=device, dtype=dtype) for _ in range(2))
    with torch.inference_mode():
        best = min(
            seconds(lambda multiply=multiply: multiply(left, right), device)
            for multiply in (torch.matmul, linear)
            for _ in range(_REPEATS)
        )
    return 2 * MATMUL_WIDTH**3 / best


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def bytes_in_use(device: torch.device) -> int:
    """Of the device, or of the process where it works on the processor."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return psutil.Process().memory_info().rss


class PeakMemory:
    """Most memory in use within a block: the allocator's own record on CUDA, elsewhere sampled every 5 ms."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes = 0
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.bytes = torch.cuda.max_memory_allocated(self.device)
        else:
            self._done.set()
            self._sampler.join()

    def _sample(self) -> None:
        while True:
            self.bytes = max(self.bytes, bytes_in_use(self.device))
            if self._done.wait(_PERIOD):
                return


def device_name(device: torch.device) -> str:
    """What the device is called by its maker, where the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu" and sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "cpu")
    return device.type
