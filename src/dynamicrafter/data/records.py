"""Where a clip lies and what it shows, and millions of such records in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_ABSENT, _BREAK, _OR = "\x01", "\x00", "\x03"  # none of them stands in a record: see `clean`


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """One clip of a source.

    path: the file. caption: its text, may be empty. key: its path under the source's root, to name it by.
    motion_caption: the part of the caption that tells the motion, where the source has it. other_captions: texts that
    may stand in for the caption, each as often as the caption itself.
    """

    path: Path
    caption: str
    key: str
    motion_caption: str | None = None
    other_captions: tuple[str, ...] = ()


class PackedRecords:
    """A sequence of records as one run of bytes and where each begins.

    Some 150 bytes a record instead of a kilobyte, and worker processes share them: no object among them whose
    reference count a reader would write to.
    """

    def __init__(self, records: Iterable[ClipRecord], *, root: Path) -> None:
        """Args: records: whose paths are `root / key`; root: of the source."""
        self._root = root
        content, ends = bytearray(), array("q", [0])
        for record in records:
            motion = _ABSENT if record.motion_caption is None else record.motion_caption
            captions = _OR.join((record.caption, *record.other_captions))
            content += _BREAK.join((record.key, captions, motion)).encode(errors="surrogatepass")
            ends.append(len(content))
        self._content = np.frombuffer(content, np.uint8)
        self._ends = np.frombuffer(ends, np.int64)

    def content(self) -> bytes:
        """All records as bytes, which are the same for the same records wherever their root lies."""
        return self._content.tobytes()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> ClipRecord:
        if not 0 <= index < len(self):
            raise IndexError(index)
        content = self._content[self._ends[index] : self._ends[index + 1]].tobytes()
        key, captions, motion = content.decode(errors="surrogatepass").split(_BREAK)
        caption, *others = captions.split(_OR)
        return ClipRecord(self._root / key, caption, key, None if motion == _ABSENT else motion, tuple(others))


def clean(text: str) -> str:
    """A caption on one line, without control characters and without space at its ends."""
    joined = " ".join(text.split())
    return "".join(c for c in joined if c.isprintable()).strip()
