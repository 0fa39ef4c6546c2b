"""Colours of the whole frame over time: flicker, which is unwanted, and light that changes, which may be asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynamicrafter.evaluation.frames import check_clip


@dataclass(frozen=True, slots=True, kw_only=True)
class LightChange:
    """From the first frame to the last, in grey levels.

    brightness: of the mean level. colour: of the mean distance between a pixel's largest and smallest channel, which is
    0 in grey.
    """

    brightness: float
    colour: float


def light_change(frames: np.ndarray) -> LightChange:
    """How the light of a clip changes from end to end: night falls, colours fade.

    Args:
        frames: (f, h, w, 3), uint8, at least two.

    Raises:
        InputError: another type, shape or length.
    """
    check_clip(frames, least=2)
    ends = frames[[0, -1]].astype(np.int16)
    first, last = ends.mean(axis=(1, 2, 3))
    first_colour, last_colour = (ends.max(axis=3) - ends.min(axis=3)).mean(axis=(1, 2))
    return LightChange(brightness=float(last - first), colour=float(last_colour - first_colour))


def flicker(frames: np.ndarray) -> float:
    """Mean absolute second difference over time of the frames' mean colour, in grey levels.

    A steady change of light counts as none.

    Args:
        frames: (f, h, w, 3), uint8, at least three.

    Raises:
        InputError: another type, shape or length.
    """
    check_clip(frames, least=3)
    colours = frames.mean(axis=(1, 2), dtype=np.float64)
    return float(np.abs(np.diff(colours, n=2, axis=0)).mean())
