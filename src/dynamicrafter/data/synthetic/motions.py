"""Known motions: what each does to a picture over time, how fast for a motion number, and by how much per frame.

Motion numbers are frames per second of the imagined camera: something that moves 16 pixels a second moves 16/12 pixels
from frame to frame at 12 frames a second, and half of that at 24.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np

from dynamicrafter.data.synthetic.photos import Pixels
from dynamicrafter.errors import InputError

Field = np.ndarray[Any, np.dtype[Any]]  # of places, or of how far away they look
Kind = Literal[
    "pan left",
    "pan right",
    "pan up",
    "pan down",
    "zoom in",
    "zoom out",
    "rotate clockwise",
    "rotate counterclockwise",
    "still",
    "sway",
    "ripple",
    "darken",
    "brighten",
    "lose colour",
    "dissolve",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
CAMERA: tuple[Kind, ...] = KINDS[:8]
MOVING: tuple[Kind, ...] = KINDS[:11]  # every frame shows the first one's content at other places
# Needs a second picture, and so only happens where the last frame is given.
BETWEEN_PICTURES: Kind = "dissolve"

SPEED = 16.0  # pixels a second, of pans
TURN = 0.192  # a second: radians of rotations, and logarithm of the scale of zooms
_SWAY = 3.0  # pixels at the top of the frame, for a second at the nominal speed
_MARGIN = 64  # pixels that the source is larger than the frame, on both sides together
_PANS = {"pan left": (-1, 0), "pan right": (1, 0), "pan up": (0, -1), "pan down": (0, 1)}  # of the camera

Course = Literal["onward", "there and back"]


@dataclass(frozen=True, slots=True)
class MotionSpeed:
    """How the content moves between neighbouring frames: pixels right and down, log scale, radians clockwise."""

    shift_x: float = 0.0
    shift_y: float = 0.0
    log_scale: float = 0.0
    rotation: float = 0.0


def nominal_motion(kind: Kind, motion: float) -> MotionSpeed:
    """What a camera motion does from frame to frame, at a motion number in frames per second.

    Raises:
        InputError: kind is no camera motion.
    """
    if kind in _PANS:
        x, y = _PANS[kind]
        return MotionSpeed(shift_x=-x * SPEED / motion, shift_y=-y * SPEED / motion)
    match kind:
        case "zoom in" | "zoom out":
            return MotionSpeed(log_scale=(1 if kind == "zoom in" else -1) * TURN / motion)
        case "rotate clockwise" | "rotate counterclockwise":
            return MotionSpeed(rotation=(1 if kind == "rotate clockwise" else -1) * TURN / motion)
        case "still":
            return MotionSpeed()
    raise InputError(f"kind must be a camera motion ({', '.join(CAMERA)} or still), got {kind!r}.")


def source_size(size: int) -> int:
    """Side of the picture that a clip of `size` pixels is made of: pans uncover what lies around the first frame."""
    return size + _MARGIN


def move(
    picture: Pixels,
    kind: Kind,
    *,
    size: int,
    num_frames: int,
    motion: float,
    course: Course = "onward",
    other: Pixels | None = None,
) -> Pixels:
    """Make a clip of a picture; the first frame is the picture's middle, unmoved.

    Args:
        picture: (s, s, 3) with s = `source_size(size)`.
        motion: frames per second; smaller moves more.
        course: "there and back" is where it began on the last frame, half the way out in the middle.
        other: a second picture like the first, for "dissolve".

    Returns:
        (f, size, size, 3).
    """
    seconds = _clock(num_frames, course) / motion
    if kind not in MOVING:
        return _change_light(picture, kind, seconds, size=size, other=other)
    y, x = np.mgrid[:size, :size].astype(np.float64)
    offset = (picture.shape[0] - size) / 2
    frames = []
    for s in seconds:
        field = _displaced(kind, float(s), x, y, size)
        column, row = ((grid + offset + shift).astype(np.float32) for grid, shift in zip((x, y), field, strict=True))
        frames.append(cv2.remap(picture, column, row, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT_101))
    return np.stack(frames).astype(np.uint8)


def displacements(
    kind: Kind, *, size: int, patch: int, num_frames: int, motion: float, course: Course = "onward"
) -> Field:
    """Where each frame of a clip that `move` makes finds its content in the first frame, and in the last one.

    Args:
        kind: one of `MOVING`, or any other, for which nothing is displaced.
        patch: pixels along the side of a patch; divides `size`.

    Returns:
        (2, f, 2, size / patch, size / patch), float32: pixels to the right and down, at the patches' centres. From the
        last frame they are exact for the camera's motions, and for the others as near as they are small.
    """
    y, x = np.mgrid[: size // patch, : size // patch] * float(patch) + (patch - 1) / 2
    if kind not in MOVING:
        return np.zeros((2, num_frames, 2, *x.shape), np.float32)
    seconds = _clock(num_frames, course) / motion
    from_first = np.stack([_displaced(kind, float(s), x, y, size) for s in seconds])
    if kind in CAMERA:
        from_last = np.stack([_displaced(kind, float(s - seconds[-1]), x, y, size) for s in seconds])
    else:
        from_last = from_first - from_first[-1]
    return np.stack([from_first, from_last]).astype(np.float32)


def _clock(num_frames: int, course: Course) -> np.ndarray:
    """Frames' worth of motion that have passed at each frame."""
    frames = np.arange(num_frames, dtype=np.float64)
    last = max(num_frames - 1, 1)
    return frames if course == "onward" else last / 4 * (1 - np.cos(2 * math.pi * frames / last))


def _displaced(kind: Kind, seconds: float, x: Field, y: Field, size: int) -> Field:
    """How far to the right and down of each place lies what it shows after a time: (2, …) for places (…)."""
    match kind:
        case "sway":  # like grass, fixed at the bottom
            right = -8 * _SWAY / 3 * (1 - y / size) * math.sin(2 * math.pi * seconds / 1.25)
            return np.stack([right, np.zeros_like(y)])
        case "ripple":  # like water, in waves that run down the frame; the first frame is the picture itself
            right = -min(1.0, seconds * 2) * _SWAY * np.sin(2 * math.pi * (y / 32 - seconds))
            return np.stack([right, np.zeros_like(y)])
    moved = nominal_motion(kind, 1 / seconds) if seconds else MotionSpeed()
    half = (size - 1) / 2
    cosine, sine = (f(moved.rotation) * math.exp(-moved.log_scale) for f in (math.cos, math.sin))
    # From the frame to the source: content that turns clockwise on screen is looked up counterclockwise.
    right = cosine * (x - half) + sine * (y - half) - moved.shift_x - (x - half)
    down = -sine * (x - half) + cosine * (y - half) - moved.shift_y - (y - half)
    return np.stack([right, down])


def _change_light(picture: Pixels, kind: Kind, seconds: np.ndarray, *, size: int, other: Pixels | None) -> Pixels:
    base = _middle(picture, size).astype(np.float32)
    if kind == "dissolve":
        if other is None:
            raise InputError("other must be given for a dissolve; name a second picture.")
        target = _middle(other, size).astype(np.float32)
        shares = np.linspace(0, 1, len(seconds))
    else:
        grey = base.mean(-1, keepdims=True).repeat(3, -1)
        target = {"darken": base * 0.0, "brighten": np.full_like(base, 255), "lose colour": grey}[kind]
        strength = 1.0 if kind == "lose colour" else 0.7
        shares = strength * np.minimum(1, seconds * 0.6)
    return np.stack([(base + share * (target - base)).round().astype(np.uint8) for share in shares])


def _middle(picture: Pixels, size: int) -> Pixels:
    start = (picture.shape[0] - size) // 2
    return picture[start : start + size, start : start + size]
