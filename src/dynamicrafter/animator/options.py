"""The options of a clip: one frozen dataclass, from which flags, sliders and node inputs derive.

Importable without torch, so that a command line can show its help at once.
"""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args

from dynamicrafter.errors import InputError
from dynamicrafter.media.framing import Fit
from dynamicrafter.presets import NUM_FRAMES, NUM_TRAIN_TIMESTEPS, Preset, check_frame_size
from dynamicrafter.randomness import MAX_SEED

logger = logging.getLogger(__name__)

T = TypeVar("T")
Mode = Literal["animate", "interpolate", "loop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimateOptions:
    """How a clip is made. None stands for the preset's own value."""

    steps: int | None = None
    """Denoising steps, 1 to 1000. More is slower and finer."""
    seed: int = 123
    """Same seed, same clip. Another seed, another take."""
    guidance: float | None = None
    """How strictly the prompt is followed; 1 switches guidance off and halves the time."""
    image_guidance: float | None = None
    """A scale of its own for the picture; without it, guidance serves both."""
    guidance_rescale: float | None = None
    """0 to 1: how far strong guidance is kept from raising the contrast."""
    eta: float | None = None
    """0 (deterministic sampling) to 1 (fresh noise at every step)."""
    motion: int | None = None
    """The motion number: for preset 256 a frame stride (larger moves more), for the others frames per second (smaller
    moves more)."""
    frames: int = NUM_FRAMES
    """Length in frames, 1 to 16."""
    size: tuple[int, int] | None = None
    """Frame height and width in pixels, multiples of 64."""
    fit: Fit = "cover"
    """How a picture of another shape fills the frame: cover crops it, contain adds bars, stretch squashes it."""
    negative: str = ""
    """What to steer away from."""
    deterministic: bool = False
    """Condition on the mean of the picture's latents instead of a random sample of them."""

    def resolved(self, preset: Preset, *, mode: Mode = "animate") -> AnimateOptions:
        """The same options with every None replaced by the preset's value, all checked.

        Raises:
            InputError: a value breaks its rule.
        """
        filled = replace(
            self,
            steps=_or(self.steps, preset.steps),
            guidance=_or(self.guidance, preset.guidance),
            guidance_rescale=_or(self.guidance_rescale, preset.guidance_rescale),
            eta=_or(self.eta, preset.eta),
            motion=_or(self.motion, preset.motion.default),
            size=_or(self.size, (preset.height, preset.width)),
        )
        filled._check(mode)
        motion = preset.motion
        assert filled.motion is not None
        if not motion.low <= filled.motion <= motion.high:
            logger.warning(
                "motion %d is outside the range that preset %s was tuned for, %d to %d %s; the clip may break up.",
                filled.motion,
                preset.name,
                motion.low,
                motion.high,
                f"({motion.unit})",
            )
        if mode != "animate" and not preset.interpolates:
            logger.warning(
                "preset %s was not trained to %s between pictures; 512_interp was.", preset.name, "interpolate"
            )
        return filled

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as metadata keeps them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AnimateOptions:
        """Options from metadata, which may come from anywhere.

        Raises:
            InputError: an unknown name or a value of the wrong type.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(f"unknown options {', '.join(unknown)}; known are {', '.join(sorted(known))}.")
        given = dict(values)
        if isinstance(given.get("size"), list):  # JSON knows no tuples
            given["size"] = tuple(given["size"])
        options = cls(**given)
        _check_types(options)
        return options

    def _check(self, mode: Mode) -> None:
        _check_types(self)
        assert self.size is not None
        least = 1 if mode == "animate" else 2
        _within("steps", self.steps, 1, NUM_TRAIN_TIMESTEPS)
        _within("seed", self.seed, 0, MAX_SEED)
        _within("frames", self.frames, least, NUM_FRAMES)
        _within("eta", self.eta, 0, 1)
        _within("guidance_rescale", self.guidance_rescale, 0, 1)
        _within("motion", self.motion, 1, 1000)
        for name in ("guidance", "image_guidance"):
            if getattr(self, name) is not None:
                _within(name, getattr(self, name), 0, 100)
        check_frame_size(*self.size)
        if self.fit not in get_args(Fit):
            raise InputError(f"fit must be one of {', '.join(get_args(Fit))}, got {self.fit!r}.")


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _within(name: str, value: float | None, low: float, high: float) -> None:
    if value is None or math.isnan(value) or not low <= value <= high:
        near = low if value is None or not value > high else high
        raise InputError(f"{name} must be between {low} and {high}, got {value}; try {near}.")


_TYPES: dict[str, tuple[type, ...]] = {
    "steps": (int,),
    "seed": (int,),
    "guidance": (int, float),
    "image_guidance": (int, float),
    "guidance_rescale": (int, float),
    "eta": (int, float),
    "motion": (int,),
    "frames": (int,),
    "negative": (str,),
    "fit": (str,),
    "deterministic": (bool,),
}
_REQUIRED = ("seed", "frames", "negative", "fit", "deterministic")


def _check_types(options: AnimateOptions) -> None:
    for name, types in _TYPES.items():
        value = getattr(options, name)
        if value is None and name not in _REQUIRED:
            continue
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            wanted = " or ".join(kind.__name__ for kind in types)
            raise InputError(f"{name} must be of type {wanted}, got {value!r}.")
    size = options.size
    if size is not None and not (
        isinstance(size, tuple) and len(size) == 2 and all(isinstance(side, int) for side in size)
    ):
        raise InputError(f"size must be a height and a width in pixels, got {size!r}.")
