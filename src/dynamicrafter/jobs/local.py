"""Workers as processes of this machine, each with a pipe to and fro.

A worker ends when its parent does, however that ends, and leaves Ctrl-C to it. Only the parent writes outputs, so that
a worker may be killed at any time.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from dynamicrafter.jobs.pool import StepDone, WorkerEvent, WorkerLost
from dynamicrafter.jobs.worker import Task, Worker, WorkerReady, WorkerSetup, answer, refusal

_GRACE = 5.0  # seconds for a worker to end when told so


@dataclass(slots=True)
class _Member:
    name: str
    setup: WorkerSetup
    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    busy: bool = False


class LocalPool:
    """Processes of this machine; see `pool.WorkerPool`.

    Args:
        devices: one for each worker.
        aside: a folder for unfinished files, which the caller clears away.
    """

    def __init__(self, setup: WorkerSetup, devices: Sequence[str | None], *, aside: Path) -> None:
        self._context = multiprocessing.get_context("spawn")  # a forked process could use no GPU
        self._workers: dict[str, _Member] = {}
        for number, device in enumerate(devices, start=1):
            self._start(f"worker {number}", replace(setup, model=replace(setup.model, device=device), aside=str(aside)))

    def idle(self) -> list[str]:
        return [worker.name for worker in self._workers.values() if worker.ready and not worker.busy]

    def give(self, name: str, tasks: Sequence[Task]) -> None:
        worker = self._workers[name]
        worker.busy = True
        with suppress(OSError):  # a worker that is gone is noticed by `wait`
            worker.pipe.send(list(tasks))

    def wait(self, seconds: float) -> list[WorkerEvent]:
        by_pipe = {worker.pipe: worker for worker in self._workers.values()}
        events = []
        for pipe in wait(list(by_pipe), timeout=seconds):
            assert isinstance(pipe, Connection)
            events.append(self._received(by_pipe[pipe]))
        return events

    def replace(self, name: str) -> None:
        worker = self._workers[name]
        _end(worker, at_once=True)
        self._start(name, worker.setup)

    def close(self) -> None:
        for worker in self._workers.values():
            worker.process.terminate()
        for worker in self._workers.values():
            _end(worker, at_once=False)
        self._workers.clear()

    def _start(self, name: str, setup: WorkerSetup) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(setup, theirs), name=name, daemon=True)
        with _interrupts_ignored():
            process.start()
        theirs.close()
        self._workers[name] = _Member(name, setup, process, ours)

    def _received(self, worker: _Member) -> WorkerEvent:
        try:
            what = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(_GRACE)
            text = _ending(worker.process.exitcode)
            self.replace(worker.name)
            return WorkerEvent(worker.name, WorkerLost(text))
        if isinstance(what, WorkerReady):
            worker.ready = True
        elif not isinstance(what, StepDone):
            worker.busy = False
        return WorkerEvent(worker.name, what)


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _end(worker: _Member, *, at_once: bool) -> None:
    worker.pipe.close()
    if at_once:
        worker.process.kill()
    worker.process.join(_GRACE)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()
    worker.process.close()


@contextmanager
def _interrupts_ignored() -> Generator[None]:
    """What is started within ignores Ctrl-C from its first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(setup: WorkerSetup, pipe: Connection) -> None:
    """A worker's life: load, then carry out tasks until the pipe is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("dynamicrafter").addHandler(logging.NullHandler())  # warnings travel with the answers
    try:
        worker = Worker(setup)
    except Exception as error:
        pipe.send(refusal(error))
        return
    pipe.send(worker.ready())

    def on_step(done: int, steps: int) -> None:
        pipe.send(StepDone(done, steps))

    with suppress(EOFError, OSError):
        while True:
            tasks: list[Any] = pipe.recv()
            pipe.send(answer(worker, tasks, on_step))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
