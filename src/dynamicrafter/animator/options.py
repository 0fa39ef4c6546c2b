"""The options of a clip: one frozen dataclass, from which flags, sliders and node inputs derive.

Importable without torch, so that a command line can show its help at once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from dynamicrafter.errors import InputError
from dynamicrafter.media.framing import Fit
from dynamicrafter.presets import (
    MAX_FRAMES,
    NUM_FRAMES,
    NUM_TRAIN_TIMESTEPS,
    SMALLEST_WINDOW,
    WINDOW_STRIDE,
    Preset,
    Quality,
    Sampler,
    auto_size,
    check_cache,
    check_eta,
    check_frame_size,
    check_interval,
    check_quality,
)
from dynamicrafter.randomness import MAX_SEED

logger = logging.getLogger(__name__)

T = TypeVar("T")
Mode = Literal["animate", "interpolate", "loop"]
_PAIRS = {
    "size": 'a height and a width in pixels or "auto"',
    "guidance_interval": "the first and the last timestep, from 0",
}

PER_SHOT = frozenset({"motion", "negative", "seed"})  # options that may differ within a batch
LONGEST_PROMPT = 2000  # characters; far more than the 75 tokens that are read, and short enough for any file's note
_SHOWN = 50  # characters of a wrong size that a message repeats


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
    moves more; bundled was made for 8 to 24)."""
    frames: int = NUM_FRAMES
    """Length in frames, 1 to 512; beyond 16 in windows that overlap."""
    window: int = NUM_FRAMES
    """Frames of a longer clip that see one another over time, 4 to 16."""
    window_stride: int = WINDOW_STRIDE
    """Frames from one window's beginning to the next one's, at most a window; fewer is smoother and slower."""
    size: tuple[int, int] | Literal["auto"] | None = None
    """Frame height and width in pixels, multiples of 64; or auto: the (first) picture's own shape, with about as many
    pixels as the preset's."""
    fit: Fit = "cover"
    """How a picture of another shape fills the frame: cover crops it, contain adds bars, stretch squashes it."""
    negative: str = ""
    """What to steer away from."""
    deterministic: bool = False
    """Condition on the mean of the picture's latents instead of a random sample of them."""
    pin_first_frame: bool = False
    """Hold the first frame to the picture at every step; in interpolation and loops, the last frame to its own too."""
    sampler: Sampler | None = None
    """How noise becomes a picture: ddim as published; dpm++ and unipc come as near in fewer steps; dpm++sde adds fresh
    noise."""
    guidance_interval: tuple[int, int] | None = None
    """Timesteps, 0 (clean) to 999 (pure noise), at which guidance works; at others a step costs one pass alone."""
    cache: float | None = None
    """0 (off) to 1: reuse deep features of the UNet until what they come from has changed by this share."""
    quality: Quality | None = None
    """Steps, sampler and savings that go well together, from exact to draft. What is given besides goes first."""

    def resolved(
        self, preset: Preset, *, mode: Mode = "animate", picture: tuple[int, int] | None = None
    ) -> AnimateOptions:
        """The same options with every None replaced by the quality's or else the preset's value, all checked.

        Args:
            picture: height and width of the (first) picture, by which size auto goes; without one, it stays.

        Raises:
            InputError: a value breaks its rule.
        """
        check_quality(self.quality)
        usual = preset.sampling(self.quality)
        sampler = _or(self.sampler, usual.sampler)
        filled = replace(
            self,
            sampler=sampler,
            guidance_interval=_or(self.guidance_interval, usual.guidance_interval),
            cache=_or(self.cache, usual.cache),
            steps=_or(self.steps, usual.steps),
            guidance=_or(self.guidance, preset.guidance),
            guidance_rescale=_or(self.guidance_rescale, preset.guidance_rescale),
            eta=_or(self.eta, preset.eta_for(sampler)),
            motion=_or(self.motion, preset.motion.default),
            size=_or(self.size, (preset.height, preset.width)),
        )
        if filled.size == "auto" and picture is not None:
            filled = replace(filled, size=auto_size(preset, picture))
        filled._check(mode)
        motion = preset.motion
        assert filled.motion is not None
        if not motion.low <= filled.motion <= motion.high:
            logger.warning(
                "motion %d is outside the range that preset %s was tuned for, %d to %d (%s); the clip may break up.",
                filled.motion,
                preset.name,
                motion.low,
                motion.high,
                motion.unit,
            )
        if mode != "animate" and not preset.interpolates:
            logger.warning("preset %s was not trained to interpolate between pictures; 512_interp was.", preset.name)
        if filled.negative and filled.guidance == 1 and filled.image_guidance in (None, 1):
            logger.warning("negative has no effect without guidance; raise guidance above 1.")
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
        check_names(values)
        given = dict(values)
        for name in ("size", "guidance_interval"):
            if isinstance(given.get(name), list):  # JSON knows no tuples
                given[name] = tuple(given[name])
        options = cls(**given)
        _check_types(options)
        return options

    def _check(self, mode: Mode) -> None:
        _check_types(self)
        assert self.size is not None
        least = 1 if mode == "animate" else 2
        _within("steps", self.steps, 1, NUM_TRAIN_TIMESTEPS)
        _within("seed", self.seed, 0, MAX_SEED)
        _within("frames", self.frames, least, MAX_FRAMES)
        _within("window", self.window, SMALLEST_WINDOW, NUM_FRAMES)
        # Between two pictures, a window keeps two of its places for these.
        _within("window_stride", self.window_stride, 1, self.window if mode == "animate" else self.window - 2)
        _choice("sampler", self.sampler, get_args(Sampler))
        _within("eta", self.eta, 0, 1)
        check_eta(self.eta or 0.0, self.sampler or "ddim")
        check_cache(self.cache or 0.0)
        if self.guidance_interval is not None:
            check_interval(self.guidance_interval)
        _within("guidance_rescale", self.guidance_rescale, 0, 1)
        _within("motion", self.motion, 1, 1000)
        for name in ("guidance", "image_guidance"):
            if getattr(self, name) is not None:
                _within(name, getattr(self, name), 0, 100)
        if self.size != "auto":
            check_frame_size(*self.size)
        _choice("fit", self.fit, get_args(Fit))


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _within(name: str, value: float | None, low: float, high: float) -> None:
    if value is None or not low <= value <= high:  # so written, NaN is refused too
        near = low if value is None or not value > high else high
        raise InputError(f"{name} must be between {low} and {high}, got {value}; try {near}.")


@contextmanager
def unwarned() -> Iterator[None]:
    """Let `resolved` check within, and warn of nothing: for a preset that stands in for one that isn't known yet."""
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of a size that is written as people do, width first: 1024x576.

    Raises:
        ValueError: written otherwise.
    """
    sides = re.fullmatch(r"\s*(\d{1,6})\s*[x×*]\s*(\d{1,6})\s*", text, flags=re.IGNORECASE)
    if sides is None:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        raise ValueError(f"must be width x height in pixels, such as 1024x576, got {shown!r}.")
    return int(sides[2]), int(sides[1])


def parse_size_or_auto(text: str) -> tuple[int, int] | Literal["auto"]:
    """The same, or "auto" for that word.

    Raises:
        ValueError: written otherwise.
    """
    if text.strip().lower() == "auto":
        return "auto"
    try:
        return parse_size(text)
    except ValueError as error:
        raise ValueError(str(error).replace(", got", ", or auto, got", 1)) from None


def parse_interval(text: str) -> tuple[int, int]:
    """The first and the last timestep of an interval: 200-800.

    Raises:
        ValueError: written otherwise.
    """
    ends = re.fullmatch(r"\s*(\d{1,6})\s*[-–]\s*(\d{1,6})\s*", text)
    if ends is None:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        raise ValueError(f"must be two timesteps, such as 200-800, got {shown!r}.")
    return int(ends[1]), int(ends[2])


def check_prompt(name: str, text: str) -> None:
    """Raises InputError where a prompt or a negative one is longer than `LONGEST_PROMPT`."""
    if len(text) > LONGEST_PROMPT:
        raise InputError(
            f"{name} must be at most {LONGEST_PROMPT} characters, got {len(text)}; shorten it: no more than 75 "
            f"tokens, some 300 characters, are read."
        )


def _choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")


def check_names(names: Iterable[str]) -> None:
    """Raises InputError where a name is no option's."""
    known = {field.name for field in fields(AnimateOptions)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise InputError(f"unknown options {', '.join(unknown)}; known are {', '.join(sorted(known))}.")


def _check_types(options: AnimateOptions) -> None:
    """Hold every value against its field's annotation."""
    for name, hint in get_type_hints(AnimateOptions).items():
        value, kinds = getattr(options, name), _kinds(hint)
        if tuple in kinds and value is not None:
            pair = isinstance(value, tuple) and [type(side) for side in value] == [int, int]
            if not pair and not (name == "size" and value == "auto"):
                raise InputError(f"{name} must be {_PAIRS[name]}, got {value!r}.")
        elif not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds if kind is not NoneType)
            raise InputError(f"{name} must be of type {wanted}, got {value!r}.")


def _kinds(hint: Any) -> tuple[type, ...]:
    """What `isinstance` can be asked of a value with this annotation; a whole number may stand for any number."""
    if get_origin(hint) is Literal:
        return (str,)
    if get_origin(hint) is tuple:
        return (tuple,)
    if get_args(hint):
        return tuple(kind for part in get_args(hint) for kind in _kinds(part))
    return (int, float) if hint is float else (hint,)
