"""What becomes of a clip under a recipe, told from its length, rate and shape before anything is trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from dynamicrafter.data.config import DataConfig
from dynamicrafter.data.placement import motion_number
from dynamicrafter.presets import MotionControl

_PHASES = 0.5  # of a clip that a sample shows; below, another begins in the middle of what the first one shows
_CROPPED = 0.25  # of a picture that is cut off
_ENLARGED = 1.25  # times; what is finer than a pixel isn't there to learn


@dataclass(frozen=True, slots=True, kw_only=True)
class Suitability:
    """One clip under a recipe.

    Attributes:
        motions: least and largest motion number that its samples are trained under.
        seconds: least and most time that a sample shows.
        shown: the largest share of the clip that a sample shows, 0 to 1.
        cropped: share of the picture that is cut off, 0 to 1.
        enlarged: factor by which the picture is scaled; below 1 it shrinks.
        remarks: what is wrong with it, by kind: "rate", "phase", "shape", "pixels".
    """

    motions: tuple[int, int]
    seconds: tuple[float, float]
    shown: float
    cropped: float
    enlarged: float
    remarks: dict[str, str] = field(default_factory=dict)


def judge(
    config: DataConfig, motion: MotionControl, *, num_frames: int, fps: Fraction, size: tuple[int, int]
) -> Suitability:
    """Work out how a clip is trained on.

    Args:
        config: the recipe's size, frames and strides.
        motion: the numbers that the recipe's model knows.
        num_frames, fps, size: of the clip; long enough for a sample, frames per second, and (height, width) as shown.
    """
    gaps = max(config.num_frames - 1, 1)
    most = max(config.min_stride, min(config.max_stride, (num_frames - 1) // gaps))
    strides = (config.min_stride, most)
    motions = sorted(int(motion_number(fps, stride, motion.unit)) for stride in strides)
    seconds = [float((config.num_frames - 1) * stride / fps) for stride in strides]
    shown = min(1.0, (gaps * most + 1) / num_frames)
    scale = max(config.size[0] / size[0], config.size[1] / size[1])
    cropped = 1 - config.size[0] * config.size[1] / (size[0] * size[1] * scale**2)
    found = Suitability(
        motions=(motions[0], motions[-1]),
        seconds=(seconds[0], seconds[-1]),
        shown=shown,
        cropped=cropped,
        enlarged=scale,
    )
    found.remarks.update(_remarks(found, motion))
    return found


def _remarks(found: Suitability, motion: MotionControl) -> dict[str, str]:
    remarks = {}
    low, high = found.motions
    if low > motion.high or high < motion.low:
        number = f"{low}" if low == high else f"{low} to {high}"
        remarks["rate"] = f"its motion number, {number}, is outside the {motion.low} to {motion.high} that are known"
    if found.shown < _PHASES:
        remarks["phase"] = f"a sample shows {found.shown:.0%} of it and may begin anywhere in it"
    if found.cropped > _CROPPED:
        remarks["shape"] = f"{found.cropped:.0%} of its picture is cut off"
    if found.enlarged > _ENLARGED:
        remarks["pixels"] = f"its picture is enlarged {found.enlarged:.1f} times"
    return remarks


@dataclass(slots=True, kw_only=True)
class RecipeReport:
    """All usable clips under a recipe; `rates` counts them by frames per second."""

    config: DataConfig
    motion: MotionControl
    clips: dict[str, Suitability] = field(default_factory=dict)
    rates: Counter[Fraction] = field(default_factory=Counter)

    def add(self, key: str, *, num_frames: int, fps: Fraction, size: tuple[int, int]) -> None:
        """Judge one more clip."""
        self.clips[key] = judge(self.config, self.motion, num_frames=num_frames, fps=fps, size=size)
        self.rates[fps] += 1

    @property
    def kinds(self) -> Counter[str]:
        """Clips by what is wrong with them."""
        return Counter(kind for clip in self.clips.values() for kind in clip.remarks)

    @property
    def good(self) -> int:
        """Clips with nothing wrong."""
        return sum(not clip.remarks for clip in self.clips.values())

    def advice(self) -> list[str]:
        """What to do about it, the most telling first."""
        kinds, said = self.kinds, []
        stride = self.closest_stride()
        if stride is not None and (kinds["rate"] or kinds["phase"]) and not self._is_set_to(stride):
            said.append(
                f"take every {_ordinal(stride)} frame, so that a sample shows more and its motion number is near "
                f"{self.motion.default}: --set data.min_stride={stride} --set data.max_stride={stride}"
            )
        if kinds["phase"]:
            said.append(
                "where a motion has phases, as a wave or a gesture, cut clips so that each shows it once from its "
                f"beginning, as long as a sample ({self._seconds(stride)}); else the picture doesn't tell which part "
                "comes, and the model learns the mean of all: fog"
            )
        if kinds["shape"]:
            height, width = self.config.size
            said.append(f"crop clips to {width}:{height} yourself, around what moves; the centre is kept otherwise")
        if kinds["pixels"]:
            said.append("take larger clips, or expect no finer detail than they have")
        return said

    def closest_stride(self) -> int | None:
        """The stride at which most clips come nearest to the model's usual rate; None where strides are the number."""
        if self.motion.unit == "frame stride" or not self.rates:
            return None
        (fps, _), *_ = self.rates.most_common(1)
        return max(1, round(fps / self.motion.default))

    def _is_set_to(self, stride: int) -> bool:
        return self.config.min_stride == self.config.max_stride == stride

    def _seconds(self, stride: int | None) -> str:
        (fps, _), *_ = self.rates.most_common(1)
        return f"{float((self.config.num_frames - 1) * (stride or self.config.min_stride) / fps):.2g} s"

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "good": self.good,
            "remarks": dict(self.kinds),
            "advice": self.advice(),
            "clips": {
                key: {
                    "motion_numbers": list(clip.motions),
                    "seconds": list(clip.seconds),
                    "shown": clip.shown,
                    "cropped": clip.cropped,
                    "enlarged": clip.enlarged,
                    "remarks": list(clip.remarks.values()),
                }
                for key, clip in self.clips.items()
            },
        }


def _ordinal(number: int) -> str:
    return {1: "single", 2: "second", 3: "third"}.get(number, f"{number}th")
