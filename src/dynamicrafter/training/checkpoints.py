"""Checkpoints of a run: whole or absent, the newest few kept.

`step-00000500/` holds `trained.safetensors` and `average.safetensors` (what trains, by name), `optimizer.pt`, and
`state.json` (steps done, settings). Where files may not be large, `optimizer.pt.000`, `optimizer.pt.001`, … stand for
one, and are read one after the other. Chance is drawn from positions and learning rates from steps, so that neither
leaves a state to keep.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from dynamicrafter.errors import CheckpointError
from dynamicrafter.files.atomic import one_line_errors, replacing_folder, sync

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


def write(folder: Path, snapshot: Snapshot, *, keep: int, part: int | None = None) -> Path:
    """Write a checkpoint aside, push it to the disk, rename it, and only then let the oldest go.

    Args:
        keep: how many checkpoints stay.
        part: MB of the largest file; larger ones are cut up. None for whole files.

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
            if part is not None:
                for file in list(aside.iterdir()):
                    _cut(file, part * 10**6)
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
        return Snapshot(
            step=state["step"],
            settings=state["settings"],
            trained=_tensors(path / _TRAINED),
            average=_tensors(path / _AVERAGE) if _parts(path / _AVERAGE) else {},
            optimizer=torch.load(_joined(path / _OPTIMIZER), map_location="cpu", weights_only=True),
        )
    except _DAMAGE as error:
        raise CheckpointError(
            f"{path} can't be read ({str(error).splitlines()[0]}); remove it, and the run goes on from the one before."
        ) from error


def _cut(file: Path, size: int) -> None:
    """Replace a file that is larger than `size` bytes by parts of it."""
    if file.stat().st_size <= size:
        return
    with file.open("rb") as whole:
        for number, data in enumerate(iter(lambda: whole.read(size), b"")):
            file.with_name(f"{file.name}.{number:03}").write_bytes(data)
    file.unlink()


def _parts(file: Path) -> list[Path]:
    """A file, or what it was cut into, in order; none where it never was."""
    return [file] if file.exists() else sorted(file.parent.glob(f"{file.name}.[0-9][0-9][0-9]"))


def _joined(file: Path) -> Path | BytesIO:
    parts = _parts(file)
    return file if len(parts) < 2 else BytesIO(b"".join(part.read_bytes() for part in parts))


def _tensors(file: Path) -> dict[str, Tensor]:
    whole = _joined(file)
    return load(whole.getvalue()) if isinstance(whole, BytesIO) else load_file(whole)


def _whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in the plain memory order, which is all that the format knows."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
