"""The options of a clip: one frozen dataclass, from which flags, sliders, columns, keys and node inputs derive.

Importable without torch, so that a command line can show its help at once.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Literal, TypeVar

from dynamicrafter.errors import InputError
from dynamicrafter.media.fit import Fit
from dynamicrafter.modes import ANIMATE, Mode, get_mode
from dynamicrafter.presets import (
    CACHE,
    EVERY_TIMESTEP,
    INTERVAL,
    MAX_FRAMES,
    NUM_FRAMES,
    NUM_TRAIN_TIMESTEPS,
    QUALITY,
    SMALLEST_WINDOW,
    WINDOW_STRIDE,
    Preset,
    Quality,
    auto_size,
    check_frame_size,
)
from dynamicrafter.randomness import MAX_SEED
from dynamicrafter.samplers import ETA, SAMPLER, Sampler, check_eta
from dynamicrafter.schema import FrameSize, Group, OptionError, Range, Text, Unset, read_fields

T = TypeVar("T")

PER_CLIP = frozenset({"motion", "negative", "seed"})  # options that may differ within a batch
LONGEST_PROMPT = 2000  # characters; far more than the 75 tokens that are read, and short enough for any file's note
RANDOM_SEED = -1

PROMPT = Text(most=LONGEST_PROMPT, advice="shorten it: no more than 75 tokens, some 300 characters, are read.")
_GUIDANCE, _SAMPLING, _LENGTH, _PICTURE = map(Group, ("Guidance", "Sampling", "Long clips", "Picture"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimateOptions:
    """How a clip is made. None stands for the preset's own value.

    Raises:
        OptionError: a value breaks its rule, whatever the preset.
    """

    steps: Annotated[int | None, Range(1, NUM_TRAIN_TIMESTEPS)] = None
    """Denoising steps. More is slower and finer."""
    seed: Annotated[int, Range(RANDOM_SEED, MAX_SEED)] = 123
    """Same seed, same clip. Another seed, another take; -1 draws one, which the clip then names."""
    guidance: Annotated[float | None, Range(0, 100)] = None
    """How strictly the prompt is followed; 1 switches guidance off and halves the time."""
    image_guidance: Annotated[float | None, Range(0, 100), _GUIDANCE, Unset("none")] = None
    """A scale of its own for the picture; without it, guidance serves both."""
    guidance_rescale: Annotated[float | None, Range(0, 1), _GUIDANCE] = None
    """How far strong guidance is kept from raising the contrast."""
    eta: Annotated[float | None, ETA, _SAMPLING] = None
    """Fresh noise at each step: 0 is deterministic sampling, 1 as much as DDPM draws."""
    start_step: Annotated[int, Range(1, NUM_TRAIN_TIMESTEPS), _SAMPLING] = NUM_TRAIN_TIMESTEPS
    """Of the training timesteps how many, from the quietest, the steps are spread over. Fewer, such as 940, let more
    move; too few spoil the picture."""
    motion: Annotated[int | None, Range(1, 1000)] = None
    """The motion number: for preset 256 a frame stride (larger moves more), for the others frames per second (smaller
    moves more; bundled was made for 8 to 24)."""
    frames: Annotated[int, Range(1, MAX_FRAMES)] = NUM_FRAMES
    """Length in frames; beyond 16 in windows that overlap."""
    window: Annotated[int, Range(SMALLEST_WINDOW, NUM_FRAMES), _LENGTH] = NUM_FRAMES
    """Frames of a longer clip that see one another over time."""
    window_stride: Annotated[int, Range(1, NUM_FRAMES), _LENGTH] = WINDOW_STRIDE
    """Frames from one window's beginning to the next one's, at most a window; fewer is smoother and slower."""
    size: Annotated[tuple[int, int] | Literal["auto"] | None, FrameSize(auto=True)] = None
    """Frame width and height in pixels, multiples of 64, such as 1024x576; or auto: the (first) picture's own shape,
    with about as many pixels as the preset's."""
    fit: Annotated[Fit, _PICTURE] = "cover"
    """How a picture of another shape fills the frame: cover crops it, contain adds bars, stretch squashes it."""
    negative: Annotated[str, PROMPT] = ""
    """What to steer away from."""
    deterministic: Annotated[bool, _PICTURE] = False
    """Condition on the mean of the picture's latents instead of a random sample of them."""
    pin_first_frame: Annotated[bool, _PICTURE] = False
    """Hold the first frame to the picture at every step; in interpolation and loops, the last frame to its own too."""
    sampler: Annotated[Sampler | None, SAMPLER, _SAMPLING] = None
    """How noise becomes a picture: ddim as published; dpm++ and unipc come as near in fewer steps; dpm++sde adds fresh
    noise."""
    guidance_interval: Annotated[tuple[int, int] | None, INTERVAL, _GUIDANCE, Unset("all")] = None
    """Timesteps, 0 (clean) to 999 (pure noise), at which guidance works, such as 200-800; at others a step costs one
    pass alone."""
    cache: Annotated[float | None, CACHE, _SAMPLING, Unset("0")] = None
    """Reuse deep features of the UNet until what they come from has changed by this share; 0 is off."""
    quality: Annotated[Quality | None, QUALITY, Unset("the preset's own steps and sampler")] = None
    """Steps, sampler and savings that go well together, from exact to draft. What is given besides goes first."""

    def __post_init__(self) -> None:
        read_fields(self, AnimateOptions)
        if isinstance(self.size, tuple):
            check_frame_size(*self.size)

    def resolved(
        self, preset: Preset, *, mode: Mode = ANIMATE, picture: tuple[int, int] | None = None
    ) -> ResolvedOptions:
        """The same options with every None replaced by the quality's or else the preset's value.

        Args:
            picture: height and width of the (first) picture, by which size auto goes; without one it is the preset's.

        Raises:
            OptionError: values that don't go together, or not with the mode.
        """
        usual = preset.sampling(self.quality)
        sampler = _or(self.sampler, usual.sampler)
        guidance = _or(self.guidance, preset.guidance)
        size = _or(self.size, (preset.height, preset.width))
        if isinstance(size, str):
            size = auto_size(preset, picture or (preset.height, preset.width))
        options = ResolvedOptions(
            **{field.name: getattr(self, field.name) for field in fields(AnimateOptions)}
            | {
                "seed": secrets.randbelow(MAX_SEED) if self.seed == RANDOM_SEED else self.seed,
                "sampler": sampler,
                "guidance_interval": _or(self.guidance_interval, usual.guidance_interval),
                "cache": _or(self.cache, usual.cache),
                "steps": _or(self.steps, usual.steps),
                "guidance": guidance,
                "image_guidance": _or(self.image_guidance, guidance),
                "guidance_rescale": _or(self.guidance_rescale, preset.guidance_rescale),
                "eta": _or(self.eta, preset.eta_for(sampler)),
                "motion": _or(self.motion, preset.motion.default),
                "size": size,
            }
        )
        options.check(mode)
        return options

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as metadata keeps them; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AnimateOptions:
        """Options by name, in any spelling.

        Raises:
            InputError: an unknown name, or a value that breaks its rule.
        """
        check_names(values)
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedOptions(AnimateOptions):
    """Options of which none is left open, but for the quality that they may come from.

    An `image_guidance` that equals `guidance` is no scale of its own: one pass serves both.
    """

    steps: int
    guidance: float
    image_guidance: float
    guidance_rescale: float
    eta: float
    motion: int
    size: tuple[int, int]
    sampler: Sampler
    guidance_interval: tuple[int, int]
    cache: float

    def check(self, mode: Mode) -> None:
        """Hold values against one another.

        Raises:
            OptionError: see `AnimateOptions.resolved`.
        """
        entry = get_mode(mode)
        Range(entry.least_frames, MAX_FRAMES).check("frames", self.frames)
        # Between two pictures, a window keeps two of its places for these.
        Range(1, self.window - 2 if entry.ends_on_picture else self.window).check("window_stride", self.window_stride)
        check_eta(self.eta, self.sampler)
        Range(self.steps, NUM_TRAIN_TIMESTEPS).check("start_step", self.start_step)

    @property
    def separate_image_guidance(self) -> float | None:
        """The picture's scale where it has one of its own."""
        return None if self.image_guidance == self.guidance else self.image_guidance

    @property
    def partial_guidance(self) -> tuple[int, int] | None:
        """The timesteps at which guidance works, where it does not at all."""
        return None if self.guidance_interval == EVERY_TIMESTEP else self.guidance_interval

    def as_dict(self) -> dict[str, Any]:
        """Plain values; None where a scale or an interval says nothing of its own."""
        own = {"image_guidance": self.separate_image_guidance, "guidance_interval": self.partial_guidance}
        return asdict(self) | own

    def notes(self, preset: Preset, mode: Mode) -> list[str]:
        """What a person should know of these options before the clip is made, a line each."""
        said, motion = [], preset.motion
        if not motion.low <= self.motion <= motion.high:
            said.append(
                f"motion {self.motion} is outside the range that preset {preset.name} was tuned for, {motion.low} to "
                f"{motion.high} ({motion.unit}); the clip may break up."
            )
        if get_mode(mode).ends_on_picture and not preset.interpolates:
            said.append(f"preset {preset.name} was not trained to interpolate between pictures; 512_interp was.")
        if self.negative and self.guidance == self.image_guidance == 1:
            said.append("negative has no effect without guidance; raise guidance above 1.")
        return said


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def check_prompt(name: str, text: str) -> None:
    """Raises OptionError where a prompt is no text, or longer than `LONGEST_PROMPT`."""
    PROMPT.read(name, text)


def check_names(names: Iterable[str]) -> None:
    """Raises InputError where a name is no option's."""
    known = {field.name for field in fields(AnimateOptions)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise InputError(f"unknown options {', '.join(unknown)}; known are {', '.join(sorted(known))}.")


def merged(base: AnimateOptions, given: dict[str, Any]) -> AnimateOptions:
    """Options with some replaced, in any spelling.

    Raises:
        InputError: as in `AnimateOptions.from_dict`.
    """
    check_names(given)
    return replace(base, **given)


__all__ = [
    "PER_CLIP",
    "AnimateOptions",
    "OptionError",
    "ResolvedOptions",
    "check_names",
    "check_prompt",
    "merged",
]
