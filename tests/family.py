"""Golden numbers of DynamiCrafter's family: thinned tensors of one file, the small networks that they are of."""

import gzip
import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dynamicrafter.architectures import TINY
from dynamicrafter.checkpoints.keys import Component
from dynamicrafter.checkpoints.networks import build_empty, fill, key_table
from dynamicrafter.checkpoints.seeded import SeededTensors, named_noise
from dynamicrafter.presets import Preset, get_preset
from goldens import GOLDEN, MODULE_TOLERANCE

KEPT = 1024  # numbers of a tensor; of a larger one, every n-th

PRESETS = {  # the golden files' names, and ours
    "vc1_t2v_512": "vc1_text_512",
    "vc1_t2v_1024": "vc1_text_1024",
    "vc2_t2v_512": "vc2_text_512",
    "vc1_i2v_512": "vc1_image_512",
}
FILES = PRESETS | {"tooncrafter_512": "toon"}  # full-size files


@cache
def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """Published keys and shapes, `tiny/…` or `full/…`."""
    packed = (GOLDEN / "family.manifests.json.gz").read_bytes()
    return {key: tuple(shape) for key, shape in json.loads(gzip.decompress(packed))[name].items()}


@cache
def golden(name: str) -> dict[str, Tensor]:
    """The tensors of one published comparison; whole ones where FAMILY_GOLDEN names the folder that holds them."""
    if "FAMILY_GOLDEN" in os.environ:
        return load_file(Path(os.environ["FAMILY_GOLDEN"]) / f"tiny_{name}.safetensors")
    tensors = load_file(GOLDEN / "family.safetensors")
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}


def thinned(tensor: Tensor, like: Tensor) -> Tensor:
    """The numbers of a tensor that the golden file kept; the step is odd, so that no axis of even length is missed."""
    if tensor.shape == like.shape:
        return tensor
    return tensor.flatten()[:: -(-tensor.numel() // KEPT) | 1]


def error(ours: Tensor, theirs: Tensor) -> float:
    """‖ours − golden‖ / ‖golden‖ over the numbers that were kept."""
    ours = thinned(ours, theirs)
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} against {tuple(theirs.shape)}"
    return ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()


def close(ours: Tensor, theirs: Tensor, tolerance: float = MODULE_TOLERANCE) -> bool:
    return error(ours, theirs) < tolerance


def noise(name: str, *shape: int) -> Tensor:
    return named_noise(f"family.{name}", shape)


def preset(name: str) -> Preset:
    return replace(get_preset(PRESETS.get(name, name)), height=64, width=64)


@cache
def network(component: Component, name: str) -> nn.Module:
    """One small float32 network of a preset, seeded by its published names. Shared: leave it as it was."""
    made_for = preset(name)
    built = build_empty(component, TINY, made_for)
    fill(built, key_table(component, built, TINY, made_for), SeededTensors(TINY, made_for), dtype=torch.float32)
    return built
