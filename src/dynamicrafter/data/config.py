"""What to train on, as one frozen value. Importable without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from dynamicrafter.errors import InputError
from dynamicrafter.presets import NUM_FRAMES
from dynamicrafter.schema import FrameSize

SourceKind = Literal["auto", "webvid", "table", "folder"]
Captions = Literal["required", "optional"]

MOST_FRAMES = 1024
MOST_STRIDE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which clips, and how each is read."""

    path: Path | None = None
    """A CSV or JSONL file that lists clips, or a folder of videos with captions in .txt files beside them."""
    kind: SourceKind = "auto"
    """webvid (columns videoid, page_dir, name), table (a CSV or JSONL of one's own), folder; auto looks."""
    root: Path | None = None
    """Folder that the list's paths start from and stay in; without it, the list's own folder."""
    captions: Captions = "required"
    """Whether every clip must have a caption; where optional, one without is trained on with an empty text."""
    size: Annotated[tuple[int, int], FrameSize()] = (320, 512)
    """Height and width in pixels; clips are scaled to cover it and cropped at the centre."""
    num_frames: int = NUM_FRAMES
    """Frames of a sample."""
    min_stride: int = 1
    """Least distance of a sample's frames in the clip, in frames; drawn for each sample."""
    max_stride: int = 6
    """Largest distance of a sample's frames; a clip too short for what is drawn takes the largest that fits."""
    min_confidence: float | None = None
    """Leave out clips whose dynamic_confidence is lower, on the file's own scale (annotate writes 0 to 100)."""
    motion_sources: tuple[str, ...] | None = None
    """Leave out clips whose dynamic_source_category is none of these."""
    motion_caption_probability: float = 0.0
    """How often dynamic_wording stands in for the caption, 0 to 1."""
    seed: int = 0
    """Of order, strides, starts and choice of captions."""
    report: Path | None = None
    """JSON lines to which every process adds the clips that it passed over, and why."""

    def check(self) -> Path:
        """Check every field but what lies on the disk.

        Returns:
            The path, which is there.

        Raises:
            InputError: a field is out of its range.
        """
        if self.path is None:
            raise InputError("data.path is missing; name a CSV or JSONL file of clips, or a folder of videos.")
        if self.kind not in get_args(SourceKind):
            raise InputError(f"data.kind must be one of {', '.join(get_args(SourceKind))}, got {self.kind!r}.")
        if self.captions not in get_args(Captions):
            raise InputError(f"data.captions must be one of {', '.join(get_args(Captions))}, got {self.captions!r}.")
        _within("data.num_frames", self.num_frames, 1, MOST_FRAMES, remedy=NUM_FRAMES)
        _within("data.min_stride", self.min_stride, 1, MOST_STRIDE, remedy=1)
        _within("data.max_stride", self.max_stride, self.min_stride, MOST_STRIDE, remedy=max(self.min_stride, 6))
        _within("data.motion_caption_probability", self.motion_caption_probability, 0, 1, remedy=0.5)
        if len(self.size) != 2 or min(self.size) < 1:
            raise InputError(f"data.size must be a positive (height, width) in pixels, got {self.size}; try 320, 512.")
        if self.min_confidence is not None and not math.isfinite(self.min_confidence):
            raise InputError(f"data.min_confidence must be a finite number, got {self.min_confidence}; try 50.")
        return self.path


def _within(name: str, value: float, low: float, high: float, *, remedy: float) -> None:
    if not low <= value <= high:
        raise InputError(f"{name} must be between {low} and {high}, got {value}; try {remedy}.")
