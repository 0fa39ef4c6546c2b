"""Small stories for the tests: files, and what they need beside them."""

import os
import textwrap
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from dynamicrafter.presets import get_preset
from dynamicrafter.specs.model import ModelDescription, ModelSpec

ROOT = Path(__file__).parent.parent
TINY = ModelDescription(
    spec=ModelSpec(name="seeded:tiny"), preset=replace(get_preset("512"), height=64, width=64), path=None
)


def write_story(folder: Path, text: str, *, name: str = "story.yaml") -> Path:
    """A story's file with two pictures beside it."""
    for file, color in (("red.png", (200, 40, 30)), ("blue.png", (20, 60, 220))):
        if not (folder / file).exists():
            ramp = np.linspace(0.5, 1, 64)[None, :, None] * np.array(color)
            Image.fromarray(np.repeat(ramp, 64, axis=0).round().astype(np.uint8)).save(folder / file)
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def write_tone(path: Path, *, seconds: float, rate: int = 22_050) -> Path:
    """A WAV file of one channel: 440 Hz at six tenths of the loudest."""
    t = np.arange(round(seconds * rate)) / rate
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((0.6 * 32767 * np.sin(2 * np.pi * 440 * t)).astype("<i2").tobytes())
    return path


def run_command(folder: Path, words: list[str]) -> None:
    """The command line, run in a folder by a process of its own, which ends with its exit code."""
    import torch

    from dynamicrafter.cli.main import main

    os.chdir(folder)
    torch.set_num_threads(1)
    raise SystemExit(main(words))


def complete_clips(folder: Path) -> dict[str, tuple[int, int]]:
    """Which clips a folder of shots holds, each with what tells one making of it from another."""
    found = {path.parent.name: path.stat() for path in folder.glob("[!.]*/clip.json")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}
