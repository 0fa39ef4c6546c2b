"""A clip in the middle of training, made by the same pipeline as anyone's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from dynamicrafter.media.pictures import read_picture
from dynamicrafter.media.video import write_clip
from dynamicrafter.presets import NUM_FRAMES, OUTPUT_FPS
from dynamicrafter.randomness import generator_for
from dynamicrafter.training.config import TrainConfig
from dynamicrafter.training.optimizers import Average
from dynamicrafter.training.sources import ClipSource

FOLDER = "validation"


@torch.no_grad()
def validate(
    source: ClipSource,
    accelerator: Accelerator,
    config: TrainConfig,
    average: Average | None,
    parameters: Mapping[str, Tensor],
    *,
    step: int,
) -> Path:
    """Make and write a clip with the averaged weights, or the weights as they are.

    Returns:
        `validation/step-N.mp4` in the output folder.

    Raises:
        InputError: the picture can't be read, or the clip can't be written.
    """
    target = config.output / FOLDER / f"step-{step:08}.mp4"
    asked = _request(source, config)
    swapped = nullcontext() if average is None else average.in_place_of(parameters)
    for network in (source.pipeline.unet, source.pipeline.image_projector):
        network.eval()
    source.pipeline.set_progress_bar_config(disable=True)
    with swapped, source.awake(), accelerator.autocast():
        generator = generator_for(config.seed, item="validation")
        frames = source.pipeline(**asked, generator=generator, output_type="uint8").frames[0]
    if accelerator.is_main_process:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_clip(target, np.asarray(frames), fps=OUTPUT_FPS, metadata={"prompt": asked["prompt"], "step": step})
    return target


def _request(source: ClipSource, config: TrainConfig) -> dict[str, Any]:
    """Arguments of the pipeline's call."""
    wanted = config.validation
    options = {"motion": wanted.motion, "num_inference_steps": wanted.steps, "guidance_scale": wanted.guidance}
    if wanted.image is not None:
        last = None if wanted.last_image is None else read_picture(wanted.last_image)
        return {
            "image": read_picture(wanted.image),
            "last_image": last,
            "prompt": wanted.prompt,
            **_size(config),
            **options,
        }
    clip = source.first_clip()
    assert clip is not None  # as `check` has made sure
    frames = [np.ascontiguousarray(frame) for frame in clip.pixels.permute(1, 2, 3, 0).cpu().numpy()]
    last = frames[-1] if config.objective.ends > 0 and len(frames) > 1 else None
    prompt = wanted.prompt or clip.caption
    return {"image": frames[0], "last_image": last, "prompt": prompt, **_size(config), **options}


def _size(config: TrainConfig) -> dict[str, int]:
    """The clip has the size that is trained on, and its length as far as the pipeline makes it."""
    height, width = config.data.size
    return {"height": height, "width": width, "num_frames": min(config.data.num_frames, NUM_FRAMES)}
