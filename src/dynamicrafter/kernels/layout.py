"""Views of one video batch in channels-last memory.

(b·f, c, h, w) with channels last lies in memory as b, f, h, w, c. Every function here returns a view of it where the
input has that layout, and an equal copy where it has not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor

# By kind of device; channels last where a kind is not named. On CUDA, GroupNorm answers channels first, so that 260
# copies a call turn the pictures round: benchmarks/gpu.py times both ways, for each version of PyTorch.
_FORMATS: dict[str, torch.memory_format] = {}


def memory_format(device: torch.device) -> torch.memory_format:
    """How pictures, and the weights that convolve them, lie in a device's memory."""
    return _FORMATS.get(device.type, torch.channels_last)


def set_memory_format(kind: str, chosen: torch.memory_format) -> None:
    """Choose for a kind of device, such as cuda: `torch.channels_last` or `torch.contiguous_format`.

    Weights that were laid out before keep their layout; turn them with `nn.Module.to`.
    """
    _FORMATS[kind] = chosen


@contextmanager
def in_memory_format(kind: str, chosen: torch.memory_format) -> Iterator[None]:
    """Choose for a while."""
    before = _FORMATS.copy()
    set_memory_format(kind, chosen)
    try:
        yield
    finally:
        _FORMATS.clear()
        _FORMATS.update(before)


def fold_frames(video: Tensor) -> Tensor:
    """(b, c, f, h, w) → (b·f, c, h, w), in the device's memory format."""
    return rearrange(video, "b c f h w -> (b f) c h w").contiguous(memory_format=memory_format(video.device))


def unfold_frames(pictures: Tensor, num_frames: int) -> Tensor:
    """(b·f, c, h, w) → (b, c, f, h, w)."""
    return rearrange(pictures, "(b f) c h w -> b c f h w", f=num_frames)


def to_tokens(pictures: Tensor) -> Tensor:
    """(b·f, c, h, w) → (b·f, h·w, c)."""
    return pictures.permute(0, 2, 3, 1).flatten(1, 2)


def to_pictures(tokens: Tensor, height: int, width: int) -> Tensor:
    """(b·f, h·w, c) → (b·f, c, h, w)."""
    return tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def to_time_planes(pictures: Tensor, num_frames: int) -> Tensor:
    """(b·f, c, h, w) → (b, c, f, h·w): one plane per clip, time down and pixels across, channels last in memory."""
    return to_tokens(pictures).unflatten(0, (-1, num_frames)).permute(0, 3, 1, 2)


def from_time_planes(planes: Tensor, height: int, width: int) -> Tensor:
    """(b, c, f, h·w) → (b·f, c, h, w)."""
    return to_pictures(planes.permute(0, 2, 3, 1).flatten(0, 1), height, width)
