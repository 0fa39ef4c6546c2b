"""Clips that appear in the output folder whole or not at all, and how one is recognised later."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import one_line_errors, sync
from dynamicrafter.media.video import read_metadata

NOTE = "job"  # where an output's metadata keep its key and fingerprint
_ASIDE = ".batch-"  # begins the names of folders that hold what isn't finished

Found = Literal["absent", "same", "earlier", "foreign"]


@dataclass(frozen=True, slots=True)
class OutputFiles:
    """A finished clip as bytes, on its way from a worker into the output folder.

    Attributes:
        name: of the file, or of the folder of PNG frames.
        parts: name and content of each file; a single one without a name where the clip is a file.
    """

    name: str
    parts: tuple[tuple[str, bytes], ...]

    @property
    def is_file(self) -> bool:
        return [name for name, _ in self.parts] == [""]


def collect(path: Path) -> OutputFiles:
    """A written clip as bytes."""
    if path.is_dir():
        return OutputFiles(path.name, tuple((part.name, part.read_bytes()) for part in sorted(path.iterdir())))
    return OutputFiles(path.name, (("", path.read_bytes()),))


class OutputFolder:
    """Where clips appear; only one process at a time may have it. See `opened_outputs`."""

    def __init__(self, path: Path, aside: Path) -> None:
        self.path = path
        self.aside = aside

    def publish(self, product: OutputFiles) -> Path:
        """Let a clip appear under its name, in one stroke, and in place of an earlier one.

        Raises:
            OutputError: it can't be written.
        """
        target, staged = self.path / product.name, self.aside / product.name
        with one_line_errors(target):
            if product.is_file:
                _write(staged, product.parts[0][1])
            else:
                staged.mkdir()
                for name, content in product.parts:
                    _write(staged / name, content)
                with suppress(FileNotFoundError):  # no folder can take the place of a full one
                    target.rename(self.aside / f"{product.name}.earlier")
            staged.replace(target)
            sync(self.path)
        return target


@contextmanager
def opened_outputs(folder: Path) -> Generator[OutputFolder]:
    """Clear away what killed runs left unfinished, and have a place aside for what this one doesn't finish.

    Args:
        folder: locked by this process.

    Raises:
        OutputError: it can't be written to.
    """
    with one_line_errors(folder):
        for left in folder.glob(f"{_ASIDE}*"):
            shutil.rmtree(left, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=folder))
    try:
        yield OutputFolder(folder, aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def find_output(path: Path, *, key: str, fingerprint: str) -> Found:
    """What there is under an output's name: nothing, the clip itself, an earlier one of the job, or something else."""
    if not os.path.lexists(path):
        return "absent"
    try:
        note = read_metadata(path).get(NOTE)
    except InputError:
        return "foreign"
    if not isinstance(note, dict) or note.get("key") != key:
        return "foreign"
    return "same" if note.get("fingerprint") == fingerprint else "earlier"


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    sync(path)
