"""Single values of a story's file: lengths, sizes, pictures, colours, names; each error with its line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from dynamicrafter.animator.options import check_prompt, parse_size
from dynamicrafter.errors import InputError
from dynamicrafter.media.pictures import picture_hash, read_picture
from dynamicrafter.media.sound import check_sound
from dynamicrafter.story.cards import check_color
from dynamicrafter.story.located import Located, shown

T = TypeVar("T")

PREVIOUS = "previous"  # as a picture: the last frame of the shot before; a file of that name is ./previous
JOINED = 2  # frames that a generated transition shares with its two shots, and that are not shown again
_LONGEST = 3600  # seconds of a shot, card or transition; more is a slip of the hand


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFile:
    """A picture, and the hash of its pixels when it was looked at."""

    path: Path
    sha256: str


def located(place: Located, check: Callable[[], T]) -> T:
    """What `check` returns; its error gets the place."""
    try:
        return check()
    except InputError as error:
        raise place.refusal(str(error)) from None


def length_of(keys: dict[str, Located], fps: Fraction, *, extra: int = 0) -> Located | None:
    """The length that stands among some keys, in frames, `extra` added; None where there is none.

    Raises:
        InputError: both frames and seconds, no positive number, or more than an hour.
    """
    seconds, frames = keys.get("seconds"), keys.get("frames")
    if seconds is not None and frames is not None:
        raise seconds.refusal("seconds and frames are two words for one length; leave one out.", line=seconds.key_line)
    place = frames or seconds
    if place is None:
        return None
    name, value, kinds = ("frames", place.value, int) if frames else ("seconds", place.value, (int, float))
    most = _LONGEST * fps if frames else _LONGEST
    if isinstance(value, bool) or not isinstance(value, kinds) or not (math.isfinite(value) and 0 < value <= most):
        kind = "a whole number" if frames else "a number"
        raise place.refusal(f"{name} must be {kind} above 0 and up to {int(most)}, got {shown(place.plain())}.")
    count = value if frames else round(Fraction(value) * fps)
    if not count:
        raise place.refusal(f"seconds must be at least {1 / fps} for one frame at {fps} a second, got {value}.")
    remark = "" if frames else f" ({value:g} s at {fps} frames a second)"
    if extra:
        remark += f" (with the {extra} that it shares with its shots)"
    return replace(place, value=count + extra, remark=remark)


def size_of(place: Located) -> tuple[int, int]:
    """(height, width)."""
    text = place.text("size")
    try:
        return parse_size(text)
    except ValueError as error:
        raise place.refusal(f"size {error}") from None


def picture_of(place: Located) -> PictureFile | None:
    """A picture that can be read; None where the shot continues the one before."""
    if place.text("picture") == PREVIOUS:
        return None
    path = path_of(place, "picture")
    return PictureFile(path=path, sha256=located(place, lambda: picture_hash(read_picture(path))))


def background_of(place: Located) -> str | Path:
    """A colour, or else the file of a picture."""
    text = place.text("background")
    try:
        check_color(text)
    except InputError as error:
        path = path_of(place, "background")
        if not path.suffix:
            raise place.refusal(str(error)) from None
        located(place, lambda: read_picture(path))
        return path
    return text


def sound_of(place: Located) -> Path:
    path = path_of(place, "audio")
    located(place, lambda: check_sound(path))
    return path


def path_of(place: Located, name: str) -> Path:
    """A file, seen from the story's folder."""
    text = place.text(name)
    if not text or "\0" in text:
        raise place.refusal(f"{name} must name a file, got {shown(text)}.")
    return place.file.parent / text


def prompt_of(keys: dict[str, Located]) -> str:
    if "prompt" not in keys:
        return ""
    text = keys["prompt"].text("prompt")
    located(keys["prompt"], lambda: check_prompt("prompt", text))
    return text


def name_of(place: Located | None, key: str) -> str | None:
    """A model's name, which may look like a number: 512."""
    if place is None:
        return None
    return str(place.value) if type(place.value) is int else place.text(key)
