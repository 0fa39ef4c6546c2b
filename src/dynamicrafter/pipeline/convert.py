"""Between a published file and our folder in diffusers' layout: every tensor there and back, bit by bit."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from dynamicrafter.checkpoints.files import open_tensors
from dynamicrafter.checkpoints.keys import is_unused
from dynamicrafter.checkpoints.load import WithEncoders, open_checkpoint
from dynamicrafter.checkpoints.networks import TensorSource
from dynamicrafter.checkpoints.published import (
    EXTRAS_FILE,
    bytes_as,
    lacking_extras,
    open_folder,
    published_architecture,
    write_lightning,
    write_tensors,
)
from dynamicrafter.checkpoints.variants import tell_architecture
from dynamicrafter.errors import CheckpointError, InputError, OutputError
from dynamicrafter.files.atomic import one_line_errors, replacing_file, replacing_folder
from dynamicrafter.hub import LocalModel, find_encoders, resolve
from dynamicrafter.hub.folders import PIPELINE_INDEX
from dynamicrafter.pipeline.loading import encoders_for
from dynamicrafter.pipeline.pipeline import DynamiCrafterPipeline

logger = logging.getLogger(__name__)

FILE_SUFFIXES = (".safetensors", ".ckpt")
_SHARD = "5GB"  # files of one component are split there; safetensors before 0.8 holds one of them in memory


def convert(
    source: str | Path,
    target: str | Path,
    *,
    preset: str | None = None,
    dtype: torch.dtype | None = None,
    encoders: str | Path | None = None,
    download: bool = False,
) -> Path:
    """Turn a checkpoint file into a folder, a folder (or file) into a file of the published layout, or cast a folder.

    Tensors are mapped and written as they are read. Beside weights, a Lightning file may hold counters and settings of
    its training; they are left behind.

    Args:
        source: a checkpoint file, a folder that `save_pretrained` wrote, or any name that `hub.resolve` knows.
        target: a file, where it ends in `.safetensors` (flat) or `.ckpt` (torch.save with a "state_dict"); else a
            folder. It must not exist, or be an empty folder.
        preset: which released checkpoint a file descends from, where the file alone can't tell.
        dtype: of the weights; None keeps each tensor's. The noise schedule's tables are never cast.
        encoders: file or folder with CLIP's towers, for what the source lacks.
        download: fetch what is not on this machine.

    Returns:
        The target's path.

    Raises:
        CheckpointError: the source can't be read or misfits, or is a folder of a size that the published layout has
            no names for.
        InputError: from folder to folder without a dtype.
        ModelNotFoundError: no such source, or no encoders.
        OutputError: the target exists, or can't be written.
    """
    target = Path(target).expanduser()
    is_file = target.suffix.lower() in FILE_SUFFIXES
    _check_free(target, folder=not is_file)
    model = resolve(str(source), download=download)
    if is_file:
        _to_file(model, target, dtype=dtype, encoders=encoders, download=download)
    elif model.kind == "folder":
        _to_other_folder(model.path, target, dtype=dtype)
    else:
        _to_folder(model, target, preset=preset, dtype=dtype, encoders=encoders, download=download)
    return target


def _to_folder(
    model: LocalModel,
    target: Path,
    *,
    preset: str | None,
    dtype: torch.dtype | None,
    encoders: str | Path | None,
    download: bool,
) -> None:
    """Write the networks as `save_pretrained` does, and beside them what no network reads."""
    towers = encoders_for(model.path, encoders, download=download)
    pipeline = DynamiCrafterPipeline.from_single_file(model.path, preset=preset, dtype=dtype, encoders=towers)
    with open_checkpoint(model.path, encoders=towers) as source:
        layers = tell_architecture(source, name=model.path.name).text["num_hidden_layers"]
        extras = [key for key in source.keys() if is_unused(key, text_layers=layers)]
        _check_space(target, bytes_as(source, dtype=dtype))
        _save(pipeline, target, extras=source, keys=extras, dtype=dtype)


def _to_other_folder(source: Path, target: Path, *, dtype: torch.dtype | None) -> None:
    """Write a folder again in another number format, whatever its networks' size."""
    if dtype is None:
        raise InputError(
            f"{source} is a folder in diffusers' layout already; name a --dtype to write it in, or a target that ends "
            f"in {' or '.join(FILE_SUFFIXES)}, got {target.name}."
        )
    pipeline = DynamiCrafterPipeline.from_pretrained(source, dtype=dtype)
    _check_space(target, sum(t.nbytes for part in pipeline.networks.values() for t in part.parameters()))
    with ExitStack() as stack:
        extras = stack.enter_context(open_tensors(path)) if (path := source / EXTRAS_FILE).exists() else None
        _save(pipeline, target, extras=extras, keys=None, dtype=dtype)


def forget_paths(pipeline: DynamiCrafterPipeline) -> None:
    """Clear where the networks were loaded from, which would go into a folder that others get."""
    for part in (pipeline, pipeline.unet, pipeline.image_projector, pipeline.vae):
        if part is not None and part.config.get("_name_or_path"):
            part.register_to_config(_name_or_path=None)


def _save(
    pipeline: DynamiCrafterPipeline,
    target: Path,
    *,
    extras: TensorSource | None,
    keys: Sequence[str] | None,
    dtype: torch.dtype | None,
) -> None:
    """Write a pipeline as a folder, and beside it what no network reads."""
    forget_paths(pipeline)
    with one_line_errors(target), replacing_folder(target) as aside:
        pipeline.save_pretrained(aside, max_shard_size=_SHARD)
        if extras is not None and (keys is None or keys):
            write_tensors(extras, aside / EXTRAS_FILE, keys=keys, dtype=dtype)
        _share(aside)


def _to_file(
    model: LocalModel, target: Path, *, dtype: torch.dtype | None, encoders: str | Path | None, download: bool
) -> None:
    """Write the published names and shapes."""
    if model.kind == "folder" and published_architecture(model.path) is None:
        raise CheckpointError(
            f"{target.name} can't be written: the published layout has no names for a model of this size; use a "
            f"folder in diffusers' layout, which every command here loads."
        )
    with _published(model, encoders, download=download) as source:
        lacking = lacking_extras(source, tell_architecture(source, name=str(model.path)))
        if lacking:
            logger.warning(
                "%s lacks %d tensors that no network reads (%s, …), and so will %s: the published code takes it with "
                "strict=False only; --encoders FILE supplies them.",
                model.path,
                len(lacking),
                lacking[0],
                target.name,
            )
        # torch.save takes all tensors at once, so cast ones wait on the disk, not in memory.
        lightning, casts = target.suffix.lower() == ".ckpt", dtype is not None
        _check_space(target, bytes_as(source, dtype=dtype) * (2 if lightning and casts else 1))
        with one_line_errors(target), replacing_file(target) as aside:
            if not lightning:
                write_tensors(source, aside, dtype=dtype)
            elif not casts:
                write_lightning(source, aside)
            else:
                with TemporaryDirectory(prefix=".dynamicrafter-", dir=target.parent) as folder:
                    scratch = Path(folder, "cast.safetensors")
                    write_tensors(source, scratch, dtype=dtype)
                    with open_tensors(scratch) as cast:
                        write_lightning(cast, aside)


@contextmanager
def _published(model: LocalModel, encoders: str | Path | None, *, download: bool) -> Iterator[TensorSource]:
    """A model under published names, completed by encoders where they are given or lacking."""
    if model.kind == "file":
        with open_checkpoint(model.path, encoders=encoders_for(model.path, encoders, download=download)) as source:
            yield source
        return
    with open_folder(model.path) as source:
        if encoders is None:
            yield source
            return
        with open_tensors(find_encoders(str(encoders))) as towers:
            yield WithEncoders(source, towers)


def _share(folder: Path) -> None:
    """Give weights the permissions of the other files; safetensors keeps them from everyone but their owner."""
    mode = (folder / PIPELINE_INDEX).stat().st_mode
    for weights in folder.rglob("*.safetensors"):
        weights.chmod(mode)


def _check_free(target: Path, *, folder: bool) -> None:
    if not target.absolute().parent.is_dir():
        raise OutputError(
            f"{target} cannot be written: there is no folder {target.absolute().parent}; create it first."
        )
    if target.exists() and not (folder and target.is_dir() and not any(target.iterdir())):
        what = "a folder that is not empty" if target.is_dir() else "a file"
        raise OutputError(f"{target} is {what} and is not replaced; choose another name or remove it.")


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.absolute().parent).free
    if free < needed:
        raise OutputError(
            f"{target} needs {needed / 1e9:.1f} GB on its disk, which has {free / 1e9:.1f} GB left; make room or "
            f"choose another folder."
        )
