"""A finished clip: frames, pace, and everything that it was made from."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dynamicrafter.media.notes import parse_fps
from dynamicrafter.media.video import write_clip
from dynamicrafter.presets import OUTPUT_FPS


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Frames of one video.

    Attributes:
        frames: (f, h, w, 3), uint8 RGB.
        fps: frames per second at which it plays.
        metadata: mode, prompt, pictures, model and resolved options; stored in every file that `save` writes.
        notes: what a person should know of it, such as a motion number that the model was not made for.
    """

    frames: np.ndarray
    fps: Fraction
    metadata: dict[str, Any]
    notes: tuple[str, ...] = ()

    def save(
        self,
        path: str | Path,
        *,
        fps: Fraction | float | str | None = None,
        crf: int | None = None,
        format: str | None = None,  # noqa: A002 the word that users know
    ) -> Path:
        """Write the clip; it appears under its name only when complete.

        Args:
            path: the extension chooses mp4, mov, webm, gif, webp or npy; none, a folder of PNG pictures.
            fps: another pace than the clip's own.
            crf: quality of mp4, mov and webm, smaller is better and larger.
            format: overrules the extension.

        Raises:
            OutputError: it can't be written there, or not so.
        """
        pace = parse_fps(self.fps if fps is None else fps)
        metadata = self.metadata | {"output": {"fps": str(pace), "crf": crf}}
        write_clip(path, self.frames, fps=pace, metadata=metadata, crf=crf, format=format)
        return Path(path)


DEFAULT_FPS = Fraction(OUTPUT_FPS)
