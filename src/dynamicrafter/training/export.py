"""From a run's checkpoint to a model that others can use: a folder, a published file, or adapters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dynamicrafter.errors import InputError
from dynamicrafter.files.atomic import one_line_errors, replacing_file, replacing_folder
from dynamicrafter.hub.folders import PIPELINE_INDEX
from dynamicrafter.pipeline.convert import FILE_SUFFIXES, convert, forget_paths
from dynamicrafter.pipeline.lora import WEIGHTS, lora_state, write_lora
from dynamicrafter.pipeline.trained_motion import as_json, motion_counts, with_trained_motion
from dynamicrafter.training import checkpoints
from dynamicrafter.training.config import TrainConfig
from dynamicrafter.training.optimizers import copy_into
from dynamicrafter.training.sources import load_model
from dynamicrafter.training.trainee import build_trainee, trained_parameters

MODEL = "model"
MOTIONS = "motion_numbers.json"


def export(config: TrainConfig, checkpoint: Path, target: Path | None = None, *, pipeline: Any = None) -> Path:
    """Write the model of a checkpoint: the averaged weights where the run keeps them.

    Args:
        config: the run's settings.
        target: for LoRA a `.safetensors` file, or a folder for diffusers' own name of one. Else a folder in diffusers'
            layout, or a `.safetensors` or `.ckpt` file with the published names. None for `model` in the output folder.
        pipeline: the model that the run began with, instead of the one that the settings name; it is changed.

    Returns:
        What was written.

    Raises:
        InputError: the target has another extension, or can't be written.
    """
    target = config.output / MODEL if target is None else target
    snapshot = checkpoints.read(checkpoint)
    pipeline = load_model(config) if pipeline is None else pipeline
    kept = {
        name: getattr(pipeline, name).dtype for name in ("unet", "image_projector", "text_encoder", "image_encoder")
    }
    trainee = build_trainee(pipeline, config)
    copy_into(trained_parameters(trainee), snapshot.average or snapshot.trained)
    trainee.eval()
    motions = read_motions(config)
    if config.trains == "lora":
        return _write_adapters(config, pipeline, target, motions)
    pipeline.register_to_config(preset=asdict(with_trained_motion(pipeline.preset, motions)))
    pipeline.unet.disable_gradient_checkpointing()
    for name, dtype in kept.items():
        torch.nn.Module.to(getattr(pipeline, name), dtype)
    forget_paths(pipeline)
    if target.suffix.lower() in FILE_SUFFIXES:
        return _write_file(pipeline, target)
    with one_line_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing_folder(target) as aside:
            pipeline.save_pretrained(aside)
            mode = (aside / PIPELINE_INDEX).stat().st_mode
            for weights in aside.rglob("*.safetensors"):  # which safetensors keeps from everyone but their owner
                weights.chmod(mode)
    return target


def _write_file(pipeline: Any, target: Path) -> Path:
    """The published layout, by way of a folder beside it."""
    with one_line_errors(target), TemporaryDirectory(prefix=".dynamicrafter-", dir=target.parent) as folder:
        pipeline.save_pretrained(folder)
        return convert(folder, target)


def read_motions(config: TrainConfig) -> Counter[int]:
    """How often a run has trained under each motion number; empty where no clips were read, but made."""
    path = config.output / MOTIONS
    return Counter() if config.stages or not path.is_file() else motion_counts(path.read_text(encoding="utf-8"))


def write_motions(config: TrainConfig, motions: Mapping[int, int]) -> None:
    """Write what `read_motions` reads."""
    path = config.output / MOTIONS
    with one_line_errors(path), replacing_file(path) as aside:
        aside.write_text(as_json(motions) + "\n", encoding="utf-8")


def _write_adapters(config: TrainConfig, pipeline: Any, target: Path, motions: Mapping[int, int]) -> Path:
    file = target if target.suffix.lower() == ".safetensors" else target / WEIGHTS
    if target.suffix.lower() in FILE_SUFFIXES and file != target:
        raise InputError(f"adapters are written as .safetensors, got {target.name}; change the extension.")
    with one_line_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(file) as aside:
            state, lora = lora_state(pipeline.unet), config.lora
            write_lora(aside, state, rank=lora.rank, alpha=lora.alpha, motions=motions)
    return file
