"""Time and memory of loading a checkpoint file, beside the reading speed of the disk it lies on.

    python benchmarks/load.py model.ckpt                       # cold, to bfloat16
    python benchmarks/load.py model.ckpt --preset 512 --dtype float32 --warm --json

Before each measurement the file's pages are dropped from the system's cache (Linux; --warm leaves them). The resident
memory that counts is anonymous: pages of a mapped file are the system's cache, and go when something needs the room.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import threading
import time
from pathlib import Path

import torch

from dynamicrafter.checkpoints.load import load_file

_BLOCK = 16 << 20
_PERIOD = 0.01  # seconds between two looks at the resident memory


def main() -> None:
    options = parse()
    if not options.warm:
        drop_from_cache(options.file)
    reading = seconds_to_read(options.file)
    if not options.warm:
        drop_from_cache(options.file)
    warm_up()  # imports and PyTorch's threads are not the loader's

    before = resident("RssAnon")
    with PeakResident() as peak:
        start, used = time.perf_counter(), processor_seconds()
        dtype = None if options.dtype == "file" else getattr(torch, options.dtype)
        loaded = load_file(options.file, preset=options.preset, dtype=dtype)
        loading, used = time.perf_counter() - start, processor_seconds() - used
    size = options.file.stat().st_size
    report = {
        "file_gb": size / 1e9,
        "dtype": options.dtype,
        "parameters_gb": sum(p.nbytes for net in loaded.networks.values() for p in net.parameters()) / 1e9,
        "read_s": reading,
        "read_gb_per_s": size / reading / 1e9,
        "load_s": loading,
        "load_gb_per_s": size / loading / 1e9,
        "load_processor_s": used,
        "load_over_read": loading / reading,
        "resident_before_gb": before / 1e9,
        "resident_peak_gb": peak.anonymous / 1e9,
        "resident_with_mapped_pages_gb": peak.total / 1e9,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(report, indent=2) if options.json else "\n".join(f"{k:30} {show(v)}" for k, v in report.items()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--preset", help="where the file can't tell")
    parser.add_argument("--dtype", choices=("file", "bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--warm", action="store_true", help="leave the file in the system's cache")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def drop_from_cache(path: Path) -> None:
    """Have the next reader of a file wait for the disk; does so without privileges where the pages are clean."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds_to_read(path: Path) -> float:
    """From first byte to last, in large blocks into one buffer."""
    buffer = bytearray(_BLOCK)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


def warm_up() -> None:
    from dynamicrafter.architectures import FULL
    from dynamicrafter.checkpoints.networks import COMPONENTS, build_empty
    from dynamicrafter.presets import get_preset

    for component in COMPONENTS:
        build_empty(component, FULL, get_preset("512"))


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def resident(*kinds: str) -> int:
    """Bytes of this process's resident memory of some kinds, as Linux tells them apart."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return sum(int(words[1]) * 1024 for words in lines if words[0].rstrip(":") in kinds)


class PeakResident:
    """Most resident memory within a block, sampled every 10 ms."""

    def __init__(self) -> None:
        self.anonymous = 0
        self.total = 0
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakResident:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._sampler.join()

    def _sample(self) -> None:
        while True:
            self.anonymous = max(self.anonymous, resident("RssAnon"))
            self.total = max(self.total, resident("VmRSS"))
            if self._done.wait(_PERIOD):
                return


def show(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
