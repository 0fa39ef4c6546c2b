"""Clips through key pictures: which gaps there are, and how their clips are joined. Importable without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynamicrafter.errors import InputError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """From one key picture to the next: their places in the list, what happens, and the name of the random stream."""

    first: int
    last: int
    prompt: str
    item: str


def plan_gaps(num_pictures: int, prompts: Sequence[str], *, closed: bool, item: str = "") -> list[Gap]:
    """The gaps between key pictures, in their order; see `ClipSpec`.

    Args:
        item: of the clip; the first gap draws from that stream, the others from streams named after it.

    Raises:
        InputError: fewer than two pictures, or neither one prompt nor one for each gap.
    """
    if num_pictures < 2:
        remedy = "loop takes a single one" if closed else "animate takes a single one"
        raise InputError(f"pictures must be at least two to interpolate through, got {num_pictures}; {remedy}.")
    count = num_pictures if closed else num_pictures - 1
    if len(prompts) not in (1, count):
        raise InputError(
            f"prompts must be one, or one for each of the {count} gaps between {num_pictures} pictures, "
            f"got {len(prompts)}."
        )
    return [
        Gap(
            first=number,
            last=(number + 1) % num_pictures,
            prompt=prompts[number % len(prompts)],
            item=f"{item}\ngap {number + 1}" if number else item,
        )
        for number in range(count)
    ]


def join_gaps(clips: Sequence[np.ndarray], *, closed: bool) -> np.ndarray:
    """One clip of the gaps' clips, (f, h, w, 3) each, in which every key picture stands once.

    Args:
        closed: the last clip ends on the first picture, whose repeat is left out.
    """
    import numpy as np

    joined = np.concatenate([clips[0], *(clip[1:] for clip in clips[1:])])
    return joined[:-1] if closed else joined


def match_colours(frames: np.ndarray) -> np.ndarray:
    """A gap's clip, the colours between its key pictures drawn to theirs.

    The network's colours drift, and a key picture's do not: the mean colour would step there. How far it would, at
    either end, is told by where the colours between are heading; that much is added, more of either end's the nearer
    it is.

    Args:
        frames: uint8 (f, h, w, 3), the first and the last of which are key pictures, and stay.
    """
    import numpy as np

    if len(frames) < 4:  # too few between to tell where they are heading
        return frames
    colours = frames.mean(axis=(1, 2), dtype=np.float64)
    heading = (colours[-2] - colours[1]) / (len(frames) - 3)
    first = colours[0] - (colours[1] - heading)
    last = colours[-1] - (colours[-2] + heading)
    along = np.linspace(0, 1, len(frames))[1:-1, None]
    shifts = (1 - along) * first + along * last
    matched = frames.copy()
    matched[1:-1] = np.clip(np.rint(frames[1:-1] + shifts[:, None, None]), 0, 255)
    return matched


def key_frames(num_pictures: int, num_frames: int) -> list[int]:
    """Where the key pictures stand in the joined clip, with `num_frames` in each gap."""
    return [number * (num_frames - 1) for number in range(num_pictures)]
