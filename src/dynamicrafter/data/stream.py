"""The one shape in which training asks for clips: a sample for every position of an endless order.

A sample depends on its position alone. So workers, ranks and accumulation change who reads it and nothing else, and a
run that was stopped goes on from one number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One clip as training sees it.

    pixels: (3, f, h, w), uint8. caption: the text to condition on. motion: the motion number, in the preset's unit.
    key: what to call the clip in a report, such as its file. between_ends: whether it can only be told from its first
    and its last frame together. looks: where each frame finds its content in the first one and in the last one, where
    that is known: (2, f, 2, h/8, w/8), pixels to the right and down, float32.
    """

    pixels: Tensor
    caption: str
    motion: float
    key: str
    between_ends: bool = False
    looks: Tensor | None = None


class ClipStream(Protocol):
    """Samples by position."""

    def __len__(self) -> int:
        """Samples in one pass over the source."""
        ...

    def draw(self, position: int) -> Sample:
        """The sample at a position, 0, 1, 2, … without end; the same on every machine, worker and rank."""
        ...
