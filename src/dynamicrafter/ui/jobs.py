"""The queue: one job per device at a time, in the order in which they came."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dynamicrafter.errors import InputError
from dynamicrafter.ui.engine import heard_warnings
from dynamicrafter.ui.log import pseudonym

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "failed", "cancelled"]

ABANDONED = 120.0  # seconds without anybody who watches, after which a job is not worth its device
_TYPICAL = 5  # the last so many jobs say how long the next ones may take

OUT_OF_MEMORY = "The server ran out of memory. Try a smaller size or fewer frames under “More options”."


class Cancelled(Exception):  # noqa: N818 it is no error
    """Raised inside a job's work to end it."""


@dataclass(eq=False)
class Job:
    """One request on its way. Written by the queue and its worker, read by anybody.

    Attributes:
        request: what is asked for.
        owner: whose it is.
        version: grows with every change, for those who watch.
        step, steps: done, and of all; 0 before the first.
        began, stepped: when the work and the last phase before the steps began, by the queue's clock.
        preview: a strip of frames as a `data:` address.
        notes: warnings, in words.
        problem: why it failed, in words.
        result: what the work returned.
    """

    request: Any
    owner: str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    state: State = "waiting"
    version: int = 0
    phase: str = ""
    step: int = 0
    steps: int = 0
    began: float = 0.0
    stepped: float = 0.0
    ended: float = 0.0
    preview: str = ""
    notes: list[str] = field(default_factory=list)
    problem: str = ""
    result: Any = None
    watchers: int = 0
    watched: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


class Progress:
    """What a running job's work calls; ends the work where it was cancelled or nobody watches any more."""

    def __init__(self, job: Job, clock: Callable[[], float]) -> None:
        self._job, self._clock = job, clock

    def on_phase(self, text: str) -> None:
        self._go_on()
        self._job.phase, self._job.stepped = text, self._clock()
        self._job.version += 1

    def on_step(self, done: int, steps: int) -> None:
        self._go_on()
        job = self._job
        job.step, job.steps = done, steps
        job.phase = "Decoding" if done == steps else ""
        job.version += 1

    def on_preview(self, address: str) -> None:
        self._job.preview = address
        self._job.version += 1

    def _go_on(self) -> None:
        job = self._job
        if job.stop.is_set() or is_abandoned(job, self._clock()):
            raise Cancelled


def is_abandoned(job: Job, now: float) -> bool:
    """Whether nobody has watched it for long."""
    return job.watchers == 0 and now - job.watched > ABANDONED


class JobQueue:
    """Takes jobs, and works through them with one thread per device.

    Args:
        workers: one function per device: (job, progress) → result.
        most_waiting: jobs that may wait; `most_each` of them for one owner, its running one included.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        workers: Sequence[Callable[[Job, Progress], Any]],
        *,
        most_waiting: int,
        most_each: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._most_waiting, self._most_each = most_waiting, most_each
        self._waiting: deque[Job] = deque()
        self._running: set[Job] = set()
        self._lasted: deque[float] = deque(maxlen=_TYPICAL)
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(work,), name=f"device {number}", daemon=True)
            for number, work in enumerate(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, request: Any, *, owner: str) -> Job:
        """Put a request at the end of the queue.

        Raises:
            InputError: the queue is full, or its owner's share of it.
        """
        job = Job(request, owner, watched=self.clock())
        with self._changed:
            if self._closed:
                raise InputError("the server is shutting down; try again when it is back.")
            if len(self._waiting) >= self._most_waiting:
                raise InputError(f"the queue is full ({len(self._waiting)} clips wait); try again in a few minutes.")
            if sum(other.owner == owner for other in (*self._waiting, *self._running)) >= self._most_each:
                raise InputError(
                    f"you have {self._most_each} clips in the queue already; wait for one of them or cancel it."
                )
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or let its work end after the step."""
        job.stop.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._finish(job, "cancelled")
                self._others_move_up()
            elif not job.is_over:
                job.phase = "Stopping"
                job.version += 1

    def unfinished(self, owner: str) -> list[Job]:
        """An owner's jobs that wait or are worked at, the oldest first."""
        with self._changed:
            return [job for job in (*self._running, *self._waiting) if job.owner == owner]

    def place(self, job: Job) -> int:
        """1 for the next one; 0 for a job that does not wait."""
        with self._changed:
            return self._waiting.index(job) + 1 if job in self._waiting else 0

    def seconds_until(self, place: int) -> float | None:
        """About how long a job at this place will wait, by how long the last ones took; None where none did."""
        with self._changed:
            if not self._lasted:
                return None
            typical = sum(self._lasted) / len(self._lasted)
            spent = sum(min(self.clock() - job.began, typical) for job in self._running)
            return max(0.0, (place * typical * min(1, len(self._running)) - spent) / len(self._threads))

    @property
    def counts(self) -> tuple[int, int]:
        """How many wait, and how many are worked at."""
        with self._changed:
            return len(self._waiting), len(self._running)

    def close(self) -> None:
        """Cancel everything, and wait a little for the work to end."""
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *self._running]
            self._changed.notify_all()
        for job in jobs:
            self.cancel(job)
        for thread in self._threads:
            thread.join(timeout=10)

    def _serve(self, work: Callable[[Job, Progress], Any]) -> None:
        while (job := self._take()) is not None:
            with heard_warnings() as job.notes:
                self._run(job, work)

    def _take(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            job = self._waiting.popleft()
            self._running.add(job)
            job.state, job.began = "running", self.clock()
            job.version += 1
            self._others_move_up()
            return job

    def _run(self, job: Job, work: Callable[[Job, Progress], Any]) -> None:
        state: State = "failed"
        try:
            job.result = work(job, Progress(job, self.clock))
            state = "done"
        except Cancelled:
            state = "cancelled"
        except InputError as error:
            job.problem = str(error)
        except Exception as error:  # whatever a job does, the next one is served
            job.problem = _in_words(error, job)
        with self._changed:
            self._running.discard(job)
            if state == "done":
                self._lasted.append(self.clock() - job.began)
            self._finish(job, state)

    def _finish(self, job: Job, state: State) -> None:
        job.state, job.ended, job.preview = state, self.clock(), ""
        job.version += 1
        spent = f" after {job.ended - job.began:.1f} s" if job.began else ""
        logger.info("%s: job %s %s%s", pseudonym(job.owner), job.id, state, spent)
        job.finished.set()

    def _others_move_up(self) -> None:
        for job in self._waiting:
            job.version += 1


def _in_words(error: Exception, job: Job) -> str:
    memory = ("out of memory", "can't allocate memory", "not enough memory")
    if isinstance(error, MemoryError) or any(words in str(error) for words in memory):
        logger.warning("job %s ran out of memory: %s", job.id, error)
        return OUT_OF_MEMORY
    logger.error("job %s failed", job.id, exc_info=error)
    return f"Something went wrong on the server; its log says more under {job.id}. You can try again."
