"""Recipes: functions that say what a kind of training is. Importable without torch."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dynamicrafter.data.config import DataConfig
from dynamicrafter.errors import InputError
from dynamicrafter.presets import BUNDLED, PRESETS, get_preset
from dynamicrafter.training.config import (
    LoraConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    Stage,
    TrainConfig,
)

_LARGE = 512 * 512  # pixels of a frame, beyond which one clip at a time fills a card


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A named starting point.

    Attributes:
        summary: one line for a list of recipes.
        make: its settings.
        model, clips: "module:function" of a settings argument that build the model and the clips, instead of those
            that the settings name.
    """

    summary: str
    make: Callable[[], TrainConfig]
    model: str | None = None
    clips: str | None = None


def finetune(preset: str) -> TrainConfig:
    """Everything but the autoencoder and the towers, as published."""
    released = get_preset(preset)
    return TrainConfig(
        model=released.name,
        output=Path(f"finetune-{preset}"),
        data=DataConfig(size=(released.height, released.width)),
        objective=ObjectiveConfig(ends=1.0 if released.interpolates else 0.0),
        batch_size=1 if released.height * released.width > _LARGE else 2,
    )


def lora(preset: str) -> TrainConfig:
    """Adapters on the UNet's transformers: a few clips, one GPU, an hour."""
    base = finetune(preset)
    return replace(
        base,
        output=Path(f"lora-{preset}"),
        trains="lora",
        lora=LoraConfig(rank=16, alpha=16.0),
        optimizer=OptimizerConfig(lr=1e-4),
        schedule=ScheduleConfig(warmup=100, decay="cosine"),
        steps=2000,
        batch_size=1,
    )


def finetune_bundled() -> TrainConfig:
    """All of the small model's denoiser, on a few clips of one motion, in minutes on a CPU.

    What moves where is decided at the first step, out of pure noise: that is where most clips are spent. One clip a
    step, for so small a model learns more from the steps than from their size. Clips are taken at the rate that they
    play at, which is their motion number.
    """
    return TrainConfig(
        model=BUNDLED.name,
        output=Path("finetune-bundled"),
        data=DataConfig(size=(BUNDLED.height, BUNDLED.width), max_stride=1),
        objective=ObjectiveConfig(condition="first", high_noise=0.8),
        optimizer=OptimizerConfig(name="muon", lr=3e-4, weight_decay=0.0),
        schedule=ScheduleConfig(warmup=10, decay="linear", decay_from=0.5),
        steps=200,
        batch_size=1,
        accumulation=1,
        gradient_checkpointing=False,
        workers=0,
        checkpoint_every=50,
    )


def lora_bundled() -> TrainConfig:
    """Adapters for the small model, likewise; they learn more slowly than the whole of it."""
    base = finetune_bundled()
    return replace(
        base,
        output=Path("lora-bundled"),
        trains="lora",
        lora=LoraConfig(rank=16, alpha=16.0),
        optimizer=replace(base.optimizer, lr=3e-3, matrix_lr=0.02),  # at 0.04 the loss rises again after 30 steps
        steps=300,
    )


_PANS = (("pan left", 1.0), ("pan right", 1.0), ("pan up", 1.0), ("pan down", 1.0))
_CAMERA = (
    *_PANS,
    ("zoom in", 1.0),
    ("zoom out", 1.0),
    ("rotate clockwise", 1.0),
    ("rotate counterclockwise", 1.0),
)
_MOVING = (*_CAMERA, ("still", 0.7), ("sway", 0.7), ("ripple", 0.7))


def from_scratch() -> TrainConfig:
    """The bundled model, from nothing. See docs/model-card.md.

    The picture is carried from the start, and only where each frame looks for it is learned (`training.still_clip`).
    Small windows first, for they are cheap and captions are learned as well on them; pans before all else.
    """
    swift: dict[str, Any] = {"motion_numbers": (6.0, 20.0)}  # what moves far differs most from what stands still
    shared: dict[str, Any] = {"variations": 4, "ends": 0.0, "high_noise": 0.6}
    ends: dict[str, Any] = {"variations": 4, "ends": 0.2, "high_noise": 0.5, "returning": 0.2}
    stages = (
        Stage(clips=1200, motions=_PANS, window=4, bare=0.8, **shared, **swift),
        Stage(clips=4800, motions=_MOVING, window=4, bare=0.7, **shared, **swift),
        Stage(clips=3600, motions=_MOVING, window=8, **ends),
        Stage(clips=2400, motions=_MOVING, lr_factor=0.5, **ends),
    )
    return TrainConfig(
        model=BUNDLED.name,
        output=Path("from-scratch"),
        objective=ObjectiveConfig(condition="first"),
        optimizer=OptimizerConfig(name="muon", lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, clip_norm=1.0),
        schedule=ScheduleConfig(warmup=30, decay="linear", decay_from=0.6),
        stages=stages,
        trains="everything_and_encoders",
        steps=sum(stage.clips for stage in stages) // 12,
        batch_size=12,
        accumulation=1,
        ema=0.995,
        gradient_checkpointing=False,
        workers=1,
        checkpoint_minutes=2.0,
        checkpoint_part=16,
    )


_OWN_RECIPES: dict[str, Recipe] = {
    "finetune-bundled": Recipe(summary="all of bundled, 128×128", make=finetune_bundled),
    "lora-bundled": Recipe(summary="adapters for bundled", make=lora_bundled),
    "from-scratch": Recipe(
        summary="the bundled model, from nothing, on clips that are made as it goes",
        make=from_scratch,
        model="dynamicrafter.training.scratch:fresh_pipeline",
        clips="dynamicrafter.training.scratch:curriculum",
    ),
}


def recipes() -> dict[str, Recipe]:
    """All recipes by name: two for each of DynamiCrafter's presets, and those of the package's own model."""
    released: dict[str, Recipe] = {}
    for preset in (each for each in PRESETS.values() if each.network == "dynamicrafter"):
        name = preset.called
        size = f"{preset.width}×{preset.height}" + ", first and last frame" * preset.interpolates
        released[f"finetune-{name}"] = Recipe(summary=f"all of {name}, {size}", make=partial(finetune, name))
        released[f"lora-{name}"] = Recipe(summary=f"adapters for {name}", make=partial(lora, name))
    return released | _OWN_RECIPES


def get_recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        InputError: no recipe has that name.
    """
    known = recipes()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        advice = f"; did you mean {close[0]}?" if close else "."
        raise InputError(f"recipe must be one of {', '.join(known)}, got {name!r}{advice}")
    return known[name]


def build(home: str | None, config: TrainConfig) -> Any:
    """What a recipe's "module:function" makes of the settings; None for None."""
    if home is None:
        return None
    module, _, name = home.partition(":")
    return getattr(importlib.import_module(module), name)(config)
