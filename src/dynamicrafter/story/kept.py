"""The folder of what was made for a story: each piece as lossless pictures with the record of all that it was made of.

A piece appears under its name only when it is complete, and its name says what it was made of; so whatever is there
can be used, whenever the program that made it was stopped.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import clear_leftovers, one_line_errors
from dynamicrafter.files.locks import LOCK, locked
from dynamicrafter.media.video import read_metadata, write_clip
from dynamicrafter.story.pieces import EndOf, Piece, frame_digest

if TYPE_CHECKING:
    from fractions import Fraction

SUFFIX = ".shots"
_STORY = "story"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is known of a piece that was made.

    Attributes:
        frames: the digest of each.
        ends: the digests of the frames of other pieces that it was made of.
        metadata: of its making.
    """

    frames: tuple[str, ...]
    ends: tuple[str, ...]
    metadata: Mapping[str, Any]


Records = dict[str, Record]  # by the piece's key


class KeptShots:
    """The pieces in a folder, which is made when the first is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep other programs from making the same pieces, and clear away what a killed one left half-written.

        Raises:
            InputError: another program is at work here.
            OutputError: the folder can't be made.
        """
        with one_line_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        busy = f"another program is making the shots in {self.folder}; wait for it, or choose another output."
        with locked(self.folder / LOCK, busy=busy):
            clear_leftovers(self.folder)
            yield

    def path_of(self, piece: Piece) -> Path:
        return self.folder / piece.folder

    def find(self, piece: Piece, known: Records) -> Record | None:
        """The record of a piece that is there, and was made of the frames that it would be made of now.

        Args:
            known: the records of the pieces that it may be made of.
        """
        record = self._read(piece)
        return record if record is not None and record.ends == ends_of(piece, known) else None

    def _read(self, piece: Piece) -> Record | None:
        folder = self.path_of(piece)
        if not folder.is_dir():
            return None
        try:
            metadata = read_metadata(folder)
        except InputError:
            return None
        story = metadata.get(_STORY)
        if not isinstance(story, dict) or story.get("key") != piece.key:
            return None
        frames, ends = _texts(story.get("frames")), _texts(story.get("ends"))
        if frames is None or ends is None or len(frames) != piece.num_frames:
            return None
        whole = all(self._frame_path(piece, index).is_file() for index in range(len(frames)))
        return Record(frames=frames, ends=ends, metadata=metadata) if whole else None

    def keep(
        self, piece: Piece, frames: np.ndarray, metadata: dict[str, Any], *, fps: Fraction, known: Records
    ) -> Record:
        """Write a piece.

        Args:
            frames: uint8 (f, h, w, 3).
            metadata: of its making.
            known: as for `find`.

        Raises:
            OutputError: it can't be written.
        """
        digests = tuple(frame_digest(frame) for frame in frames)
        ends = ends_of(piece, known)
        story = {"key": piece.key, "name": piece.name, "frames": list(digests), "ends": list(ends)}
        metadata = metadata | {_STORY: story}
        write_clip(self.path_of(piece), frames, fps=fps, metadata=metadata, format="png")
        return Record(frames=digests, ends=ends, metadata=metadata)

    def frame(self, piece: Piece, index: int, record: Record) -> np.ndarray:
        """Read one frame of a piece, uint8 (h, w, 3).

        Raises:
            InputError: it is gone, or no longer what it was.
        """
        path = self._frame_path(piece, index)
        try:
            with Image.open(path, formats=("PNG",)) as image:
                pixels = np.array(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError):  # Pillow's words for a damaged PNG
            pixels = None
        if pixels is None or frame_digest(pixels) != record.frames[index]:
            raise InputError(
                f"{path} was damaged or changed since it was made; delete the folder {path.parent} and run again."
            )
        return pixels

    def _frame_path(self, piece: Piece, index: int) -> Path:
        return self.path_of(piece) / f"{index:04}.png"


def ends_of(piece: Piece, known: Records) -> tuple[str, ...]:
    """The digests of the frames of other pieces that a piece is made of."""
    ends = (source for source in piece.sources if isinstance(source, EndOf))
    return tuple(known[source.piece.key].frames[source.index] for source in ends)


def _texts(value: object) -> tuple[str, ...] | None:
    """A list of texts, from a file that may hold anything."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return None
