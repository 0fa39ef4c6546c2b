"""`batch`: a list of jobs, checked whole, made by as many workers as there are, and never twice."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import psutil
from tqdm import tqdm
from tyro.conf import Positional, arg

from dynamicrafter.cli.commands import Silent, Switch
from dynamicrafter.cli.console import Progress, Stopped, importing, say, time_in_words, warn
from dynamicrafter.errors import InputError
from dynamicrafter.jobs.checks import check_jobs
from dynamicrafter.jobs.cluster import RayPool
from dynamicrafter.jobs.job import CheckedJob, Defaults, JobsError
from dynamicrafter.jobs.ledger import LedgerEntry, read_entries
from dynamicrafter.jobs.lists import read_jobs
from dynamicrafter.jobs.local import LocalPool
from dynamicrafter.jobs.plan import BatchPlan, make_plan
from dynamicrafter.jobs.pool import WorkerPool
from dynamicrafter.jobs.run import run_list
from dynamicrafter.jobs.worker import WorkerReady, WorkerSetup
from dynamicrafter.modes import MODE
from dynamicrafter.schema import Range, Unset
from dynamicrafter.specs.model import ModelDescription, ModelSpec
from dynamicrafter.specs.options import AnimateOptions
from dynamicrafter.specs.output import OutputOptions

logger = logging.getLogger(__name__)

SOME_FAILED = 3  # exit code
_SHOWN = 50  # problems of a list that are said
_WORKER_BYTES = 1 << 30  # of memory that a worker takes beside its weights, on a CPU
_COUNT = Range(1, 100_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFlags(OutputOptions):
    """What jobs take where the list says nothing, and where the clips go."""

    output: Annotated[Path | None, arg(aliases=["-o"], metavar="DIR", help_behavior_hint="(required)")] = None
    """Folder for the clips and results.jsonl; made where it isn't there."""
    prompt: Annotated[str | None, Silent] = None
    """What happens, for all that have no prompt of their own."""
    mode: Annotated[str | None, MODE, Unset("by the number of pictures")] = None
    """What is made of pictures: animate or loop of one, interpolate of two."""
    published_layout: Annotated[Switch, Silent] = False
    """The folder's text file holds the prompts: line k for the k-th picture, in natural order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFlags:
    """Who makes them."""

    workers: Annotated[int | None, _COUNT, Unset("one a device; on a CPU, what it bears")] = None
    """How many workers, each with the model loaded."""
    devices: Annotated[str | None, arg(metavar="LIST"), Unset("all GPUs, or the CPU")] = None
    """Devices for the workers, such as cuda:0,cuda:1."""
    threads: Annotated[int, _COUNT] = 1
    """CPU threads of each worker; another number rounds otherwise."""
    batch_size: Annotated[int, _COUNT] = 1
    """How many clips of one size and steps go through the network together; rounds otherwise than one by one."""
    ray: Annotated[str | None, arg(metavar="ADDRESS"), Silent] = None
    """Work on a Ray cluster: HOST:PORT, ray://HOST:PORT, auto, or local for one on this machine."""
    check: Annotated[Switch, Silent] = False
    """Check the list, say what there is to do, and stop."""
    quiet: Annotated[Switch, arg(aliases=["-q"]), Silent] = False
    """Say nothing but warnings, errors and the clips' paths."""


@dataclass(frozen=True, kw_only=True)
class BatchCommand:
    """Make the clips of a list, and go on where it was stopped: dynamicrafter batch jobs.csv -o clips"""

    jobs: Annotated[Path, Positional, arg(metavar="JOBS"), Silent]
    """A list (.csv, .jsonl), a column for each option, or a folder of pictures with prompts in .txt files."""
    job: JobFlags = field(default_factory=JobFlags)
    """What jobs take where the list says nothing, and where the clips go."""
    clip: AnimateOptions = field(default_factory=AnimateOptions)
    """How clips are made, where the list says nothing."""
    work: WorkerFlags = field(default_factory=WorkerFlags)
    """Who makes them."""
    model: ModelSpec = field(default_factory=ModelSpec)
    """What makes them."""


def run(command: BatchCommand) -> int:
    """Check, plan and make a list; each clip's path goes to stdout once its file is complete.

    Returns:
        0 where all jobs are done, `SOME_FAILED` where some failed.

    Raises:
        InputError: whatever can be seen to be wrong, before a model is loaded.
        Stopped: interrupted; says how many jobs are done.
    """
    began = time.monotonic()
    if command.job.output is None:
        raise InputError("--output is missing; name a folder for the clips: -o clips")
    folder, watcher = command.job.output, _Watcher(quiet=command.work.quiet)
    try:
        model, checked = _checked(command, watcher.progress)
        if command.work.check:
            entries = read_entries(folder) if folder.is_dir() else {}
            watcher.planned(make_plan(command.jobs, checked, folder, entries, batch_size=command.work.batch_size))
            return 0
        open_pool = partial(_open_pool, command, model, watcher.progress)
        entries = run_list(
            command.jobs, checked, folder, batch_size=command.work.batch_size, open_pool=open_pool, watcher=watcher
        )
    except JobsError as error:
        raise _told(error) from None
    except KeyboardInterrupt:
        if not watcher.num_jobs:
            raise
        raise Stopped(
            f"stopped; {watcher.num_done} of {watcher.num_jobs} jobs are done; the same command goes on from there"
        ) from None
    finally:
        watcher.close()
    return _summary(entries, watcher.progress, time.monotonic() - began)


def _told(error: JobsError) -> InputError:
    """Say each problem on a line of its own; what is left to be raised is their number."""
    if len(error.problems) == 1:
        for line in error.details:
            say(line)
        return InputError(f"{error}")
    for problem in error.problems[:_SHOWN]:
        say(problem)
    for line in error.details:
        say(line)
    more = f", of which the first {_SHOWN} are listed" if len(error.problems) > _SHOWN else ""
    return InputError(f"{len(error.problems)} problems{more}; mend them all, and run it again. Nothing was made.")


def _checked(command: BatchCommand, progress: Progress) -> tuple[ModelDescription, list[CheckedJob]]:
    """What is known of the model, and the jobs of the list, all of them checked."""
    job = command.job
    output = OutputOptions(format=job.format, fps=job.fps, crf=job.crf, samples=job.samples)
    defaults = Defaults(prompt=job.prompt, mode=job.mode, options=command.clip, output=output)
    problems: tuple[str, ...] = ()
    try:
        jobs = read_jobs(command.jobs, defaults, published_layout=job.published_layout)
    except JobsError as error:
        if not error.jobs:
            raise
        jobs, problems = list(error.jobs), error.problems
    progress.phase(f"Checking {len(jobs)} jobs…")
    with importing():
        from dynamicrafter.pipeline.describing import describe
    model = describe(command.model, modes={job.clip.mode for job in jobs})
    assert job.output is not None
    checked, notes = check_jobs(command.jobs, jobs, job.output, model=model, problems=problems)
    warn(notes)
    return model, checked


def _open_pool(
    command: BatchCommand, model: ModelDescription, progress: Progress, num_batches: int, aside: Path
) -> WorkerPool:
    work, setup = command.work, WorkerSetup(model=model.spec, threads=command.work.threads)
    if work.ray is not None:
        if work.devices is not None:
            raise InputError("--devices must be left out with --ray, which finds the cluster's own.")
        setup = replace(setup, model=model.spec.from_anywhere())
        progress.phase(f"Joining ray's cluster {work.ray}, and loading {model.name} there…")
        return RayPool(setup, work.ray, num_workers=work.workers, most=num_batches)
    devices = _devices(command, model)[:num_batches]
    progress.phase(f"Loading {model.name} on {len(devices)} worker{'s' if len(devices) > 1 else ''}…")
    return LocalPool(setup, devices, aside=aside)


def _devices(command: BatchCommand, model: ModelDescription) -> list[str]:
    """A device for each worker."""
    work = command.work
    if work.devices is not None:
        if command.model.device is not None:
            raise InputError("--device and --devices exclude each other; leave one out.")
        devices = [device.strip() for device in work.devices.split(",")]
    elif command.model.device is not None:
        devices = [command.model.device]
    else:
        from dynamicrafter.memory.devices import all_devices

        devices = all_devices()
    num_workers = work.workers or (_bearable(model, work.threads) if devices == ["cpu"] else len(devices))
    return [devices[number % len(devices)] for number in range(num_workers)]


def _bearable(model: ModelDescription, threads: int) -> int:
    """How many workers a CPU's cores and memory bear; what they make doesn't depend on it."""
    path = model.path
    files = [] if path is None else [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    each = _WORKER_BYTES + sum(file.stat().st_size for file in files)
    return max(1, min((psutil.cpu_count() or 1) // threads, psutil.virtual_memory().available // each))


class _Watcher:
    """Tells on stderr how a list goes, and each finished clip's path on stdout."""

    def __init__(self, *, quiet: bool) -> None:
        self.progress = Progress(quiet=quiet)
        self.num_jobs = self.num_done = 0
        self._clips = self._clips_made = 0
        self._began = False

    def planned(self, plan: BatchPlan) -> None:
        takes = [take for batch in plan.batches for take in batch]
        self._clips = len(takes)
        to_make = len({take.of.job.key for take in takes})
        self.num_jobs, self.num_done = plan.num_jobs, plan.num_jobs - to_make
        for key, why in plan.again.items():
            self.progress.phase(f"{key} is made again: {why}")
        self.progress.phase(f"{plan.num_jobs} jobs, of which {self.num_done} are done; clips to make: {self._clips}")

    def ready(self, name: str, worker: WorkerReady) -> None:
        if not self._began:
            self._began = True
            self.progress.start()

    def lost(self, name: str, text: str) -> None:
        logger.warning("%s %s; another takes its place.", name, text)

    def made(self, path: Path, seconds: float) -> None:
        self._clips_made += 1
        tqdm.write(f"{path}\n", file=sys.stdout, end="")
        sys.stdout.flush()

    def ended(self, job: CheckedJob, error: str) -> None:
        if error:
            say(f"failed: {job.job.where} ({job.job.key}): {error}")
        else:
            self.num_done += 1

    def advanced(self, share: float) -> None:
        if self._began:
            self.progress.show(share, 1.0, f"{self._clips_made}/{self._clips} clips", counted=False)

    def close(self) -> None:
        self.progress.close()


def _summary(entries: dict[str, LedgerEntry], progress: Progress, seconds: float) -> int:
    failed = [key for key, entry in entries.items() if entry.status == "failed"]
    progress.phase(f"{len(entries) - len(failed)} of {len(entries)} jobs are done; {time_in_words(seconds)} in all")
    if not failed:
        return 0
    say(f"{len(failed)} jobs failed ({', '.join(failed)}); the same command tries these again")
    return SOME_FAILED
