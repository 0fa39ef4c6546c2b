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

from dynamicrafter.jobs.maker import Hello, Maker, Order, Setup, answer, refusal
from dynamicrafter.jobs.workers import Event, Lost, Stepped

_GRACE = 5.0  # seconds for a worker to end when told so


@dataclass(slots=True)
class _Worker:
    name: str
    setup: Setup
    process: SpawnProcess
    pipe: Connection
    ready: bool = False
    busy: bool = False


class LocalPool:
    """Processes of this machine; see `workers.Pool`.

    Args:
        devices: one for each worker.
        aside: a folder for unfinished files, which the caller clears away.
    """

    def __init__(self, setup: Setup, devices: Sequence[str | None], *, aside: Path) -> None:
        self._context = multiprocessing.get_context("spawn")  # a forked process could use no GPU
        self._workers: dict[str, _Worker] = {}
        for number, device in enumerate(devices, start=1):
            self._start(f"worker {number}", replace(setup, device=device, aside=str(aside)))

    def idle(self) -> list[str]:
        return [worker.name for worker in self._workers.values() if worker.ready and not worker.busy]

    def give(self, name: str, orders: Sequence[Order]) -> None:
        worker = self._workers[name]
        worker.busy = True
        with suppress(OSError):  # a worker that is gone is noticed by `wait`
            worker.pipe.send(list(orders))

    def wait(self, seconds: float) -> list[Event]:
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

    def _start(self, name: str, setup: Setup) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(setup, theirs), name=name, daemon=True)
        with _interrupts_ignored():
            process.start()
        theirs.close()
        self._workers[name] = _Worker(name, setup, process, ours)

    def _received(self, worker: _Worker) -> Event:
        try:
            what = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(_GRACE)
            text = _ending(worker.process.exitcode)
            self.replace(worker.name)
            return Event(worker.name, Lost(text))
        if isinstance(what, Hello):
            worker.ready = True
        elif not isinstance(what, Stepped):
            worker.busy = False
        return Event(worker.name, what)


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def _end(worker: _Worker, *, at_once: bool) -> None:
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


def _work(setup: Setup, pipe: Connection) -> None:
    """A worker's life: load, then carry out orders until the pipe is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("dynamicrafter").addHandler(logging.NullHandler())  # warnings travel with the answers
    try:
        maker = Maker(setup)
    except Exception as error:
        pipe.send(refusal(error))
        return
    pipe.send(maker.hello())

    def on_step(done: int, steps: int) -> None:
        pipe.send(Stepped(done, steps))

    with suppress(EOFError, OSError):
        while True:
            orders: list[Any] = pipe.recv()
            pipe.send(answer(maker, orders, on_step))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
