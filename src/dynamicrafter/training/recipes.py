"""Recipes: functions that say what a kind of training is. Importable without torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dynamicrafter.data.config import DataConfig
from dynamicrafter.errors import InputError
from dynamicrafter.presets import get_preset
from dynamicrafter.training.config import (
    LoraConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)


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
        batch_size=1 if released.name == "1024" else 2,
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


RECIPES: dict[str, Recipe] = {
    "finetune-256": Recipe(summary="all of 256, 256×256", make=lambda: finetune("256")),
    "finetune-512": Recipe(summary="all of 512, 512×320", make=lambda: finetune("512")),
    "finetune-1024": Recipe(summary="all of 1024, 1024×576", make=lambda: finetune("1024")),
    "finetune-interp": Recipe(summary="all of interp, 512×320, first and last frame", make=lambda: finetune("interp")),
    "lora-512": Recipe(summary="adapters for 512", make=lambda: lora("512")),
    "lora-1024": Recipe(summary="adapters for 1024", make=lambda: lora("1024")),
    "lora-interp": Recipe(summary="adapters for interp", make=lambda: lora("interp")),
}


def get_recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        InputError: no recipe has that name.
    """
    if name not in RECIPES:
        raise InputError(f"recipe must be one of {', '.join(RECIPES)}, got {name!r}.")
    return RECIPES[name]


def build(home: str | None, config: TrainConfig) -> Any:
    """What a recipe's "module:function" makes of the settings; None for None."""
    if home is None:
        return None
    module, _, name = home.partition(":")
    return getattr(importlib.import_module(module), name)(config)
