"""How a clip moves: the camera's motion from optical flow, and what moves besides.

Everything is told of the content as it is seen: x to the right and y downwards in pixels, a positive log zoom where it
grows, a positive rotation where it turns clockwise. A camera that pans left moves its content right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.frames import check_clip, extra

Kind = Literal[
    "still",
    "pan left",
    "pan right",
    "pan up",
    "pan down",
    "zoom in",
    "zoom out",
    "rotate clockwise",
    "rotate counterclockwise",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

STEP = 3  # frames between the two of a pair: a slow motion is then several pixels long, and a fast one still traceable
SMALLEST_SIDE = 32  # pixels; below, the coarsest flow of DIS holds no whole patch
STILL = 0.25  # of nominal speed, below which a clip counts as still
_BORDER = 8  # 1/8 of each side is left out: content leaves and enters there
_POINTS = 6000  # of a frame, at most, that the fit is made from; more don't change it
_INLIER = 0.25  # pixels per frame between a point and where the fit takes it; larger ones blend what moves apart
_STIRRED = 0.25  # pixels per frame from which a point counts as moving by itself


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraMotion:
    """A clip's motion as a whole: medians over its pairs of frames, per frame.

    x, y: shift of the content at the frame's centre, pixels. log_zoom: natural logarithm of its growth.
    rotation: radians, clockwise on the screen.
    """

    x: float
    y: float
    log_zoom: float
    rotation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalMotion:
    """What moves besides the camera: rain, snow, ripples. Means over a clip's pairs, per frame.

    speed: mean length of the flow that the camera's motion leaves unexplained, pixels. x, y: its mean, pixels; far
    smaller than `speed` where things move to and fro. share: of the textured pixels, those that move so by 0.25 pixels
    or more. shimmer: mean difference, in grey levels, that two frames keep when the one is moved onto the other by the
    flow: what flow can't follow, such as falling flakes.
    """

    speed: float
    x: float
    y: float
    share: float
    shimmer: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NominalMotion:
    """How fast a camera is asked to move, per frame; all positive.

    pan: pixels. zoom: natural logarithm of the growth. rotation: radians.
    """

    pan: float
    zoom: float
    rotation: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"nominal {field.name} must be a positive number per frame, got {value}.")

    @classmethod
    def usual(cls, height: int, width: int) -> NominalMotion:
        """One 128th of the shorter side a frame, and the zoom and rotation that move that side's edge as far."""
        return cls(pan=min(height, width) / 128, zoom=1 / 64, rotation=1 / 64)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a motion is: its kind, and its speed as a ratio to nominal (of a still clip, the largest of all kinds)."""

    kind: Kind
    speed: float


def measure_motion(frames: np.ndarray, *, step: int = STEP) -> tuple[CameraMotion, LocalMotion]:
    """Measure how a clip moves.

    Between frames i and i + step lies a dense optical flow (DIS, arXiv:1603.03590). The camera's motion is the
    similarity that fits it at the pixels with texture, by RANSAC, about the frame's centre.

    Args:
        frames: (f, h, w, 3), uint8, at least two, sides of at least 32 pixels.
        step: frames between the two of a pair; at most as many as the clip has.

    Raises:
        InputError: another type, shape or length, or a step below 1.
    """
    check_clip(frames, least=2)
    if min(frames.shape[1:3]) < SMALLEST_SIDE:
        raise InputError(f"frames must be at least {SMALLEST_SIDE} pixels high and wide, got {frames.shape[1:3]}.")
    if step < 1:
        raise InputError(f"step must be at least 1 frame, got {step}; try {STEP}.")
    cv2 = extra("cv2")
    step = min(step, len(frames) - 1)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    camera, local = [], []
    for before, after in zip(grey, grey[step:], strict=False):
        matrix, residual, shimmer = _compare(cv2, estimator, before, after, within=_INLIER * step)
        camera.append(_parameters(matrix) / step)
        local.append([*_residual_numbers(residual / step), shimmer])
    x, y, log_zoom, rotation = np.median(camera, axis=0).tolist()
    speed, drift_x, drift_y, share, shimmer = np.mean(local, axis=0).tolist()
    return (
        CameraMotion(x=x, y=y, log_zoom=log_zoom, rotation=rotation),
        LocalMotion(speed=speed, x=drift_x, y=drift_y, share=share, shimmer=shimmer),
    )


def speed_along(motion: CameraMotion, kind: Kind, nominal: NominalMotion) -> float:
    """How fast a clip moves in one direction, as a ratio to nominal: negative the other way; of "still", its largest.

    A clip that is to be still has the right speed at 0.
    """
    speeds = _speeds(motion, nominal)
    return max(speeds.values()) if kind == "still" else speeds[kind]


def classify(motion: CameraMotion, nominal: NominalMotion, *, still: float = STILL) -> Verdict:
    """Say which of nine kinds a motion is: the one that is fastest in units of nominal, or still.

    Args:
        motion: as `measure_motion` gives it.
        nominal: what each kind is expected to have.
        still: a motion slower than this, as a ratio to nominal, is none.
    """
    speeds = _speeds(motion, nominal)
    kind = max(speeds, key=lambda name: speeds[name])
    return Verdict(kind if speeds[kind] >= still else "still", speeds[kind])


def _speeds(motion: CameraMotion, nominal: NominalMotion) -> dict[Kind, float]:
    right, down = motion.x / nominal.pan, motion.y / nominal.pan
    growth, turn = motion.log_zoom / nominal.zoom, motion.rotation / nominal.rotation
    return {
        "pan left": right,
        "pan right": -right,
        "pan up": down,
        "pan down": -down,
        "zoom in": growth,
        "zoom out": -growth,
        "rotate clockwise": turn,
        "rotate counterclockwise": -turn,
    }


def _compare(
    cv2: Any, estimator: Any, before: np.ndarray, after: np.ndarray, *, within: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """The similarity (2, 3) from one frame to another, the flow (n, 2) it leaves at textured pixels, and the shimmer.

    Flow is smoothed towards constant and so underrates zooms and rotations: it is taken again where the first
    similarity is undone, of the little that is left.
    """
    points = _textured_points(cv2, before)
    rough = _fit(cv2, points, points + _at(estimator.calc(before, after, None), points), within=within)
    undone = _moved_back(cv2, after, rough)
    left = estimator.calc(before, undone, None)
    moved = points + _at(left, points)
    fine = _fit(cv2, points, moved, within=within)
    residual = (moved - _applied(fine, points)) @ rough[:, :2].T
    return _composed(rough, fine), residual, _shimmer(cv2, before, undone, left)


def _textured_points(cv2: Any, grey: np.ndarray) -> np.ndarray:
    """Pixels with texture, (n, 2) about the frame's centre: what a flat area does there is a guess."""
    height, width = grey.shape
    top, left = height // _BORDER, width // _BORDER
    slope_x, slope_y = (cv2.Sobel(grey, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    energy = cv2.boxFilter(slope_x**2 + slope_y**2, -1, (7, 7))[top : height - top, left : width - left]
    rows, columns = np.nonzero(energy >= np.median(energy))
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), _POINTS)).astype(int)
    return np.stack([columns[chosen] + left, rows[chosen] + top], axis=1) - _centre(grey)


def _at(flow: np.ndarray, points: np.ndarray) -> np.ndarray:
    columns, rows = np.rint(points + _centre(flow)).astype(int).T
    return flow[rows, columns]


def _centre(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    return np.array([(width - 1) / 2, (height - 1) / 2])


def _applied(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _composed(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The similarity that does `inner` first."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], _applied(outer, inner[:, 2])])


def _moved_back(cv2: Any, frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """The frame as it would look if a similarity about its centre had not happened."""
    about_corner = matrix.copy()
    about_corner[:, 2] = _applied(matrix, -_centre(frame)) + _centre(frame)
    height, width = frame.shape
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(frame, about_corner, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)


def _fit(cv2: Any, points: np.ndarray, moved: np.ndarray, *, within: float) -> np.ndarray:
    """The similarity, (2, 3), that takes most points to where they moved, in pixels; no motion where nothing fits."""
    matrix, _ = cv2.estimateAffinePartial2D(
        points, moved, method=cv2.RANSAC, ransacReprojThreshold=within, maxIters=500, confidence=0.995
    )
    return np.eye(2, 3) if matrix is None else matrix


def _parameters(matrix: np.ndarray) -> np.ndarray:
    """x, y, log zoom and rotation of a similarity [[s·cos, −s·sin, x], [s·sin, s·cos, y]]."""
    cosine, sine = matrix[0, 0], matrix[1, 0]
    return np.array([matrix[0, 2], matrix[1, 2], math.log(math.hypot(cosine, sine)), math.atan2(sine, cosine)])


def _residual_numbers(residual: np.ndarray) -> tuple[float, float, float, float]:
    length = np.hypot(residual[:, 0], residual[:, 1])
    x, y = residual.mean(axis=0)
    return float(length.mean()), float(x), float(y), float((length >= _STIRRED).mean())


def _shimmer(cv2: Any, before: np.ndarray, after: np.ndarray, flow: np.ndarray) -> float:
    """Mean difference in the middle of a frame when the later is moved back onto the earlier."""
    height, width = before.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    back = cv2.remap(
        after, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    top, left = height // _BORDER, width // _BORDER
    inside = np.s_[top : height - top, left : width - left]
    return float(np.abs(back[inside].astype(np.int16) - before[inside]).mean())
