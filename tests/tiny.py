"""The networks of the golden files: small, with weights seeded by name, cached for the whole test run."""

from dataclasses import asdict, replace
from functools import cache

import torch
from torch import nn

from dynamicrafter.architectures import TINY
from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.checkpoints.networks import COMPONENTS, build_empty, fill, key_table
from dynamicrafter.checkpoints.seeded import SeededTensors
from dynamicrafter.pipeline import DynamiCrafterPipeline
from dynamicrafter.presets import get_preset
from dynamicrafter.schedulers.ddim import DynamiCrafterScheduler


@cache
def tensors(golden: str) -> SeededTensors:
    return SeededTensors(TINY, get_preset(golden.removeprefix("tiny")))


@cache
def network(component: Component, golden: str) -> nn.Module:
    """One float32 network of `tiny256`, `tiny512` or `tiny1024`, in evaluation mode. Shared: leave it as it was."""
    preset = get_preset(golden.removeprefix("tiny"))
    built = build_empty(component, TINY, preset)
    fill(built, key_table(component, built, TINY, preset), tensors(golden), dtype=torch.float32)
    return built


def pipeline(golden: str) -> DynamiCrafterPipeline:
    """A fresh float32 pipeline over the shared networks; its own scheduler and progress bar off."""
    preset = replace(get_preset(golden.removeprefix("tiny")), height=64, width=64)
    made = DynamiCrafterPipeline(
        **{name: network(name, golden) for name in COMPONENTS},
        scheduler=DynamiCrafterScheduler.from_preset(preset),
        preset=asdict(preset),
    )
    made.set_progress_bar_config(disable=True)
    return made


def unet_inputs(*, batch: int, frames: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Arguments of one call of a tiny UNet, drawn from a seed."""
    random = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(batch, 8, frames, 4, 6, generator=random),
        "timestep": torch.randint(0, 1000, (batch,), generator=random),
        "text_context": torch.randn(batch, 77, 32, generator=random),
        "image_context": torch.randn(batch, frames, 16, 32, generator=random),
        "motion": torch.randint(5, 30, (batch,), generator=random),
    }
