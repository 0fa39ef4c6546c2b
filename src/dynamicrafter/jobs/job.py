"""A job of a list, the takes that it asks for, and what decides their frames."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dynamicrafter.animator.options import AnimateOptions, Mode
from dynamicrafter.errors import InputError
from dynamicrafter.media.formats import FORMATS
from dynamicrafter.presets import Preset

LONGEST_KEY = 150  # bytes; file systems take names of 255, and a hidden name and an extension are made of it
MOST_TAKES = 1000  # of one job


class JobsError(InputError):
    """A list of jobs breaks rules, perhaps several.

    Attributes:
        problems: one line each, with the file and the line in it.
        details: lines that show what the first problem is about.
    """

    def __init__(self, source: Path, problems: Sequence[str], details: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        self.details = tuple(details)
        many = f"{source} has {len(problems)} problems; the first: " if len(problems) > 1 else ""
        super().__init__(f"{many}{problems[0]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One line of a list.

    Attributes:
        key: names its outputs and, beside the seed, its random stream.
        where: its place in the list, for messages.
        pictures: one, or two to interpolate between.
        samples: how many takes.
        format, fps, crf: of the outputs, as `Clip.save` takes them.
    """

    key: str
    where: str
    pictures: tuple[Path, ...]
    prompt: str = ""
    mode: Mode = "animate"
    options: AnimateOptions = field(default_factory=AnimateOptions)
    samples: int = 1
    format: str = "mp4"
    fps: str | None = None
    crf: int | None = None

    def output(self, sample: int) -> str:
        """Name of a take's file, or its folder for PNG: KEY, KEY-2, KEY-3, …"""
        return self.key + ("" if sample == 0 else f"-{sample + 1}") + FORMATS[self.format].suffix


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a job takes where its line says nothing; a prompt or mode of None is not given."""

    prompt: str | None = None
    mode: Mode | None = None
    options: AnimateOptions = field(default_factory=AnimateOptions)
    samples: int = 1
    format: str = "mp4"
    fps: str | None = None
    crf: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckedJob:
    """A job that passed all checks, with what decides its frames.

    Attributes:
        hashes: of the pictures' pixels.
        made_from: plain values; equal ones give equal files. Where pictures lie doesn't count.
        together: equal for jobs that may go through the network as one batch.
        weight: how much there is to compute, in steps × frames × pixels.
    """

    job: Job
    hashes: tuple[str, ...]
    made_from: dict[str, Any]
    together: str
    weight: float

    @property
    def fingerprint(self) -> str:
        """16 hex digits of `made_from`, which its outputs carry."""
        return hashlib.sha256(json.dumps(self.made_from, sort_keys=True).encode()).hexdigest()[:16]


def made_from(job: Job, hashes: Sequence[str], *, preset: Preset | None, model: dict[str, Any]) -> dict[str, Any]:
    """What decides a job's files, as JSON has it.

    Options at the preset's own values are left out, so that an option which a later version adds changes nothing.

    Args:
        preset: of the model, where its name tells.
        model: what tells it from others.
    """
    given, usual = job.options, AnimateOptions()
    if preset is not None:
        given, usual = given.resolved(preset, mode=job.mode), usual.resolved(preset, mode=job.mode)
    names = [option.name for option in fields(AnimateOptions)]
    options = {name: getattr(given, name) for name in names if getattr(given, name) != getattr(usual, name)}
    values = {
        "mode": job.mode,
        "prompt": job.prompt,
        "pictures": list(hashes),
        "options": options,
        "format": job.format,
        "fps": job.fps,
        "crf": job.crf,
        "model": model,
    }
    return json.loads(json.dumps(values))


def check_key(key: str) -> None:
    """Raises InputError unless a key can name a file in the output folder on any system, and nothing outside it."""
    if not key or key != key.strip():
        raise InputError(f"name must not be empty nor begin or end with a space, got {key!r}; try clip.")
    if any(sign in key for sign in "/\\") or not key.isprintable():
        raise InputError(f"name must not hold / or \\ or control characters, got {key!r}; it names files.")
    if key.startswith(".") or key.endswith("."):
        raise InputError(f"name must neither begin nor end with a dot, got {key!r}; try {key.strip('.') or 'clip'!r}.")
    if len(key.encode()) > LONGEST_KEY:
        raise InputError(f"name must be at most {LONGEST_KEY} bytes, got {len(key.encode())} ({key[:30]!r}…).")
