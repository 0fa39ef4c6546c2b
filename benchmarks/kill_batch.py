"""Kill a batch at random moments, again and again, and count what is lost and what is made twice.

    python benchmarks/kill_batch.py                              # 20 kills, 2 workers, the bundled model
    python benchmarks/kill_batch.py --kills 5 --model seeded:tiny --workers 1 --batch-size 2

Each round starts the same command and ends it by SIGKILL after a random time, in loading, in making or in writing. When
all kills are spent, the command runs to its end. Then every job must have one line and one file, no clip may have been
made twice (each is told on stdout once, or taken up without being told), nothing may be left half-written, and a run
without kills in another folder must have made the same bits.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from dynamicrafter.media.video import read_clip

PICTURE = Path(__file__).parents[1] / "examples" / "rocket.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=float, default=2.0, help="seconds before a kill, at least")
    parser.add_argument("--most", type=float, default=30.0, help="and at most")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), arguments), indent=2))


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Kill, finish, and compare with a run that wasn't killed."""
    lines = [f"job{number},{PICTURE},the camera pans left,{number}" for number in range(arguments.jobs)]
    (folder / "jobs.csv").write_text("\n".join(["name,image,prompt,seed", *lines]) + "\n")
    draw, told, killed_after = random.Random(arguments.seed), Counter[str](), []
    for _ in range(arguments.kills):
        seconds = draw.uniform(arguments.least, arguments.most)
        if (paths := attempt(folder, "killed", arguments, kill_after=seconds)) is None:
            break
        told.update(paths)
        killed_after.append(round(seconds, 1))
    told.update(attempt(folder, "killed", arguments) or [])
    attempt(folder, "whole", arguments)
    return report(folder, arguments.jobs, told, killed_after)


def attempt(
    folder: Path, output: str, arguments: argparse.Namespace, *, kill_after: float | None = None
) -> list[str] | None:
    """Run the command, and kill it where asked; the paths it told, or None where it had ended before."""
    words = [sys.executable, "-m", "dynamicrafter.cli", "batch", "jobs.csv", "-o", output, "--model", arguments.model]
    words += ["--device", "cpu", "--steps", "2", "--frames", "4", "--size", "64x64", "--format", "npy"]
    words += ["--workers", str(arguments.workers), "--batch-size", str(arguments.batch_size)]
    with (folder / "told").open("w+") as told, (folder / "said").open("w+") as said:
        process = subprocess.Popen(words, cwd=folder, stdout=told, stderr=said)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(kill_after)
        killed = process.poll() is None
        if killed:
            process.send_signal(signal.SIGKILL)
            process.wait()
        told.seek(0)
        said.seek(0)
        if not killed and process.returncode != 0:
            raise SystemExit(f"the command ended with {process.returncode}: {said.read()}")
        print(f"{output}: {'killed' if killed else 'ended'} at {time.strftime('%X')}", file=sys.stderr)
        paths = told.read().split()
    return paths if killed or kill_after is None else None


def report(folder: Path, num_jobs: int, told: Counter[str], killed_after: list[float]) -> dict[str, object]:
    """What was lost or made twice."""
    expected = {f"job{number}" for number in range(num_jobs)}
    entries = [json.loads(line) for line in (folder / "killed" / "results.jsonl").read_text().splitlines()]
    lines = Counter(entry["key"] for entry in entries if entry["status"] == "done")
    there = {path.name for path in (folder / "killed").iterdir()}
    other_bits = [
        key
        for key in sorted(expected)
        if not (read_clip(folder / "killed" / f"{key}.npy")[0] == read_clip(folder / "whole" / f"{key}.npy")[0]).all()
    ]
    return {
        "kills": len(killed_after),
        "killed_after_seconds": killed_after,
        "jobs": num_jobs,
        "jobs_without_a_line": sorted(expected - lines.keys()),
        "jobs_with_two_lines": sorted(key for key, count in lines.items() if count > 1),
        "clips_told_twice": sorted(path for path, count in told.items() if count > 1),
        "clips_taken_up_without_being_told": num_jobs - len(told),
        "left_half_written": sorted(there - {f"{key}.npy" for key in expected} - {"results.jsonl"}),
        "clips_with_other_bits": other_bits,
    }


if __name__ == "__main__":
    main()
