"""Everything about a list that can be seen to be wrong before a model is loaded, all of it said at once."""

from __future__ import annotations

import json
import logging
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dynamicrafter.animator.options import PER_SHOT, AnimateOptions, check_prompt
from dynamicrafter.errors import InputError
from dynamicrafter.jobs.job import MOST_TAKES, CheckedJob, Job, JobsError, made_from
from dynamicrafter.media.formats import FORMATS, check_rate, check_size, choose_crf, find_format
from dynamicrafter.media.notes import parse_fps
from dynamicrafter.media.pictures import picture_hash, read_picture
from dynamicrafter.presets import PRESETS, Preset

RESULTS = "results.jsonl"


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture that can be read: hash of its pixels, height and width."""

    hash: str
    shape: tuple[int, int]


def check_jobs(
    source: Path, jobs: Sequence[Job], folder: Path, *, preset: Preset | None, model: dict[str, Any]
) -> list[CheckedJob]:
    """Check every job of a list.

    Args:
        source: of the list, for messages.
        folder: the outputs'; need not exist yet.
        preset: of the model, where its name tells; options are held against it.
        model: what tells the model from others.

    Returns:
        The jobs, in their order.

    Raises:
        JobsError: pictures that can't be read, options that break rules, outputs that would replace one another or a
            picture.
    """
    checked, problems = [], []
    pictures: dict[Path, _Picture | InputError] = {}
    for job in jobs:
        try:
            checked.append(_checked(job, pictures, preset=preset, model=model))
        except InputError as error:
            problems.append(f"{job.where}: {error}")
    problems += _clashes(jobs, folder)
    if problems:
        raise JobsError(source, problems)
    return checked


def _checked(
    job: Job, pictures: dict[Path, _Picture | InputError], *, preset: Preset | None, model: dict[str, Any]
) -> CheckedJob:
    if not 1 <= job.samples <= MOST_TAKES:
        raise InputError(f"samples must be between 1 and {MOST_TAKES}, got {job.samples}; try 1.")
    check_prompt("prompt", job.prompt)
    check_prompt("negative", job.options.negative)
    seen = [_look(path, pictures) for path in job.pictures]
    shape = seen[0].shape
    with _muted(AnimateOptions.__module__, when=preset is None):  # what it warns of depends on the real preset
        resolved = job.options.resolved(preset or PRESETS["512_interp"], mode=job.mode, picture=shape)
    assert isinstance(resolved.size, tuple)
    assert resolved.steps is not None
    clip_format = find_format(Path("clip"), job.format)
    find_format(Path(job.key + clip_format.suffix), job.format)
    choose_crf(job.crf, clip_format)
    check_size(*resolved.size, clip_format)
    if job.fps is not None:
        check_rate(parse_fps(job.fps), clip_format)
    hashes = tuple(picture.hash for picture in seen)
    return CheckedJob(
        job=job,
        hashes=hashes,
        made_from=made_from(job, hashes, preset=preset, model=model),
        together=_shared(job.mode, job.options, shape) if preset is None else _shared(job.mode, resolved, None),
        weight=float(resolved.steps * resolved.frames * resolved.size[0] * resolved.size[1]),
    )


def _shared(mode: str, options: AnimateOptions, picture: tuple[int, int] | None) -> str:
    """What takes of one batch must have in common, as text; the picture's shape too, where size auto stands open."""
    names = sorted({option.name for option in fields(AnimateOptions)} - PER_SHOT)
    values = {name: getattr(options, name) for name in names}
    return json.dumps([mode, values, picture if options.size == "auto" else None])


def _look(path: Path, pictures: dict[Path, _Picture | InputError]) -> _Picture:
    """What there is to know of a picture; each file is read once, however many jobs are made of it."""
    if path not in pictures:
        try:
            picture = read_picture(path)
            pictures[path] = _Picture(picture_hash(picture), (picture.height, picture.width))
        except InputError as error:
            pictures[path] = error
    found = pictures[path]
    if isinstance(found, InputError):
        raise found
    return found


def _clashes(jobs: Sequence[Job], folder: Path) -> Iterator[str]:
    """Outputs that would replace another, on any system, or something that isn't an output."""
    owners: dict[str, tuple[str, Job]] = {_folded(RESULTS): (RESULTS, _NO_JOB)}
    pictures = {path.resolve(): path for job in jobs for path in job.pictures if path.exists()}
    for job in jobs:
        if job.format not in FORMATS or job.samples > MOST_TAKES:  # which is said elsewhere
            continue
        for name in map(job.output, range(job.samples)):
            if (picture := pictures.get((folder / name).resolve())) is not None:
                yield f"{job.where}: output {name} would replace the picture {picture}; choose another folder or name."
            taken, owner = owners.setdefault(_folded(name), (name, job))
            if owner is job:
                continue
            by = "the account of what is done" if owner is _NO_JOB else f"{owner.where} ({owner.key!r})"
            differs = "" if taken == name else f", which some systems take for {taken},"
            yield f"{job.where}: output {name}{differs} is also that of {by}; give one another name."


_NO_JOB = Job(key="", where="", pictures=())


def _folded(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@contextmanager
def _muted(name: str, *, when: bool) -> Iterator[None]:
    log = logging.getLogger(name)
    before = log.disabled
    log.disabled = before or when
    try:
        yield
    finally:
        log.disabled = before
