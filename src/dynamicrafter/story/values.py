"""Single values of a story's file: lengths, sizes, pictures, colours, names; each error with its line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from dynamicrafter.errors import InputError
from dynamicrafter.media.pictures import read_picture
from dynamicrafter.media.sound import check_sound
from dynamicrafter.schema import Number, OptionError, WholeNumber, shown
from dynamicrafter.specs.options import check_prompt
from dynamicrafter.specs.pictures import LoadedPicture, load_picture
from dynamicrafter.story.cards import check_color
from dynamicrafter.story.located import Located

T = TypeVar("T")

PREVIOUS = "previous"  # as a picture: the last frame of the shot before; a file of that name is ./previous
JOINED = 2  # frames that a generated transition shares with its two shots, and that are not shown again
_LONGEST = 3600  # seconds of a shot, card or transition; more is a slip of the hand


def located(place: Located, check: Callable[[], T], *, among: dict[str, Located] | None = None) -> T:
    """What `check` returns; its error gets the place.

    Args:
        among: the places of options; an error about one of them gets its own.
    """
    try:
        return check()
    except InputError as error:
        option = error.option if isinstance(error, OptionError) else ""
        raise (among or {}).get(option, place).refusal(str(error)) from None


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
    name, kind, most = ("frames", WholeNumber(), _LONGEST * fps) if frames else ("seconds", Number(), _LONGEST)
    try:
        value = kind.convert(place.plain())
    except (ValueError, TypeError, OverflowError):
        value = math.nan
    if not (math.isfinite(value) and 0 < value <= most):
        raise place.refusal(f"{name} must be {kind.rule} above 0 and up to {int(most)}, got {shown(place.plain())}.")
    count = value if frames else round(Fraction(value) * fps)
    if not count:
        raise place.refusal(f"seconds must be at least {1 / fps} for one frame at {fps} a second, got {value}.")
    remark = "" if frames else f" ({value:g} s at {fps} frames a second)"
    if extra:
        remark += f" (with the {extra} that it shares with its shots)"
    return replace(place, value=count + extra, remark=remark)


def picture_of(place: Located, known: dict[Path, LoadedPicture]) -> LoadedPicture | None:
    """A picture, read; None where the shot continues the one before.

    Args:
        known: the pictures of the story that were read already, to which this one is added.

    Raises:
        InputError: it can't be read.
    """
    if isinstance(place.value, LoadedPicture):
        return place.value
    if place.text("picture") == PREVIOUS:
        return None
    path = path_of(place, "picture")
    if path not in known:
        known[path] = located(place, lambda: load_picture(path))
    return known[path]


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
    """A file with sound."""
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
    """What happens; empty where nothing is said."""
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
