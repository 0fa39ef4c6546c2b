"""The note that a clip carries: how it was made, as JSON in a place that its container has for text.

    {"dynamicrafter": {...options...}, "fps": "24000/1001", "frames": 16}

mp4, mov and webm hold it as the `comment` tag, gif as a comment extension, webp as EXIF ImageDescription, a folder of
PNGs as `clip.json` and in the first frame's text, npy behind the array, where `numpy.load` does not look.
A note may come from anywhere, so it is read as data of limited size and otherwise not believed.
"""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import NamedTuple

from dynamicrafter.errors import InputError

MAX_NOTE = 65_536  # characters
MIN_FPS, MAX_FPS = Fraction(1, 10), Fraction(240)
_KEY = "dynamicrafter"


class Note(NamedTuple):
    """How a clip was made, its frames per second and how many they are."""

    options: dict[str, object]
    fps: Fraction
    num_frames: int


def write_note(metadata: dict[str, object], *, fps: Fraction, num_frames: int) -> str:
    """Put a clip's options into ASCII JSON.

    Raises:
        InputError: metadata is no dict, holds what JSON cannot say, or is longer than 65,536 characters.
    """
    if not isinstance(metadata, dict):
        raise InputError(f"metadata must be a dict, got {type(metadata).__name__}.")
    try:
        text = json.dumps({_KEY: metadata, "fps": str(fps), "frames": num_frames}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"metadata must hold plain JSON values, but {error}.") from error
    if len(text) > MAX_NOTE:
        raise InputError(f"metadata must fit into {MAX_NOTE} characters of JSON, got {len(text)}.")
    return text


def parse_note(text: object) -> Note | None:
    """Read a note back; None if there is none, or it is none of ours."""
    if not isinstance(text, str | bytes) or len(text) > MAX_NOTE:
        return None
    try:
        content = json.loads(text)
        note = Note(content[_KEY], parse_fps(content["fps"]), content["frames"])
    except (ValueError, TypeError, KeyError, RecursionError):  # InputError and UnicodeDecodeError are ValueErrors
        return None
    return note if isinstance(note.options, dict) and type(note.num_frames) is int and note.num_frames > 0 else None


def parse_fps(fps: Fraction | float | str) -> Fraction:
    """Frames per second as an exact fraction; a float means the nearest fraction with a denominator up to 1001.

    Args:
        fps: 0.1 … 240, such as 8, 23.976, "24000/1001".

    Raises:
        InputError: it is no such number, or its fraction needs more than seven digits.
    """
    try:
        if isinstance(fps, float) and math.isfinite(fps):
            exact = Fraction(fps).limit_denominator(1001)
        elif isinstance(fps, str) and len(fps) > 32:
            raise ValueError
        else:
            exact = Fraction(fps)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError):
        raise InputError(f"fps must be a number or a fraction such as 24000/1001, got {str(fps)[:40]!r}.") from None
    if isinstance(fps, bool) or not MIN_FPS <= exact <= MAX_FPS:
        raise InputError(f"fps must be between {float(MIN_FPS)} and {MAX_FPS} frames per second, got {fps}.")
    if max(exact.numerator, exact.denominator) >= 10**7:  # containers keep 32-bit fractions and multiply them
        raise InputError(f"fps must be a fraction of at most seven digits, got {fps}; try 24000/1001 or 23.976.")
    return exact
