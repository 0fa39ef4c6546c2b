"""A job of a list, the takes that it asks for, and what decides their frames."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dynamicrafter.errors import InputError
from dynamicrafter.media.formats import FORMATS
from dynamicrafter.modes import Mode
from dynamicrafter.presets import Preset
from dynamicrafter.specs.clip import CheckedClip, ClipSpec
from dynamicrafter.specs.options import AnimateOptions, ResolvedOptions
from dynamicrafter.specs.output import OutputOptions

LONGEST_KEY = 150  # bytes; file systems take names of 255, and a hidden name and an extension are made of it
USUAL_FORMAT = "mp4"


class JobsError(InputError):
    """A list of jobs breaks rules, perhaps several.

    Attributes:
        problems: one line each, with the file and the line in it.
        details: lines that show what the first problem is about.
        jobs: of the lines that could be read.
    """

    def __init__(
        self, source: Path, problems: Sequence[str], details: Sequence[str] = (), jobs: Sequence[Job] = ()
    ) -> None:
        self.problems = tuple(sorted(problems, key=_line_of))
        self.details = tuple(details)
        self.jobs = tuple(jobs)
        many = f"{source} has {len(problems)} problems; the first: " if len(problems) > 1 else ""
        super().__init__(f"{many}{problems[0]}")


def _line_of(problem: str) -> int:
    """The line that a problem names; those of no line stay in front."""
    found = re.search(r", line (\d+)", problem)
    return int(found[1]) if found else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One line of a list.

    Attributes:
        where: its place in the list, for messages.
        clip: its first take, whose `item` is the job's key: it names the outputs and, beside the seed, the stream.
        output: form and number of takes.
    """

    where: str
    clip: ClipSpec
    output: OutputOptions = field(default_factory=OutputOptions)

    @property
    def key(self) -> str:
        return self.clip.item

    @property
    def pictures(self) -> tuple[Path, ...]:
        return tuple(Path(str(picture)) for picture in self.clip.pictures)

    @property
    def format(self) -> str:
        return self.output.format or USUAL_FORMAT

    def output_name(self, sample: int) -> str:
        """Name of a take's file, or its folder for PNG: KEY, KEY-2, KEY-3, …"""
        return self.key + ("" if sample == 0 else f"-{sample + 1}") + FORMATS[self.format].suffix


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a job takes where its line says nothing; a prompt or mode of None is not given."""

    prompt: str | None = None
    mode: Mode | None = None
    options: AnimateOptions = field(default_factory=AnimateOptions)
    output: OutputOptions = field(default_factory=OutputOptions)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CheckedJob:
    """A job that passed all checks, with what decides its frames.

    Attributes:
        clip: the job's, checked.
        made_from: plain values; equal ones give equal files. Where pictures lie doesn't count.
    """

    job: Job
    clip: CheckedClip
    made_from: dict[str, Any]

    @property
    def options(self) -> ResolvedOptions:
        return self.clip.options

    @property
    def weight(self) -> float:
        """How much there is to compute, in steps × frames × pixels."""
        height, width = self.options.size
        return float(self.options.steps * self.options.frames * height * width)

    @property
    def fingerprint(self) -> str:
        """16 hex digits of `made_from`, which its outputs carry."""
        return hashlib.sha256(json.dumps(self.made_from, sort_keys=True).encode()).hexdigest()[:16]


def made_from(job: Job, clip: CheckedClip, *, preset: Preset, model: dict[str, Any]) -> dict[str, Any]:
    """What decides a job's files, as JSON has it.

    Options at the preset's own values are left out, so that an option which a later version adds changes nothing.

    Args:
        clip: the job's, checked.
        model: what tells the model from others.
    """
    given = {**clip.options.as_dict(), "seed": job.clip.options.seed}
    usual = AnimateOptions().resolved(preset, mode=job.clip.mode).as_dict()
    names = [option.name for option in fields(AnimateOptions)]
    asked_auto = {"size": "auto"} if job.clip.options.size == "auto" else {}
    values = {
        "mode": job.clip.mode,
        "prompt": "; ".join(job.clip.prompts),
        "pictures": [picture.sha256 for picture in clip.pictures],
        "options": {name: given[name] for name in names if given[name] != usual[name]} | asked_auto,
        "format": job.format,
        "fps": job.output.fps,
        "crf": job.output.crf,
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
