"""Where parts of a clip meet: a loop's end and its beginning, joints at key pictures, borders of windows and tiles.

Each is a ratio to what the clip has elsewhere: 1 is no worse than its surroundings.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import numpy as np

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.frames import check_clip


def loop_closure(frames: np.ndarray) -> float:
    """Mean difference of the last frame to the first, over that of neighbours.

    Args:
        frames: (f, h, w, 3), uint8, at least three, the first not repeated at the end.

    Raises:
        InputError: another type, shape or length.
    """
    check_clip(frames, least=3)
    neighbours = np.mean([_difference(*pair) for pair in pairwise(frames)])
    return _ratio(_difference(frames[-1], frames[0]), float(neighbours))


def joint_jerk(frames: np.ndarray, joints: Collection[int]) -> float:
    """Mean second difference over time at joints, over that elsewhere: a jump or a halt at a key picture raises it.

    Args:
        frames: (f, h, w, 3), uint8, at least four.
        joints: frames, not the first or last, where two parts meet.

    Raises:
        InputError: another type, shape or length, or no joint, a joint outside the clip, or nothing but joints.
    """
    check_clip(frames, least=4)
    levels = frames.astype(np.int16)
    jerks = np.array([np.abs(levels[i + 1] - 2 * levels[i] + levels[i - 1]).mean() for i in range(1, len(frames) - 1)])
    return _ratio_at(jerks, joints, first=1, what="joints", unit="frames")


def window_seam(frames: np.ndarray, borders: Collection[int]) -> float:
    """Mean difference of neighbouring frames across borders of windows over time, over that elsewhere.

    Args:
        frames: (f, h, w, 3), uint8, at least three.
        borders: where a window begins or has ended: b is a border between the frames b − 1 and b.

    Raises:
        InputError: another type, shape or length, or no border, one outside the clip, or nothing but borders.
    """
    check_clip(frames, least=3)
    steps = np.array([_difference(*pair) for pair in pairwise(frames)])
    return _ratio_at(steps, borders, first=1, what="borders", unit="frames")


def seam(frames: np.ndarray, *, rows: Collection[int] = (), columns: Collection[int] = ()) -> float:
    """Mean difference across borders of tiles, over that between neighbours elsewhere; the larger of both axes.

    Args:
        frames: (f, h, w, 3), uint8.
        rows, columns: where a tile begins: row r is a border between pixels r − 1 and r.

    Raises:
        InputError: another type or shape, no border, or one outside the frame.
    """
    check_clip(frames)
    if not rows and not columns:
        raise InputError("rows and columns must name at least one border; got none.")
    levels = frames.astype(np.int16)
    found = []
    if rows:
        steps = np.abs(np.diff(levels, axis=1)).mean(axis=(0, 2, 3))
        found.append(_ratio_at(steps, rows, first=1, what="rows", unit="pixels"))
    if columns:
        steps = np.abs(np.diff(levels, axis=2)).mean(axis=(0, 1, 3))
        found.append(_ratio_at(steps, columns, first=1, what="columns", unit="pixels"))
    return max(found)


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())


def _ratio(here: float, elsewhere: float) -> float:
    """A ratio that is 1 where both are 0, as in a still clip."""
    if elsewhere == 0:
        return 1.0 if here == 0 else float("inf")
    return here / elsewhere


def _ratio_at(values: np.ndarray, places: Collection[int], *, first: int, what: str, unit: str) -> float:
    last = first + len(values) - 1
    chosen = np.isin(np.arange(first, last + 1), list(places))
    wrong = [place for place in places if not first <= place <= last]
    if wrong or not chosen.any() or chosen.all():
        raise InputError(f"{what} must be some of the {unit} {first} to {last} and not all, got {list(places)}.")
    return _ratio(float(values[chosen].mean()), float(values[~chosen].mean()))
