"""What every kind of worker has in common, so that whoever hands out batches need not know which there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dynamicrafter.jobs.maker import Hello, Made, Order, Refused


@dataclass(frozen=True, slots=True)
class Stepped:
    """A worker is so many of its steps along."""

    done: int
    steps: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker is gone, and what it had in hand with it; the pool puts another in its place."""

    text: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something came from the worker `name`."""

    name: str
    what: Hello | Stepped | Made | Refused | Lost


class Pool(Protocol):
    """Workers that load the model once and stay."""

    def idle(self) -> list[str]:
        """Names of the workers that are ready for orders."""
        ...

    def give(self, name: str, orders: Sequence[Order]) -> None:
        """Have an idle worker carry out orders."""
        ...

    def wait(self, seconds: float) -> list[Event]:
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
