"""The folder of a running server: for its files alone, locked while it lives, and removed by the next one otherwise."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "dynamicrafter-ui-"
_LOCK = ".lock"


class ServerFolder:
    """A new folder below the system's temporary one; nobody but this user can look into it."""

    def __init__(self) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock = _lock_of(self.path)
            # Another server may take it for a leftover between the lock's appearance and its being held.
            with suppress(Timeout, OSError):
                self._lock.acquire()
                if (self.path / _LOCK).exists():
                    return
                self._lock.release()

    def remove(self) -> None:
        """Remove it and everything in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def sweep_leftovers() -> int:
    """Remove the folders of this user's servers that were killed.

    Returns:
        How many there were.
    """
    swept = 0
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(Timeout, OSError):
            if not _is_ours(folder) or not (folder / _LOCK).is_file():  # without a lock, it is being made just now
                continue
            with _lock_of(folder):  # held by a server that lives
                shutil.rmtree(folder, ignore_errors=True)
                swept += 1
    return swept


def _lock_of(folder: Path) -> FileLock:
    return FileLock(folder / _LOCK, timeout=0, thread_local=False)


def _is_ours(folder: Path) -> bool:
    """In a folder that everybody can write to, others could lay a trap."""
    found = folder.lstat()
    return folder.is_dir() and not folder.is_symlink() and (os.name != "posix" or found.st_uid == os.getuid())
