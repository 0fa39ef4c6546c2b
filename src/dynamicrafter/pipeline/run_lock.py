"""One run at a time through one set of networks: a run keeps its timesteps, its end and its number format in them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
R = TypeVar("R")

# By UNet, which pipelines made of one another's components share. A lock inside a pipeline could not be copied.
_LOCKS: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()
_ADDING = threading.Lock()


def one_run_at_a_time(run: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Let a pipeline's method wait until another thread's run with the same UNet is over."""

    @functools.wraps(run)
    def waiting(self: Any, *args: P.args, **options: P.kwargs) -> R:
        with _ADDING:
            lock = _LOCKS.setdefault(self.unet, threading.RLock())
        with lock:
            return run(self, *args, **options)

    return waiting
