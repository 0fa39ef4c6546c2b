"""Hand out batches, publish what comes back, give each job its line, and try again what got lost."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from dynamicrafter.errors import InputError, MachineError, OutputError
from dynamicrafter.files.atomic import is_disk_full, one_line_errors
from dynamicrafter.jobs.job import CheckedJob
from dynamicrafter.jobs.ledger import Ledger, LedgerEntry, folder_locked, opened, read_entries
from dynamicrafter.jobs.outputs import OutputFolder, opened_outputs
from dynamicrafter.jobs.plan import Batch, BatchPlan, Take, make_plan, takes_of
from dynamicrafter.jobs.pool import StepDone, WorkerEvent, WorkerLost, WorkerPool
from dynamicrafter.jobs.worker import SentPicture, Task, TasksDone, TasksFailed, WorkerReady

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 3  # at a batch whose worker dies under it
_PAUSE = 1.0  # seconds between looks at the clock where nothing comes in


class BatchObserver(Protocol):
    """Who is told how it goes."""

    def planned(self, plan: BatchPlan) -> None: ...
    def ready(self, name: str, worker: WorkerReady) -> None: ...
    def lost(self, name: str, text: str) -> None: ...
    def made(self, path: Path, seconds: float) -> None: ...
    def ended(self, job: CheckedJob, error: str) -> None:
        """A job has its line; the error is empty where it is done."""
        ...

    def advanced(self, share: float) -> None:
        """Called now and then with the share of all that was to be computed, 0 to 1."""
        ...


@dataclass(slots=True)
class _Work:
    """A batch under way.

    Attributes:
        attempts: how often it was begun.
        share: how far its steps are, 0 to 1.
    """

    takes: Batch
    attempts: int = 0
    share: float = 0.0

    @property
    def weight(self) -> float:
        return sum(take.of.weight for take in self.takes)


@dataclass(slots=True)
class _Account:
    """What is known of a job whose takes aren't all settled."""

    open: set[int]
    made: set[int]
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    attempts: int = 1
    worker: str = ""


class BatchRun:
    """One run through a plan.

    Args:
        plan: see `plan.make_plan`.
        pool: the workers, which the caller closes.
        outputs, ledger: where clips and lines go.
        watcher: is told how it goes.
    """

    def __init__(
        self, plan: BatchPlan, pool: WorkerPool, outputs: OutputFolder, ledger: Ledger, watcher: BatchObserver
    ) -> None:
        self._pool = pool
        self._outputs = outputs
        self._ledger = ledger
        self._watcher = watcher
        self._queue = deque(_Work(batch) for batch in plan.batches)
        self._busy: dict[str, _Work] = {}
        self._ready: set[str] = set()
        self._lost_in_a_row = 0
        self._accounts = _accounts(plan)
        self._total = sum(work.weight for work in self._queue)
        self._settled = 0.0

    def go(self) -> None:
        """Make everything.

        Raises:
            InputError: the workers can't do with what they are given, such as the model.
            OutputError: clips or lines can't be written.
            MachineError: no worker lives to load the model.
        """
        while self._queue or self._busy:
            self._hand_out()
            for event in self._pool.wait(_PAUSE):
                self._heed(event)
            self._watcher.advanced(self._share())

    def _hand_out(self) -> None:
        for name in self._pool.idle():
            while self._queue and name not in self._busy:
                work = self._queue.popleft()
                try:
                    tasks = [_task(take, self._outputs.path) for take in work.takes]
                except InputError as error:
                    self._give_up(work, str(error), name)
                    continue
                work.attempts += 1
                self._busy[name] = work
                self._pool.give(name, tasks)

    def _heed(self, event: WorkerEvent) -> None:
        match event.what:
            case WorkerReady() as ready:
                self._ready.add(event.name)
                self._lost_in_a_row = 0
                self._watcher.ready(event.name, ready)
            case StepDone(done=done, steps=steps):
                self._busy[event.name].share = done / steps
            case TasksDone() as made:
                self._publish(self._busy.pop(event.name), made, event.name)
            case TasksFailed() as refused if event.name in self._ready:
                self._refused(event.name, refused)
            case TasksFailed(text=text, by_rule=by_rule):
                raise InputError(text) if by_rule else MachineError(f"the model could not be loaded: {text}")
            case WorkerLost(text=text):
                self._lost(event.name, text)

    def _refused(self, name: str, refused: TasksFailed) -> None:
        work = self._busy.pop(name)
        if is_disk_full(refused.text):  # all that follow would be computed and lost
            raise OutputError(refused.text)
        if refused.broken:
            self._ready.discard(name)
            self._pool.replace(name)
        self._give_up(work, refused.text, name)

    def _lost(self, name: str, text: str) -> None:
        self._watcher.lost(name, text)
        self._ready.discard(name)
        work = self._busy.pop(name, None)
        if work is None:
            self._lost_in_a_row += 1
            if self._lost_in_a_row >= MOST_ATTEMPTS:
                raise MachineError(
                    f"{MOST_ATTEMPTS} workers in a row were lost before they were ready (the last {text}); is there "
                    f"memory for the model? Try fewer --workers."
                )
        elif work.attempts < MOST_ATTEMPTS:
            work.share = 0.0
            self._queue.appendleft(work)
        else:
            self._give_up(work, f"its worker {text}, {MOST_ATTEMPTS} times", name)

    def _give_up(self, work: _Work, error: str, name: str) -> None:
        """Record a failure; of a batch of several, only once each has failed on its own."""
        if len(work.takes) > 1:
            logger.warning("a batch of %d clips failed, and each is made on its own: %s", len(work.takes), error)
            self._queue.extendleft(_Work((take,)) for take in reversed(work.takes))
            return
        self._settled += work.weight
        [take] = work.takes
        account = self._accounts[take.of]
        account.errors.append(error)
        account.open.discard(take.sample)
        account.attempts, account.worker = max(account.attempts, work.attempts), name
        self._record([take.of])

    def _publish(self, work: _Work, made: TasksDone, name: str) -> None:
        for text in made.warnings:
            logger.warning("%s", text)
        paths = []
        for take, product in zip(work.takes, made.products, strict=True):
            path = self._outputs.publish(product)
            account = self._accounts[take.of]
            account.open.discard(take.sample)
            account.made.add(take.sample)
            account.seconds += made.seconds / len(work.takes)
            account.attempts, account.worker = max(account.attempts, work.attempts), name
            paths.append(path)
        self._settled += work.weight
        self._record(list(dict.fromkeys(take.of for take in work.takes)))
        for path in paths:
            self._watcher.made(path, made.seconds / len(work.takes))

    def _record(self, jobs: Sequence[CheckedJob]) -> None:
        """Give a line to each job that has nothing open any more, all in one piece."""
        ended = [job for job in jobs if not self._accounts[job].open]
        self._ledger.append(_entry(job, self._accounts[job]) for job in ended)
        for job in ended:
            self._watcher.ended(job, next(iter(self._accounts[job].errors), ""))

    def _share(self) -> float:
        under_way = sum(work.weight * work.share for work in self._busy.values())
        return (self._settled + under_way) / self._total if self._total else 1.0


def run_list(
    source: Path,
    jobs: Sequence[CheckedJob],
    folder: Path,
    *,
    batch_size: int,
    open_pool: Callable[[int, Path], WorkerPool],
    watcher: BatchObserver,
) -> dict[str, LedgerEntry]:
    """Make what is missing of a list, and nothing that is there.

    Args:
        source: of the list, for messages.
        folder: the outputs'; made where its own folder exists.
        open_pool: starts workers for so many batches, with a place for unfinished files; called where any is missing.

    Returns:
        How each job of the list ended, by key; those of this run and of earlier ones.

    Raises:
        InputError, OutputError, MachineError: see `Run.go`, `plan.make_plan` and `ledger.read_entries`.
    """
    _make_folder(folder)
    with folder_locked(folder):
        plan = make_plan(source, jobs, folder, read_entries(folder), batch_size=batch_size)
        watcher.planned(plan)
        with opened_outputs(folder) as outputs, opened(folder, plan.kept, aside=outputs.aside) as ledger:
            ledger.append(_entry(job, _Account(set(), set(range(job.job.output.samples)))) for job in plan.complete)
            if plan.batches:
                with closing(open_pool(len(plan.batches), outputs.aside)) as pool, _full_disks_stop():
                    BatchRun(plan, pool, outputs, ledger, watcher).go()
            return {job.job.key: ledger.entries[job.job.key] for job in jobs}


@contextmanager
def _full_disks_stop() -> Generator[None]:
    """Tell a disk that filled up meanwhile as the machine's fault, which ends the run at once with what is done."""
    try:
        yield
    except OutputError as error:
        if is_disk_full(str(error)):
            raise MachineError(str(error)) from error
        raise


def _make_folder(folder: Path) -> None:
    if not folder.parent.is_dir():
        raise OutputError(f"output {folder} can't be made: there is no folder {folder.parent}; create it first.")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"output {folder} is a file, where a folder for the clips is wanted; choose another name.")
    with one_line_errors(folder):
        folder.mkdir(exist_ok=True)


def _accounts(plan: BatchPlan) -> dict[CheckedJob, _Account]:
    accounts: dict[CheckedJob, _Account] = {}
    for take in (take for batch in plan.batches for take in batch):
        accounts.setdefault(take.of, _Account(set(), set())).open.add(take.sample)
    for job, account in accounts.items():
        account.made = {take.sample for take in takes_of(job) if take in plan.present}
    return accounts


def _entry(job: CheckedJob, account: _Account) -> LedgerEntry:
    return LedgerEntry(
        key=job.job.key,
        status="failed" if account.errors else "done",
        outputs=tuple(job.job.output_name(sample) for sample in sorted(account.made)),
        made_from=job.made_from,
        source=job.job.where,
        error=account.errors[0] if account.errors else "",
        seconds=round(account.seconds, 3),
        attempts=account.attempts,
        worker=account.worker,
    )


def _task(take: Take, folder: Path) -> Task:
    """All that a worker needs, pictures included.

    Raises:
        InputError: a picture is gone.
    """
    job = take.of.job
    return Task(
        clip=replace(job.clip, sample=take.sample),
        options=take.of.options,
        pictures=tuple(
            SentPicture(
                name=str(path),
                content=_content(path),
                path=_seen_from(path, folder),
                sha256=picture.sha256,
            )
            for path, picture in zip(job.pictures, take.of.clip.pictures, strict=True)
        ),
        output=replace(job.output, format=job.format),
        fingerprint=take.of.fingerprint,
        name=take.output,
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read any more ({error.strerror}).") from None


def _seen_from(path: Path, folder: Path) -> str:
    """A picture's path from the clips' folder, where `--like` looks, so that both can be moved together."""
    try:
        return os.path.relpath(path, folder)
    except ValueError:  # another drive
        return str(path.resolve())
