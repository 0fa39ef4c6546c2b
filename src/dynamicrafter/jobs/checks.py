"""Everything about a list that can be seen to be wrong before a model is loaded, all of it said at once."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from dynamicrafter.errors import InputError
from dynamicrafter.jobs.job import CheckedJob, Job, JobsError, made_from
from dynamicrafter.specs.clip import check_clip
from dynamicrafter.specs.model import ModelDescription
from dynamicrafter.specs.pictures import LoadedPicture, load_picture

RESULTS = "results.jsonl"


def check_jobs(
    source: Path, jobs: Sequence[Job], folder: Path, *, model: ModelDescription, problems: Sequence[str] = ()
) -> tuple[list[CheckedJob], list[str]]:
    """Check every job of a list.

    Args:
        source: of the list, for messages.
        folder: the outputs'; need not exist yet.
        model: that is to make them; options are held against its preset.
        problems: that were seen in reading the list, to be told with the others.

    Returns:
        The jobs, in their order, and what a person should know of them, each note once.

    Raises:
        JobsError: pictures that can't be read, options that break rules, outputs that would replace one another or a
            picture.
    """
    checked, problems = [], list(problems)
    notes: dict[str, None] = {}
    pictures: dict[Path, LoadedPicture | InputError] = {}
    for job in jobs:
        try:
            checked.append(_checked(job, pictures, model))
        except InputError as error:
            problems.append(f"{job.where}: {error}")
        else:
            notes |= dict.fromkeys(checked[-1].clip.notes)
    problems += _clashes(jobs, folder)
    if problems:
        raise JobsError(source, problems)
    return checked, list(notes)


def _checked(job: Job, pictures: dict[Path, LoadedPicture | InputError], model: ModelDescription) -> CheckedJob:
    spec = replace(job.clip, pictures=tuple(_loaded(path, pictures) for path in job.pictures))
    clip = check_clip(spec, model.preset, motions=model.motions)
    job.output.check(clip.options.size)
    return CheckedJob(job=job, clip=clip, made_from=made_from(job, clip, preset=model.preset, model=model.identity()))


def _loaded(path: Path, pictures: dict[Path, LoadedPicture | InputError]) -> LoadedPicture:
    """A picture; each file is read once, however many jobs are made of it."""
    if path not in pictures:
        try:
            pictures[path] = load_picture(path)
        except InputError as error:
            pictures[path] = error
    found = pictures[path]
    if isinstance(found, InputError):
        raise found
    return found


def _clashes(jobs: Sequence[Job], folder: Path) -> Iterator[str]:
    """Outputs that would replace another, on any system, or something that isn't an output."""
    owners: dict[str, tuple[str, Job | None]] = {_folded(RESULTS): (RESULTS, None)}
    pictures = {path.resolve(): path for job in jobs for path in job.pictures if path.exists()}
    for job in jobs:
        for name in map(job.output_name, range(job.output.samples)):
            if (picture := pictures.get((folder / name).resolve())) is not None:
                yield f"{job.where}: output {name} would replace the picture {picture}; choose another folder or name."
            taken, owner = owners.setdefault(_folded(name), (name, job))
            if owner is job:
                continue
            by = "the account of what is done" if owner is None else f"{owner.where} ({owner.key!r})"
            differs = "" if taken == name else f", which some systems take for {taken},"
            yield f"{job.where}: output {name}{differs} is also that of {by}; give one another name."


def _folded(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
