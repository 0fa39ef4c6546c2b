"""The one lock between programs that write to the same place."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import one_line_errors

LOCK = ".lock"  # in a folder of ours


@contextmanager
def locked(path: Path, *, busy: str, patience: float = 0.0) -> Generator[None]:
    """Keep other programs off; the lock ends with the process, however that ends.

    Args:
        path: the lock's file, which is gone again afterwards.
        busy: the message where another program has the lock.
        patience: seconds to wait for it.

    Raises:
        InputError: another program keeps it.
        OutputError: the file can't be made.
    """
    lock = FileLock(path, timeout=patience)
    with one_line_errors(path):
        try:
            lock.acquire(poll_interval=0.1)
        except Timeout:
            raise InputError(busy) from None
    try:
        yield
    finally:
        # Before the release: who opened it meanwhile finds a file without a name, and filelock then begins anew.
        path.unlink(missing_ok=True)
        lock.release()
