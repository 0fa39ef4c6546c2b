"""Writing small checkpoint files in every layout that circulates, and some that should be refused."""

import json
import math
import os
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import goldens
from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.errors import CheckpointError

SMALL: dict[str, Tensor] = {
    "betas": torch.linspace(0, 1, 7),
    "model.diffusion_model.out.2.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
    "half": torch.full((3,), 0.5, dtype=torch.bfloat16),
    "count": torch.tensor(5),
    "nothing": torch.zeros(0, 4),
}
LIGHTNING_EXTRAS = {
    "epoch": 3,
    "global_step": 9000,
    "pytorch-lightning_version": "1.9.3",
    "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "", "best_k_models": {}}},
    "lr_schedulers": [],
    "hyper_parameters": {"scale_factor": 0.18215, "size": (320, 512)},
}


def tiny_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Published keys and shapes of the golden model `tiny256`, `tiny512` or `tiny1024`."""
    manifest = json.loads((goldens.GOLDEN / f"{name}.manifest.json").read_text())["manifest"]
    return {key: tuple(shape) for key, shape in manifest.items()}


def tiny_tensors(name: str, *, limit: int | None = None) -> dict[str, Tensor]:
    """Distinct numbers under the published keys of a tiny model; not the golden weights."""
    shapes = list(tiny_shapes(name).items())[:limit]
    return {
        key: torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape) + index
        for index, (key, shape) in enumerate(shapes)
    }


def write_lightning(path: Path, tensors: dict[str, Tensor], **extras: Any) -> Path:
    state = OrderedDict(tensors)
    state._metadata = OrderedDict({"": {"version": 1}})  # as `Module.state_dict` leaves it
    torch.save({"state_dict": state, **LIGHTNING_EXTRAS, **extras}, path)
    return path


def write_deepspeed(path: Path, tensors: dict[str, Tensor]) -> Path:
    module = OrderedDict((f"_forward_module.{key}", value) for key, value in tensors.items())
    torch.save({"module": module, "dp_world_size": 1, "global_steps": 9000, "ds_config": {"fp16": False}}, path)
    return path


def write_flat(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(dict(tensors), path)
    return path


def write_legacy(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save({"state_dict": tensors, **LIGHTNING_EXTRAS}, path, _use_new_zipfile_serialization=False)
    return path


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, path, metadata={"format": "pt"})
    return path


WRITERS: dict[str, Callable[[Path, dict[str, Tensor]], Path]] = {
    "lightning": write_lightning,
    "deepspeed": write_deepspeed,
    "flat": write_flat,
    "safetensors": write_safetensors,
}


class Malicious:
    """Unpickled by an ordinary loader, it makes the folder `trace`."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def repack(source: Path, target: Path, change: Callable[[str, bytes], bytes] | None = None, **options: Any) -> Path:
    """Copy a zip archive record by record, each through `change(name, content)`."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry.filename, change(entry.filename, content) if change else content)
    return target


def refusal(path: Path) -> str:
    """The message with which a file is refused, checked to be one printable line that names the file."""
    with pytest.raises(CheckpointError) as caught:
        open_tensors(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert message.isprintable(), "more than one line, or control characters"
    return message


def file_with(tmp_path: Path, content: bytes | bytearray, name: str = "model.ckpt") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def pickled_file(tmp_path: Path, content: Any, *, legacy: bool = False, **options: Any) -> Path:
    path = tmp_path / "model.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy, **options)
    return path


def word(letters: bytes) -> bytes:
    """How protocol 2 writes a word."""
    return b"X" + struct.pack("<I", len(letters)) + letters
