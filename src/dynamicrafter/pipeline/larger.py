"""Which convolutions look how far at which step, to make pictures larger than a network was trained on (ScaleCrafter).

The published settings are for a still-picture network of the same two-dimensional layers, trained at 512×512
(arXiv:2310.07702, app. A); for videos none were published. `plan_dilation` carries them over by how many times larger
the picture is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from dynamicrafter.models.blocks import ResidualBlock
from dynamicrafter.models.unet import DynamiCrafterUNet

_CONVOLUTIONS = ("conv1", "conv2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dilation:
    """How far convolutions look at the steps of a run.

    Attributes:
        factors: by the convolution's name in the UNet.
        steps: the first ones of the run, at which they do.
        progressive: whether factors fall from step to step, down to 2.
        damped: factors of a second unconditional pass, which looks less far and so is better at removing noise; empty
            for none. The prediction is then that pass's and the guided difference of the other two (eq. 8).
        damped_steps: the first ones of the run, at which there is such a pass.
    """

    factors: Mapping[str, float]
    steps: int
    progressive: bool = False
    damped: Mapping[str, float] = field(default_factory=dict)
    damped_steps: int = 0

    def at(self, step: int) -> dict[str, float]:
        """Factors at a step, counted from 0; none from `steps` on."""
        return _at(self.factors, step, self.steps, progressive=self.progressive)

    def damped_at(self, step: int) -> dict[str, float]:
        """Factors of the second unconditional pass at a step; none where there is no such pass."""
        return _at(self.damped, step, self.damped_steps, progressive=self.progressive)


def _at(factors: Mapping[str, float], step: int, steps: int, *, progressive: bool) -> dict[str, float]:
    if step >= steps:
        return {}
    if not progressive:
        return dict(factors)
    return {name: max(math.ceil(factor * (steps - step) / steps), 2) for name, factor in factors.items()}


def convolutions(unet: DynamiCrafterUNet) -> dict[str, tuple[str, ...]]:
    """Names of the 3×3 convolutions that may look further, by place: `down 0`, `shrink 0`, `middle`, `up 0`, `grow 0`.

    Levels are numbered in the order of execution. The first and the last convolution always look as they were trained
    to; those along time have no extent in the picture.
    """
    places: dict[str, tuple[str, ...]] = {}
    for half, resize in (("down", "shrink"), ("up", "grow")):
        for level, stage in enumerate(getattr(unet, half)):
            prefix = f"{half}.{level}"
            places[f"{half} {level}"] = _residuals(stage.units, f"{prefix}.units")
            if stage.resize is not None:
                name = f"{prefix}.resize" if half == "down" else f"{prefix}.resize.conv"
                places[f"{resize} {level}"] = (name,)
    places["middle"] = (*_residuals(unet.middle, "middle"), *_residuals(unet.middle_out, "middle_out"))
    return places


def _residuals(module: nn.Module, prefix: str) -> tuple[str, ...]:
    return tuple(
        f"{prefix}.{name}.{conv}" if name else f"{prefix}.{conv}"
        for name, part in module.named_modules()
        if isinstance(part, ResidualBlock)
        for conv in _CONVOLUTIONS
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """One published setting, of 50 steps; a factor that is None is that of the picture."""

    factors: Mapping[str, float | None]
    steps: int
    progressive: bool = False
    damped_without: tuple[str, ...] | None = None  # places left out of the second unconditional pass; None for no pass


def _places(*rows: tuple[str, float | None]) -> dict[str, float | None]:
    return {place: factor for names, factor in rows for place in names.split(", ")}


_ALIKE = _places(("down 1, shrink 1, down 2, shrink 2, down 3, middle, up 0, grow 0, up 1, grow 1, up 2, grow 2", None))
_THREE = _places(
    ("down 1, shrink 1, up 2, grow 2", 2), ("down 2, shrink 2, up 1, grow 1", 3), ("down 3, middle, up 0, grow 0", 4)
)
_FOUR = _places(("down 2, up 2, grow 2", 3), ("shrink 2, down 3, middle, up 0, grow 0, up 1, grow 1", 4), ("up 3", 2))
# By the largest side's ratio up to which each serves: published for 2, 2.5, 2 by 4, and 4 times the side.
_SETTINGS = (
    (2.25, _Setting(factors=_ALIKE, steps=20)),
    (2.75, _Setting(factors=_ALIKE, steps=30)),
    (3.25, _Setting(factors=_THREE, steps=37, progressive=True)),
    (math.inf, _Setting(factors=_FOUR, steps=37, progressive=True, damped_without=("up 3",))),
)


def plan_dilation(
    unet: DynamiCrafterUNet, *, trained: tuple[int, int], size: tuple[int, int], num_steps: int
) -> Dilation | None:
    """The published setting for pictures so many times larger, its steps as a share of the run's.

    Args:
        trained, size: (height, width) in pixels that the network was trained on, and that are asked for.

    Returns:
        None for pictures that are hardly larger, which the network makes as it is.
    """
    ratio = math.sqrt(size[0] * size[1] / (trained[0] * trained[1]))
    if ratio <= 1.25:
        return None
    setting = next(each for most, each in _SETTINGS if ratio <= most)
    names = convolutions(unet)
    factors, damped = {}, {}
    for place, factor in setting.factors.items():
        for name in names.get(place, ()):
            factors[name] = ratio if factor is None else factor
            if setting.damped_without is not None and place not in setting.damped_without:
                damped[name] = factors[name]
    steps = round(setting.steps * num_steps / 50)
    return Dilation(
        factors=factors,
        steps=steps,
        progressive=setting.progressive,
        damped=damped,
        damped_steps=steps if damped else 0,
    )
