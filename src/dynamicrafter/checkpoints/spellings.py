"""Weights as trainers and other programs keep them, led back to published names: wrappers, averages, scales, shards."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dynamicrafter.checkpoints.keys import IMAGE_ROWS, PREFIXES, SCHEDULE_BUFFERS, TEXT_ROWS, Row
from dynamicrafter.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from dynamicrafter.checkpoints.networks import TensorLike, TensorSource

Weights = Literal["trained", "ema"]

_UNET = PREFIXES["unet"]
# Put into names by DistributedDataParallel, torch.compile, DeepSpeed, FSDP and activation checkpointing.
_WRAPPERS = frozenset(("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_FIRST, _SECOND = "input_blocks.0.0.weight", "time_embed.0.weight"
_AVERAGE = "model_ema."
_SCALES = (".scale_weight", ".weight_scale")  # in ComfyUI's older and newer files
_OF_SCALING = re.compile(r"(?:.+\.)?(?:scaled_fp8|scale_input|input_scale|comfy_quant)")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")

logger = logging.getLogger(__name__)


def published_names(keys: Iterable[str], path: Path, *, weights: Weights = "trained") -> dict[str, str]:
    """Published names of a file's tensors, each with the name that it has in the file.

    Args:
        weights: the trained ones, or the running average that Lightning's `model_ema` keeps beside them.

    Raises:
        CheckpointError: two names mean one tensor, or there is no average.
    """
    stored: dict[str, str] = {}
    for key in keys:
        name = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        if name in stored:
            raise CheckpointError(f"{path} has both {stored[name]} and {key}, which mean one tensor; save it again.")
        stored[name] = key
    head = next((name.removesuffix(_UNET + _FIRST) for name in stored if name.endswith(_UNET + _FIRST)), "")
    if set(head.split(".")) == {"model", ""} and all(name.startswith(head) for name in stored):
        stored = {name.removeprefix(head): key for name, key in stored.items()}
    for bare in ("", "diffusion_model."):
        if bare + _FIRST in stored and bare + _SECOND in stored:
            stored = {_of_unet(name, bare): key for name, key in stored.items()}
    return _with_average(stored, path, weights)


def _of_unet(name: str, bare: str) -> str:
    """The published name of a tensor of a UNet whose names begin with `bare`; others keep theirs."""
    others = name in SCHEDULE_BUFFERS or name.startswith(tuple(PREFIXES.values()))
    return name if others or not name.startswith(bare) else f"{_UNET}{name.removeprefix(bare)}"


def _with_average(stored: dict[str, str], path: Path, weights: Weights) -> dict[str, str]:
    """Leave the averages out, or put them in the place of what they average."""
    averages = {name.removeprefix(_AVERAGE): key for name, key in stored.items() if name.startswith(_AVERAGE)}
    names = {name: key for name, key in stored.items() if not name.startswith(_AVERAGE)}
    if weights == "trained":
        if averages:
            logger.warning("%s holds a running average beside the trained weights, which are taken.", path)
        return names
    # Lightning's names are those of the wrapped model without their dots.
    taken = {
        name: averages.get(name.removeprefix("model.").replace(".", "")) for name in names if name.startswith(_UNET)
    }
    lacking = [name for name, key in taken.items() if key is None]
    if not taken or lacking:
        raise CheckpointError(
            f"{path} holds no running average"
            + (f" of {lacking[0]}" if averages and lacking else "")
            + "; leave the choice of weights out, which takes the trained ones."
        )
    return names | {name: key for name, key in taken.items() if key is not None}


def scales_of(infos: Mapping[str, TensorLike]) -> dict[str, str]:
    """Names of the scales of a file's scaled float8 tensors, by those tensors' names."""
    found: dict[str, str] = {}
    for name in infos:
        for ending in _SCALES:
            weight = f"{name.removesuffix(ending)}.weight"
            if name.endswith(ending) and weight in infos and infos[weight].dtype.startswith("float8"):
                found[weight] = name
    return found


def is_of_scaling(name: str) -> bool:
    """Whether a tensor only tells how others are scaled or are to be computed with."""
    return _OF_SCALING.fullmatch(name) is not None


def scaled(read: Callable[[str], Tensor], scales: Mapping[str, str]) -> Callable[[str], Tensor]:
    """Read float8 tensors times their scales, float32."""

    def read_scaled(name: str) -> Tensor:
        tensor = read(name)
        if name not in scales:
            return tensor
        scale = read(scales[name]).float()
        if scale.numel() > 1:  # one a row
            scale = scale.reshape(-1, *[1] * (tensor.ndim - 1))
        return tensor.float() * scale

    return read_scaled


def shards_of(path: Path) -> list[Path]:
    """All files of the weights of which a file is one of several, by its name; none where it stands alone.

    Raises:
        CheckpointError: others are missing.
    """
    match = _SHARD.fullmatch(path.name)
    if match is None or int(match[3]) < 2:
        return []
    base, _, count, suffix = match.groups()
    shards: list[Path] = []
    for number in range(1, int(count) + 1):
        shards.append(path.with_name(f"{base}-{number:05}-of-{count}{suffix}"))
        if not shards[-1].exists():
            raise CheckpointError(
                f"{path} is one of {int(count)} files of one model, and {shards[-1].name} is missing; put all of them "
                f"beside it."
            )
    return shards


class TransformersTowers:
    """CLIP's towers under transformers' names, as ComfyUI's files have them, shown under OpenCLIP's."""

    def __init__(self, source: TensorSource) -> None:
        self._source = source
        self._parts: dict[str, dict[int | None, str]] = {}
        for stored in source.keys():
            place = _published(stored)
            if place is not None:
                self._parts.setdefault(place[0], {})[place[1]] = stored

    def keys(self) -> list[str]:
        return [name for name, parts in self._parts.items() if len(parts) == (1 if None in parts else 3)]

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def info(self, key: str) -> TensorLike:
        from dynamicrafter.checkpoints.files import TensorInfo

        parts = self._parts[key]
        first = self._source.info(next(iter(parts.values())))
        shape = tuple(first.shape)
        return first if None in parts else TensorInfo((3 * shape[0], *shape[1:]), first.dtype)

    def __getitem__(self, key: str) -> Tensor:
        import torch

        parts = self._parts[key]
        if None in parts:
            return self._source[parts[None]]
        return torch.cat([self._source[parts[part]] for part in range(3)])


def has_transformers_names(source: TensorSource) -> bool:
    """Whether a file holds a tower of CLIP under transformers' names."""
    return any(_published(key) is not None for key in source.keys())


def _published(stored: str) -> tuple[str, int | None] | None:
    """OpenCLIP's name of a tensor that transformers names so, and which of three parts it is; None of others."""
    towers: tuple[tuple[str, str, list[Row]], ...] = (
        ("text_model.", PREFIXES["text_encoder"], TEXT_ROWS),
        ("vision_model.", PREFIXES["image_encoder"], IMAGE_ROWS),
    )
    for tower, prefix, rows in towers:
        _, found, name = stored.rpartition(tower)
        for row in rows if found else ():
            match = re.fullmatch(row.ours, name)
            if match:
                return prefix + match.expand(row.published), row.part
    return None
