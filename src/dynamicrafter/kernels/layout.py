"""Views of one video batch in channels-last memory.

(b·f, c, h, w) with channels last lies in memory as b, f, h, w, c. Every function here returns a view of it where the
input has that layout, and an equal copy where it has not.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, channels_last


def fold_frames(video: Tensor) -> Tensor:
    """(b, c, f, h, w) → (b·f, c, h, w), channels last in memory."""
    return rearrange(video, "b c f h w -> (b f) c h w").contiguous(memory_format=channels_last)


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
