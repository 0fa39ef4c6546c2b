"""How the time of a clip grows with its frames, its pixels and its steps, and a curve through what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from dynamicrafter.animator.animator import Animator
from dynamicrafter.benchmarking.clock import PeakMemory, seconds
from dynamicrafter.presets import SIZE_MULTIPLE

Axis = Literal["frames", "pixels", "steps"]
AXES: tuple[Axis, ...] = ("frames", "pixels", "steps")
FRAMES = (16, 32, 48, 64, 96, 128)
STEPS = (1, 2, 4, 8)
SIDES = (1.0, 1.5, 2.0, 3.0)  # times the preset's


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One clip: its length along the axis, its seconds, and the most memory in use, in bytes."""

    at: int
    seconds: float
    memory_peak: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """What was measured along one axis, and seconds ≈ base + slope · at, and at^exponent beyond the base.

    Attributes:
        base, slope: of the straight line of least squares.
        exponent: of the power of least squares in logarithms; 1 is in proportion. None from fewer than 2 points.
    """

    axis: Axis
    points: tuple[Point, ...]
    base: float
    slope: float
    exponent: float | None


def sweep(animator: Animator, axis: Axis, *, steps: int, most: float = math.inf) -> Growth:
    """Make clips along one axis, at the preset's size, 16 frames and so many steps where they aren't the axis.

    Args:
        most: seconds; where the next clip would take longer at the growth so far, the sweep ends.
    """
    points: list[Point] = []
    for at, options in settings(animator, axis, steps=steps):
        if len(points) > 1 and fit(axis, points).base + fit(axis, points).slope * at > most:
            break
        with PeakMemory(animator.device) as peak:
            took = seconds(lambda options=options: animator.animate(_picture(), **options), animator.device)
        points.append(Point(at=at, seconds=took, memory_peak=peak.bytes))
    return fit(axis, points)


def settings(animator: Animator, axis: Axis, *, steps: int) -> Iterable[tuple[int, dict[str, Any]]]:
    """Places along an axis, and the options of the clip at each."""
    preset = animator.preset
    match axis:
        case "frames":
            yield from ((frames, {"frames": frames, "steps": steps}) for frames in FRAMES)
        case "steps":
            yield from ((count, {"steps": count}) for count in STEPS)
        case "pixels":
            for factor in SIDES:
                height, width = (
                    SIZE_MULTIPLE * round(factor * side / SIZE_MULTIPLE) for side in (preset.height, preset.width)
                )
                yield height * width, {"size": (height, width), "steps": steps}


def fit(axis: Axis, points: Sequence[Point]) -> Growth:
    """Lay a straight line and a power through points."""
    line = _least_squares([point.at for point in points], [point.seconds for point in points])
    power = None
    if len(points) > 1:
        power = _least_squares([math.log(point.at) for point in points], [math.log(point.seconds) for point in points])[
            1
        ]
    return Growth(axis=axis, points=tuple(points), base=line[0], slope=line[1], exponent=power)


def _least_squares(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Where the line begins, and how it rises."""
    if len(xs) < 2:
        return ys[0], 0.0
    slope, base = statistics.linear_regression(xs, ys)
    return base, slope


def _picture() -> Image.Image:
    """Something to animate; its content takes no time."""
    return Image.linear_gradient("L").convert("RGB")
