"""What every kind of worker has in common, so that whoever hands out batches need not know which there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dynamicrafter.jobs.worker import Task, TasksDone, TasksFailed, WorkerReady


@dataclass(frozen=True, slots=True)
class StepDone:
    """A worker is so many of its steps along."""

    done: int
    steps: int


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker is gone, and what it had in hand with it; the pool puts another in its place."""

    text: str


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """Something came from the worker `name`."""

    name: str
    what: WorkerReady | StepDone | TasksDone | TasksFailed | WorkerLost


class WorkerPool(Protocol):
    """Workers that load the model once and stay."""

    def idle(self) -> list[str]:
        """Names of the workers that are ready for tasks."""
        ...

    def give(self, name: str, tasks: Sequence[Task]) -> None:
        """Have an idle worker carry out tasks."""
        ...

    def wait(self, seconds: float) -> list[WorkerEvent]:
        """What comes in; nothing, where nothing does for so long.

        A `Refused` from a worker that never said `Hello` is about its setup.
        """
        ...

    def replace(self, name: str) -> None:
        """Put a new worker in the place of one that is in no state to go on."""
        ...

    def close(self) -> None:
        """End all workers, whatever they are at."""
        ...
