"""What the package warns of while something is done, for those who asked for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def heard_warnings(into: list[str] | None = None) -> Iterator[list[str]]:
    """The package's warnings in this thread while entered, each once.

    Args:
        into: a list that they are added to; None for a new one.

    Yields:
        The list that fills.
    """
    heard = [] if into is None else into
    thread = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if record.thread == thread and text not in heard:
                heard.append(text)

    listener, package = Listener(logging.WARNING), logging.getLogger("dynamicrafter")
    package.addHandler(listener)
    try:
        yield heard
    finally:
        package.removeHandler(listener)
