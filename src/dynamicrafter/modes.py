"""The ways to make a clip, as a table: what each needs and does."""

from __future__ import annotations

from dataclasses import dataclass

from dynamicrafter.errors import InputError
from dynamicrafter.schema import Choice

Mode = str  # a key of MODES
ANIMATE, INTERPOLATE, LOOP, TEXT = "animate", "interpolate", "loop", "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeEntry:
    """One way to make a clip.

    Attributes:
        summary: what it does, as a command's line of help.
        promise: the same as a sentence on the page.
        pictures: how few and how many it takes; None for any number.
        ends_on_picture: whether the last frame is held to a picture too, so that windows keep a place for it.
        returns: whether that picture is the first one.
    """

    name: Mode
    summary: str
    promise: str
    pictures: tuple[int, int | None]
    ends_on_picture: bool = False
    returns: bool = False

    @property
    def least_frames(self) -> int:
        return 2 if self.ends_on_picture else 1

    @property
    def picture_names(self) -> tuple[str, ...]:
        """How messages call the pictures that must be given."""
        return ((), ("image",), ("first", "last"))[self.pictures[0]]


MODES: dict[Mode, ModeEntry] = {
    entry.name: entry
    for entry in (
        ModeEntry(
            name=ANIMATE,
            summary="make a video of a picture and a prompt",
            promise="One picture and a sentence become a clip.",
            pictures=(1, 1),
        ),
        ModeEntry(
            name=INTERPOLATE,
            summary="fill the time between two pictures, or through several",
            promise="Two pictures and a sentence become the time between them.",
            pictures=(2, None),
            ends_on_picture=True,
        ),
        ModeEntry(
            name=LOOP,
            summary="make a video whose end runs into its beginning",
            promise="The clip’s end runs into its beginning.",
            pictures=(1, 1),
            ends_on_picture=True,
            returns=True,
        ),
        ModeEntry(
            name=TEXT,
            summary="make a video of a prompt alone",
            promise="A sentence alone becomes a clip.",
            pictures=(0, 0),
        ),
    )
}


MODE = Choice(lambda: tuple(MODES))


def get_mode(name: str) -> ModeEntry:
    """Look a mode up by its name.

    Raises:
        InputError: there is no such mode.
    """
    if name not in MODES:
        raise InputError(f"mode must be one of {', '.join(MODES)}, got {name!r}.")
    return MODES[name]


def mode_for(num_pictures: int) -> Mode:
    """The first mode that takes so many pictures.

    Raises:
        InputError: none does.
    """
    for entry in MODES.values():
        least, most = entry.pictures
        if num_pictures >= least and (most is None or num_pictures <= most):
            return entry.name
    raise InputError(f"pictures must be one or more, got {num_pictures}.")
