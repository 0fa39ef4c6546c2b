"""How a clip goes through its key pictures, and how it leaves its first: pauses, jumps, steps of colour."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.closure import joint_jerk
from dynamicrafter.evaluation.frames import check_clip
from dynamicrafter.evaluation.motion import SMALLEST_SIDE, CameraMotion, measure_motion

_MOVING = 0.1  # pixels per frame below which a clip is too still to have a pace


@dataclass(frozen=True, slots=True, kw_only=True)
class Joints:
    """How a clip goes through its joints.

    jerk: see `closure.joint_jerk`. pace: speed across them over that between them, 1 where it is even, less in a pause;
    None where too little moves or frames are too small. colour: see `colour_step`.
    """

    jerk: float
    pace: float | None
    colour: float


def measure_joints(frames: np.ndarray, joints: Sequence[int], *, closed: bool = False) -> Joints:
    """Measure a clip at the frames where its parts meet.

    Args:
        frames: (f, h, w, 3), uint8, at least six.
        joints: frames that are key pictures; the first and the last count only where the clip is closed.
        closed: the clip goes on from its last frame to its first.

    Raises:
        InputError: another type, shape or length, or no joint within the clip.
    """
    check_clip(frames, least=6)
    if closed:
        frames = np.concatenate([frames, frames[:3]])
        joints = [*joints, len(frames) - 3]
    inner = [joint for joint in joints if 0 < joint < len(frames) - 1]
    small = min(frames.shape[1:3]) < SMALLEST_SIDE
    return Joints(
        jerk=joint_jerk(frames, inner),
        pace=None if small else joint_pace(frames, inner),
        colour=colour_step(frames, inner),
    )


def joint_pace(frames: np.ndarray, joints: Collection[int]) -> float | None:
    """Speed of the camera's motion from the frame before a joint to the one after, over the median of that elsewhere.

    Frames two apart are compared, so that the key picture, sharper than its neighbours, is no part of a pair.

    Returns:
        None where less than 0.1 pixels a frame move elsewhere.

    Raises:
        InputError: frames of another type or shape, or under 32 pixels, or nothing but joints.
    """
    check_clip(frames, least=4)
    reach = min(frames.shape[1:3]) / 4  # pixels from the middle at which zooms and rotations are taken
    speeds = np.array(
        [_speed(measure_motion(frames[[i - 1, i + 1]], step=1)[0], reach) for i in range(1, len(frames) - 1)]
    )
    at_joint = np.isin(np.arange(1, len(frames) - 1), list(joints))
    if at_joint.all() or not at_joint.any():
        raise InputError(f"joints must be some of the frames 1 to {len(frames) - 2} and not all, got {list(joints)}.")
    elsewhere = float(np.median(speeds[~at_joint]))
    return None if elsewhere < 2 * _MOVING else float(speeds[at_joint].mean()) / elsewhere


def colour_step(frames: np.ndarray, joints: Collection[int]) -> float:
    """Mean absolute second difference of the frame's mean colour at joints, in grey levels; `flicker` is that of all.

    A steady change of light counts as none.

    Raises:
        InputError: frames of another type or shape, or a joint that has no neighbours.
    """
    check_clip(frames, least=3)
    if not joints or not all(0 < joint < len(frames) - 1 for joint in joints):
        raise InputError(f"joints must be some of the frames 1 to {len(frames) - 2}, got {list(joints)}.")
    bends = np.abs(np.diff(frames.mean(axis=(1, 2), dtype=np.float64), n=2, axis=0)).mean(axis=1)
    return float(bends[[joint - 1 for joint in joints]].mean())


def first_jump(frames: np.ndarray) -> float:
    """Mean difference of the second frame to the first, over the median of that between later neighbours.

    Where the first frame is held to a picture, it is 1 if the rest grows out of it without a jump.

    Args:
        frames: (f, h, w, 3), uint8, at least four.

    Raises:
        InputError: another type, shape or length.
    """
    check_clip(frames, least=4)
    levels = frames.astype(np.int16)
    first, *others = (float(np.abs(after - before).mean()) for before, after in pairwise(levels))
    usual = float(np.median(others))
    if usual == 0:
        return 1.0 if first == 0 else float("inf")
    return first / usual


def _speed(motion: CameraMotion, reach: float) -> float:
    return float(np.hypot(motion.x, motion.y) + reach * (abs(motion.log_zoom) + abs(motion.rotation)))
