"""Which clip comes at a position, and which of its frames: pure arithmetic over numbers drawn beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

import numpy as np

from dynamicrafter.errors import InputError
from dynamicrafter.randomness import generator_for

MotionUnit = Literal["frame stride", "frames per second"]


@dataclass(frozen=True, slots=True)
class Draws:
    """What chance decides about one sample, each uniform in [0, 1)."""

    stride: float
    start: float
    caption: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Frames start, start + stride, …"""

    start: int
    stride: int

    def slots(self, num_frames: int) -> range:
        return range(self.start, self.start + (num_frames - 1) * self.stride + 1, self.stride)


def draws_at(seed: int, position: int) -> Draws:
    """Chance's part in the sample at a position, whichever clip comes to stand there."""
    import torch

    generator = generator_for(seed, item="clip", sample=position)
    return Draws(*torch.rand(3, generator=generator, dtype=torch.float64).tolist())


def record_order(count: int, seed: int, position: int) -> tuple[np.ndarray, int]:
    """The order of the pass that a position lies in, (count,) record numbers, and the position's place in it."""
    epoch, place = divmod(position, count)
    return _shuffled(count, seed, epoch), place


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    import torch

    order = torch.randperm(count, generator=generator_for(seed, item="order", sample=epoch))
    return order.to(torch.int32).numpy()


def place_frames(available: int, *, num_frames: int, strides: tuple[int, int], draws: Draws) -> Placement:
    """Choose stride and start uniformly; a clip too short for the stride takes the largest that fits.

    Args:
        available: frames of the clip.
        num_frames: frames wanted.
        strides: the least and the largest stride, 1 or more.

    Raises:
        InputError: the clip is too short even at the least stride.
    """
    low, high = strides
    needed = (num_frames - 1) * low + 1
    if available < needed:
        raise InputError(f"the clip has {available} frames, and {num_frames} at stride {low} need {needed}.")
    stride = low + int(draws.stride * (high - low + 1))
    if num_frames > 1:
        stride = min(stride, (available - 1) // (num_frames - 1))
    starts = available - (num_frames - 1) * stride
    return Placement(int(draws.start * starts), stride)


def motion_number(fps: Fraction, stride: int, unit: MotionUnit) -> float:
    """The motion number of a clip that shows every stride-th frame: the stride, or whole frames per second, cut.

    Source: the published training divides the file's frames per second by the stride and drops the remainder.
    """
    return float(stride if unit == "frame stride" else fps // stride)
