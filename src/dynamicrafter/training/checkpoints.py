"""Checkpoints of a run: whole or absent, the newest few kept.

`step-00000500/` holds `trained.safetensors` and `average.safetensors` (what trains, by name), `optimizer.pt`, and
`state.json` (steps done, settings). Chance is drawn from positions and learning rates from steps, so that neither
leaves a state to keep.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dynamicrafter.errors import CheckpointError
from dynamicrafter.media.atomic import one_line_errors, replacing_folder

_TRAINED, _AVERAGE, _OPTIMIZER, _STATE = "trained.safetensors", "average.safetensors", "optimizer.pt", "state.json"
_ASIDE = ".dynamicrafter-"
_DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError),
    *(pickle.UnpicklingError, struct.error, SafetensorError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a run needs to go on.

    Attributes:
        step: steps done.
        settings: of the run, as plain values by path.
        trained, average: parameters by name, on the CPU; no average where the run keeps none.
        optimizer: its state_dict.
    """

    step: int
    settings: Mapping[str, Any]
    trained: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]


def write(folder: Path, snapshot: Snapshot, *, keep: int) -> Path:
    """Write a checkpoint aside, push it to the disk, rename it, and only then let the oldest go.

    Raises:
        OutputError: the disk is full, or closed.
    """
    target = folder / f"step-{snapshot.step:08}"
    with one_line_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing_folder(target) as aside:
            save_file(_whole(snapshot.trained), aside / _TRAINED)
            if snapshot.average:
                save_file(_whole(snapshot.average), aside / _AVERAGE)
            torch.save(dict(snapshot.optimizer), aside / _OPTIMIZER)
            state = {"step": snapshot.step, "settings": dict(snapshot.settings)}
            (aside / _STATE).write_text(json.dumps(state, indent=1))
            for file in aside.iterdir():
                sync(file)
            sync(aside)
        sync(folder)
        for old in found(folder)[:-keep]:
            # Renamed first: half a checkpoint must not bear a checkpoint's name.
            shutil.rmtree(old.rename(folder / f"{_ASIDE}{old.name}"), ignore_errors=True)
    return target


def found(folder: Path) -> list[Path]:
    """Checkpoints in a folder, the oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.name[5:].isdecimal())


def step_of(path: Path) -> int:
    """The steps done at a checkpoint, by its name."""
    return int(path.name.removeprefix("step-"))


def clear_away(folder: Path) -> None:
    """Remove what a run that was killed left half-written."""
    for path in folder.glob(f"{_ASIDE}*"):
        shutil.rmtree(path, ignore_errors=True)


def read(path: Path) -> Snapshot:
    """Read a checkpoint; a pickle in it may hold tensors and plain values only.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        state = json.loads((path / _STATE).read_text())
        average = path / _AVERAGE
        return Snapshot(
            step=state["step"],
            settings=state["settings"],
            trained=load_file(path / _TRAINED),
            average=load_file(average) if average.exists() else {},
            optimizer=torch.load(path / _OPTIMIZER, map_location="cpu", weights_only=True),
        )
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} can't be read ({str(error).splitlines()[0]}); remove it, and the run goes on from the one before."
        ) from error


def sync(path: Path) -> None:
    """Wait until a file or a folder's table of contents is on the disk."""
    if os.name == "nt" and path.is_dir():  # where folders can't be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in the plain memory order, which is all that the format knows."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
