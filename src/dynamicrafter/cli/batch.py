"""`batch`: a list of jobs, checked whole, made by as many workers as there are, and never twice."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import psutil
from tqdm import tqdm
from tyro.conf import Positional, arg

from dynamicrafter import hub
from dynamicrafter.animator.adapters import parse_adapters
from dynamicrafter.animator.options import AnimateOptions
from dynamicrafter.checkpoints.files import fingerprint
from dynamicrafter.cli.commands import ClipFlags, ModelFlags, Switch
from dynamicrafter.cli.console import Progress, Stopped, minutes, say
from dynamicrafter.cli.make import check_adapters, known_preset
from dynamicrafter.errors import InputError
from dynamicrafter.hub.names import SEEDED
from dynamicrafter.jobs.cells import parse_mode
from dynamicrafter.jobs.checks import check_jobs
from dynamicrafter.jobs.cluster import RayPool
from dynamicrafter.jobs.job import CheckedJob, Defaults, Job, JobsError
from dynamicrafter.jobs.ledger import Entry, read_entries
from dynamicrafter.jobs.lists import read_jobs
from dynamicrafter.jobs.local import LocalPool
from dynamicrafter.jobs.maker import Hello, Setup
from dynamicrafter.jobs.plan import Plan, make_plan
from dynamicrafter.jobs.run import run_list
from dynamicrafter.jobs.workers import Pool

logger = logging.getLogger(__name__)

SOME_FAILED = 3  # exit code
_SHOWN = 50  # problems of a list that are said
_PAUSE = 15.0  # seconds between two lines of progress where nobody watches
_WORKER_BYTES = 1 << 30  # of memory that a worker takes beside its weights, on a CPU
_BAR = "{desc} |{bar}|"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFlags:
    """What jobs take where the list says nothing, and where the clips go."""

    output: Annotated[Path | None, arg(aliases=["-o"], metavar="DIR", help_behavior_hint="(required)")] = None
    """Folder for the clips and results.jsonl; made where it isn't there."""
    prompt: Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")] = None
    """What happens, for all that have no prompt of their own."""
    mode: Annotated[str | None, arg(metavar="MODE", help_behavior_hint="(default: by the number of pictures)")] = None
    """What is made of pictures: animate or loop of one, interpolate of two."""
    published_layout: Annotated[Switch, arg(help_behavior_hint="")] = False
    """The folder's text file holds the prompts: line k for the k-th picture, in natural order."""
    format: Annotated[str, arg(metavar="NAME")] = "mp4"
    """mp4, mov, webm, gif, webp, npy or png (a folder)."""
    fps: Annotated[str | None, arg(metavar="NUMBER", help_behavior_hint="(default: 8)")] = None
    """Frames per second at which the clips play."""
    crf: Annotated[int | None, arg(help_behavior_hint="(default: mp4 16, webm 24)")] = None
    """Quality of mp4 (0 to 51) and webm (0 to 63); a smaller number looks better and makes a larger file."""
    samples: int = 1
    """How many takes to make of each job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFlags:
    """Who makes them."""

    workers: Annotated[int | None, arg(help_behavior_hint="(default: one a device; on a CPU, what it bears)")] = None
    """How many workers, each with the model loaded."""
    devices: Annotated[str | None, arg(metavar="LIST", help_behavior_hint="(default: all GPUs, or the CPU)")] = None
    """Devices for the workers, such as cuda:0,cuda:1."""
    threads: int = 1
    """CPU threads of each worker; another number rounds otherwise."""
    batch_size: int = 1
    """How many clips of one size and steps go through the network together; rounds otherwise than one by one."""
    ray: Annotated[str | None, arg(metavar="ADDRESS", help_behavior_hint="")] = None
    """Work on a Ray cluster: HOST:PORT, ray://HOST:PORT, auto, or local for one on this machine."""
    check: Annotated[Switch, arg(help_behavior_hint="")] = False
    """Check the list, say what there is to do, and stop."""
    quiet: Annotated[Switch, arg(aliases=["-q"], help_behavior_hint="")] = False
    """Say nothing but warnings, errors and the clips' paths."""


@dataclass(frozen=True, kw_only=True)
class BatchCommand:
    """Make the clips of a list, and go on where it was stopped: dynamicrafter batch jobs.csv -o clips"""

    jobs: Annotated[Positional[Path], arg(metavar="JOBS", help_behavior_hint="")]
    """A list (.csv, .jsonl), a column for each option, or a folder of pictures with prompts in .txt files."""
    job: JobFlags = field(default_factory=JobFlags)
    """What jobs take where the list says nothing, and where the clips go."""
    clip: ClipFlags = field(default_factory=ClipFlags)
    """How clips are made, where the list says nothing."""
    work: WorkerFlags = field(default_factory=WorkerFlags)
    """Who makes them."""
    model: ModelFlags = field(default_factory=ModelFlags)
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
    for name in ("workers", "threads", "batch_size"):
        value = getattr(command.work, name)
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}; try 1.")
    folder, watcher = command.job.output, _Watcher(quiet=command.work.quiet)
    try:
        name, checked = _checked(command, watcher.progress)
        if command.work.check:
            entries = read_entries(folder) if folder.is_dir() else {}
            watcher.planned(make_plan(command.jobs, checked, folder, entries, batch_size=command.work.batch_size))
            return 0
        open_pool = partial(_open_pool, command, name, watcher.progress)
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


def _checked(command: BatchCommand, progress: Progress) -> tuple[str, list[CheckedJob]]:
    """The model's name, and the jobs of the list, all of them checked."""
    job = command.job
    defaults = Defaults(
        prompt=job.prompt,
        mode=None if job.mode is None else parse_mode(job.mode),
        options=AnimateOptions(**command.clip.as_dict()),
        samples=job.samples,
        format=job.format,
        fps=job.fps,
        crf=job.crf,
    )
    jobs = read_jobs(command.jobs, defaults, published_layout=job.published_layout)
    check_adapters(command.model)
    name = command.model.model or _best_model(jobs)
    progress.phase(f"Checking {len(jobs)} jobs…")
    assert job.output is not None
    return name, check_jobs(
        command.jobs, jobs, job.output, preset=known_preset(command.model, name), model=_identity(name, command.model)
    )


def _best_model(jobs: Sequence[Job]) -> str:
    """The model for all modes of a list.

    Raises:
        InputError: they call for different ones.
    """
    names = {str(hub.best_local(job.mode).preset) for job in jobs}
    if len(names) > 1:
        raise InputError(f"model must be named, as this list's modes call for {' and '.join(sorted(names))}; --model.")
    return names.pop()


def _identity(name: str, flags: ModelFlags) -> dict[str, Any]:
    """What tells a model, as it is set up, from others. What is not on this machine is fetched now, if ever."""
    path = None if name.startswith(SEEDED) else hub.resolve(name, download=flags.download).path
    encoders = None if flags.encoders is None else fingerprint(hub.find_encoders(str(flags.encoders)))
    return {
        "model": name if path is None else fingerprint(path),
        "preset": flags.preset,
        "encoders": encoders,
        "lora": [f"{fingerprint(adapter.path)}:{adapter.scale!r}" for adapter in parse_adapters(flags.lora)],
        "dtype": flags.dtype,
        "memory": flags.memory,  # what makes a model fit may round otherwise
    }


def _open_pool(command: BatchCommand, name: str, progress: Progress, num_batches: int, aside: Path) -> Pool:
    work, model = command.work, command.model
    setup = Setup(
        model=name,
        preset=model.preset,
        encoders=None if model.encoders is None else str(model.encoders),
        device=model.device,
        dtype=model.dtype,
        lora=model.lora,
        memory=model.memory,
        threads=work.threads,
    )
    if work.ray is not None:
        if work.devices is not None:
            raise InputError("--devices must be left out with --ray, which finds the cluster's own.")
        setup = _as_seen_from_anywhere(setup)
        progress.phase(f"Joining ray's cluster {work.ray}, and loading {name} there…")
        return RayPool(setup, work.ray, num_workers=work.workers, most=num_batches)
    devices = _devices(command, name)[:num_batches]
    progress.phase(f"Loading {name} on {len(devices)} worker{'s' if len(devices) > 1 else ''}…")
    return LocalPool(setup, devices, aside=aside)


def _as_seen_from_anywhere(setup: Setup) -> Setup:
    """The same with whole paths, as a cluster's workers don't run in this one's folder."""
    is_path = not setup.model.startswith(SEEDED) and hub.resolve(setup.model).path == Path(setup.model)
    return replace(
        setup,
        model=str(Path(setup.model).resolve()) if is_path else setup.model,
        encoders=None if setup.encoders is None else str(Path(setup.encoders).resolve()),
        lora=tuple(f"{adapter.path.resolve()}:{adapter.scale!r}" for adapter in parse_adapters(setup.lora)),
    )


def _devices(command: BatchCommand, name: str) -> list[str]:
    """A device for each worker."""
    work = command.work
    if work.devices is not None:
        if command.model.device is not None:
            raise InputError("--device and --devices exclude each other; leave one out.")
        devices = [device.strip() for device in work.devices.split(",")]
    elif command.model.device is not None:
        devices = [command.model.device]
    else:
        from dynamicrafter.animator.devices import all_devices

        devices = all_devices()
    num_workers = work.workers or (_bearable(name, work.threads) if devices == ["cpu"] else len(devices))
    return [devices[number % len(devices)] for number in range(num_workers)]


def _bearable(name: str, threads: int) -> int:
    """How many workers a CPU's cores and memory bear; what they make doesn't depend on it."""
    path = None if name.startswith(SEEDED) else hub.resolve(name).path
    files = [] if path is None else [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    each = _WORKER_BYTES + sum(file.stat().st_size for file in files)
    return max(1, min((psutil.cpu_count() or 1) // threads, psutil.virtual_memory().available // each))


class _Watcher:
    """Tells on stderr how a list goes, and each finished clip's path on stdout."""

    def __init__(self, *, quiet: bool) -> None:
        self.progress = Progress(quiet=quiet)
        self.num_jobs = self.num_done = 0
        self._clips = self._clips_made = 0
        self._said = time.monotonic()
        self._began: float | None = None
        self._open: dict[str, int] = {}
        self._bar: Any = None

    def planned(self, plan: Plan) -> None:
        takes = [take for batch in plan.batches for take in batch]
        self._clips = len(takes)
        to_make = len({take.of.job.key for take in takes})
        self.num_jobs, self.num_done = plan.num_jobs, plan.num_jobs - to_make
        for key, why in plan.again.items():
            self.progress.phase(f"{key} is made again: {why}")
        self.progress.phase(f"{plan.num_jobs} jobs, of which {self.num_done} are done; clips to make: {self._clips}")

    def ready(self, name: str, hello: Hello) -> None:
        if self._began is None:
            self._began = time.monotonic()
            if self.progress.watched and not self.progress.quiet:
                self._bar = tqdm(total=1.0, bar_format=_BAR, leave=False, file=sys.stderr, dynamic_ncols=True)

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
        if self._began is None:
            return
        spent = time.monotonic() - self._began
        left = f", {minutes(spent * (1 - share) / share)} left" if 0 < share < 1 else ""
        text = f"{self._clips_made}/{self._clips} clips{left}"
        if self._bar is not None:
            self._bar.n = share
            self._bar.set_description_str(text)
        elif time.monotonic() - self._said >= _PAUSE and share < 1:
            self._said = time.monotonic()
            self.progress.phase(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _summary(entries: dict[str, Entry], progress: Progress, seconds: float) -> int:
    failed = [key for key, entry in entries.items() if entry.status == "failed"]
    progress.phase(f"{len(entries) - len(failed)} of {len(entries)} jobs are done; {minutes(seconds)} in all")
    if not failed:
        return 0
    say(f"{len(failed)} jobs failed ({', '.join(failed)}); the same command tries these again")
    return SOME_FAILED
