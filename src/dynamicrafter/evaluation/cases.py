"""What a model is examined on: pictures, captions, and the motion that each asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dynamicrafter.errors import InputError
from dynamicrafter.evaluation.frames import check_clip, extra
from dynamicrafter.evaluation.motion import KINDS, CameraMotion, Kind, NominalMotion

_ROOM = 1.5  # how much larger than a frame its picture is, so that content can enter where the motion uncovers it
_TURNS = {8: "loop", 9: "interpolate"}  # of ten clips, counted from 0
_STILL = CameraMotion(x=0, y=0, log_zoom=0, rotation=0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """One clip to be made and judged.

    name: also names its random stream. kind: the caption's motion, of the camera or another such as "snow". picture:
    uint8 (h, w, 3), of the frames' size, and so is last_picture, for interpolation. motion: the motion number; None for
    the preset's. nominal: the speed that it stands for.
    """

    name: str
    kind: str
    picture: np.ndarray
    prompt: str
    mode: str = "animate"
    motion: int | None = None
    last_picture: np.ndarray | None = None
    nominal: NominalMotion | None = None

    @property
    def expected(self) -> Kind | None:
        return next((kind for kind in KINDS if kind == self.kind), None) if self.mode == "animate" else None


def bundled_cases(
    num_clips: int,
    *,
    size: tuple[int, int],
    motions: Sequence[int],
    modes: Collection[str] = ("animate", "loop", "interpolate"),
    kinds: Collection[str] | None = None,
    num_frames: int = 16,
) -> list[Case]:
    """Cases from the held-out pictures and wordings of `data.synthetic`; of ten, one loops and one interpolates.

    Kinds follow each other in turn, each with another picture, wording and motion number than the last time. Loops ask
    for what can come back to its beginning, so for no camera motion where there is another kind.

    Args:
        num_clips: at least 1.
        size: (height, width) in pixels.
        motions: motion numbers to go through.
        modes: what the model can do; "animate" stands in for the others.
        kinds: the motions to ask for; None for all.
        num_frames: of the clips; interpolation ends where its motion would be then.

    Raises:
        InputError: no clips, an unknown kind, or the extra that brings the pictures is not installed.
    """
    if num_clips < 1:
        raise InputError(f"clips must be at least 1, got {num_clips}; try 100.")
    synthetic: Any = extra("dynamicrafter.data.synthetic")
    pictures, wordings = synthetic.held_out_pictures(), synthetic.held_out_wordings()
    unknown = sorted(set(kinds or ()) - set(wordings))
    if unknown:
        raise InputError(f"kinds must be of {', '.join(wordings)}, got {unknown[0]!r}.")
    wordings = {kind: texts for kind, texts in wordings.items() if not kinds or kind in kinds}
    pools = {
        "animate": list(wordings),
        "loop": [kind for kind in wordings if kind not in KINDS] or list(wordings),
        "interpolate": [kind for kind in wordings if kind in KINDS] or list(wordings),
    }
    cases: list[Case] = []
    for number in range(num_clips):
        mode = _TURNS.get(number % 10, "animate")
        mode = mode if mode in modes else "animate"
        pool = pools[mode]
        turn, place = divmod(sum(case.mode == mode for case in cases), len(pool))
        kind, motion = pool[place], motions[turn % len(motions)]
        name, picture = pictures[(turn + place) % len(pictures)]
        nominal = _nominal(synthetic.nominal_motion, motion, size)
        case = Case(
            name=f"{number:03} {mode} {name} {kind} {motion}",
            kind=kind,
            picture=view(picture, size),
            prompt=wordings[kind][(turn + place) % len(wordings[kind])],
            mode=mode,
            motion=motion,
            nominal=nominal,
        )
        if mode == "interpolate":
            case = replace(case, last_picture=view(picture, size, _scaled(motion_of(kind, nominal), num_frames - 1)))
        cases.append(case)
    return cases


def motion_of(kind: str, nominal: NominalMotion) -> CameraMotion:
    """The motion that a kind has at nominal speed; none for kinds that don't move the camera."""
    match kind.split():
        case ["pan", side]:
            x, y = {"left": (1, 0), "right": (-1, 0), "up": (0, 1), "down": (0, -1)}[side]
            return replace(_STILL, x=x * nominal.pan, y=y * nominal.pan)
        case ["zoom", way]:
            return replace(_STILL, log_zoom=nominal.zoom if way == "in" else -nominal.zoom)
        case ["rotate", way]:
            return replace(_STILL, rotation=nominal.rotation if way == "clockwise" else -nominal.rotation)
    return _STILL


def view(picture: np.ndarray, size: tuple[int, int], motion: CameraMotion = _STILL) -> np.ndarray:
    """A frame out of a picture's middle, its content moved; room is left at the sides so that content can enter.

    Args:
        picture: uint8 (h, w, 3).
        size: (height, width) of the frame.
        motion: taken as a whole, not per frame.

    Returns:
        uint8 (height, width, 3).
    """
    check_clip(picture[None])
    cv2 = extra("cv2")
    (height, width), (source_height, source_width) = size, picture.shape[:2]
    base = max(height / source_height, width / source_width) * _ROOM
    if base < 1:  # warpAffine looks at 2×2 pixels only
        shrunk = (max(round(source_width * base), 1), max(round(source_height * base), 1))
        picture, base = cv2.resize(picture, shrunk, interpolation=cv2.INTER_AREA), 1.0
        source_width, source_height = shrunk
    scale = base * math.exp(motion.log_zoom)
    cosine, sine = scale * math.cos(motion.rotation), scale * math.sin(motion.rotation)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    middle = np.array([(source_width - 1) / 2, (source_height - 1) / 2])
    shift = np.array([(width - 1) / 2 + motion.x, (height - 1) / 2 + motion.y]) - turn @ middle
    matrix = np.column_stack([turn, shift])
    moved: np.ndarray = cv2.warpAffine(
        picture, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return moved


def _scaled(motion: CameraMotion, factor: float) -> CameraMotion:
    return CameraMotion(**{name: value * factor for name, value in asdict(motion).items()})


def _nominal(nominal_motion: Callable[..., Any], motion: int, size: tuple[int, int]) -> NominalMotion:
    """The synthetic data's speeds, which it gives with their signs, by the kinds that have them."""
    return NominalMotion(
        pan=abs(nominal_motion("pan left", motion, size).shift_x),
        zoom=abs(nominal_motion("zoom in", motion, size).log_scale),
        rotation=abs(nominal_motion("rotate clockwise", motion, size).rotation),
    )
