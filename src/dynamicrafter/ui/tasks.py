"""The queue: one task for each device at a time, in the order in which they came."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dynamicrafter.errors import InputError
from dynamicrafter.faces.warnings import heard_warnings
from dynamicrafter.ui.log import pseudonym

logger = logging.getLogger(__name__)

State = Literal["waiting", "running", "done", "failed", "cancelled"]

ABANDONED = 120.0  # seconds without anybody who watches, after which a task is not worth its device
_TYPICAL = 5  # the last so many tasks say how long the next ones may take

OUT_OF_MEMORY = "The server ran out of memory. Try a smaller size or fewer frames under “More options”."


class Cancelled(Exception):  # noqa: N818 it is no error
    """Raised inside a task's work to end it."""


@dataclass(eq=False)
class ClipTask:
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


class TaskProgress:
    """What a running task's work calls; ends the work where it was cancelled or nobody watches any more."""

    def __init__(self, task: ClipTask, clock: Callable[[], float]) -> None:
        self._task, self._clock = task, clock

    def on_phase(self, text: str) -> None:
        self._go_on()
        self._task.phase, self._task.stepped = text, self._clock()
        self._task.version += 1

    def on_step(self, done: int, steps: int) -> None:
        self._go_on()
        task = self._task
        task.step, task.steps = done, steps
        task.phase = "Decoding" if done == steps else ""
        task.version += 1

    def on_preview(self, address: str) -> None:
        self._task.preview = address
        self._task.version += 1

    def _go_on(self) -> None:
        task = self._task
        if task.stop.is_set() or is_abandoned(task, self._clock()):
            raise Cancelled


def is_abandoned(task: ClipTask, now: float) -> bool:
    """Whether nobody has watched it for long."""
    return task.watchers == 0 and now - task.watched > ABANDONED


class TaskQueue:
    """Takes tasks, and works through them with one thread per device.

    Args:
        workers: one function per device: (task, progress) → result.
        most_waiting: tasks that may wait; `most_each` of them for one owner, its running one included.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        workers: Sequence[Callable[[ClipTask, TaskProgress], Any]],
        *,
        most_waiting: int,
        most_each: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._most_waiting, self._most_each = most_waiting, most_each
        self._waiting: deque[ClipTask] = deque()
        self._running: set[ClipTask] = set()
        self._lasted: deque[float] = deque(maxlen=_TYPICAL)
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, args=(work,), name=f"device {number}", daemon=True)
            for number, work in enumerate(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, request: Any, *, owner: str, notes: Iterable[str] = ()) -> ClipTask:
        """Put a request at the end of the queue.

        Args:
            notes: what is known already that its owner should know.

        Raises:
            InputError: the queue is full, or its owner's share of it.
        """
        task = ClipTask(request, owner, watched=self.clock(), notes=list(notes))
        with self._changed:
            if self._closed:
                raise InputError("the server is shutting down; try again when it is back.")
            if len(self._waiting) >= self._most_waiting:
                raise InputError(f"the queue is full ({len(self._waiting)} clips wait); try again in a few minutes.")
            if sum(other.owner == owner for other in (*self._waiting, *self._running)) >= self._most_each:
                raise InputError(
                    f"you have {self._most_each} clips in the queue already; wait for one of them or cancel it."
                )
            self._waiting.append(task)
            self._changed.notify()
        return task

    def cancel(self, task: ClipTask) -> None:
        """Take a task out of the queue, or let its work end after the step."""
        task.stop.set()
        with self._changed:
            if task in self._waiting:
                self._waiting.remove(task)
                self._finish(task, "cancelled")
                self._others_move_up()
            elif not task.is_over:
                task.phase = "Stopping"
                task.version += 1

    def unfinished(self, owner: str) -> list[ClipTask]:
        """An owner's tasks that wait or are worked at, the oldest first."""
        with self._changed:
            return [task for task in (*self._running, *self._waiting) if task.owner == owner]

    def place(self, task: ClipTask) -> int:
        """1 for the next one; 0 for a task that does not wait."""
        with self._changed:
            return self._waiting.index(task) + 1 if task in self._waiting else 0

    def seconds_until(self, place: int) -> float | None:
        """About how long a task at this place will wait, by how long the last ones took; None where none did."""
        with self._changed:
            if not self._lasted:
                return None
            typical = sum(self._lasted) / len(self._lasted)
            spent = sum(min(self.clock() - task.began, typical) for task in self._running)
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
            tasks = [*self._waiting, *self._running]
            self._changed.notify_all()
        for task in tasks:
            self.cancel(task)
        for thread in self._threads:
            thread.join(timeout=10)

    def _serve(self, work: Callable[[ClipTask, TaskProgress], Any]) -> None:
        while (task := self._take()) is not None:
            with heard_warnings(task.notes):
                self._run(task, work)

    def _take(self) -> ClipTask | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            task = self._waiting.popleft()
            self._running.add(task)
            task.state, task.began = "running", self.clock()
            task.version += 1
            self._others_move_up()
            return task

    def _run(self, task: ClipTask, work: Callable[[ClipTask, TaskProgress], Any]) -> None:
        state: State = "failed"
        try:
            task.result = work(task, TaskProgress(task, self.clock))
            state = "done"
        except Cancelled:
            state = "cancelled"
        except InputError as error:
            task.problem = str(error)
        except Exception as error:  # whatever a task does, the next one is served
            task.problem = _in_words(error, task)
        with self._changed:
            self._running.discard(task)
            if state == "done":
                self._lasted.append(self.clock() - task.began)
            self._finish(task, state)

    def _finish(self, task: ClipTask, state: State) -> None:
        task.state, task.ended, task.preview = state, self.clock(), ""
        task.version += 1
        spent = f" after {task.ended - task.began:.1f} s" if task.began else ""
        logger.info("%s: task %s %s%s", pseudonym(task.owner), task.id, state, spent)
        task.finished.set()

    def _others_move_up(self) -> None:
        for task in self._waiting:
            task.version += 1


def _in_words(error: Exception, task: ClipTask) -> str:
    memory = ("out of memory", "can't allocate memory", "not enough memory")
    if isinstance(error, MemoryError) or any(words in str(error) for words in memory):
        logger.warning("task %s ran out of memory: %s", task.id, error)
        return OUT_OF_MEMORY
    logger.error("task %s failed", task.id, exc_info=error)
    return f"Something went wrong on the server; its log says more under {task.id}. You can try again."
