"""Clips in the middle of training and at its end, made by the same pipeline as anyone's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from dynamicrafter.data.stream import ClipStream, Sample
from dynamicrafter.files.atomic import one_line_errors, replacing_file
from dynamicrafter.media.contact_sheet import contact_sheet
from dynamicrafter.media.pictures import read_picture
from dynamicrafter.media.video import write_clip
from dynamicrafter.presets import NUM_FRAMES, OUTPUT_FPS
from dynamicrafter.randomness import generator_for
from dynamicrafter.training import checkpoints
from dynamicrafter.training.config import TrainConfig
from dynamicrafter.training.optimizers import Average, copy_into
from dynamicrafter.training.sources import ClipSource, open_source
from dynamicrafter.training.trainee import build_trainee, trained_parameters

FOLDER = "validation"
SHEET = "before-after.png"
_COLUMNS = 8  # frames of a clip on the sheet


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
    asked = _request(_shown_clip(source, config), config)
    swapped = nullcontext() if average is None else average.in_place_of(parameters)
    for network in (source.pipeline.unet, source.pipeline.image_projector):
        network.eval()
    with swapped, source.awake(), accelerator.autocast():
        frames = _frames(source.pipeline, asked, config)
    if accelerator.is_main_process:
        _write(target, frames, prompt=asked["prompt"], step=step)
    return target


def can_compare(config: TrainConfig) -> bool:
    """Whether clips of a picture are wanted, and there is one: a cache holds none. A curriculum begins from nothing."""
    return (
        config.validation.sheet and not config.stages and (config.cache is None or config.validation.image is not None)
    )


@torch.no_grad()
def compare(config: TrainConfig, checkpoint: Path, *, pipeline: Any = None, stream: ClipStream | None = None) -> Path:
    """Make one clip with the weights that a run began with and with a checkpoint's, and lay them out side by side.

    Args:
        config: of the run; `can_compare`.
        pipeline: the model that the run began with, instead of the one that the settings name; it is changed.
        stream: clips, instead of those that the settings name.

    Returns:
        `validation/before-after.png`: a row of the data's clip where it is the subject, one before, one after. The
        clips stand beside it.

    Raises:
        InputError: the picture can't be read, or a file can't be written.
    """
    device = torch.device("cuda" if config.device == "auto" and torch.cuda.is_available() else "cpu")
    snapshot = checkpoints.read(checkpoint)
    source = open_source(config, device, stream=stream, pipeline=pipeline)
    trainee = build_trainee(source.pipeline, config).to(device).eval()
    clip = _shown_clip(source, config)
    asked = _request(clip, config)
    rows = [] if clip is None else [clip.pixels.permute(1, 2, 3, 0).cpu().numpy()]
    half = torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16")
    with source.awake(), half:
        rows.append(_frames(source.pipeline, asked, config))
        copy_into(trained_parameters(trainee), snapshot.average or snapshot.trained)
        rows.append(_frames(source.pipeline, asked, config))
    folder = config.output / FOLDER
    for name, frames, step in (("before", rows[-2], 0), ("after", rows[-1], snapshot.step)):
        _write(folder / f"{name}.mp4", frames, prompt=asked["prompt"], step=step)
    columns = min(_COLUMNS, *map(len, rows))
    chosen = [row[np.linspace(0, len(row) - 1, columns).round().astype(int)] for row in rows]
    with one_line_errors(folder / SHEET), replacing_file(folder / SHEET) as aside:
        contact_sheet(np.concatenate(chosen), columns=columns).save(aside, "PNG")
    return folder / SHEET


def _shown_clip(source: ClipSource, config: TrainConfig) -> Sample | None:
    """The data's first clip, or None where a picture is named instead."""
    if config.validation.image is not None:
        return None
    clip = source.first_clip()
    assert clip is not None  # as `check` and `can_compare` have made sure
    return clip


def _request(clip: Sample | None, config: TrainConfig) -> dict[str, Any]:
    """Arguments of the pipeline's call."""
    wanted = config.validation
    options = {"motion": wanted.motion, "num_inference_steps": wanted.steps, "guidance_scale": wanted.guidance}
    if clip is None:
        assert wanted.image is not None
        last = None if wanted.last_image is None else read_picture(wanted.last_image)
        subject = {"image": read_picture(wanted.image), "last_image": last, "prompt": wanted.prompt}
        return {**subject, **_size(config), **options}
    frames = [np.ascontiguousarray(frame) for frame in clip.pixels.permute(1, 2, 3, 0).cpu().numpy()]
    last = frames[-1] if config.objective.ends > 0 and len(frames) > 1 else None
    subject = {"image": frames[0], "last_image": last, "prompt": wanted.prompt or clip.caption}
    if wanted.motion is None:
        options["motion"] = round(clip.motion)
    return {**subject, **_size(config), **options}


def _frames(pipeline: Any, asked: Mapping[str, Any], config: TrainConfig) -> np.ndarray:
    """uint8 (f, h, w, 3)."""
    pipeline.set_progress_bar_config(disable=True)
    generator = generator_for(config.seed, item="validation")
    return np.asarray(pipeline(**asked, generator=generator, output_type="uint8").frames[0])


def _write(target: Path, frames: np.ndarray, *, prompt: str, step: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_clip(target, frames, fps=OUTPUT_FPS, metadata={"prompt": prompt, "step": step})


def _size(config: TrainConfig) -> dict[str, int]:
    """The clip has the size that is trained on, and its length as far as the pipeline makes it."""
    height, width = config.data.size
    return {"height": height, "width": width, "num_frames": min(config.data.num_frames, NUM_FRAMES)}
