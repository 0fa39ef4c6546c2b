"""Known motions: what each does to a picture over time, how fast for a motion number, and by how much per frame.

Motion numbers are frames per second of the imagined camera: something that moves 16 pixels a second moves 16/12 pixels
from frame to frame at 12 frames a second, and half of that at 24.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from dynamicrafter.data.synthetic.photos import Pixels
from dynamicrafter.errors import InputError

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
# Needs a second picture, and so only happens where the last frame is given.
BETWEEN_PICTURES: Kind = "dissolve"

SPEED = 16.0  # pixels a second, of pans
TURN = 0.192  # a second: radians of rotations, and logarithm of the scale of zooms
_SWAY = 3.0  # pixels at the top of the frame, for a second at the nominal speed
_MARGIN = 64  # pixels that the source is larger than the frame, on both sides together
_PANS = {"pan left": (-1, 0), "pan right": (1, 0), "pan up": (0, -1), "pan down": (0, 1)}  # of the camera

Course = Literal["onward", "there and back"]


@dataclass(frozen=True, slots=True)
class NominalMotion:
    """How the content moves between neighbouring frames: pixels right and down, log scale, radians clockwise."""

    shift_x: float = 0.0
    shift_y: float = 0.0
    log_scale: float = 0.0
    rotation: float = 0.0


def nominal_motion(kind: Kind, motion: float) -> NominalMotion:
    """What a camera motion does from frame to frame, at a motion number in frames per second.

    Raises:
        InputError: kind is no camera motion.
    """
    if kind in _PANS:
        x, y = _PANS[kind]
        return NominalMotion(shift_x=-x * SPEED / motion, shift_y=-y * SPEED / motion)
    match kind:
        case "zoom in" | "zoom out":
            return NominalMotion(log_scale=(1 if kind == "zoom in" else -1) * TURN / motion)
        case "rotate clockwise" | "rotate counterclockwise":
            return NominalMotion(rotation=(1 if kind == "rotate clockwise" else -1) * TURN / motion)
        case "still":
            return NominalMotion()
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
    if kind in ("darken", "brighten", "lose colour", "dissolve"):
        return _change_light(picture, kind, seconds, size=size, other=other)
    if kind in ("sway", "ripple"):
        return _bend(picture, kind, seconds, size=size)
    return np.stack([_camera(picture, nominal_motion(kind, 1 / s) if s else NominalMotion(), size) for s in seconds])


def _clock(num_frames: int, course: Course) -> np.ndarray:
    """Frames' worth of motion that have passed at each frame."""
    frames = np.arange(num_frames, dtype=np.float64)
    last = max(num_frames - 1, 1)
    return frames if course == "onward" else last / 4 * (1 - np.cos(2 * math.pi * frames / last))


def _camera(picture: Pixels, moved: NominalMotion, size: int) -> Pixels:
    centre, half = (picture.shape[0] - 1) / 2, (size - 1) / 2
    cosine, sine = (f(moved.rotation) * math.exp(-moved.log_scale) for f in (math.cos, math.sin))
    # From the frame to the source: content that turns clockwise on screen is looked up counterclockwise.
    lookup = np.array(
        [
            [cosine, sine, centre - moved.shift_x - (cosine + sine) * half],
            [-sine, cosine, centre - moved.shift_y - (cosine - sine) * half],
        ]
    )
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(picture, lookup, (size, size), flags=how, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(warped, dtype=np.uint8)


def _bend(picture: Pixels, kind: Kind, seconds: np.ndarray, *, size: int) -> Pixels:
    """Sway like grass, fixed at the bottom; or ripple like water, in waves that run down the frame."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    offset = (picture.shape[0] - size) / 2
    frames = []
    for s in seconds:
        if kind == "sway":
            shift = 8 * _SWAY / 3 * (1 - y / size) * math.sin(2 * math.pi * s / 1.25)
        else:
            rise = min(1.0, float(s) * 2)  # the first frame is the picture itself
            shift = rise * _SWAY * np.sin(2 * math.pi * (y / 32 - s))
        frames.append(
            cv2.remap(
                picture, x + offset - np.float32(shift), y + offset, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT_101
            )
        )
    return np.stack(frames).astype(np.uint8)


def _change_light(picture: Pixels, kind: Kind, seconds: np.ndarray, *, size: int, other: Pixels | None) -> Pixels:
    base = _camera(picture, NominalMotion(), size).astype(np.float32)
    if kind == "dissolve":
        if other is None:
            raise InputError("other must be given for a dissolve; name a second picture.")
        target = _camera(other, NominalMotion(), size).astype(np.float32)
        shares = np.linspace(0, 1, len(seconds))
    else:
        grey = base.mean(-1, keepdims=True).repeat(3, -1)
        target = {"darken": base * 0.0, "brighten": np.full_like(base, 255), "lose colour": grey}[kind]
        strength = 1.0 if kind == "lose colour" else 0.7
        shares = strength * np.minimum(1, seconds * 0.6)
    return np.stack([(base + share * (target - base)).round().astype(np.uint8) for share in shares])
