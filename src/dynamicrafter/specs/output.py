"""The file that a clip goes into, as every face asks for it. Importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from dynamicrafter.media.formats import FORMATS, check_rate, check_size, choose_crf, find_format
from dynamicrafter.media.notes import parse_fps
from dynamicrafter.presets import OUTPUT_FPS
from dynamicrafter.schema import Choice, Range, Unset, read_fields

MOST_TAKES = 1000  # of one clip

FORMAT = Choice(lambda: tuple(FORMATS))


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """The form of a clip's file, and how many takes of it there are.

    Raises:
        OptionError: a value breaks its rule.
    """

    format: Annotated[str | None, FORMAT, Unset("by the extension, or mp4")] = None
    """The form of the file; png is a folder of pictures."""
    fps: Annotated[str | None, Unset(str(OUTPUT_FPS))] = None
    """Frames per second at which the clip plays, such as 12 or 24000/1001; how much moves is motion's."""
    crf: Annotated[int | None, Unset("mp4 16, webm 24")] = None
    """Quality of mp4 (0 to 51) and webm (0 to 63); a smaller number looks better and makes a larger file."""
    samples: Annotated[int, Range(1, MOST_TAKES)] = 1
    """How many takes to make, one after the other: FILE, FILE-2, FILE-3, …"""

    def __post_init__(self) -> None:
        if isinstance(self.format, str):
            object.__setattr__(self, "format", self.format.lower().removeprefix("."))
        if isinstance(self.fps, int | float) and not isinstance(self.fps, bool):
            object.__setattr__(self, "fps", str(self.fps))
        read_fields(self)

    def check(self, size: tuple[int, int], *, path: Path | None = None) -> None:
        """Hold the form against what it has to take.

        Args:
            size: (height, width) of the frames in pixels.
            path: of the file, whose extension says the format where none is given.

        Raises:
            InputError: the format can't hold frames of that size, or not at that rate or quality.
        """
        target = find_format(path or Path("clip"), self.format or (None if path else "mp4"))
        choose_crf(self.crf, target)
        check_size(*size, target)
        if self.fps is not None:
            check_rate(parse_fps(self.fps), target)
