"""`results.jsonl`: one line for each job that is done or failed, whatever happens to the program in between.

Only one process writes it, a whole line at a time. A line that a kill cut off is no line, and is dropped.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Literal

from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import one_line_errors
from dynamicrafter.files.json_files import json_line, read_json_lines
from dynamicrafter.files.locks import LOCK, locked
from dynamicrafter.jobs.checks import RESULTS

logger = logging.getLogger(__name__)

PATIENCE = 5.0  # seconds; a run that was just told to stop may still be ending
_REMEDY = "delete the line, and its job is looked at again"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """How a job ended.

    Attributes:
        outputs: names in the folder, of all takes or, where it failed, of those that were made.
        made_from: as `CheckedJob` has it.
        source: the job's place in its list.
        error: one line; empty where it is done.
        seconds: of computing, all takes together.
        attempts: most that one of its takes took.
        worker: who made the last take.
        finished: UTC, ISO 8601.
    """

    key: str
    status: Literal["done", "failed"]
    outputs: tuple[str, ...]
    made_from: dict[str, Any]
    source: str = ""
    error: str = ""
    seconds: float = 0.0
    attempts: int = 1
    worker: str = ""
    finished: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


class Ledger:
    """The lines of `results.jsonl` by key. See `opened`."""

    def __init__(self, path: Path, file: FileIO, entries: dict[str, LedgerEntry]) -> None:
        self.path = path
        self._file = file
        self.entries = entries

    def append(self, entries: Iterable[LedgerEntry]) -> None:
        """Add lines for jobs that have none, all in one piece, and see them onto the disk."""
        added = list(entries)
        assert not self.entries.keys() & {entry.key for entry in added}
        with one_line_errors(self.path):
            lines = b"".join(map(_line, added))
            if self._file.write(lines) != len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        self.entries |= {entry.key: entry for entry in added}


@contextmanager
def folder_locked(folder: Path) -> Generator[None]:
    """Keep other runs off an output folder; the lock ends with the process, however it ends.

    Raises:
        InputError: another run has it.
    """
    busy = f"{folder} is being written by another run; wait for it."
    with locked(folder / LOCK, busy=busy, patience=PATIENCE):
        yield


def read_entries(folder: Path) -> dict[str, LedgerEntry]:
    """The lines of a folder's account by key; a last line that was cut off is left out, with a warning.

    Raises:
        InputError: another line is damaged.
    """
    path = folder / RESULTS
    lines, torn = read_json_lines(path, remedy=_REMEDY)
    if torn:
        logger.warning("%s ends in half a line, as after a kill; it is dropped, and its job looked at again.", path)
    entries = {}
    for number, values in lines:
        try:
            entry = _entry(values)
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{path}, line {number} is damaged; {_REMEDY}.") from None
        entries[entry.key] = entry
    return entries


@contextmanager
def opened(folder: Path, entries: dict[str, LedgerEntry], *, aside: Path) -> Generator[Ledger]:
    """Begin the account anew with these entries, in one stroke, and let lines be added.

    Args:
        folder: locked by this process.
        entries: those of `read_entries` that still hold.
        aside: a folder beside the account's, for what isn't finished.

    Raises:
        OutputError: it can't be written.
    """
    path = folder / RESULTS
    lines = b"".join(map(_line, entries.values()))
    with one_line_errors(path):
        if not path.exists() or path.read_bytes() != lines:
            (aside / RESULTS).write_bytes(lines)
            (aside / RESULTS).replace(path)
        file = path.open("ab", buffering=0)
    with file:
        yield Ledger(path, file, dict(entries))


def _line(entry: LedgerEntry) -> bytes:
    return json_line(asdict(entry))


def _entry(values: Any) -> LedgerEntry:
    entry = LedgerEntry(**values)
    kinds = {"key": str, "status": str, "outputs": list, "made_from": dict, "source": str, "error": str}
    if entry.status not in ("done", "failed") or any(
        not isinstance(getattr(entry, name), kind) for name, kind in kinds.items()
    ):
        raise TypeError
    return LedgerEntry(**(values | {"outputs": tuple(map(str, entry.outputs))}))
