"""Jobs that take next to nothing, and a pool without processes for them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dynamicrafter.jobs.job import Job
from dynamicrafter.jobs.pool import WorkerEvent, WorkerLost
from dynamicrafter.jobs.worker import Task, TasksDone, TasksFailed, WorkerReady
from dynamicrafter.presets import get_preset
from dynamicrafter.specs.clip import ClipSpec
from dynamicrafter.specs.model import ModelDescription, ModelSpec
from dynamicrafter.specs.options import AnimateOptions
from dynamicrafter.specs.output import OutputOptions

MODEL = ModelDescription(
    spec=ModelSpec(name="seeded:tiny"), preset=replace(get_preset("512"), height=64, width=64), path=None
)
QUICK = AnimateOptions(steps=1, frames=2, guidance=1.0)


def job(key: str, *, pictures: tuple[Path, ...], prompt: str = "", options: AnimateOptions = QUICK, **more: Any) -> Job:
    """A job of a list, with what is its output's apart."""
    form = {"format": "npy"} | {name: more.pop(name) for name in ("format", "fps", "crf", "samples") if name in more}
    clip = ClipSpec(pictures=pictures, prompts=(prompt,), options=options, item=key, **more)
    return Job(where=f"list, {key}", clip=clip, output=OutputOptions(**form))


Reply = Callable[[str, Sequence[Task]], TasksDone | TasksFailed | WorkerLost]


class ScriptedPool:
    """Workers that reply as a function says, one event at a time, the last that was given orders first."""

    def __init__(self, reply: Reply, num_workers: int = 1) -> None:
        self.reply = reply
        self.given: list[tuple[str, list[str]]] = []
        self.replaced: list[str] = []
        self.closed = False
        self._names = [f"worker {number + 1}" for number in range(num_workers)]
        self._ready: set[str] = set()
        self._waiting: list[WorkerEvent] = [WorkerEvent(name, WorkerReady("cpu", "", 0)) for name in self._names]
        self._busy: set[str] = set()

    def idle(self) -> list[str]:
        return [name for name in self._names if name in self._ready - self._busy]

    def give(self, name: str, tasks: Sequence[Task]) -> None:
        assert name in self.idle()
        self.given.append((name, [task.name for task in tasks]))
        self._busy.add(name)
        self._waiting.append(WorkerEvent(name, self.reply(name, tasks)))

    def wait(self, seconds: float) -> list[WorkerEvent]:
        event = self._waiting.pop()
        if isinstance(event.what, WorkerReady):
            self._ready.add(event.name)
        self._busy.discard(event.name)
        if isinstance(event.what, WorkerLost):
            self.replace(event.name)
        return [event]

    def replace(self, name: str) -> None:
        self.replaced.append(name)
        self._ready.discard(name)
        self._waiting.append(WorkerEvent(name, WorkerReady("cpu", "", 0)))

    def close(self) -> None:
        self.closed = True
