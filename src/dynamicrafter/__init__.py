"""DynamiCrafter: a still image and a sentence become a video (arXiv:2310.12190).

    from dynamicrafter import Animator

    clip = Animator.from_pretrained("512").animate("photo.jpg", "a boat on a stormy sea")
    clip.save("boat.mp4")

Names are imported on first use, so that `import dynamicrafter` loads neither torch nor diffusers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOMES = {
    "Animator": "dynamicrafter.animator.animator",
    "Clip": "dynamicrafter.animator.clip",
    "AnimateOptions": "dynamicrafter.specs.options",
    "ClipSpec": "dynamicrafter.specs.clip",
    "ModelSpec": "dynamicrafter.specs.model",
    "DynamiCrafterPipeline": "dynamicrafter.pipeline",
    "DynamiCrafterUNet": "dynamicrafter.models.unet",
    "ImageProjector": "dynamicrafter.models.projector",
    "DynamiCrafterScheduler": "dynamicrafter.schedulers.ddim",
    "PRESETS": "dynamicrafter.presets",
    "get_preset": "dynamicrafter.presets",
    "generator_for": "dynamicrafter.randomness",
}

__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604

if TYPE_CHECKING:
    from dynamicrafter.animator.animator import Animator as Animator
    from dynamicrafter.animator.clip import Clip as Clip
    from dynamicrafter.models.projector import ImageProjector as ImageProjector
    from dynamicrafter.models.unet import DynamiCrafterUNet as DynamiCrafterUNet
    from dynamicrafter.pipeline import DynamiCrafterPipeline as DynamiCrafterPipeline
    from dynamicrafter.presets import PRESETS as PRESETS
    from dynamicrafter.presets import get_preset as get_preset
    from dynamicrafter.randomness import generator_for as generator_for
    from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler as DynamiCrafterScheduler
    from dynamicrafter.specs.clip import ClipSpec as ClipSpec
    from dynamicrafter.specs.model import ModelSpec as ModelSpec
    from dynamicrafter.specs.options import AnimateOptions as AnimateOptions


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
