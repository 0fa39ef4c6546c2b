"""The folder of what was made for a story: each clip as lossless pictures with the record of all that it was made of.

A clip appears under its name only when it is complete, and its name says what it was made of; so whatever is there
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
from dynamicrafter.story.clips import BoundaryFrame, StoryClip, frame_digest

if TYPE_CHECKING:
    from fractions import Fraction

SUFFIX = ".shots"
_STORY = "story"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptClip:
    """What is known of a clip that was made.

    Attributes:
        frames: the digest of each.
        ends: the digests of the frames of other clips that it was made of.
        metadata: of its making.
    """

    frames: tuple[str, ...]
    ends: tuple[str, ...]
    metadata: Mapping[str, Any]


Records = dict[str, KeptClip]  # by the clip's key


class KeptShots:
    """The clips in a folder, which is made when the first is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Generator[None]:
        """Keep other programs from making the same clips, and clear away what a killed one left half-written.

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

    def path_of(self, clip: StoryClip) -> Path:
        return self.folder / clip.folder

    def find(self, clip: StoryClip, known: Records) -> KeptClip | None:
        """The record of a clip that is there, and was made of the frames that it would be made of now.

        Args:
            known: the records of the clips that it may be made of.
        """
        record = self._read(clip)
        return record if record is not None and record.ends == ends_of(clip, known) else None

    def _read(self, clip: StoryClip) -> KeptClip | None:
        folder = self.path_of(clip)
        if not folder.is_dir():
            return None
        try:
            metadata = read_metadata(folder)
        except InputError:
            return None
        story = metadata.get(_STORY)
        if not isinstance(story, dict) or story.get("key") != clip.key:
            return None
        frames, ends = _texts(story.get("frames")), _texts(story.get("ends"))
        if frames is None or ends is None or len(frames) != clip.num_frames:
            return None
        whole = all(self._frame_path(clip, index).is_file() for index in range(len(frames)))
        return KeptClip(frames=frames, ends=ends, metadata=metadata) if whole else None

    def keep(
        self, clip: StoryClip, frames: np.ndarray, metadata: dict[str, Any], *, fps: Fraction, known: Records
    ) -> KeptClip:
        """Write a clip.

        Args:
            frames: uint8 (f, h, w, 3).
            metadata: of its making.
            known: as for `find`.

        Raises:
            OutputError: it can't be written.
        """
        digests = tuple(frame_digest(frame) for frame in frames)
        ends = ends_of(clip, known)
        story = {"key": clip.key, "name": clip.name, "frames": list(digests), "ends": list(ends)}
        metadata = metadata | {_STORY: story}
        write_clip(self.path_of(clip), frames, fps=fps, metadata=metadata, format="png")
        return KeptClip(frames=digests, ends=ends, metadata=metadata)

    def frame(self, clip: StoryClip, index: int, record: KeptClip) -> np.ndarray:
        """Read one frame of a clip, uint8 (h, w, 3).

        Raises:
            InputError: it is gone, or no longer what it was.
        """
        path = self._frame_path(clip, index)
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

    def _frame_path(self, clip: StoryClip, index: int) -> Path:
        return self.path_of(clip) / f"{index:04}.png"


def ends_of(clip: StoryClip, known: Records) -> tuple[str, ...]:
    """The digests of the frames of other clips that a clip is made of."""
    ends = (source for source in clip.sources if isinstance(source, BoundaryFrame))
    return tuple(known[source.clip.key].frames[source.index] for source in ends)


def _texts(value: object) -> tuple[str, ...] | None:
    """A list of texts, from a file that may hold anything."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return None
