"""How well a pan keeps the picture that it carries: frames laid over the picture by the best whole-pixel shift.

A clip may move as it was asked to and still show mush. Over what both the frame and the picture show, PSNR says how
near they are, and the gradient energy how much of the picture's sharpness is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.fidelity import psnr
from dynamicrafter.evaluation.frames import check_clip

FRAMES = (5, 10, 15)  # of a clip, counted from 0, that are laid over its picture
_FURTHEST = 0.35  # share of the shorter side that a shift is looked for in


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """One frame over its picture.

    frame: its number. right, down: the content's shift in pixels. psnr: dB over the overlap. energy: the frame's mean
    squared difference of neighbouring pixels there, over the picture's: 1 is as sharp, less is blurred.
    """

    frame: int
    right: int
    down: int
    psnr: float
    energy: float


def measure_carried(frames: np.ndarray, picture: np.ndarray, *, at: tuple[int, ...] = FRAMES) -> tuple[Carried, ...]:
    """Lay frames over the picture that they carry.

    Args:
        frames: uint8 (f, h, w, 3).
        picture: uint8 (h, w, 3), of their size.
        at: frame numbers; those that a clip doesn't have are left out.

    Raises:
        InputError: another type, or a picture of another size.
    """
    check_clip(frames)
    check_clip(picture[None])
    if frames.shape[1:] != picture.shape:
        raise InputError(f"picture must have the frames' shape {frames.shape[1:]}, got {picture.shape}.")
    return tuple(_carried(number, frames[number], picture) for number in at if number < len(frames))


def gradient_energy(picture: np.ndarray) -> float:
    """Mean squared difference of pixels that are neighbours in a row or in a column, of (h, w, 3)."""
    values = picture.astype(np.float64)
    return float((np.diff(values, axis=0) ** 2).mean() + (np.diff(values, axis=1) ** 2).mean())


def _carried(number: int, frame: np.ndarray, picture: np.ndarray) -> Carried:
    right, down = _best_shift(frame.astype(np.float64), picture.astype(np.float64))
    height, width = frame.shape[:2]
    shown = frame[max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    meant = picture[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    energy = gradient_energy(meant)
    return Carried(
        frame=number,
        right=right,
        down=down,
        psnr=psnr(shown, meant),
        energy=gradient_energy(shown) / energy if energy else 1.0,
    )


def _best_shift(frame: np.ndarray, picture: np.ndarray) -> tuple[int, int]:
    """The content's shift, right and down, with the least mean squared error over the overlap.

    All shifts at once: Σ(f − p)² = Σf² + Σp² − 2Σfp, each sum over the overlap a correlation.
    """
    height, width = frame.shape[:2]
    inside = np.ones((height, width))
    total = _correlation((frame**2).sum(-1), inside) + _correlation(inside, (picture**2).sum(-1))
    total -= 2 * sum(_correlation(frame[..., colour], picture[..., colour]) for colour in range(3))
    error = total / np.maximum(_correlation(inside, inside), 1)
    reach = int(_FURTHEST * min(height, width))
    shifts = np.arange(-reach, reach + 1)
    near = error[np.ix_(shifts, shifts)]  # negative shifts stand at the end, where negative indices find them
    down, right = np.unravel_index(near.argmin(), near.shape)
    return int(shifts[right]), int(shifts[down])


def _correlation(of: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """Σ over places of of[place + shift] · beside[place], for every shift, zero beyond the borders."""
    size = tuple(2 * side for side in of.shape)
    return np.fft.irfft2(np.fft.rfft2(of, s=size) * np.fft.rfft2(beside, s=size).conj(), s=size)
