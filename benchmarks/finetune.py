"""Teach the bundled model a motion from twenty clips, by the commands that anyone types, and measure what it learned.

    python benchmarks/finetune.py work/                      # both motions, both ways
    python benchmarks/finetune.py work/ --motions swoosh --ways lora
    python benchmarks/finetune.py work/ --json

The clips are those of examples/finetune/make_clips.py; what is measured are four photos that are not among them.
swoosh (animate) is judged by the content's shift a frame against that of the true clips; hesitate (interpolate), which
moves nothing in the first half, by how far frame 7 has moved, and by the middle frames' PSNR to the true ones. Contact
sheets of the true clip, of the model before and after stay in the folder. A run that is there goes on or is only
measured, and its training time is then left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from dynamicrafter.evaluation.fidelity import psnr
from dynamicrafter.evaluation.motion import measure_motion
from dynamicrafter.media.contact_sheet import contact_sheet
from dynamicrafter.media.video import read_clip

EXAMPLE = Path(__file__).parents[1] / "examples" / "finetune" / "make_clips.py"
RECIPES = {"lora": "lora-bundled", "full": "finetune-bundled"}
HALFWAY, MIDDLE, LAST = 7, slice(5, 11), 15
SHOWN = [0, 3, 6, 9, 12, 15]

Numbers = dict[str, float]


@dataclass(frozen=True)
class Motion:
    """One motion to teach: extra words for `train`, the command that makes its clips, and what is read off one."""

    name: str
    training: tuple[str, ...]
    command: str
    ends: tuple[int, ...]
    measure: Callable[[np.ndarray, np.ndarray], Numbers]


def main() -> None:
    options = parse()
    clips = options.folder / "clips"
    if not clips.exists():
        run([sys.executable, str(EXAMPLE), str(clips)])
    report = {name: teach(MOTIONS[name], options, clips) for name in options.motions}
    print(json.dumps(report, indent=2) if options.json else "\n".join(table(report)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for clips, runs and contact sheets")
    parser.add_argument("--motions", nargs="+", choices=list(MOTIONS), default=list(MOTIONS))
    parser.add_argument("--ways", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--steps", type=int, help="other than the recipe's")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def teach(motion: Motion, options: argparse.Namespace, clips: Path) -> dict[str, dict[str, float]]:
    """Train one motion every way, and measure the clips of each, beside those of before and the true ones."""
    made = options.folder / motion.name
    made.mkdir(parents=True, exist_ok=True)
    truths = {path.name: read_clip(path)[0] for path in sorted(clips.glob(f"{motion.name}-*"))}
    models: dict[str, list[str]] = {"before": ["--model", "bundled"]}
    report: dict[str, dict[str, float]] = {"true": mean([motion.measure(true, true) for true in truths.values()])}
    seconds: dict[str, float] = {}
    for way in options.ways:
        model, taken = train(motion, way, options, clips)
        models[way] = ["--model", "bundled", "--lora", str(model)] if way == "lora" else ["--model", str(model)]
        seconds[way] = taken
    videos = {
        way: {name: make(motion, clips / name, made / f"{name}-{way}.npy", words) for name in truths}
        for way, words in models.items()
    }
    for way, found in videos.items():
        report[way] = mean([motion.measure(found[name], truths[name]) for name in truths])
        if way in seconds:
            report[way]["train_s"] = seconds[way]
    for name, true in truths.items():
        rows = [video[SHOWN] for video in (true, *(found[name] for found in videos.values()))]
        contact_sheet(np.concatenate(rows), columns=len(SHOWN)).save(made / f"{name}.png")
    return report


def train(motion: Motion, way: str, options: argparse.Namespace, clips: Path) -> tuple[Path, float]:
    """Run the recipe; the model's path, and how long it took."""
    output = options.folder / motion.name / way
    steps = [] if options.steps is None else ["--steps", str(options.steps)]
    begun = (output / "model").exists()
    began = time.monotonic()
    words = ["--data", str(clips / motion.name), "-o", str(output), *steps, *motion.training]
    said = run([*DYNAMICRAFTER, "train", RECIPES[way], *words])
    model = Path(said.splitlines()[-1])
    return model, float("nan") if begun else time.monotonic() - began


def make(motion: Motion, true: Path, output: Path, model: list[str]) -> np.ndarray:
    """The clip that a model makes of the true one's end or ends."""
    pictures = [str(true / f"{frame:04}.png") for frame in motion.ends]
    run([*DYNAMICRAFTER, motion.command, *pictures, motion.name, *model, "-o", str(output), "--quiet"])
    return np.load(output)


DYNAMICRAFTER = [sys.executable, "-m", "dynamicrafter.cli"]


def run(words: list[str]) -> str:
    """Run a command, whose progress is shown on stderr; its standard output."""
    print("$", *words, file=sys.stderr)
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure_swoosh(video: np.ndarray, _true: np.ndarray) -> Numbers:
    """Shift of the content a frame, pixels, right and down; and what else of a camera there should be none of."""
    camera, _ = measure_motion(video)
    return {
        "x": camera.x,
        "y": camera.y,
        "growth_percent": 100 * camera.log_zoom,
        "degrees": np.degrees(camera.rotation),
    }


def measure_hesitate(video: np.ndarray, true: np.ndarray) -> Numbers:
    """Shift of the content from the first frame to frame 7 and to the last, pixels; PSNR of the middle frames, dB."""
    shift = {frame: measure_motion(video[[0, frame]], step=1)[0].x for frame in (HALFWAY, LAST)}
    decibels = [min(psnr(made, wanted), 99.0) for made, wanted in zip(video[MIDDLE], true[MIDDLE], strict=True)]
    return {"x_at_7": shift[HALFWAY], "x_at_15": shift[LAST], "middle_psnr": fmean(decibels)}


MOTIONS = {
    "swoosh": Motion("swoosh", (), "animate", (0,), measure_swoosh),
    "hesitate": Motion("hesitate", ("--set", "objective.ends=1.0"), "interpolate", (0, LAST), measure_hesitate),
}


def mean(rows: list[Numbers]) -> Numbers:
    """Column by column."""
    return {name: float(fmean(row[name] for row in rows)) for name in rows[0]}


def table(report: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    lines = []
    for motion, rows in report.items():
        columns = list(dict.fromkeys(name for row in rows.values() for name in row))
        lines += [f"{motion:12}" + "".join(f"{name:>16}" for name in columns)]
        for way, row in rows.items():
            lines += [f"  {way:10}" + "".join(f"{row[n]:16.2f}" if n in row else f"{'':16}" for n in columns)]
    return lines


if __name__ == "__main__":
    main()
