"""Kill the making of a story at random moments, start it again, and hold the result against an unbroken run's.

    python benchmarks/kill_story.py [--kills 20] [--seed 0] [--model bundled]

The example's story, small and in few steps. Processes are forked with everything imported, so that moments fall into
the work and not into the importing. After each kill, every clip that was complete must be the very file that it was; in
the end, nothing may be left over, and all frames must be those of the unbroken run. Whenever a story is complete before
all kills are spent, another one begins.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np

from dynamicrafter.media.video import read_clip

EXAMPLE = Path(__file__).parents[1] / "examples" / "story"
STEPS = 3


def make(folder: Path, model: str) -> None:
    """The command, in a process of its own."""
    import torch

    from dynamicrafter.cli.main import main

    os.chdir(folder)
    torch.set_num_threads(1)
    words = ["story", "story.yaml", "-o", "film.mp4", "--model", model, "--device", "cpu", "--dtype", "float32"]
    sys.exit(main([*words, "--quiet"]))


def begun(folder: Path) -> Path:
    """A fresh copy of the example, small."""
    shutil.copytree(EXAMPLE, folder)
    path = folder / "story.yaml"
    text = path.read_text()
    small = text.replace("size: 128x128", f"size: 64x64\n  steps: {STEPS}")
    assert small != text
    path.write_text(small)
    return folder


def complete(folder: Path) -> dict[str, tuple[int, int]]:
    """The clips that are complete, each with what tells one making of it from another."""
    found = {path.parent.name: path.stat() for path in folder.glob("film.shots/[!.]*/clip.json")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}


def phase(folder: Path) -> str:
    """What a killed run was at, by what it left."""
    if (folder / "film.mp4").exists():
        return "after the film was there"
    if list(folder.glob("film.shots/.dynamicrafter-*.mp4")):
        return "while the film was joined"
    if list(folder.glob("film.shots/.dynamicrafter-*")):
        return "while a clip was written"
    return "before the first clip" if not complete(folder) else "between or during clips"


class Killer:
    """Stories that are killed, one after the other, and what came of it."""

    def __init__(self, processes: ForkServerContext, root: Path, model: str, chance: random.Random) -> None:
        self.processes, self.root, self.model, self.chance = processes, root, model, chance
        self.phases: Counter[str] = Counter()
        self.films = self.faults = 0
        self._fresh()

    def _fresh(self) -> None:
        self.folder = begun(self.root / f"killed-{self.films}")
        self.seen: dict[str, tuple[int, int]] = {}

    def run(self, wanted: np.ndarray, *, longest: float | None) -> bool:
        """Let a story go on, and kill it within `longest` seconds; whether it was killed."""
        process = self.processes.Process(target=make, args=(self.folder, self.model))
        process.start()
        process.join(None if longest is None else self.chance.uniform(0, longest))
        killed = process.is_alive()
        if killed:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            self.phases[phase(self.folder)] += 1
        now = complete(self.folder)
        if not self.seen.items() <= now.items():
            self.faults += 1
            print(f"a complete clip was lost or made twice: {self.seen} became {now}")
        self.seen = now
        if not killed:
            self._finish(process.exitcode, wanted)
        return killed

    def _finish(self, code: int | None, wanted: np.ndarray) -> None:
        names = {path.name for path in self.folder.iterdir()} - {path.name for path in EXAMPLE.iterdir()}
        left = [path.name for path in self.folder.glob("film.shots/.dynamicrafter-*")]
        same = code == 0 and np.array_equal(read_clip(self.folder / "film.mp4")[0], wanted)
        if not same or names != {"film.mp4", "film.shots"} or left:
            self.faults += 1
            print(f"the film differs, or something is left over: exit code {code}, {sorted(names)}, {left}")
        self.films += 1
        self._fresh()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="bundled")
    flags = parser.parse_args()
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["dynamicrafter.animator.animator", "dynamicrafter.story.making"])
    with tempfile.TemporaryDirectory() as folder:
        unbroken = begun(Path(folder) / "unbroken")
        for _ in range(2):  # the first starts the server of processes, and warms up
            shutil.rmtree(unbroken / "film.shots", ignore_errors=True)
            (unbroken / "film.mp4").unlink(missing_ok=True)
            began = time.monotonic()
            process = processes.Process(target=make, args=(unbroken, flags.model))
            process.start()
            process.join()
            assert process.exitcode == 0
        length = time.monotonic() - began
        wanted, _ = read_clip(unbroken / "film.mp4")
        print(f"unbroken: {len(wanted)} frames in {length:.1f} s")
        killer = Killer(processes, Path(folder), flags.model, random.Random(flags.seed))
        kills = 0
        while kills < flags.kills:
            kills += killer.run(wanted, longest=length)
        killer.run(wanted, longest=None)
    for name, count in killer.phases.most_common():
        print(f"{count:3} killed {name}")
    print(f"{kills} kills, {killer.films} films, {killer.faults} faults")
    sys.exit(bool(killer.faults))


if __name__ == "__main__":
    main()
