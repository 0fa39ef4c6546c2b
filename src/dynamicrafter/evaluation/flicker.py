"""Flicker: colours of the whole frame that go up and down."""

from __future__ import annotations

import numpy as np

from dynamicrafter.evaluation.frames import check_clip


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
